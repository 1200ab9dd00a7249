"""Which of the open requests one person may answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Engine, Snapshot
from dlassets.lakehouse.labels import NEWEST_ANSWER, STANDING_ANSWERS
from dlassets.lakehouse.tables import ACCEPTED, OPEN, SKIPPED, TAKEN_BACK

if TYPE_CHECKING:
    import pyarrow as pa

# SQL over `label_requests`, `human_labels` and `person`: what that person may answer, one row a request. Not why it is
# asked, which people are not to know.
MAY_ANSWER = f"""
    SELECT r.request_id, r.batch_id, r.path, r.image_id, r.predicted_label, r.predicted_name, r.confidence,
        r.service, COALESCE(r.priority, 0) AS priority,
        CASE WHEN skipped.request_id IS NULL THEN 0 ELSE 1 END AS was_skipped
    FROM label_requests AS r
    LEFT JOIN (SELECT request_id, COUNT(*) AS answers FROM ({STANDING_ANSWERS}) AS standing GROUP BY request_id) AS said
        ON said.request_id = r.request_id
    LEFT JOIN (
        SELECT DISTINCT standing.request_id FROM ({STANDING_ANSWERS}) AS standing
        JOIN person ON standing.annotator IS NOT DISTINCT FROM person.name) AS own
        ON own.request_id = r.request_id
    LEFT JOIN (
        SELECT DISTINCT standing.image_id FROM ({STANDING_ANSWERS}) AS standing
        JOIN person ON standing.annotator IS NOT DISTINCT FROM person.name) AS seen
        ON seen.image_id = r.image_id AND r.answers_wanted > 1
    LEFT JOIN (
        SELECT DISTINCT request_id FROM (
            SELECT human_labels.request_id, human_labels.status, ROW_NUMBER() OVER (
                PARTITION BY human_labels.request_id ORDER BY {NEWEST_ANSWER}
            ) AS place
            FROM human_labels JOIN person ON human_labels.annotator IS NOT DISTINCT FROM person.name
            WHERE human_labels.status IN ('{ACCEPTED}', '{SKIPPED}', '{TAKEN_BACK}')) AS newest
        WHERE place = 1 AND status = '{SKIPPED}') AS skipped
        ON skipped.request_id = r.request_id
    WHERE r.status = '{OPEN}' AND own.request_id IS NULL AND seen.image_id IS NULL
        AND COALESCE(said.answers, 0) < COALESCE(r.answers_wanted, 1)
"""  # noqa: S608 - constants

# SQL: the order in which they are shown.
SHOWN_FIRST = "was_skipped, priority DESC, confidence, request_id"


def person(annotator: str | None) -> pa.Table:
    """Return the one row of the table `person`: what people call themselves is no part of a query's text."""
    import pyarrow as pa

    return pa.table({"name": pa.array([annotator], pa.string())})


def may_answer(
    engine: Engine, snapshots: Mapping[str, Snapshot], annotator: str | None, most: int
) -> list[dict[str, Any]]:
    """Return the open requests that a person may answer, `most` of them: of the highest priority, the least sure first.

    Not those that this person has answered, nor those that as many people have answered as are wanted and that are yet
    to be closed, nor, where several are asked, another request for a photo that this person has answered about. What
    this person has skipped comes last. None is the one person who gives no name. `snapshots` holds label_requests and
    human_labels, which does not know yet what was answered since it was written.
    """
    tables = {name: snapshots[name] for name in ("label_requests", "human_labels")}
    query = f"SELECT * FROM ({MAY_ANSWER}) AS requests ORDER BY {SHOWN_FIRST} LIMIT {most:d}"  # noqa: S608 - constants
    rows: list[dict[str, Any]] = (
        engine.sql(query, {**tables, "person": engine.rows(person(annotator))}).arrow().to_pylist()
    )
    return rows
