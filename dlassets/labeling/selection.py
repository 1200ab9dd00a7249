"""Which images go to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dlassets.engines.base import Engine, Snapshot
from dlassets.lakehouse.content import REACHABLE
from dlassets.lakehouse.hashing import below_share
from dlassets.lakehouse.labels import undecided
from dlassets.settings import LabelingSettings, LabelSettings

if TYPE_CHECKING:
    import pyarrow as pa

LEAST_CONFIDENCE, LABEL_CONFLICT = "least_confidence", "label_conflict"

# The digits of image_id that sampling looks at; the split looks at the first ones, and the two must not depend.
_SAMPLING_PLACE = 1


def select_requests(
    engine: Engine,
    snapshots: Mapping[str, Snapshot],
    *,
    model_name: str,
    model_version: int,
    settings: LabelingSettings,
    labels: LabelSettings,
) -> pa.Table:
    """Return path, image_id, predicted_label, predicted_name, confidence and strategy of images to ask people about.

    Those are the images whose labels people are to decide, all of them, and then those that this model version is less
    than `settings.threshold` sure of and that have no label: `settings.share` of these, the same ones each time, least
    confident first. At most `settings.batch_limit` in all, and none that was asked about before. Equal bytes under
    several paths are one row. A photo that was replaced after it was scored, or whose bytes are no longer to be had, is
    left out. `snapshots` holds raw_images, deleted_files, predictions, labeled_images and label_requests.
    """
    import pyarrow as pa

    model = pa.table(
        {
            "model_name": pa.array([model_name], pa.string()),
            "model_version": pa.array([model_version], pa.int64()),
            "threshold": pa.array([settings.threshold], pa.float64()),
        }
    )
    limit = "" if settings.batch_limit is None else f"LIMIT {settings.batch_limit:d}"
    names = ("raw_images", "deleted_files", "predictions", "labeled_images", "label_requests")
    return engine.sql(
        f"""
        WITH candidates AS (
            SELECT p.path, p.image_id, p.predicted_label, p.predicted_name, p.confidence,
                CASE WHEN undecided.image_id IS NULL THEN '{LEAST_CONFIDENCE}' ELSE '{LABEL_CONFLICT}' END AS strategy,
                ROW_NUMBER() OVER (PARTITION BY p.image_id ORDER BY p.path) AS place
            FROM predictions AS p
            JOIN model ON p.model_name = model.model_name AND p.model_version = model.model_version
            JOIN ({REACHABLE}) AS images ON images.path = p.path AND images.image_id = p.image_id
            LEFT JOIN ({undecided(labels)}) AS undecided ON undecided.image_id = p.image_id
            LEFT JOIN (SELECT DISTINCT image_id FROM labeled_images) AS labelled ON labelled.image_id = p.image_id
            WHERE (undecided.image_id IS NOT NULL OR (labelled.image_id IS NULL AND p.confidence < model.threshold
                    AND {below_share("p.image_id", settings.share, _SAMPLING_PLACE)}))
                AND NOT EXISTS (SELECT 1 FROM label_requests AS r WHERE r.image_id = p.image_id)
        )
        SELECT path, image_id, predicted_label, predicted_name, confidence, strategy
        FROM candidates WHERE place = 1
        ORDER BY CASE WHEN strategy = '{LABEL_CONFLICT}' THEN 0 ELSE 1 END, confidence, image_id {limit}
        """,  # noqa: S608 - made of constants, a share and a number
        {name: snapshots[name] for name in names} | {"model": engine.rows(model)},
    ).arrow()
