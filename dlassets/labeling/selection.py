"""Which images go to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dlassets.engines.base import Engine, Snapshot
from dlassets.lakehouse.content import USABLE
from dlassets.lakehouse.hashing import below_share
from dlassets.lakehouse.labels import labels_in_force, undecided
from dlassets.lakehouse.tables import HONEYPOT, WAITING, WITHDRAWN
from dlassets.registry.models import PREDICTED, ModelVersion
from dlassets.settings import LabelingSettings, LabelSettings

if TYPE_CHECKING:
    import pyarrow as pa

# Why an image is chosen, in the order in which a batch has them.
LABEL_CONFLICT, LABEL_ERROR, LEAST_CONFIDENCE = STRATEGIES = ("label_conflict", "label_error", "least_confidence")

# The digits of image_id that sampling looks at; the split looks at the first ones, and the two must not depend.
_SAMPLING_PLACE = 1

# An answer to a honeypot said nothing of the photo.
_ASKED = f"r.status <> '{WITHDRAWN}' AND (r.strategy <> '{HONEYPOT}' OR r.{WAITING})"


def select_requests(
    engine: Engine,
    snapshots: Mapping[str, Snapshot],
    model: ModelVersion,
    settings: LabelingSettings,
    labels: LabelSettings,
) -> tuple[pa.Table, int]:
    """Return path, image_id, predicted_label, predicted_name, confidence and strategy of images to ask people about.

    With them comes how many there are to ask about: no more are returned than may wait for an answer at once,
    `settings.batch_limit` with those that wait already.

    Those are the images whose labels people are to decide, all of them; then `settings.relabel_limit` of those whose
    label looks wrong, the least believed first, predicted to be what they look like; and then those that this model
    version is less than `settings.threshold` sure of and that have no label: `settings.share` of these, the same ones
    each time, least confident first. None that was asked about before, but where that was withdrawn. Equal bytes under
    several paths are one row. A photo that was replaced after it was scored, whose bytes are no longer to
    be had, that a step has failed for, or whose label is no longer the one that looked wrong, is left out. `snapshots`
    holds raw_images, deleted_files, quarantined_files, predictions, labeled_images, label_requests and, where
    `relabel_limit` is not 0, label_errors.
    """
    names = ["raw_images", "deleted_files", "quarantined_files", "predictions", "labeled_images", "label_requests"]
    candidates = _by_prediction(settings, labels)
    if settings.relabel_limit:
        names.append("label_errors")
        candidates = f"{candidates} UNION ALL {_by_label(settings, labels)}"
    places = " ".join(f"WHEN '{strategy}' THEN {place}" for place, strategy in enumerate(STRATEGIES))
    limit = settings.batch_limit
    room = None if limit is None else max(0, limit - _waiting(engine, snapshots["label_requests"]))
    query = f"""
        SELECT path, image_id, predicted_label, predicted_name, confidence, strategy, COUNT(*) OVER () AS candidates
        FROM ({candidates}) AS candidates
        ORDER BY CASE strategy {places} END, belief, image_id {"" if room is None else f"LIMIT {max(room, 1):d}"}
    """  # noqa: S608 - made of constants, a share and numbers
    tables = {name: snapshots[name] for name in names} | {"model": engine.rows(asking(model, settings))}
    found = engine.sql(query, tables).arrow()
    number = found["candidates"][0].as_py() if found.num_rows else 0
    return found.drop_columns("candidates").slice(0, room), number


def asking(model: ModelVersion, settings: LabelingSettings) -> pa.Table:
    """Return the one row of the table `model`, with the `threshold` below which it is not sure."""
    import pyarrow as pa

    return model.row.append_column("threshold", pa.array([float(settings.threshold)]))


def _waiting(engine: Engine, label_requests: Snapshot) -> int:
    query = f"SELECT COUNT(*) AS waiting FROM label_requests WHERE {WAITING}"  # noqa: S608 - a constant
    return int(engine.sql(query, {"label_requests": label_requests}).arrow()["waiting"][0].as_py())


def _by_prediction(settings: LabelingSettings, labels: LabelSettings) -> str:
    """Return SQL for the images in conflict and those that the model is not sure of."""
    return f"""
        SELECT path, image_id, predicted_label, predicted_name, confidence, strategy, belief FROM (
            SELECT p.path, p.image_id, p.predicted_label, p.predicted_name, p.confidence,
                CASE WHEN undecided.image_id IS NULL THEN '{LEAST_CONFIDENCE}' ELSE '{LABEL_CONFLICT}' END AS strategy,
                p.confidence AS belief, ROW_NUMBER() OVER (PARTITION BY p.image_id ORDER BY p.path) AS place
            FROM ({PREDICTED}) AS p CROSS JOIN model
            JOIN ({USABLE}) AS images ON images.path = p.path AND images.image_id = p.image_id
            LEFT JOIN ({undecided(labels)}) AS undecided ON undecided.image_id = p.image_id
            LEFT JOIN (SELECT DISTINCT image_id FROM labeled_images) AS labelled ON labelled.image_id = p.image_id
            WHERE (undecided.image_id IS NOT NULL OR (labelled.image_id IS NULL AND p.confidence < model.threshold
                    AND {below_share("p.image_id", settings.share, _SAMPLING_PLACE)}))
                AND NOT EXISTS (SELECT 1 FROM label_requests AS r WHERE r.image_id = p.image_id AND {_ASKED})
        ) AS predicted
        WHERE place = 1
    """  # noqa: S608 - made of constants and a share


def _by_label(settings: LabelingSettings, labels: LabelSettings) -> str:
    """Return SQL for the images whose label looks wrong and is in force still, the least believed ones."""
    return f"""
        SELECT * FROM (
            SELECT path, image_id, predicted_label, predicted_name, confidence, strategy, belief FROM (
                SELECT images.path, e.image_id, e.suggested_label AS predicted_label,
                    e.suggested_name AS predicted_name, e.confidence, '{LABEL_ERROR}' AS strategy,
                    e.quality AS belief, ROW_NUMBER() OVER (
                        PARTITION BY e.image_id
                        ORDER BY CASE WHEN images.path = e.path THEN 0 ELSE 1 END, images.path) AS place
                FROM label_errors AS e
                JOIN ({labels_in_force(labels)}) AS named ON named.image_id = e.image_id AND named.label = e.label
                JOIN ({USABLE}) AS images ON images.image_id = e.image_id
                WHERE NOT EXISTS (SELECT 1 FROM label_requests AS r WHERE r.image_id = e.image_id AND {_ASKED})
            ) AS doubted
            WHERE place = 1 ORDER BY belief, image_id LIMIT {settings.relabel_limit:d}
        ) AS worst
    """  # noqa: S608 - made of constants and a number
