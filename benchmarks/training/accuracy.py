"""What makes the models better: heads on features of larger networks, more of the photo and more pixels.

All learn from every photo's true class, on the same rows: those of the project's own split, and of re-drawn ones. A
head's penalty, and the recipe in the last row, are chosen by the validation rows' log loss, never by the test rows.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table as Grid

from benchmarks.accuracy import PEER, PEER_DEFAULT, paired_difference, probes, redrawn_hashes, sides_of
from benchmarks.bench import Bench
from benchmarks.training.photos import embedded, labelled
from dlassets.lakehouse.tables import TEST, TRAIN, VALIDATION
from dlassets.learning.backbones import BackboneRef, backbone_of
from dlassets.learning.training.head_training import train_head
from dlassets.learning.training.job import CALIBRATED_LOSS
from dlassets.settings import FeatureSettings, Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dlassets.learning.examples import Examples

    Sides = NDArray[np.str_]

# As most do it, and as it was here at first: 224 pixels of the middle of the middle square.
PLAIN = BackboneRef("efficientnet_lite0", side=224, crop=0.875)
ALONE = "dlassets, plain features"
# Settings of `features`, by what they are called here: the rest of them are the defaults. The last are accurate.yaml's.
RECIPES: dict[str, dict[str, Any]] = {
    "whole square": {"square_root": False},
    "whole square, roots: the default": {},
    "288 pixels, flips": {"side": 288, "flips": True},
    "lite1, 288 pixels, flips": {"backbone": "efficientnet_lite1", "side": 288, "flips": True},
    "lite2, 320 pixels": {"backbone": "efficientnet_lite2", "side": 320},
    "lite2, 320 pixels, flips": {"backbone": "efficientnet_lite2", "side": 320, "flips": True},
}
CHOSEN = "whichever validation prefers"
DRAWS = 5
GOAL = 0.04


@dataclass(frozen=True)
class Judged:
    """One way to learn, on each split: whether each test row came out right, and the loss that it was chosen by."""

    right: Sequence[NDArray[np.bool_]]
    loss: Sequence[float]

    @property
    def accuracies(self) -> list[float]:
        return [float(rows.mean()) for rows in self.right]


@dataclass(frozen=True)
class Score:
    """`accuracy` on the project's own test rows and, less the probe's, paired with its 95% interval.

    `redrawn` is the mean over re-drawn splits, less the probe's with the spread of the differences. `loss` is the mean
    over all splits of the validation rows' log loss. `images_per_second` is of making the features.
    """

    who: str
    accuracy: float
    minus_probe: tuple[float, float, float]
    redrawn: float
    redrawn_minus_probe: tuple[float, float]
    loss: float | None
    images_per_second: float | None


@dataclass(frozen=True)
class Accuracy:
    images: int
    test_rows: int
    draws: int
    scores: list[Score]

    def tables(self) -> list[Grid]:
        grid = Grid(
            "", f"{self.test_rows} test rows", "minus the probe, paired", f"{self.draws} re-drawn splits",
            "minus the probe", "validation loss", "features, images/s",
            title=f"Accuracy, all {self.images:,} photos labelled", title_justify="left",
            caption=f"The probe: {PEER}, on plain features. Goal: {GOAL:+.2f}", caption_justify="left",
        )  # fmt: skip
        for score in self.scores:
            grid.add_row(
                score.who,
                f"{score.accuracy:.3f}",
                "{:+.3f} ({:+.3f} to {:+.3f})".format(*score.minus_probe),
                f"{score.redrawn:.3f}",
                "{:+.3f} ± {:.3f}".format(*score.redrawn_minus_probe),
                "" if score.loss is None else f"{score.loss:.3f}",
                "" if score.images_per_second is None else f"{score.images_per_second:.0f}",
                end_section=score.who == PEER_DEFAULT,
            )
        return [grid]


def measure(bench: Bench) -> Accuracy:
    """Embed the photos in each way, and judge a head on each beside the probes on plain features."""
    import sklearn.linear_model  # noqa: F401 - both are loaded before the limit, which is on what is loaded
    import torch  # noqa: F401 - as above
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    photos = labelled(bench.images)
    draws = [photos.image_ids, *(redrawn_hashes(photos.image_ids, draw) for draw in range(DRAWS))]
    splits = [sides_of(hashes, Settings()) for hashes in draws]
    refs = {ALONE: PLAIN} | {
        name: backbone_of(FeatureSettings.model_validate(recipe)) for name, recipe in RECIPES.items()
    }
    made = {}
    for name, ref in refs.items():
        bench.say(f"embedding: {name}")
        made[name] = embedded(bench, photos.paths, ref)
    # The matrices are small: threads wait for each other longer than they work, on a busy machine many times as long.
    with threadpool_limits(1):
        judged = _probes(replace(photos, features=made[ALONE][0]), splits)
        heads = {}
        for name, (features, _) in made.items():
            bench.say(f"heads: {name}")
            heads[name] = _heads(replace(photos, features=features), splits)
    judged |= {**heads, CHOSEN: chosen_by_validation(list(heads.values()))}
    speeds = {name: speed for name, (_, speed) in made.items()}
    scores = [score(who, one, judged[PEER], speeds.get(who)) for who, one in judged.items()]
    return Accuracy(len(photos), len(judged[PEER].right[0]), DRAWS, scores)


def score(who: str, one: Judged, probe: Judged, speed: float | None = None) -> Score:
    """Return how it did on the first split, the project's own, and on the others, beside the probe."""
    own, *redrawn = one.accuracies
    differences = [ours - theirs for ours, theirs in zip(redrawn, probe.accuracies[1:], strict=True)]
    return Score(
        who,
        own,
        paired_difference(one.right[0], probe.right[0]),
        statistics.mean(redrawn),
        (statistics.mean(differences), statistics.pstdev(differences)),
        statistics.mean(one.loss) if one.loss else None,
        speed,
    )


def chosen_by_validation(heads: Sequence[Judged]) -> Judged:
    """Return, for each split, the head with the least validation loss on that split."""

    def chosen(split: int) -> Judged:
        return min(heads, key=lambda head: head.loss[split])

    best = [chosen(split) for split in range(len(heads[0].loss))]
    return Judged(
        [head.right[split] for split, head in enumerate(best)], [head.loss[split] for split, head in enumerate(best)]
    )


def _probes(photos: Examples, splits: Sequence[Sides]) -> dict[str, Judged]:
    right: dict[str, list[NDArray[np.bool_]]] = {PEER: [], PEER_DEFAULT: []}
    for sides in splits:
        train, validation, test = _parted(photos, sides)
        for name, predict in probes(train, validation).items():
            right[name].append(predict(test.features) == test.labels)
    return {name: Judged(masks, []) for name, masks in right.items()}


def _heads(photos: Examples, splits: Sequence[Sides]) -> Judged:
    """Train the project's head on each split."""
    right, losses = [], []
    for sides in splits:
        train, validation, test = _parted(photos, sides)
        trained = train_head(train, validation, Settings().training)
        right.append(trained.head.predict(test.features) == test.labels)
        losses.append(trained.history[trained.best_epoch][CALIBRATED_LOSS])
    return Judged(right, losses)


def _parted(photos: Examples, sides: Sides) -> tuple[Examples, Examples, Examples]:
    train, validation, test = (photos.taken(sides == side) for side in (TRAIN, VALIDATION, TEST))
    return train, validation, test
