"""Closing requests: those that were answered, and those that nobody need answer any more; and opening them again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from dlassets.engines.base import Commit, Engine, Rows, Snapshot, Written
from dlassets.labeling.honeypots import settled_labels
from dlassets.labeling.selection.sources import EXPIRED, LABEL_CONFLICT, LABEL_ERROR, asking, moment
from dlassets.labeling.selection.strategies import STRATEGIES
from dlassets.lakehouse.classes import with_classes_in_force
from dlassets.lakehouse.content import USABLE
from dlassets.lakehouse.labels import STANDING_ANSWERS, labels_in_force, undecided
from dlassets.lakehouse.snapshots import pin, replanned
from dlassets.lakehouse.tables import (
    ANSWERED,
    HONEYPOT,
    LABEL_ERRORS,
    LABEL_REQUESTS,
    OPEN,
    PLANNED,
    TAKEN_BACK,
    WAITING,
    WITHDRAWN,
)
from dlassets.registry.models import PREDICTED, ModelVersion
from dlassets.settings import LabelingSettings, Settings
from dlassets.storage.lake import Lake

# Why nobody need answer any more.
GONE = "the photo is no longer to be had"
LABELLED = "the photo has a label by now"
SURE = "the model is sure by now"
DECIDED = "its labels no longer differ"
BELIEVED = "its label no longer looks wrong"
UNSETTLED = "its label is no longer settled"

# The columns of a request that closing it decides.
_DECIDED = {"status", "reason", "answers_wanted", "closed_at"}


@dataclass(frozen=True)
class Closed:
    """How many requests were closed as answered, how many were withdrawn, and how many want one more answer."""

    answered: int
    withdrawn: int
    asked_on: int


# SQL over `label_requests` AS r: those that ask about what the model is unsure of. Those of the audit are none: which
# of them are answered must depend neither on what the model says, nor on which photos others label.
_UNSURE = f"r.strategy IN ({', '.join(repr(name) for name in STRATEGIES)})"


def _judged(labeling: LabelingSettings) -> str:
    """Return SQL over `label_requests`, `human_labels` and `consensus` for every request, and what answers make of it.

    It `is_answered`, or `goes_on` to one more person, which makes `one_more` answers; else it has too few. Where
    several people are asked, what counts are their answers about the photo, whichever request they were to.
    """
    return f"""
        SELECT counted.*, has_answers AND NOT goes_on AS is_answered FROM (
            SELECT r.*, answered.request_id IS NOT NULL AS is_begun,
                CASE WHEN r.answers_wanted > 1 THEN COALESCE(together.answers, 0) >= r.answers_wanted
                    ELSE answered.request_id IS NOT NULL END AS has_answers,
                COALESCE(r.answers_wanted > 1 AND together.disputed AND together.answers >= r.answers_wanted
                    AND together.answers < {labeling.most_answers:d}, FALSE) AS goes_on,
                together.answers + 1 AS one_more
            FROM label_requests AS r
            LEFT JOIN (SELECT DISTINCT request_id FROM ({STANDING_ANSWERS}) AS standing) AS answered
                ON answered.request_id = r.request_id
            LEFT JOIN consensus AS together ON together.image_id = r.image_id) AS counted
    """  # noqa: S608 - constants and a number


def close_requests(
    engine: Engine,
    lake: Lake,
    snapshots: Mapping[str, Snapshot],
    model: ModelVersion | None,
    settings: Settings,
    commit: Commit,
) -> tuple[Written, Closed]:
    """Mark requests with an accepted answer as answered, and withdraw those that would not be asked today.

    Their photo is gone, or has a label by another way, or this model is sure of it, or what was doubtful about its
    label no longer is; or nobody has answered in `labeling.expire_days`. One of the audit waits on whatever the model
    says and others label. What is answered after that counts as answered. Where several people are asked, it is
    answered once as many have as are wanted, by `consensus`, and waits until then, whatever the first ones said; if
    they do not agree, one more is wanted, up to `labeling.most_answers`. Returned is also how many there were of each.
    None to close, no new version. `snapshots` holds raw_images, deleted_files, quarantined_files, predictions,
    labeled_images, label_errors, consensus, human_labels and classes.
    """
    labels = settings.labels
    images = ("raw_images", "deleted_files", "quarantined_files")
    names = (*images, "labeled_images", "label_errors", "consensus", "human_labels", "classes")
    tables: dict[str, Snapshot | Rows] = {name: snapshots[name] for name in names}
    tables["moment"] = engine.rows(moment(settings.labeling, datetime.now(UTC)))
    sure = "SELECT image_id FROM labeled_images WHERE FALSE"
    if model is not None:
        tables["predictions"] = snapshots["predictions"]
        tables["model"] = engine.rows(asking(model, settings.labeling))
        sure = f"SELECT p.image_id FROM ({PREDICTED}) AS p CROSS JOIN model WHERE p.confidence >= model.threshold"  # noqa: S608
    columns = ", ".join(f"r.{name}" for name in LABEL_REQUESTS.names if name not in _DECIDED)
    query = f"""
        WITH judged AS (
            SELECT r.*, of_now.known_label AS settled_as FROM ({_judged(settings.labeling)}) AS r
            JOIN ({with_classes_in_force(LABEL_REQUESTS)}) AS of_now ON of_now.request_id = r.request_id
            WHERE r.{WAITING} OR r.status = '{WITHDRAWN}'
        )
        SELECT {", ".join(LABEL_REQUESTS.names)} FROM (
            SELECT {columns}, r.goes_on AND r.status <> '{WITHDRAWN}' AS goes_on,
                CASE WHEN r.is_answered THEN '{ANSWERED}'
                    WHEN r.goes_on THEN r.status ELSE '{WITHDRAWN}' END AS status,
                CASE WHEN r.is_answered OR r.goes_on OR r.status = '{WITHDRAWN}' THEN NULL
                    WHEN usable.image_id IS NULL THEN '{GONE}'
                    WHEN r.is_begun THEN NULL
                    WHEN {_UNSURE} AND labelled.image_id IS NOT NULL THEN '{LABELLED}'
                    WHEN {_UNSURE} AND sure.image_id IS NOT NULL THEN '{SURE}'
                    WHEN r.strategy = '{LABEL_CONFLICT}' AND undecided.image_id IS NULL THEN '{DECIDED}'
                    WHEN r.strategy = '{LABEL_ERROR}' AND doubted.image_id IS NULL THEN '{BELIEVED}'
                    WHEN r.strategy = '{HONEYPOT}' AND settled.image_id IS NULL THEN '{UNSETTLED}'
                    WHEN r.requested_at < moment.expires_before THEN '{EXPIRED}'
                    END AS reason,
                CASE WHEN r.goes_on THEN r.one_more ELSE r.answers_wanted END AS answers_wanted,
                CASE WHEN NOT r.goes_on THEN moment.now END AS closed_at
            FROM judged AS r CROSS JOIN moment
            LEFT JOIN (SELECT DISTINCT image_id FROM ({USABLE}) AS images) AS usable ON usable.image_id = r.image_id
            LEFT JOIN (SELECT DISTINCT image_id FROM labeled_images) AS labelled ON labelled.image_id = r.image_id
            LEFT JOIN (SELECT DISTINCT image_id FROM ({sure}) AS p) AS sure ON sure.image_id = r.image_id
            LEFT JOIN (SELECT DISTINCT image_id FROM ({undecided(labels)}) AS images) AS undecided
                ON undecided.image_id = r.image_id
            LEFT JOIN (
                SELECT DISTINCT e.image_id FROM ({with_classes_in_force(LABEL_ERRORS)}) AS e
                JOIN ({labels_in_force(labels)}) AS named
                    ON named.image_id = e.image_id AND named.label = e.label) AS doubted
                ON doubted.image_id = r.image_id
            LEFT JOIN ({settled_labels(labels)}) AS settled
                ON settled.image_id = r.image_id AND settled.label = r.settled_as) AS looked_at
        WHERE status = '{ANSWERED}' OR reason IS NOT NULL OR goes_on
    """  # noqa: S608 - constants

    def close() -> tuple[Written, Closed]:
        requests = pin(lake, LABEL_REQUESTS.name)
        closed = engine.sql(query, {**tables, "label_requests": requests}).arrow()
        status = closed["status"].to_pylist()
        counts = Closed(status.count(ANSWERED), status.count(WITHDRAWN), sum(map(status.count, (PLANNED, OPEN))))
        return engine.merge(engine.rows(closed), LABEL_REQUESTS, requests.uri, commit), counts

    return replanned(close)


def reopen_requests(
    engine: Engine, lake: Lake, snapshots: Mapping[str, Snapshot], labeling: LabelingSettings, commit: Commit
) -> Written:
    """Open the answered requests again that need an answer after all; none, no new version.

    Those are the ones whose answers were all taken back, and where several people are asked also those of which fewer
    answers stand than are wanted, or that they dispute by now while one more may be asked: somebody has answered
    otherwise since, or a further answer has come. Close those after it that nobody need answer any more, which lets
    disputed ones want one more answer. `snapshots` holds human_labels and consensus.
    """
    query = f"""
        SELECT {", ".join(LABEL_REQUESTS.names)} FROM ({_judged(labeling)}) AS judged
        WHERE status = '{ANSWERED}' AND NOT is_answered AND (answers_wanted > 1
            OR request_id IN (SELECT request_id FROM human_labels WHERE status = '{TAKEN_BACK}'))
    """  # noqa: S608 - constants

    def reopen() -> Written:
        import pyarrow as pa

        requests = pin(lake, LABEL_REQUESTS.name)
        tables = {requests.name: requests, **{name: snapshots[name] for name in ("human_labels", "consensus")}}
        found = engine.sql(query, tables).arrow().to_pylist()
        opened = [{**row, "status": OPEN, "closed_at": None} for row in found]
        rows = engine.rows(pa.Table.from_pylist(opened, schema=LABEL_REQUESTS.schema))
        return engine.merge(rows, LABEL_REQUESTS, requests.uri, commit)

    return replanned(reopen)
