"""The outbox: alerts are rows of the lake first, and then sent, until everybody who is to be told has been.

An alert is raised once, however often what it is about is noticed. It is sent at least once: a process that is killed
between an address taking it and the table being told so has it sent there again. It is never lost: it is tried later
and later, and one that is given up stays in the table, to be sent by hand.

Whoever writes it does so by the embedded engine: what is to be told of may be that there is no other.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dlassets.alerts.channels import Channel, Message, send_everywhere
from dlassets.engines.base import Commit, Engine, Transaction
from dlassets.lakehouse.snapshots import evolve, newest, replanned, transaction_version
from dlassets.lakehouse.tables import ALERT_GIVEN_UP, ALERT_SENT, ALERT_WAITING, ALERTS
from dlassets.masking import masked
from dlassets.settings import AlertKind, AlertSettings
from dlassets.storage.lake import Lake

_APP_ID = "dlassets/alerts"
# Between the first attempt and the second; each further pause is twice as long, up to the longest.
_PAUSE, _LONGEST_PAUSE = dt.timedelta(minutes=1), dt.timedelta(hours=6)
# What one message holds; the rest is counted, and stands in the table.
MOST_IN_A_MESSAGE, _LONGEST_BODY = 20, 1500
_IN_WORDS: dict[AlertKind, str] = {
    "run_failed": "failed runs",
    "check_failed": "failed checks",
    "freshness_missed": "stale tables",
    "approval_wanted": "versions that want approval",
    "champion_changed": "changes of the champion",
}
_GOOD_NEWS = {"approval_wanted", "champion_changed"}


@dataclass(frozen=True)
class Alert:
    """Something that people are to be told of. `key` tells it from all others of its kind."""

    kind: AlertKind
    subject: str
    body: str
    key: str
    link: str | None = None

    @property
    def alert_id(self) -> str:
        return hashlib.sha256(f"{self.kind} {self.key}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Entry:
    """A row of the table `alerts`: see there."""

    alert_id: str
    kind: AlertKind
    subject: str
    body: str
    link: str | None
    raised_at: dt.datetime
    key: str
    status: str = ALERT_WAITING
    attempts: int = 0
    retry_at: dt.datetime | None = None
    sent_at: dt.datetime | None = None
    sent_to: Sequence[str] = ()
    problem: str | None = None


def raise_alerts(engine: Engine, lake: Lake, alerts: Sequence[Alert]) -> int:
    """Write down what people are to be told, each alert once for ever; return how many are new."""
    import pyarrow as pa

    if not alerts:
        return 0
    entries = {alert.alert_id: _entry(alert) for alert in alerts}

    def plan_and_write() -> int:
        now = evolve(lake, ALERTS)
        ids = engine.rows(pa.table({"alert_id": [*entries]}))
        query = "SELECT alerts.alert_id FROM alerts JOIN raised ON raised.alert_id = alerts.alert_id"
        known = engine.sql(query, {ALERTS.name: now, "raised": ids}).arrow()["alert_id"].to_pylist()
        new = [entry for id_, entry in entries.items() if id_ not in known]
        if new:
            transaction = Transaction(_APP_ID, transaction_version(now, _APP_ID) + 1)
            engine.append(engine.rows(_rows(new)), ALERTS, now.uri, Commit(transaction=transaction))
        return len(new)

    return replanned(plan_and_write)


def read_alerts(engine: Engine, lake: Lake, *statuses: str) -> list[Entry]:
    """Return the alerts of these statuses, the oldest first. Nothing is made where there is no table yet."""
    if (table := newest(lake, ALERTS.name)) is None:
        return []
    chosen = ", ".join(f"'{status}'" for status in statuses)
    query = f"""
        SELECT {", ".join(ALERTS.names)} FROM alerts WHERE status IN ({chosen}) ORDER BY raised_at, alert_id
    """  # noqa: S608 - the table's own columns, and constants
    return [Entry(**row) for row in engine.sql(query, {ALERTS.name: table}).arrow().to_pylist()]


def send_waiting(
    engine: Engine,
    lake: Lake,
    settings: AlertSettings,
    channels: Sequence[Channel],
    now: dt.datetime | None = None,
    *,
    at_once: bool = False,
) -> list[Entry]:
    """Send all that waits, where any of it is due, as one message to each address; return it as it stands then.

    With `at_once` all of it is due, and so is what was given up.
    """
    now = now or dt.datetime.now(dt.UTC)
    waiting = read_alerts(engine, lake, ALERT_WAITING, *([ALERT_GIVEN_UP] if at_once else []))
    if not channels or not (at_once or _is_due(waiting, now, settings)):
        return []
    lacking = [[entry for entry in waiting if channel.name not in entry.sent_to] for channel in channels]
    problems = send_everywhere(channels, [_message(lake, few) if few else None for few in lacking])
    wrong = {channel.name: problem for channel, problem in zip(channels, problems, strict=True) if problem}
    names = [channel.name for channel in channels]
    tried = [_tried(entry, names, wrong, settings, now) for entry in waiting]
    if not tried:
        return []
    uri = evolve(lake, ALERTS).uri
    replanned(lambda: engine.merge(engine.rows(_rows(tried)), ALERTS, uri, Commit()))
    return tried


def _entry(alert: Alert) -> Entry:
    now = dt.datetime.now(dt.UTC)
    subject, body = " ".join(masked(alert.subject).split()), masked(alert.body)
    return Entry(alert.alert_id, alert.kind, subject, body, alert.link, now, alert.key)


def _rows(entries: Sequence[Entry]) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist([vars(entry) for entry in entries], schema=ALERTS.schema)


def _is_due(entries: Sequence[Entry], now: dt.datetime, settings: AlertSettings) -> bool:
    """Whether one is to be tried again, or the first of those that are new has waited for others."""
    together = dt.timedelta(seconds=settings.group_seconds)
    return any((entry.retry_at or entry.raised_at + together) <= now for entry in entries)


def _tried(
    entry: Entry, names: Sequence[str], wrong: Mapping[str, str], settings: AlertSettings, now: dt.datetime
) -> Entry:
    """Return an alert as it stands after an attempt to send it where it had not been.

    One before its time, beside another that was due, does not count: it is given up for how long it was tried.
    """
    sent_to = [*entry.sent_to, *(name for name in names if name not in (*entry.sent_to, *wrong))]
    lacking = [name for name in names if name not in sent_to]
    if not lacking:
        return replace(entry, status=ALERT_SENT, sent_at=now, sent_to=sent_to, retry_at=None, problem=None)
    problem = " ".join(f"{name}: {wrong[name]}" for name in lacking)
    if entry.retry_at and now < entry.retry_at:
        return replace(entry, sent_to=sent_to, problem=problem)
    attempts = entry.attempts + 1
    status = ALERT_GIVEN_UP if attempts >= settings.attempts else ALERT_WAITING
    pause = min(_PAUSE * 2 ** min(attempts - 1, 20), _LONGEST_PAUSE)
    return replace(entry, status=status, attempts=attempts, retry_at=now + pause, sent_to=sent_to, problem=problem)


def _message(lake: Lake, entries: Sequence[Entry]) -> Message:
    """Return one message of all these alerts."""
    texts = [_text(entry, alone=len(entries) == 1) for entry in entries[:MOST_IN_A_MESSAGE]]
    if (more := len(entries) - MOST_IN_A_MESSAGE) > 0:
        texts.append(f"And {more} more: `dlassets alerts list`.")
    texts.append(f"Lake: {masked(lake.root)}")
    counts = Counter(entry.kind for entry in entries)
    many = ", ".join(f"{count} {_IN_WORDS[kind]}" for kind, count in counts.items())
    title = entries[0].subject if len(entries) == 1 else f"{len(entries)} alerts: {many}"
    return Message(f"dlassets: {title}", "\n\n".join(texts), is_alarm=not counts.keys() <= _GOOD_NEWS)


def _text(entry: Entry, *, alone: bool) -> str:
    body = entry.body if len(entry.body) <= _LONGEST_BODY else f"{entry.body[:_LONGEST_BODY]}…"
    at = f"{entry.raised_at:%Y-%m-%d %H:%M} UTC"
    return "\n".join(filter(None, ["" if alone else f"* {entry.subject}", body, entry.link, at]))
