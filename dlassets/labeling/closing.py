"""Closing requests: those that were answered, and those that nobody need answer any more."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from dlassets.engines.base import Commit, Engine, Rows, Snapshot, Written
from dlassets.labeling.selection.sources import EXPIRED, LABEL_CONFLICT, LABEL_ERROR, asking, moment
from dlassets.labeling.selection.strategies import STRATEGIES
from dlassets.lakehouse.content import USABLE
from dlassets.lakehouse.labels import STANDING_ANSWERS, labels_in_force, undecided
from dlassets.lakehouse.snapshots import pin, replanned
from dlassets.lakehouse.tables import ANSWERED, LABEL_REQUESTS, WAITING, WITHDRAWN
from dlassets.registry.models import PREDICTED, ModelVersion
from dlassets.settings import Settings
from dlassets.storage.lake import Lake

# Why nobody need answer any more.
GONE = "the photo is no longer to be had"
LABELLED = "the photo has a label by now"
SURE = "the model is sure by now"
DECIDED = "its labels no longer differ"
BELIEVED = "its label no longer looks wrong"

# SQL over `label_requests` AS r: those that ask about what the model is unsure of. Those of the audit are none: which
# of them are answered must depend neither on what the model says, nor on which photos others label.
_UNSURE = f"r.strategy IN ({', '.join(repr(name) for name in STRATEGIES)})"


def close_requests(
    engine: Engine,
    lake: Lake,
    snapshots: Mapping[str, Snapshot],
    model: ModelVersion | None,
    settings: Settings,
    commit: Commit,
) -> tuple[Written, int]:
    """Mark requests with an accepted answer as answered, and withdraw those that would not be asked today.

    Their photo is gone, or has a label by another way, or this model is sure of it, or what was doubtful about its
    label no longer is; or nobody has answered in `labeling.expire_days`. One of the audit waits on whatever the model
    says and others label. What is answered after that counts as answered. Returned is also how many were withdrawn.
    None to close, no new version. `snapshots` holds raw_images, deleted_files, quarantined_files, predictions,
    labeled_images, label_errors and human_labels.
    """
    labels = settings.labels
    names = ("raw_images", "deleted_files", "quarantined_files", "labeled_images", "label_errors", "human_labels")
    tables: dict[str, Snapshot | Rows] = {name: snapshots[name] for name in names}
    tables["moment"] = engine.rows(moment(settings.labeling, datetime.now(UTC)))
    sure = "SELECT image_id FROM labeled_images WHERE FALSE"
    if model is not None:
        tables["predictions"] = snapshots["predictions"]
        tables["model"] = engine.rows(asking(model, settings.labeling))
        sure = f"SELECT p.image_id FROM ({PREDICTED}) AS p CROSS JOIN model WHERE p.confidence >= model.threshold"  # noqa: S608
    query = f"""
        SELECT * FROM (
            SELECT r.request_id, r.batch_id, r.path, r.image_id, r.predicted_label, r.predicted_name, r.confidence,
                r.strategy, r.requested_at,
                CASE WHEN answered.request_id IS NULL THEN '{WITHDRAWN}' ELSE '{ANSWERED}' END AS status,
                r.service, r.external_id,
                CASE WHEN answered.request_id IS NOT NULL OR r.status = '{WITHDRAWN}' THEN NULL
                    WHEN usable.image_id IS NULL THEN '{GONE}'
                    WHEN {_UNSURE} AND labelled.image_id IS NOT NULL THEN '{LABELLED}'
                    WHEN {_UNSURE} AND sure.image_id IS NOT NULL THEN '{SURE}'
                    WHEN r.strategy = '{LABEL_CONFLICT}' AND undecided.image_id IS NULL THEN '{DECIDED}'
                    WHEN r.strategy = '{LABEL_ERROR}' AND doubted.image_id IS NULL THEN '{BELIEVED}'
                    WHEN r.requested_at < moment.expires_before THEN '{EXPIRED}'
                    END AS reason,
                r.answers_wanted, r.priority
            FROM label_requests AS r CROSS JOIN moment
            LEFT JOIN (SELECT DISTINCT request_id FROM ({STANDING_ANSWERS}) AS standing) AS answered
                ON answered.request_id = r.request_id
            LEFT JOIN (SELECT DISTINCT image_id FROM ({USABLE}) AS images) AS usable ON usable.image_id = r.image_id
            LEFT JOIN (SELECT DISTINCT image_id FROM labeled_images) AS labelled ON labelled.image_id = r.image_id
            LEFT JOIN (SELECT DISTINCT image_id FROM ({sure}) AS p) AS sure ON sure.image_id = r.image_id
            LEFT JOIN (SELECT DISTINCT image_id FROM ({undecided(labels)}) AS images) AS undecided
                ON undecided.image_id = r.image_id
            LEFT JOIN (
                SELECT DISTINCT e.image_id FROM label_errors AS e JOIN ({labels_in_force(labels)}) AS named
                    ON named.image_id = e.image_id AND named.label = e.label) AS doubted
                ON doubted.image_id = r.image_id
            WHERE r.{WAITING} OR (r.status = '{WITHDRAWN}' AND answered.request_id IS NOT NULL)) AS looked_at
        WHERE status = '{ANSWERED}' OR reason IS NOT NULL
    """  # noqa: S608 - constants

    def close() -> tuple[Written, int]:
        requests = pin(lake, LABEL_REQUESTS.name)
        closed = engine.sql(query, {**tables, "label_requests": requests}).arrow()
        withdrawn = closed["status"].to_pylist().count(WITHDRAWN)
        return engine.merge(engine.rows(closed), LABEL_REQUESTS, requests.uri, commit), withdrawn

    return replanned(close)
