"""How good a head is beside scikit-learn's logistic regression, for few classes and many, of few photos and many.

Both learn from the same train rows of the same features; the project's has the validation rows besides, to choose its
penalty by, and scikit-learn chooses C by cross-validation. Of labelled rows 70% are train, 15% validation; all others
are test rows. Features are those of the photos, and made-up ones where there are not enough photos.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table as Grid

from benchmarks.bench import Bench
from benchmarks.training.photos import embedded, labelled
from dlassets.lakehouse.tables import TEST, TRAIN, VALIDATION
from dlassets.learning.backbones import backbone_of
from dlassets.learning.examples import Examples
from dlassets.learning.training.head_training import train_head
from dlassets.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Predict = Callable[[NDArray[np.float32]], NDArray[np.int64]]

OURS, DEFAULT, BEST = "dlassets", "C = 1", "C by cross-validation"
CLASSES, COUNTS, SPLITS = (2, 6, 10), (10, 20, 100), 5
# Classes and labelled rows of each. C is searched where train rows times classes are no more: else it takes hours.
MADE_UP = ((2, 1000), (10, 10), (10, 100), (10, 1000), (100, 10), (100, 20), (100, 100), (1000, 20))
SEARCHED = 20_000
GOAL = -0.01
_DIMENSIONS, _SPREAD, _TESTED, _CS, _FOLDS = 1280, 1.2, 20, (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0), 5
# Of Student's distribution with four degrees of freedom.
_T_95 = 2.776


@dataclass(frozen=True)
class Compared:
    """Means over splits; `minus` is the project's accuracy less a peer's, paired by split, and its 95% interval."""

    made_of: str
    classes: int
    photos: int
    rows: float
    accuracy: dict[str, float]
    minus: dict[str, tuple[float, float, float]]
    cpu_s: dict[str, float]


@dataclass(frozen=True)
class Heads:
    compared: list[Compared]

    def tables(self) -> list[Grid]:
        peers = (DEFAULT, BEST)
        grid = Grid(
            "features", "classes", "labelled, a class", "train rows", OURS,
            *(text for peer in peers for text in (peer, "dlassets minus it")), "CPU seconds of each",
            title=f"Accuracy of heads and of scikit-learn's logistic regression, {SPLITS} splits", title_justify="left",
            caption=f"Goal: no difference below {GOAL}", caption_justify="left",
        )  # fmt: skip
        for each in self.compared:
            theirs = [
                text
                for peer in peers
                for text in (
                    (f"{each.accuracy[peer]:.3f}", "{:+.3f} ({:+.3f} to {:+.3f})".format(*each.minus[peer]))
                    if peer in each.accuracy
                    else ("", "")
                )
            ]
            seconds = " / ".join(f"{each.cpu_s[name]:.1f}" for name in (OURS, *peers) if name in each.cpu_s)
            grid.add_row(
                each.made_of, str(each.classes), str(each.photos), f"{each.rows:.0f}", f"{each.accuracy[OURS]:.3f}",
                *theirs, seconds,
            )  # fmt: skip
        return [grid]


def measure(bench: Bench) -> Heads:
    """Embed the photos, and compare on them and on made-up features."""
    photos = labelled(bench.images)
    features, _ = embedded(bench, photos.paths, backbone_of(Settings().features))
    return Heads(list(compared_on(features, photos.labels, bench.say)))


def compared_on(
    features: NDArray[np.float32], labels: NDArray[np.int64], say: Callable[[str], None]
) -> Iterator[Compared]:
    """Compare on sets of these photos' features, and on made-up ones."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    smallest = min(np.unique(labels, return_counts=True)[1])
    with threadpool_limits(1):
        for classes in (count for count in CLASSES if count <= len(np.unique(labels))):
            for count in COUNTS:
                say(f"heads: {classes} classes of {count} photos")
                # Where there are no more, a test side is left all the same.
                yield compared("photos", features, labels, classes, min(count, int(0.8 * smallest)))
        for classes, count in MADE_UP:
            say(f"heads: {classes} classes of {count} made-up rows")
            yield compared("made up", *made_up(classes, count + _TESTED), classes, count)


def compared(
    made_of: str, features: NDArray[np.float32], labels: NDArray[np.int64], classes: int, count: int
) -> Compared:
    """Learn from `count` rows of each of so many classes, drawn anew for each split; test on all others of these."""
    right: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    train_rows = []
    for seed in range(SPLITS):
        sides = _drawn(features, labels, classes, count, np.random.default_rng(seed))
        train_rows.append(len(sides[TRAIN]))
        for name, fit in _ways(sides[TRAIN], sides[VALIDATION]).items():
            began = time.process_time()
            predict = fit()
            seconds.setdefault(name, []).append(time.process_time() - began)
            right.setdefault(name, []).append(float((predict(sides[TEST].features) == sides[TEST].labels).mean()))
    return Compared(
        made_of, classes, count, float(np.mean(train_rows)),
        accuracy={name: float(np.mean(each)) for name, each in right.items()},
        minus={name: _interval(np.subtract(right[OURS], right[name])) for name in right if name != OURS},
        cpu_s={name: float(np.mean(each)) for name, each in seconds.items()},
    )  # fmt: skip


def made_up(classes: int, count: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return features, and labels, of `count` rows of each class.

    As of a network's, a few directions hold most of what classes differ in, and more of them what photos do; and every
    feature has a part in all directions.
    """
    chance = np.random.default_rng(seed)
    widths = 1 / np.sqrt(1 + np.arange(_DIMENSIONS) / 8)
    turned = np.linalg.qr(chance.normal(0, 1, (_DIMENSIONS, _DIMENSIONS)))[0].astype(np.float32)
    labels = np.repeat(np.arange(classes), count)
    centres = (chance.normal(0, 1, (classes, _DIMENSIONS)) * widths**2).astype(np.float32)
    noise = chance.standard_normal((len(labels), _DIMENSIONS), dtype=np.float32)
    features = (centres[labels] + noise * (_SPREAD * widths).astype(np.float32)) @ turned
    return features.astype(np.float32), labels.astype(np.int64)


def _drawn(
    features: NDArray[np.float32], labels: NDArray[np.int64], classes: int, count: int, chance: np.random.Generator
) -> dict[str, Examples]:
    """Return the three sides of a split that is stratified by nothing but `count`, as the project's own is not."""
    learned, tested = [], []
    for label in chance.permutation(np.unique(labels))[:classes]:
        rows = chance.permutation(np.flatnonzero(labels == label))
        learned.append(rows[:count])
        tested.append(rows[count:])
    order = chance.permutation(np.concatenate(learned))
    ends = [round(0.7 * len(order)), round(0.85 * len(order))]
    train, validation, rest = np.split(order, ends)
    known = np.unique(labels[train])
    test = np.concatenate([rest, *tested])
    sides = {TRAIN: train, VALIDATION: validation, TEST: test[np.isin(labels[test], known)]}
    return {side: _examples(features[rows], labels[rows]) for side, rows in sides.items()}


def _examples(features: NDArray[np.float32], labels: NDArray[np.int64]) -> Examples:
    names = [str(place) for place in range(len(labels))]
    return Examples(names, names, labels.astype(np.int64), [f"class {label}" for label in labels], features)


def _ways(train: Examples, validation: Examples) -> dict[str, Callable[[], Predict]]:
    """Return who learns from the rows: each is called to learn, and gives what predicts."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))

    def of_default() -> Predict:
        fitted: Predict = model.fit(train.features, train.labels).predict
        return fitted

    def of_best() -> Predict:
        folds = max(2, min(_FOLDS, *np.unique(train.labels, return_counts=True)[1].tolist()))
        search = GridSearchCV(model, {"logisticregression__C": _CS}, cv=folds)
        fitted: Predict = search.fit(train.features, train.labels).predict
        return fitted

    def ours() -> Predict:
        return train_head(train, validation, Settings().training).head.predict

    return {OURS: ours, DEFAULT: of_default} | (
        {BEST: of_best} if len(train) * len(np.unique(train.labels)) <= SEARCHED else {}
    )


def _interval(differences: NDArray[np.float64]) -> tuple[float, float, float]:
    mean = float(differences.mean())
    half = _T_95 * float(differences.std(ddof=1)) / len(differences) ** 0.5
    return mean, mean - half, mean + half
