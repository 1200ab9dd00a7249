"""The classes that a training on pixels tells apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlassets.learning.examples import Examples

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Classes:
    """What is to be told apart: labels in order, their names, and how many photos of each there are to learn from."""

    labels: tuple[int, ...]
    names: tuple[str, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, train: Examples) -> Classes:
        names = dict(zip(train.labels.tolist(), train.names, strict=True))
        labels, counts = np.unique(train.labels, return_counts=True)
        found = tuple(labels.tolist())
        return cls(found, tuple(names[label] for label in found), tuple(counts.tolist()))

    def indices(self, labels: torch.Tensor) -> torch.Tensor:
        """Return each label's place among the classes, -1 for one that is none of them."""
        import torch

        known = torch.tensor(self.labels)
        places = torch.searchsorted(known, labels).clamp(max=len(known) - 1)
        return torch.where(known[places] == labels, places, -1)

    def balanced(self) -> torch.Tensor:
        """Return a weight for each class with which all count the same, and a row 1 on average."""
        import torch

        counts = torch.tensor(self.counts, dtype=torch.float32)
        return counts.sum() / (len(counts) * counts)
