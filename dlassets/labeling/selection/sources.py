"""Sources: why people are asked about a photo, each with its SQL, in the order in which a batch has them.

Another reason to ask is another `Source` in `sources`, and its place there its place in the batch.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlassets.labeling.selection.strategies import STRATEGIES, Strategy, random
from dlassets.lakehouse.content import USABLE
from dlassets.lakehouse.hashing import AUDITED, SAMPLED, below_share
from dlassets.lakehouse.labels import labels_in_force, undecided
from dlassets.lakehouse.tables import AUDIT, HONEYPOT, LABEL_ERRORS, WAITING, WITHDRAWN
from dlassets.registry.models import PREDICTED, ModelVersion
from dlassets.settings import LabelingSettings, Settings

if TYPE_CHECKING:
    import pyarrow as pa

LABEL_CONFLICT, LABEL_ERROR = "label_conflict", "label_error"
# Why a request was withdrawn that is sent again, but not at once.
EXPIRED = "nobody has answered in time"

# What the sources are over, beside `model` and `moment`.
READ = ("raw_images", "deleted_files", "quarantined_files", "predictions", "labeled_images", "label_requests")

# SQL over `label_requests` and `moment`: the images that are not asked about now, since they were before. An answer to
# a honeypot said nothing of the photo.
_ASKED = f"""
    SELECT r.image_id FROM label_requests AS r CROSS JOIN moment
    WHERE (r.status <> '{WITHDRAWN}' AND (r.strategy <> '{HONEYPOT}' OR r.{WAITING}))
        OR (r.reason = '{EXPIRED}' AND r.requested_at > moment.rests_since)
"""  # noqa: S608 - constants


@dataclass(frozen=True)
class Source:
    """A reason to ask about photos; its `name` is the `strategy` of the requests.

    Its photos are those of `scored` that have `flag`, or what `sql` returns, over READ, `model`, `moment` and what
    `reads` names: path, image_id, predicted_label, predicted_name, confidence, belief and priority, a row an image.
    They are asked about in the order of `belief`, the least first, or in that of a strategy, `order`.

    Of photos that look alike one is asked about at a time. One that is asked `once_a_group` is not asked about any
    more once another of them was answered.
    """

    name: str
    flag: str = ""
    sql: str = ""
    reads: tuple[str, ...] = ()
    order: Strategy | None = None
    once_a_group: bool = False


def sources(settings: Settings) -> list[Source]:
    """Return why people are asked, the most pressing reason first. A photo that has two is asked for the first."""
    labeling = settings.labeling
    found = [Source(LABEL_CONFLICT, flag="is_undecided"), Source(AUDIT, flag="is_audited", order=random)]
    if labeling.relabel_limit:
        found.append(Source(LABEL_ERROR, sql=_by_label(settings), reads=(LABEL_ERRORS.name,)))
    strategy = labeling.strategy
    return [*found, Source(strategy, flag="is_unsure", order=STRATEGIES[strategy], once_a_group=True)]


def scored(settings: Settings) -> str:
    """Return SQL for the photos of `predictions` that people may be asked about, a row an image, and why.

    `is_undecided` are those whose labels people are to decide. Of those without a label, `is_audited` are the share
    that is asked about whatever the model says, and `is_unsure`, of the others, the share of those below the threshold.
    """
    labeling = settings.labeling
    audited = below_share("p.image_id", labeling.audit_share, AUDITED) if labeling.audit_share else "FALSE"
    unsure = f"p.confidence < model.threshold AND {below_share('p.image_id', labeling.share, SAMPLED)}"
    return f"""
        SELECT path, image_id, predicted_label, predicted_name, confidence, margin, top_k, belief, priority,
            is_undecided, is_audited, is_unsure
        FROM (
            SELECT seen.*, ROW_NUMBER() OVER (PARTITION BY image_id ORDER BY priority DESC, path) AS place
            FROM (
                SELECT p.path, p.image_id, p.predicted_label, p.predicted_name, p.confidence, p.margin, p.top_k,
                    p.confidence AS belief, {_priority("p.path", labeling)} AS priority,
                    undecided.image_id IS NOT NULL AS is_undecided,
                    labelled.image_id IS NULL AND {audited} AS is_audited,
                    labelled.image_id IS NULL AND NOT {audited} AND {unsure} AS is_unsure
                FROM ({PREDICTED}) AS p CROSS JOIN model
                JOIN ({USABLE}) AS images ON images.path = p.path AND images.image_id = p.image_id
                LEFT JOIN ({undecided(settings.labels)}) AS undecided ON undecided.image_id = p.image_id
                LEFT JOIN (SELECT DISTINCT image_id FROM labeled_images) AS labelled ON labelled.image_id = p.image_id
                WHERE p.image_id NOT IN ({_ASKED})) AS seen
            WHERE is_undecided OR is_audited OR is_unsure) AS ranked
        WHERE place = 1
    """  # noqa: S608 - made of constants, shares, checked names and numbers


def asking(model: ModelVersion, labeling: LabelingSettings) -> pa.Table:
    """Return the one row of the table `model`, with the `threshold` below which it is not sure."""
    import pyarrow as pa

    return model.row.append_column("threshold", pa.array([float(labeling.threshold)]))


def moment(labeling: LabelingSettings, now: dt.datetime) -> pa.Table:
    """Return the one row of the table `moment`: the times that count when it is `now`, in UTC.

    `today` is when the day of `now` began. A request that was sent before `expires_before` is withdrawn, and one that
    was for that reason is not sent again while it was sent after `rests_since`; both are null where none expires.
    """
    import pyarrow as pa

    days = None if labeling.expire_days is None else dt.timedelta(days=labeling.expire_days)
    times = {
        "now": now,
        "today": now.replace(hour=0, minute=0, second=0, microsecond=0),
        "expires_before": days and now - days,
        "rests_since": days and now - 2 * days,
    }
    return pa.table({name: pa.array([time], pa.timestamp("us", "UTC")) for name, time in times.items()})


def _by_label(settings: Settings) -> str:
    """Return SQL for the images whose label looks wrong and is in force still, the least believed ones."""
    return f"""
        SELECT path, image_id, predicted_label, predicted_name, confidence, belief, priority FROM (
            SELECT doubted.*, ROW_NUMBER() OVER (ORDER BY belief, image_id) AS rank FROM (
                SELECT images.path, e.image_id, e.suggested_label AS predicted_label,
                    e.suggested_name AS predicted_name, e.confidence,
                    e.quality AS belief, {_priority("images.path", settings.labeling)} AS priority, ROW_NUMBER() OVER (
                        PARTITION BY e.image_id
                        ORDER BY CASE WHEN images.path = e.path THEN 0 ELSE 1 END, images.path) AS place
                FROM label_errors AS e
                JOIN ({labels_in_force(settings.labels)}) AS named
                    ON named.image_id = e.image_id AND named.label = e.label
                JOIN ({USABLE}) AS images ON images.image_id = e.image_id
                WHERE e.image_id NOT IN ({_ASKED})) AS doubted
            WHERE place = 1) AS ranked
        WHERE rank <= {settings.labeling.relabel_limit:d}
    """  # noqa: S608 - made of constants, checked names and numbers


def _priority(path: str, labeling: LabelingSettings) -> str:
    """Return SQL for the priority of a path, by its landing zone."""
    cases = "".join(
        f"WHEN SUBSTR({path}, 1, {len(zone) + 1}) = '{zone}/' THEN {number:d} "
        for zone, number in sorted(labeling.priorities.items())
    )
    return f"CASE {cases}ELSE 0 END" if cases else "0"
