"""Which predictions go to people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlassets.engines.base import Engine, Snapshot
from dlassets.lakehouse.hashing import below_share

if TYPE_CHECKING:
    import pyarrow as pa

LEAST_CONFIDENCE = "least_confidence"

# The digits of image_id that sampling looks at; the split looks at the first ones, and the two must not depend.
_SAMPLING_PLACE = 1


def select_requests(
    engine: Engine,
    raw_images: Snapshot,
    predictions: Snapshot,
    labeled_images: Snapshot,
    label_requests: Snapshot,
    *,
    model_name: str,
    model_version: int,
    threshold: float,
    share: float,
    limit: int | None,
) -> pa.Table:
    """Return path, image_id, predicted_label, predicted_name and confidence of the images to ask people about.

    Those are the images that this model version is less than `threshold` sure of, that have no label and were never
    asked about. Of these a `share` (0 to 1), the same ones each time, least confident first, at most `limit`. Equal
    bytes under several paths are one row, and a photo that was replaced after it was scored is left out.
    """
    import pyarrow as pa

    model = pa.table(
        {
            "model_name": pa.array([model_name], pa.string()),
            "model_version": pa.array([model_version], pa.int64()),
            "threshold": pa.array([threshold], pa.float64()),
        }
    )
    return engine.sql(
        f"""
        WITH candidates AS (
            SELECT p.path, p.image_id, p.predicted_label, p.predicted_name, p.confidence,
                ROW_NUMBER() OVER (PARTITION BY p.image_id ORDER BY p.path) AS place
            FROM predictions AS p
            JOIN model ON p.model_name = model.model_name AND p.model_version = model.model_version
                AND p.confidence < model.threshold
            JOIN raw_images ON raw_images.path = p.path AND raw_images.image_id = p.image_id
            WHERE {below_share("p.image_id", share, _SAMPLING_PLACE)}
                AND NOT EXISTS (SELECT 1 FROM labeled_images AS l WHERE l.image_id = p.image_id)
                AND NOT EXISTS (SELECT 1 FROM label_requests AS r WHERE r.image_id = p.image_id)
        )
        SELECT path, image_id, predicted_label, predicted_name, confidence
        FROM candidates WHERE place = 1 ORDER BY confidence, image_id {"" if limit is None else f"LIMIT {limit:d}"}
        """,  # noqa: S608 - made of constants, a share and a number
        {
            "raw_images": raw_images,
            "predictions": predictions,
            "labeled_images": labeled_images,
            "label_requests": label_requests,
            "model": engine.rows(model),
        },
    ).arrow()
