"""A linear head on frozen features: what is trained, stored and scored with.

Prediction is numpy alone, so that scoring needs no torch. Class index and label are mapped by the class list, so labels
need not start at 0 nor be dense.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Rows that are scored at a time.
_ROWS = 1024


@dataclass(frozen=True)
class Head:
    """`weight` is (classes, features), `bias` (classes,); inputs are standardised by `mean` and `scale` (features,).

    Logits are divided by `temperature`, which makes a confidence of 0.95 mean 95% (Guo et al., 2017).
    """

    labels: tuple[int, ...]
    names: tuple[str, ...]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    temperature: float = 1.0

    def probabilities(
        self, features: NDArray[np.float32], places: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """Return (rows, classes) probabilities of (rows, features), or of those at `places` alone."""
        logits = self.logits(features, places) / self.temperature
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))

    def logits(self, features: NDArray[np.float32], places: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Return (rows, classes) of what the classes score, before the temperature; see `probabilities`."""
        weight = self._columns
        logits = np.empty((len(features) if places is None else len(places), len(self.bias)))
        for start in range(0, len(logits), _ROWS):  # all rows at once would be two copies, one of them twice as large
            part = slice(start, start + _ROWS)
            rows = features[part if places is None else places[part]]
            logits[part] = ((rows - self.mean) / self.scale).astype(np.float64) @ weight + self.bias
        return logits

    @functools.cached_property
    def _columns(self) -> NDArray[np.float64]:
        # In float64: a product of float32 differs in the fifth digit by how many rows it is computed with.
        return self.weight.T.astype(np.float64)

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the likeliest label of each row."""
        return np.asarray(np.take(self.labels, self.probabilities(features).argmax(axis=1)), dtype=np.int64)
