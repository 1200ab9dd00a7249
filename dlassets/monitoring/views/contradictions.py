"""Where people have said another class than the folder or the list: both, who said so, and when."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from dlassets.lakehouse.classes import with_classes_in_force
from dlassets.lakehouse.tables import CLASSES, LABELED_IMAGES
from dlassets.monitoring.views.reading import Reading, one_row

MOST = 120


@dataclass(frozen=True)
class Contradiction:
    """`name` is what `annotator` says, which is in force; `folder_name` what the folder or list says."""

    path: str
    image_id: str
    name: str
    folder_name: str
    annotator: str | None
    labeled_at: dt.datetime


@dataclass(frozen=True)
class Contradictions:
    """Some of them, the newest first, of `total`."""

    shown: Sequence[Contradiction]
    total: int


def contradictions(reading: Reading, most: int = MOST) -> Contradictions:
    """Return the newest `most` labels of people that contradict a folder or a list."""
    query = f"""
        WITH placed AS (
            SELECT l.path, l.image_id, COALESCE(l.label_name, CAST(l.label AS STRING)) AS name,
                COALESCE(classes.name, CAST(l.contradicts AS STRING)) AS folder_name, l.annotator, l.labeled_at,
                COUNT(*) OVER () AS total, ROW_NUMBER() OVER (ORDER BY l.labeled_at DESC, l.path) AS place
            FROM ({with_classes_in_force(LABELED_IMAGES)}) AS l LEFT JOIN classes ON classes.label = l.contradicts
            WHERE l.contradicts IS NOT NULL AND l.contradicts <> l.label
        )
        SELECT placed.* FROM placed CROSS JOIN part WHERE placed.place <= part.last ORDER BY placed.place
    """  # noqa: S608 - columns
    rows = reading.asked(query, [LABELED_IMAGES, CLASSES], part=one_row(last=most))
    shown = [Contradiction(**{name: row[name] for name in Contradiction.__dataclass_fields__}) for row in rows]
    return Contradictions(shown, rows[0]["total"] if rows else 0)
