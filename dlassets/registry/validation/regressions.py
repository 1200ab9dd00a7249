"""Where a version is worse than the champion: by class and by slice, with correction for how many there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlassets.learning.evaluation.slices import groups, holm
from dlassets.registry.gate import Verdict, chance_of

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Comparison:
    """Two models on the same `rows` test photos, those whose `dimension` has `value`; right on so many of them.

    `p_value` is McNemar's, exact and one-sided: how likely two equally good models are this far apart, or further.
    `corrected` is that once it counts how many classes and slices there are.
    """

    dimension: str
    value: str
    rows: int
    right: int
    champion_right: int
    gained: int
    lost: int
    p_value: float
    corrected: float

    def __str__(self) -> str:
        return f"{self.dimension} {self.value} ({self.gained} gained, {self.lost} lost of {self.rows})"


def comparisons(verdict: Verdict, attributes: pa.Table | None) -> list[Comparison]:
    """Return how the two models of a verdict did on each class and slice; none where there is no champion."""
    if verdict.champion is None:
        return []
    ours, theirs = verdict.shared
    right, champion = verdict.challenger.right[ours], verdict.champion.right[theirs]
    found = []
    for group in groups(verdict.challenger, attributes):
        inside = group.inside[ours]
        if not inside.any():
            continue
        gained = int((inside & right & ~champion).sum())
        lost = int((inside & champion & ~right).sum())
        counts = int(inside.sum()), int(right[inside].sum()), int(champion[inside].sum()), gained, lost
        found.append((group, counts, chance_of(lost, gained)))
    corrected = holm([p_value for _, _, p_value in found])
    return [
        Comparison(group.dimension, group.value, *counts, p_value, at_once)
        for (group, counts, p_value), at_once in zip(found, corrected, strict=True)
    ]
