"""What happened to model versions that people are to be told: one waits for a word, or there is another champion."""

from __future__ import annotations

import datetime as dt
from urllib.parse import quote

from dlassets.alerts.outbox import Alert
from dlassets.engines.base import Engine
from dlassets.lakehouse.snapshots import newest
from dlassets.lakehouse.tables import MODEL_EVENTS
from dlassets.registry.events import APPROVAL_WANTED, MOVED_OUTSIDE, PROMOTED, PUT_BACK, Event, events_of
from dlassets.settings import AlertKind, Settings
from dlassets.storage.lake import Lake

_SUBJECTS = {
    APPROVAL_WANTED: "{} wants approval",
    PROMOTED: "{} is champion",
    MOVED_OUTSIDE: "The alias champion was moved by hand: {}",
    PUT_BACK: "{} is champion again",
}


def of_models(engine: Engine, lake: Lake, settings: Settings, since: dt.datetime) -> list[Alert]:
    """Return an alert for each event since then of the settings' model that people are to be told. Nothing is made."""
    if (table := newest(lake, MODEL_EVENTS.name)) is None:
        return []
    events = events_of(engine, table, settings.registry.model_name)
    return [_alert(event, settings) for event in events if event.at >= since and event.event in _SUBJECTS]


def _alert(event: Event, settings: Settings) -> Alert:
    subject = _SUBJECTS[event.event].format(f"Version {event.model_version} of {event.model_name}")
    page = f"{settings.ui.mlflow}/#/models/{quote(event.model_name, safe='')}/versions/{event.model_version}"
    kind: AlertKind = "approval_wanted" if event.event == APPROVAL_WANTED else "champion_changed"
    return Alert(kind, subject, f"{event.reason}.\nBy {event.actor}.", event.event_id, page)
