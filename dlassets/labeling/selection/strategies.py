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
Embed = Callable[[Sequence[str]], tuple[NDArray[np.float32], NDArray[np.bool_]]]

# Photos whose embeddings are held at once, of those to choose from: of 1,280 numbers each they are 51 MB.
POOL = 10_000
# So many are picked one far from the other, at most: each takes a look at the whole pool.
MOST_PICKED = 1000
# `hybrid` picks from so many times as many photos as are to be asked about, the least sure ones.
UNSURE_TO_ONE = 4


@dataclass(frozen=True)
class Candidates:
    """Photos to choose from, in the order of their image_ids, and what a model says of each.

    `confidence` and `margin` are (photos,), `top_k` (photos, listed): the probabilities of the likeliest classes, 0
    where fewer are listed. `embed` returns of some image_ids the embeddings that are cached, (cached, features) in
    their order, and for each whether it has one. `known` gives those of photos that have a label or are asked about, a
    part at a time, (photos, features) each.
    """

    image_ids: Sequence[str]
    confidence: NDArray[np.float64]
    margin: NDArray[np.float64]
    top_k: NDArray[np.float64]
    embed: Embed
    known: Callable[[], Iterable[NDArray[np.float32]]] = tuple

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
    than MOST_PICKED. The others, and those without a cached embedding, come after them, the closest margins first.
    """
    pool = np.sort(random(candidates, POOL))
    return _then_by_margin(_far_apart(candidates, pool, number, candidates.known()), candidates, number)


def hybrid(candidates: Candidates, number: int) -> Places:
    """Those that differ most from one another among the UNSURE_TO_ONE times as many whose margins are closest."""
    pool = margin(candidates, min(UNSURE_TO_ONE * number, POOL))
    return _then_by_margin(_far_apart(candidates, pool, number), candidates, number)


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


def _far_apart(candidates: Candidates, pool: Places, number: int, known: Iterable[NDArray[np.float32]] = ()) -> Places:
    vectors, is_cached = candidates.embed([candidates.image_ids[place] for place in pool.tolist()])
    return pool[is_cached][k_center(vectors, min(number, MOST_PICKED), known)]


def _then_by_margin(picked: Places, candidates: Candidates, number: int) -> Places:
    if len(picked) >= min(number, len(candidates)):
        return picked
    rest = margin(candidates, len(candidates))
    return np.concatenate([picked, rest[~np.isin(rest, picked)]])[:number]
