"""Whether a new version takes the champion's place: one rule, and one sentence that says what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dlassets.errors import DlassetsError
from dlassets.learning.evaluation.evaluate import Evaluation

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Gate:
    """A version passes unless it is shown to be worse than the champion on the same test photos.

    What shows it is McNemar's test ("Note on the sampling error of the difference between correlated proportions",
    1947), exact and one-sided: of two models that are equally good, each photo that just one of them is right on is
    lost or gained with even odds, so that p is the chance of as many lost or more, by the binomial distribution. Below
    1 - `confidence` it is shown. Photos on which both are right, or both wrong, say nothing.

    Few photos show little (at 0.95 it takes five lost and none gained), so what is not shown may still be large. A
    version that is right on a share of the photos smaller by more than `tolerance` is refused in any case.

    With a confidence of 1 the tolerance alone decides; with a tolerance of 0 a version may not be right on fewer. It is
    one comparison: many versions, each a little worse than the one before, are not noticed.
    """

    confidence: float = 0.95
    tolerance: float = 0.05


@dataclass(frozen=True)
class Verdict:
    """How a challenger did against the champion (None for the first version) on the same test photos, by the gate."""

    challenger: Evaluation
    champion: Evaluation | None
    champion_version: int | None
    gate: Gate = Gate()

    @cached_property
    def gained(self) -> int:
        """Test photos that the challenger is right on and the champion is not."""
        challenger, champion = self._right
        return int((challenger & ~champion).sum())

    @cached_property
    def lost(self) -> int:
        """Test photos that the champion is right on and the challenger is not."""
        challenger, champion = self._right
        return int((champion & ~challenger).sum())

    @property
    def is_shown_worse(self) -> bool:
        return chance_of(self.lost, self.gained) < 1 - self.gate.confidence

    @property
    def is_beyond_tolerance(self) -> bool:
        return self.lost - self.gained > self.gate.tolerance * len(self._right[0]) + _ROUNDING

    @property
    def passed(self) -> bool:
        return not (self.is_shown_worse or self.is_beyond_tolerance)

    @property
    def explanation(self) -> str:
        """What came of it, in one sentence with its figures."""
        return f"{self.finding}, {'passed' if self.passed else 'refused'}"

    @property
    def finding(self) -> str:
        """What shows, in one sentence with its figures that leaves open what is done about it."""
        challenger, champion = self._right
        rows = len(challenger)
        if self.champion is None:
            return f"right on {challenger.sum()} of {rows} test photos: no champion to be worse than"
        return (
            f"right on {challenger.sum()} of {rows} test photos where version {self.champion_version} is on "
            f"{champion.sum()} ({self.gained} gained, {self.lost} lost): {self._comparison}"
        )

    @property
    def _comparison(self) -> str:
        worse, better = (chance_of(*counts) for counts in ((self.lost, self.gained), (self.gained, self.lost)))
        if self.is_shown_worse:
            return f"shown to be worse ({shown(worse)})"
        if self.is_beyond_tolerance:
            drop = (self.lost - self.gained) / len(self._right[0])
            most = f"{drop:.1%} below, and {self.gate.tolerance:.1%} is the most that may be"
            return f"{most}, though not shown to be worse ({shown(worse)})"
        if self.lost > self.gained:
            return f"not shown to be worse ({shown(worse)})"
        if self.lost == self.gained:
            return "as good"
        if better < 1 - self.gate.confidence:
            return f"shown to be better ({shown(better)})"
        return f"better, though chance may do as much ({shown(better)})"

    @cached_property
    def shared(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The places of the test photos that both were evaluated on, among the challenger's and the champion's rows.

        Without a champion they are all. Raises DlassetsError where there is none.
        """
        ours, champion = self.challenger, self.champion
        if champion is None or ours.image_ids == champion.image_ids:
            return np.arange(ours.rows), np.arange(ours.rows)
        theirs = {image_id: place for place, image_id in enumerate(champion.image_ids)}
        pairs = [(place, theirs[image]) for place, image in enumerate(ours.image_ids) if image in theirs]
        if not pairs:
            raise DlassetsError("The two models share no test photo. Materialize training_set and image_features anew.")
        both = np.array(pairs)
        return both[:, 0], both[:, 1]

    @cached_property
    def _right(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which of the test photos that both were evaluated on the challenger is right on, and the champion."""
        ours, theirs = self.shared
        return self.challenger.right[ours], (self.champion or self.challenger).right[theirs]


def chance_of(lost: int, gained: int) -> float:
    """Return how likely so many lost photos, or more, are of two models that are equally good (McNemar, exact)."""
    from scipy.stats import binom

    return float(binom.sf(lost - 1, lost + gained, 0.5)) if lost else 1.0


def shown(p: float) -> str:
    """Return a p-value for people."""
    return f"p = {p:.2f}" if p >= 0.005 else "p < 0.01"  # noqa: PLR2004 - what would be shown as 0.00
