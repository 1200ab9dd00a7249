"""What happened to model versions that people are to be told: one waits for a word, or there is another champion."""

from __future__ import annotations

from urllib.parse import quote

from dlassets.alerts.outbox import Alert
from dlassets.engines.base import Engine
from dlassets.lakehouse.snapshots import newest
from dlassets.lakehouse.tables import MODEL_EVENTS
from dlassets.registry.events import APPROVAL_WANTED, MOVED_OUTSIDE, PROMOTED, PUT_BACK, Event, events_of
from dlassets.settings import Settings
from dlassets.storage.lake import Lake

_SUBJECTS = {
    APPROVAL_WANTED: "{} wants approval",
    PROMOTED: "{} is champion",
    MOVED_OUTSIDE: "The alias champion was moved by hand: {}",
    PUT_BACK: "{} is champion again",
}


def new_events(engine: Engine, lake: Lake, settings: Settings, after: int) -> list[Event]:
    """Return the events of the settings' model with a greater number, oldest first. Nothing is made."""
    if (table := newest(lake, MODEL_EVENTS.name)) is None:
        return []
    return [event for event in events_of(engine, table, settings.registry.model_name) if event.number > after]


def alert_of(event: Event, settings: Settings) -> Alert | None:
    """Return what people are to be told of an event, if anything."""
    if event.event not in _SUBJECTS:
        return None
    subject = _SUBJECTS[event.event].format(f"Version {event.model_version} of {event.model_name}")
    page = f"{settings.ui.mlflow}/#/models/{quote(event.model_name, safe='')}/versions/{event.model_version}"
    kind = "approval_wanted" if event.event == APPROVAL_WANTED else "champion_changed"
    return Alert(kind, subject, f"{event.reason}.\nBy {event.actor}.", event.event_id, page)
