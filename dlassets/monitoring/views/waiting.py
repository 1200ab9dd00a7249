"""What waits for people: the open requests, batch by batch, what matters most first, then the least sure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from dlassets.lakehouse.classes import with_classes_in_force
from dlassets.lakehouse.tables import CLASSES, LABEL_REQUESTS, OPEN
from dlassets.monitoring.views.reading import Reading, one_row

MOST_BATCHES, MOST_OF_A_BATCH = 20, 24


@dataclass(frozen=True)
class Waiting:
    """A photo that people were asked about; `predicted_name` is what the model thinks."""

    request_id: str
    path: str
    image_id: str
    predicted_name: str
    confidence: float
    strategy: str


@dataclass(frozen=True)
class Batch:
    """`open` requests of `total` are not answered; those that people are to come to first are `shown`."""

    id: str
    service: str
    requested_at: dt.datetime
    open: int
    total: int
    shown: Sequence[Waiting] = field(default_factory=tuple)


@dataclass(frozen=True)
class Queue:
    """Some `batches`, the newest first; `open` and `of_batches` count all that there are."""

    batches: Sequence[Batch]
    open: int
    of_batches: int


def waiting(reading: Reading, batches: int = MOST_BATCHES, most: int = MOST_OF_A_BATCH) -> Queue:
    """Return the newest batches that have open requests, with `most` requests of each at most."""
    query = f"""
        WITH counted AS (
            SELECT r.*, COUNT(*) OVER (PARTITION BY r.batch_id) AS total,
                SUM(CASE WHEN r.status = '{OPEN}' THEN 1 ELSE 0 END) OVER (PARTITION BY r.batch_id) AS open,
                MIN(r.requested_at) OVER (PARTITION BY r.batch_id) AS since
            FROM ({with_classes_in_force(LABEL_REQUESTS)}) AS r
        ), placed AS (
            SELECT counted.*, COUNT(*) OVER () AS all_open,
                ROW_NUMBER() OVER (
                    PARTITION BY batch_id ORDER BY COALESCE(priority, 0) DESC, confidence, request_id) AS place,
                DENSE_RANK() OVER (ORDER BY since DESC, batch_id) AS batch
            FROM counted WHERE status = '{OPEN}'
        ), batches AS (
            SELECT COUNT(DISTINCT batch_id) AS of_batches FROM placed
        )
        SELECT placed.request_id, placed.path, placed.image_id, placed.confidence, placed.strategy, placed.batch_id,
            COALESCE(placed.predicted_name, CAST(placed.predicted_label AS STRING)) AS predicted_name, placed.service,
            placed.since, CAST(placed.open AS BIGINT) AS open, placed.total, placed.all_open, batches.of_batches
        FROM placed CROSS JOIN part CROSS JOIN batches
        WHERE placed.batch <= part.batches AND placed.place <= part.most ORDER BY placed.batch, placed.place
    """  # noqa: S608 - constants
    rows = reading.asked(query, [LABEL_REQUESTS, CLASSES], part=one_row(batches=batches, most=most))
    if not rows:
        return Queue((), 0, 0)
    found = [_batch(list(group)) for _, group in groupby(rows, key=lambda row: row["batch_id"])]
    return Queue(found, rows[0]["all_open"], rows[0]["of_batches"])


def _batch(rows: Sequence[dict[str, Any]]) -> Batch:
    first = rows[0]
    shown = [Waiting(**{name: row[name] for name in Waiting.__dataclass_fields__}) for row in rows]
    return Batch(first["batch_id"], first["service"], first["since"], first["open"], first["total"], shown)
