"""How good a head is on rows it has not learned from, with confidence intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlassets.learning.head import Head
from dlassets.learning.rows import Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Evaluation:
    """`confusion` is (classes, classes): true class by row, predicted by column. Intervals are at 95%."""

    rows: int
    accuracy: float
    interval: tuple[float, float]
    labels: tuple[int, ...]
    names: tuple[str, ...]
    confusion: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]

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


def evaluate(head: Head, rows: Rows) -> Evaluation:
    """Evaluate on rows with labels; a class the head does not know counts as a mistake."""
    probabilities = head.probabilities(rows.features)
    predicted = np.asarray(head.labels)[probabilities.argmax(axis=1)]
    names = dict(zip(head.labels, head.names, strict=True)) | dict(zip(rows.labels.tolist(), rows.names, strict=True))
    labels = tuple(sorted(names))
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(confusion, (np.searchsorted(labels, rows.labels), np.searchsorted(labels, predicted)), 1)
    right = int((predicted == rows.labels).sum())
    return Evaluation(
        rows=len(rows),
        accuracy=right / len(rows),
        interval=wilson_interval(right, len(rows)),
        labels=labels,
        names=tuple(names[label] for label in labels),
        confusion=confusion,
        predicted=predicted,
        confidence=probabilities.max(axis=1),
    )


def wilson_interval(right: int, rows: int) -> tuple[float, float]:
    """Return the 95% score interval of a share (Wilson, 1927)."""
    share, spread = right / rows, Z_95**2 / rows
    centre = (share + spread / 2) / (1 + spread)
    half = Z_95 / (1 + spread) * math.sqrt(share * (1 - share) / rows + spread / (4 * rows))
    return max(0.0, centre - half), min(1.0, centre + half)
