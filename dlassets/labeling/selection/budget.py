"""How many photos people may be asked about now."""

from __future__ import annotations

from dlassets.engines.base import Engine, Rows, Snapshot
from dlassets.lakehouse.tables import WAITING
from dlassets.settings import LabelingSettings


def room(engine: Engine, label_requests: Snapshot, moment: Rows, labeling: LabelingSettings) -> int | None:
    """Return how many more requests may be sent: in this run, today (UTC), and so that no more wait than may at once.

    None: any number. What was sent today and is withdrawn by now counts too: people have seen it. `moment` is the table
    of that name.
    """
    query = f"""
        SELECT COUNT(CASE WHEN {WAITING} THEN 1 END) AS waiting,
            COUNT(CASE WHEN requested_at >= moment.today THEN 1 END) AS today
        FROM label_requests CROSS JOIN moment
    """  # noqa: S608 - a constant
    tables: dict[str, Snapshot | Rows] = {"label_requests": label_requests, "moment": moment}
    (sent,) = engine.sql(query, tables).arrow().to_pylist()
    limits = ((labeling.run_limit, 0), (labeling.day_limit, sent["today"]), (labeling.batch_limit, sent["waiting"]))
    left = [limit - used for limit, used in limits if limit is not None]
    return max(0, min(left)) if left else None
