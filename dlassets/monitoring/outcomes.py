"""What a model said, in short: the classes and the confidence of what was scored, and the mistakes of an evaluation."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from dlassets.engines.base import Engine, Rows, Snapshot
from dlassets.lakehouse.classes import with_classes_in_force
from dlassets.lakehouse.labels import labels_in_force
from dlassets.lakehouse.tables import CLASSES, EVALUATED_ROWS, LABELED_IMAGES, PREDICTIONS, SERVED_REQUESTS, TEST
from dlassets.registry.models import PREDICTED, ModelVersion
from dlassets.settings import LabelSettings

SHOWN, BINS = 8, 10

Row = dict[str, Any]

# SQL: what the model scored last. All that one run scores has the same time.
_SCORED_LAST = f"""
    SELECT * FROM ({PREDICTED}) AS said WHERE scored_at = (SELECT MAX(scored_at) FROM ({PREDICTED}) AS those)
"""  # noqa: S608 - constants


@dataclass(frozen=True)
class Scored:
    """`classes` are name, photos and mean confidence of each class predicted, the commonest first.

    `by_confidence` are photos by tenths of confidence, and `least_sure` a few: path, image_id, predicted_name and
    confidence.
    """

    classes: list[tuple[str, int, float]]
    by_confidence: list[int]
    least_sure: list[Row]


@dataclass(frozen=True)
class Mistakes:
    """`rows` and `wrong` are counts by split; `surest` a few of the wrong test rows, as in `evaluated_rows`."""

    rows: dict[str, int]
    wrong: dict[str, int]
    surest: list[Row]


def scored_last(engine: Engine, predictions: Snapshot, model: ModelVersion) -> Scored:
    """Return what the run that scored by this model last made of its photos."""
    tables: dict[str, Snapshot | Rows] = {PREDICTIONS.name: predictions, "model": engine.rows(model.row)}
    counted = engine.sql(
        f"""
        SELECT predicted_label, MIN(predicted_name) AS name, COUNT(*) AS photos, SUM(confidence) AS confidence,
            LEAST(CAST(FLOOR(confidence * {BINS}) AS BIGINT), {BINS - 1}) AS place
        FROM ({_SCORED_LAST}) AS scored
        GROUP BY predicted_label, LEAST(CAST(FLOOR(confidence * {BINS}) AS BIGINT), {BINS - 1})
        """,  # noqa: S608 - constants
        tables,
    ).arrow()
    least_sure = engine.sql(
        f"""
        SELECT path, image_id, predicted_name, confidence FROM ({_SCORED_LAST}) AS scored
        ORDER BY confidence, path LIMIT {SHOWN}
        """,  # noqa: S608 - constants
        tables,
    ).arrow()
    names: dict[int, str] = {}
    photos, sums, bins = Counter[int](), Counter[int](), Counter[int]()
    for row in counted.to_pylist():
        label = row["predicted_label"]
        names[label] = row["name"] or str(label)
        photos[label] += row["photos"]
        sums[label] += row["confidence"]
        bins[row["place"]] += row["photos"]
    classes = [(names[label], number, sums[label] / number) for label, number in photos.most_common()]
    return Scored(classes, [bins[place] for place in range(BINS)], least_sure.to_pylist())


def judged_answers(
    engine: Engine, served_requests: Snapshot, labeled_images: Snapshot, classes: Snapshot, labels: LabelSettings
) -> list[Row]:
    """Return, for each version and role, its `answers` to requests, those `judged` by a label, and the `correct` ones.

    A label judges an answer that it came after, or that is of the test side: no model has learned from it.
    """
    tables = {SERVED_REQUESTS.name: served_requests, LABELED_IMAGES.name: labeled_images, CLASSES.name: classes}
    rows: list[Row] = (
        engine.sql(
            f"""
            SELECT model_version, role, COUNT(*) AS answers, COUNT(label) AS judged,
                COUNT(CASE WHEN label = predicted_label THEN 1 END) AS correct
            FROM (
                SELECT s.model_version, s.role, s.predicted_label,
                    CASE WHEN f.split = '{TEST}' OR said.labeled_at > s.received_at THEN f.label END AS label
                FROM ({with_classes_in_force(SERVED_REQUESTS)}) AS s
                LEFT JOIN ({labels_in_force(labels)}) AS f ON f.image_id = s.image_id
                LEFT JOIN labeled_images AS said ON said.path = f.path
            ) AS answered GROUP BY model_version, role ORDER BY model_version DESC, role
            """,  # noqa: S608 - constants and a setting
            tables,
        )
        .arrow()
        .to_pylist()
    )
    return rows


def mistakes_of(engine: Engine, evaluated_rows: Snapshot, classes: Snapshot, run_id: str) -> Mistakes:
    """Return how many of a run's rows were wrong, and the surest of its mistakes on test rows."""
    import pyarrow as pa

    run = engine.rows(pa.table({"run_id": [run_id]}))
    tables: dict[str, Snapshot | Rows] = {EVALUATED_ROWS.name: evaluated_rows, CLASSES.name: classes, "run": run}
    rows_of_run = f"({with_classes_in_force(EVALUATED_ROWS)}) AS rows_said JOIN run ON run.run_id = rows_said.run_id"
    counted = engine.sql(
        f"""
        SELECT split, COUNT(*) AS number, COUNT(CASE WHEN label <> predicted_label THEN 1 END) AS wrong
        FROM {rows_of_run} GROUP BY split ORDER BY split
        """,  # noqa: S608 - columns
        tables,
    ).arrow()
    surest = engine.sql(
        f"""
        SELECT path, image_id, label_name, predicted_name, confidence
        FROM {rows_of_run}
        WHERE label <> predicted_label AND split = '{TEST}' ORDER BY confidence DESC, path LIMIT {SHOWN}
        """,  # noqa: S608 - constants
        tables,
    ).arrow()
    rows = counted.to_pylist()
    return Mistakes(
        {row["split"]: row["number"] for row in rows}, {row["split"]: row["wrong"] for row in rows}, surest.to_pylist()
    )
