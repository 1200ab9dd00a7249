"""Which photos of validation and test a model got wrong, the surest first, and which classes it takes for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from dlassets.lakehouse.classes import with_classes_in_force
from dlassets.lakehouse.tables import CLASSES, EVALUATED_ROWS
from dlassets.monitoring.views.reading import Reading, one_row

PAGE = 60


@dataclass(frozen=True)
class Chosen:
    """Which mistakes are asked for: of one split, one true class and one that was said, or of any where it is None."""

    split: str | None = None
    label: int | None = None
    predicted_label: int | None = None


@dataclass(frozen=True)
class Pair:
    """How many photos of one class were taken for one class, which may be the same."""

    label: int
    name: str
    predicted_label: int
    predicted_name: str
    photos: int

    @property
    def is_right(self) -> bool:
        return self.label == self.predicted_label


@dataclass(frozen=True)
class Mistake:
    path: str
    image_id: str
    split: str
    name: str
    predicted_name: str
    confidence: float


@dataclass(frozen=True)
class Mistakes:
    """`shown` are those of one page, of `chosen` in all; `pairs` is of the split that is asked for."""

    shown: Sequence[Mistake]
    chosen: int
    pairs: Sequence[Pair]

    @property
    def rows(self) -> int:
        return sum(pair.photos for pair in self.pairs)

    @property
    def wrong(self) -> int:
        return sum(pair.photos for pair in self.pairs if not pair.is_right)

    @property
    def classes(self) -> list[tuple[int, str]]:
        """Number and name of every class, as labelled or as said."""
        names = {pair.predicted_label: pair.predicted_name for pair in self.pairs}
        return sorted({**names, **{pair.label: pair.name for pair in self.pairs}}.items())

    @cached_property
    def photos(self) -> dict[tuple[int, int], int]:
        """How many photos of one class were taken for another, where any were."""
        return {(pair.label, pair.predicted_label): pair.photos for pair in self.pairs}


def mistakes(reading: Reading, run_id: str, chosen: Chosen, first: int = 0, most: int = PAGE) -> Mistakes:
    """Return the mistakes of a training run's model, `most` from the `first` one on."""
    rows_said = f"({with_classes_in_force(EVALUATED_ROWS)}) AS e"
    pairs = f"""
        SELECT e.label, COALESCE(MAX(e.label_name), CAST(e.label AS STRING)) AS name,
            e.predicted_label, COALESCE(MAX(e.predicted_name), CAST(e.predicted_label AS STRING)) AS predicted_name,
            COUNT(*) AS photos
        FROM {rows_said} JOIN wanted ON e.run_id = wanted.run_id
        WHERE wanted.split IS NULL OR e.split = wanted.split
        GROUP BY e.label, e.predicted_label ORDER BY photos DESC, e.label, e.predicted_label
    """  # noqa: S608 - columns
    wrong = f"""
        WITH wrong AS (
            SELECT e.path, e.image_id, e.split, COALESCE(e.label_name, CAST(e.label AS STRING)) AS name,
                COALESCE(e.predicted_name, CAST(e.predicted_label AS STRING)) AS predicted_name, e.confidence,
                COUNT(*) OVER () AS chosen, ROW_NUMBER() OVER (ORDER BY e.confidence DESC, e.path) AS place
            FROM {rows_said} JOIN wanted ON e.run_id = wanted.run_id
            WHERE e.label <> e.predicted_label
                AND (wanted.split IS NULL OR e.split = wanted.split)
                AND (wanted.label IS NULL OR CAST(e.label AS STRING) = wanted.label)
                AND (wanted.predicted IS NULL OR CAST(e.predicted_label AS STRING) = wanted.predicted)
        )
        SELECT wrong.* FROM wrong CROSS JOIN part
        WHERE wrong.place > part.first AND wrong.place <= part.last ORDER BY wrong.place
    """  # noqa: S608 - columns
    wanted = one_row(
        run_id=run_id, split=chosen.split, label=_text(chosen.label), predicted=_text(chosen.predicted_label)
    )
    part = one_row(first=first, last=first + most)
    rows = reading.asked(wrong, [EVALUATED_ROWS, CLASSES], wanted=wanted, part=part)
    shown = [Mistake(**{name: row[name] for name in Mistake.__dataclass_fields__}) for row in rows]
    counted = reading.asked(pairs, [EVALUATED_ROWS, CLASSES], wanted=wanted)
    return Mistakes(shown, rows[0]["chosen"] if rows else 0, [Pair(**row) for row in counted])


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
