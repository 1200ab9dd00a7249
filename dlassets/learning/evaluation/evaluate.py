"""How good a model is on rows it has not learned from, with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlassets.errors import DlassetsError
from dlassets.learning.calibration import Reliability, reliability
from dlassets.learning.examples import UNKNOWN, Examples, targets_of
from dlassets.learning.head import Head

Z_95 = 1.959963984540054
_DRAWS, _BLOCK = 1000, 100


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval at 95%."""

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Evaluation:
    """`confusion` is (classes, classes): true class by row, predicted by column. Intervals are at 95%.

    `image_ids`, `truth` (labels), `predicted` (labels) and `confidence` are of each row. `macro_f1` and
    `balanced_accuracy` are means over the classes that have rows. `log_loss` is in nats. `unknown` names the classes of
    the rows that the model does not know, `untested` those it knows and that have no rows.
    """

    rows: int
    accuracy: float
    interval: tuple[float, float]
    labels: tuple[int, ...]
    names: tuple[str, ...]
    confusion: NDArray[np.int64]
    image_ids: tuple[str, ...]
    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    macro_f1: Estimate
    balanced_accuracy: Estimate
    log_loss: float
    unknown: tuple[str, ...]
    untested: tuple[str, ...]

    @property
    def majority_share(self) -> float:
        """The share of the most frequent class: what one gets by always guessing it."""
        return float(self.confusion.sum(axis=1).max() / self.rows)

    @property
    def recall(self) -> NDArray[np.float64]:
        """(classes,) share of a class's rows that were found; 0 for a class without rows."""
        return np.asarray(np.diag(self.confusion) / np.maximum(self.confusion.sum(axis=1), 1))

    @property
    def precision(self) -> NDArray[np.float64]:
        """(classes,) share of a class's predictions that were right; 0 for a class never predicted."""
        return np.asarray(np.diag(self.confusion) / np.maximum(self.confusion.sum(axis=0), 1))

    @property
    def recall_intervals(self) -> NDArray[np.float64]:
        """(classes, 2) lower and upper ends; 0 to 1 for a class without rows."""
        return _intervals(np.diag(self.confusion), self.confusion.sum(axis=1))

    @property
    def precision_intervals(self) -> NDArray[np.float64]:
        """(classes, 2) lower and upper ends; 0 to 1 for a class never predicted."""
        return _intervals(np.diag(self.confusion), self.confusion.sum(axis=0))

    @property
    def right(self) -> NDArray[np.bool_]:
        """(rows,) whether the prediction is the truth."""
        return np.asarray(self.predicted == self.truth)

    @property
    def reliability(self) -> Reliability:
        """How often the model was right, by how sure it was; its `error` is the expected calibration error."""
        return reliability(self.confidence, self.right)


def evaluate(head: Head, rows: Examples) -> Evaluation:
    """Evaluate on rows with labels; a class the head does not know counts as a mistake."""
    return evaluate_probabilities(head.probabilities(rows.features), head.labels, head.names, rows)


def evaluate_probabilities(
    probabilities: NDArray[np.float64], labels: Sequence[int], names: Sequence[str], rows: Examples, seed: int = 0
) -> Evaluation:
    """Evaluate what any model says of rows with labels: (rows, classes) probabilities of the classes `labels`.

    A class the model does not know counts as a mistake, to which it gave a probability of nothing. A label that stands
    there twice is two of the model's classes that are one by now: it says that one where it says either. Nothing is
    asked of the features of `rows`. Raises DlassetsError where there are no rows, or probabilities that are no numbers.
    """
    _check(probabilities, rows)
    predicted = np.asarray(labels)[probabilities.argmax(axis=1)]
    found = dict(zip(rows.labels.tolist(), rows.names, strict=True))
    known = dict(zip(labels, names, strict=True))
    all_names = known | found
    classes = tuple(sorted(all_names))
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (np.searchsorted(classes, rows.labels), np.searchsorted(classes, predicted)), 1)
    right = int((predicted == rows.labels).sum())
    macro_f1, balanced_accuracy = _class_means(confusion, seed)
    return Evaluation(
        rows=len(rows),
        accuracy=right / len(rows),
        interval=wilson_interval(right, len(rows)),
        labels=classes,
        names=tuple(all_names[label] for label in classes),
        confusion=confusion,
        image_ids=tuple(rows.image_ids),
        truth=rows.labels,
        predicted=predicted,
        confidence=probabilities.max(axis=1),
        macro_f1=macro_f1,
        balanced_accuracy=balanced_accuracy,
        log_loss=_log_loss(*_of_each_label(probabilities, labels), rows.labels),
        unknown=tuple(found[label] for label in sorted(found.keys() - known.keys())),
        untested=tuple(known[label] for label in sorted(known.keys() - found.keys())),
    )


def wilson_interval(right: int, rows: int) -> tuple[float, float]:
    """Return the 95% score interval of a share (Wilson, 1927); 0 to 1 where there are no rows."""
    if not rows:
        return 0.0, 1.0
    share, spread = right / rows, Z_95**2 / rows
    centre = (share + spread / 2) / (1 + spread)
    half = Z_95 / (1 + spread) * math.sqrt(share * (1 - share) / rows + spread / (4 * rows))
    return max(0.0, centre - half), min(1.0, centre + half)


def _check(probabilities: NDArray[np.float64], rows: Examples) -> None:
    if not len(rows):
        raise DlassetsError(
            "There are no rows to evaluate a model on. Put more photos into the labelled landing zone: each split "
            "needs at least one."
        )
    if len(unusable := np.flatnonzero(~np.isfinite(probabilities).all(axis=1))):
        raise DlassetsError(
            f"The model's probabilities are no numbers for {len(unusable)} of {len(rows)} rows, such as "
            f"{rows.paths[unusable[0]]}. Look at that photo's features, or train again."
        )


def _intervals(right: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    pairs = zip(right.tolist(), rows.tolist(), strict=True)
    return np.array([wilson_interval(*pair) for pair in pairs])


def _of_each_label(probabilities: NDArray[np.float64], labels: Sequence[int]) -> tuple[NDArray[np.float64], list[int]]:
    """Return the probability of each label, once, and the labels."""
    found, places = np.unique(np.asarray(labels), return_inverse=True)
    summed = np.zeros((len(probabilities), len(found)))
    np.add.at(summed.T, places, probabilities.T)
    return summed, found.tolist()


def _log_loss(probabilities: NDArray[np.float64], labels: Sequence[int], truth: NDArray[np.int64]) -> float:
    targets = targets_of(truth, labels)
    given = np.where(targets == UNKNOWN, 0, probabilities[np.arange(len(targets)), targets])
    # The smallest number that counts beside 1: a mistake made with all confidence costs 36, and not without end.
    return float(-np.log(np.maximum(given, np.finfo(np.float64).eps)).mean())


def _class_means(confusion: NDArray[np.int64], seed: int) -> tuple[Estimate, Estimate]:
    """Return macro F1 and balanced accuracy with percentile bootstrap intervals (Efron, 1979).

    To draw rows anew is to draw the cells of the confusion matrix anew; most cells are empty and never drawn.
    """
    from scipy.sparse import csr_array

    truth, predicted = np.nonzero(confusion)
    counts = confusion[truth, predicted]
    cells_of = [
        csr_array((chosen, (np.arange(len(counts)), place)), shape=(len(counts), len(confusion)))
        for chosen, place in ((truth >= 0, truth), (truth >= 0, predicted), (truth == predicted, truth))
    ]

    def means(cells: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (2, draws) of (draws, cells)."""
        of_class, said, hits = (cells @ each for each in cells_of)
        has_rows = of_class > 0
        shares = np.stack([2 * hits / np.maximum(of_class + said, 1), hits / np.maximum(of_class, 1)])
        return np.asarray((shares * has_rows).sum(axis=2) / has_rows.sum(axis=1))

    chance = np.random.default_rng(seed)
    rows = counts.sum()
    # A block of draws at a time: of many classes there are many cells.
    blocks = (chance.multinomial(rows, counts / rows, size=_BLOCK) for _ in range(_DRAWS // _BLOCK))
    low, high = np.quantile(np.hstack([means(block) for block in blocks]), (0.025, 0.975), axis=1)
    macro_f1, balanced_accuracy = (
        Estimate(float(value), (float(least), float(most)))
        for (value,), least, most in zip(means(counts[None]), low, high, strict=True)
    )
    return macro_f1, balanced_accuracy
