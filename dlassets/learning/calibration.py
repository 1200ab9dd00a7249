"""Make a confidence of 0.95 mean 95%: temperature scaling, and how far confidence and accuracy are apart."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dlassets.errors import DlassetsError
from dlassets.learning.examples import UNKNOWN, Examples, targets_of
from dlassets.learning.head import Head

BINS = 15
_COLDEST, _HOTTEST = 0.05, 20.0


@dataclass(frozen=True)
class Reliability:
    """Examples by how sure a model was of them, in bins of equal width from 0 to 1, each (bins,).

    `counts` are the rows of a bin, `confidence` their mean confidence and `accuracy` the share of them that was right;
    both are 0 where a bin has none.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance of confidence and accuracy, over rows (Naeini, 2015)."""
        return float(np.average(np.abs(self.confidence - self.accuracy), weights=self.counts))


def calibrated(head: Head, validation: Examples, places: NDArray[np.int64] | None = None) -> Head:
    """Return `head` with the temperature that fits rows it has not learned from: all, or those at `places` alone."""
    targets = targets_of(validation.labels if places is None else validation.labels[places], head.labels)
    return replace(head, temperature=fit_temperature(head.logits(validation.features, places), targets))


def fit_temperature(logits: NDArray[np.float64], targets: NDArray[np.int64]) -> float:
    """Return what to divide (rows, classes) logits by, so that their softmax is as likely as can be (Guo et al., 2017).

    `targets` are places of classes; rows with UNKNOWN, a class that cannot be right, have no say. The logarithm of the
    temperature has a standard normal prior: few rows, or rows without a mistake, do not drive it to a bound of 0.05 or
    20, and none leave it at 1. Many rows outweigh the prior. Raises DlassetsError for logits that are no numbers.
    """
    from scipy.optimize import minimize_scalar

    if not np.isfinite(logits).all():
        raise DlassetsError(
            "The model cannot be calibrated: some of its logits are no numbers. Look for features that are no numbers "
            "in the validation split, or train again with a larger training.l2."
        )
    known = targets != UNKNOWN
    logits, targets = logits[known] - logits[known].max(axis=1, keepdims=True), targets[known]
    right = logits[np.arange(len(targets)), targets]

    def unlikelihood(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        losses = np.log(np.exp(logits * inverse).sum(axis=1)) - right * inverse
        return float(losses.sum() + log_temperature**2 / 2)

    bounds = (np.log(_COLDEST), np.log(_HOTTEST))
    found = minimize_scalar(unlikelihood, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def reliability(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Count rows by confidence, (rows,) of 0 to 1; `right` says which of them were (Guo et al., 2017)."""
    # A bin holds its upper edge, as in the paper: a confidence of 1 is in the last one.
    places = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    rows = np.maximum(counts, 1)
    return Reliability(
        counts=counts,
        confidence=np.bincount(places, confidence, bins) / rows,
        accuracy=np.bincount(places, right, bins) / rows,
    )


def error_by_chance(confidence: NDArray[np.float64], share: float = 0.95, draws: int = 500) -> float:
    """Return the calibration error that a model as sure as this, (rows,), stays below in `share` of all cases.

    It is one whose every confidence is what it says: few rows give it an error all the same (Bröcker and Smith, 2007).
    """
    chance = np.random.default_rng(0)
    right = (chance.random(len(confidence)) < confidence for _ in range(draws))
    return float(np.quantile([reliability(confidence, drawn).error for drawn in right], share))
