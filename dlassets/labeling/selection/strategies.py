"""Strategies: in which order photos that a model is unsure of are asked about.

A strategy is a function of numbers alone, so that it is tested and simulated without a lake: the selection and
`make simulate` call the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dlassets.labeling.selection.k_center import k_center
from dlassets.lakehouse.hashing import SHUFFLED, digits_of
from dlassets.settings import StrategyName

Places = NDArray[np.intp]
Parts = Callable[[], Iterable[NDArray[np.float32]]]
Embed = Callable[[Sequence[str]], tuple[NDArray[np.float32], NDArray[np.bool_]]]

# Photos whose embeddings are held at once, of those to choose from: of 1,280 numbers each they are 51 MB.
POOL = 10_000
# So many are picked one far from the other, at most: each takes a look at the whole pool.
MOST_PICKED = 1000
# `hybrid` picks from so many times as many photos as it is to ask about, those of the closest margins.
UNSURE_TO_ONE = 2


@dataclass(frozen=True)
class Candidates:
    """Photos to choose from, in the order of their image_ids, and what a model says of each.

    `confidence` and `margin` are (photos,), `top_k` (photos, listed): the probabilities of the likeliest classes, 0
    where fewer are listed. `embed` returns of some image_ids the embeddings that are cached, (cached, features) in
    their order, and for each whether it has one. `waiting` gives those of photos that wait for an answer, and `known`
    of these and all that have one or a label, a part at a time, (photos, features) each.
    """

    image_ids: Sequence[str]
    confidence: NDArray[np.float64]
    margin: NDArray[np.float64]
    top_k: NDArray[np.float64]
    embed: Embed
    waiting: Parts = tuple
    known: Parts = tuple

    def __len__(self) -> int:
        return len(self.image_ids)

    def taken(self, places: Places) -> Candidates:
        """Return those at `places`, in this order."""
        return replace(
            self,
            image_ids=[self.image_ids[place] for place in places.tolist()],
            confidence=self.confidence[places],
            margin=self.margin[places],
            top_k=self.top_k[places],
        )


# Returns the places of at most so many of the candidates, each once, the one to ask about first at the front.
Strategy = Callable[[Candidates, int], Places]


def least_confidence(candidates: Candidates, number: int) -> Places:
    """The least sure first (Lewis and Gale, "A Sequential Algorithm for Training Text Classifiers", 1994)."""
    return _least(candidates.confidence, number)


def margin(candidates: Candidates, number: int) -> Places:
    """Those first whose two likeliest classes are closest (Scheffer, Decomain and Wrobel, 2001)."""
    return _least(candidates.margin, number)


def entropy(candidates: Candidates, number: int) -> Places:
    """Those first whose probabilities tell least: the most entropy (Shannon, 1948).

    What the listed classes leave counts as one class more, so that of many classes this is less than the true one.
    """
    rest = np.clip(1 - candidates.top_k.sum(axis=1), 0, 1)
    probabilities = np.column_stack([candidates.top_k, rest])
    logarithms = np.log(probabilities, where=probabilities > 0, out=np.zeros_like(probabilities))
    return _least((probabilities * logarithms).sum(axis=1), number)


def random(candidates: Candidates, number: int) -> Places:
    """Any, whatever the model says: in the order of other digits of image_id than every other choice looks at."""
    return np.array(_shuffled(candidates)[:number], np.intp)


def diversity(candidates: Candidates, number: int) -> Places:
    """Those that differ most from what is labelled or asked about, and from one another, whatever the model says.

    Picked by `k_center` from POOL candidates, those that come first in `random` order where there are more, and no more
    than MOST_PICKED. Those without a cached embedding, and what is left, come after them, the closest margins first.
    """
    return _far_apart(candidates, np.sort(random(candidates, POOL)), number, candidates.known)


def hybrid(candidates: Candidates, number: int) -> Places:
    """Those that differ most from what waits for an answer, and from one another, of those whose margins are closest.

    Asked about a few at a time, as others are answered, they are much the same as asked about all at once. As for
    `diversity`, no more than MOST_PICKED are picked so, from POOL candidates at most.
    """
    waiting = list(candidates.waiting()) if number < len(candidates) else []
    unsure = UNSURE_TO_ONE * (number + sum(map(len, waiting)))
    return _far_apart(candidates, margin(candidates, min(unsure, POOL)), number, lambda: waiting)


STRATEGIES: Mapping[StrategyName, Strategy] = {
    "threshold": least_confidence,
    "least_confidence": least_confidence,
    "margin": margin,
    "entropy": entropy,
    "diversity": diversity,
    "hybrid": hybrid,
    "random": random,
}


def _least(values: NDArray[np.float64], number: int) -> Places:
    return np.argsort(values, kind="stable")[:number]


def _shuffled(candidates: Candidates) -> list[int]:
    keys = [digits_of(image_id, SHUFFLED) for image_id in candidates.image_ids]
    return sorted(range(len(keys)), key=keys.__getitem__)


def _far_apart(candidates: Candidates, pool: Places, number: int, away_from: Parts) -> Places:
    """Return what `k_center` picks from the pool, and then others, the closest margins first; where all are, all so."""
    by_margin = margin(candidates, len(candidates))
    if number >= len(candidates):
        return by_margin
    vectors, is_cached = candidates.embed([candidates.image_ids[place] for place in pool.tolist()])
    picked = pool[is_cached][k_center(vectors, min(number, MOST_PICKED), away_from() if len(vectors) else ())]
    return np.concatenate([picked, by_margin[~np.isin(by_margin, picked)]])[:number]
