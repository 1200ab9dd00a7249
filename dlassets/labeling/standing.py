"""Where requests stand, as people are shown it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from dlassets.engines.base import Engine, Snapshot
from dlassets.images.folders import class_folder
from dlassets.labeling.services import LabelingService, Request, Standing
from dlassets.lakehouse.classes import with_classes_in_force
from dlassets.lakehouse.labels import NEWEST_ANSWER
from dlassets.lakehouse.tables import ACCEPTED, ANSWERED, HUMAN_LABELS, LABEL_REQUESTS, OPEN, PLANNED, REFUSED


def show_standing(engine: Engine, service: LabelingService, snapshots: Mapping[str, Snapshot]) -> None:
    """Have the service show where its requests stand. `snapshots` holds label_requests, human_labels and classes.

    Raises DlassetsError as the service does.
    """
    state = ", ".join(f"{name} {snapshot.version}" for name, snapshot in sorted(snapshots.items()))
    service.show_standing(_batches(engine, service.name, snapshots), state)


def _batches(
    engine: Engine, service: str, snapshots: Mapping[str, Snapshot]
) -> Iterator[tuple[str, Sequence[Standing]]]:
    """Yield each batch's name and requests. Nothing is looked at before the first is asked for."""
    query = f"""
        SELECT r.batch_id, r.request_id, r.path, r.image_id, r.predicted_label, r.predicted_name, r.confidence,
            r.answers_wanted, r.priority, r.status, r.reason,
            said.status AS said, said.label, classes.name, said.annotator, said.reason AS refused
        FROM ({with_classes_in_force(LABEL_REQUESTS)}) AS r
        LEFT JOIN (
            SELECT human_labels.*, ROW_NUMBER() OVER (
                PARTITION BY request_id
                ORDER BY CASE WHEN status = '{ACCEPTED}' THEN 0 ELSE 1 END, {NEWEST_ANSWER}) AS place
            FROM ({with_classes_in_force(HUMAN_LABELS)}) AS human_labels) AS said
            ON said.request_id = r.request_id AND said.place = 1
        LEFT JOIN classes ON classes.label = said.label
        WHERE {goes_to(service)} AND r.status <> '{PLANNED}'
        ORDER BY r.batch_id, r.request_id
    """  # noqa: S608 - constants
    rows = (row for batch in engine.sql(query, snapshots).batches() for row in batch.to_pylist())
    for batch_id, batch in groupby(rows, key=itemgetter("batch_id")):
        yield batch_id, [_standing(row) for row in batch]


def goes_to(service: str) -> str:
    """Return SQL over `label_requests` AS r: whether a request went to the service of this name."""
    return f"CONCAT(',', r.service, ',') LIKE '%,{service},%'"


def _standing(row: Mapping[str, Any]) -> Standing:
    request = Request(**{name: row[name] for name in Request.__dataclass_fields__})
    if row["status"] == ANSWERED and row["said"] == ACCEPTED:
        return Standing(request, ANSWERED, class_folder(row["label"], row["name"]), row["annotator"])
    reason = row["refused"] if row["status"] == OPEN and row["said"] == REFUSED else row["reason"]
    return Standing(request, row["status"], reason=reason)
