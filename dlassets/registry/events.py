"""What happened to each version of a registered model: the table `model_events`, and what follows from it.

Nothing of it is ever changed: what is so now is what its events come to, one after the other. MLflow's aliases follow
it (see `aliases.py`), and so may be late, or another's; this table is what counts.
"""

from __future__ import annotations

import datetime as dt
import getpass
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from dlassets.engines.base import Commit, Engine, Rows, Snapshot, Transaction
from dlassets.lakehouse.snapshots import evolve, replanned, transaction_version
from dlassets.lakehouse.tables import MODEL_EVENTS
from dlassets.masking import masked
from dlassets.registry.lifecycle import CHALLENGER, CHAMPION
from dlassets.registry.models import ModelVersion
from dlassets.storage.lake import Lake

REGISTERED, VALIDATED, APPROVAL_WANTED = "registered", "validated", "approval_wanted"
APPROVED, REJECTED, PROMOTED, REPLACED = "approved", "rejected", "promoted", "replaced"
ARCHIVED, ROLLED_BACK, MOVED_OUTSIDE, PUT_BACK = "archived", "rolled_back", "moved_outside", "put_back"
# Of the alias challenger, which was moved by hand; where a version stands does not change by it.
CHALLENGER_SET, CHALLENGER_TAKEN_OFF = "challenger_set", "challenger_taken_off"
CHALLENGER_PUT_BACK = "challenger_put_back"

# Where a version stands, beside those of these words that say so too, and champion and challenger.
FAILED, WAITING = "failed", "waiting"
STANDING = {
    CHALLENGER: "not validated yet",
    VALIDATED: "passed its validation",
    FAILED: "not promoted",
    WAITING: "waits for approval",
    CHAMPION: "champion",
    ARCHIVED: "archived",
    REJECTED: "rejected",
    ROLLED_BACK: "rolled back",
}
# What a person has decided, and no step changes.
DECIDED = {REJECTED, ROLLED_BACK}
# What is no challenger any more.
_SETTLED = {CHAMPION, ARCHIVED, *DECIDED}
PUTS_BACK = {PUT_BACK, CHALLENGER_PUT_BACK}
_OF_CHALLENGER = {CHALLENGER_SET, CHALLENGER_TAKEN_OFF, CHALLENGER_PUT_BACK}

# Who moved an alias by hand: MLflow does not say.
NOBODY_KNOWN = "unknown"
SET_BY_HAND = "the alias champion was set by hand in MLflow"
TAKEN_OFF_BY_HAND = "the alias champion was taken off it by hand in MLflow"
_UNTIMED = dt.datetime.min.replace(tzinfo=dt.UTC)


@dataclass(frozen=True)
class Event:
    """A row of `model_events`: see there. `number`, `event_id` and `from_state` are given when it is written."""

    model_name: str
    model_version: int
    event: str
    to_state: str
    reason: str
    package: str | None = None
    validation: str | None = None
    training_set_version: int | None = None
    actor: str = ""
    at: dt.datetime = _UNTIMED
    run_id: str = ""
    from_state: str | None = None
    number: int = 0
    event_id: str = ""

    @property
    def model(self) -> ModelVersion:
        return ModelVersion(self.model_name, self.model_version, self.package)

    @property
    def moves_champion(self) -> bool:
        return (self.from_state == CHAMPION) != (self.to_state == CHAMPION)


def event_of(model: ModelVersion, event: str, to_state: str, reason: str, **more: Any) -> Event:
    return Event(model.name, model.version, event, to_state, reason, model.package, **more)


def taken_by(successor: int) -> str:
    """Return why a version is champion no more."""
    return f"version {successor} took its place"


def followed(alias: ModelVersion | None, champion: ModelVersion | None) -> list[Event]:
    """Return the events of the alias champion having been moved by hand, which counts; nobody knows by whom."""
    if alias is None:
        moved = [] if champion is None else [event_of(champion, MOVED_OUTSIDE, ARCHIVED, TAKEN_OFF_BY_HAND)]
    else:
        replaced = [] if champion is None else [event_of(champion, REPLACED, ARCHIVED, taken_by(alias.version))]
        moved = [*replaced, event_of(alias, MOVED_OUTSIDE, CHAMPION, SET_BY_HAND)]
    return [replace(event, actor=NOBODY_KNOWN) for event in moved]


def challenger_followed(alias: ModelVersion | None, history: History) -> list[Event]:
    """Return the event of the alias challenger having been moved by hand, which counts; no version stands elsewhere."""
    if alias is not None:
        why = "the alias challenger was set by hand in MLflow"
        return [event_of(alias, CHALLENGER_SET, history.state(alias) or CHALLENGER, why, actor=NOBODY_KNOWN)]
    if (former := history.challenger) is None:
        return []
    why = "the alias challenger was taken off it by hand in MLflow"
    return [event_of(former, CHALLENGER_TAKEN_OFF, history.state(former) or CHALLENGER, why, actor=NOBODY_KNOWN)]


class History:
    """The events of one model, oldest first, and what they come to."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = tuple(events)

    def of(self, model: ModelVersion) -> tuple[Event, ...]:
        return tuple(event for event in self.events if event.model == model)

    def last(self, model: ModelVersion, *events: str) -> Event | None:
        """Return the newest of these events of a version; where none is named, the one that says why it stands so.

        That an alias was moved says it only of a version of which nothing else is known.
        """
        newest = [*reversed(self.of(model))]
        if events:
            return next((each for each in newest if each.event in events), None)
        return next((each for each in newest if each.event not in _OF_CHALLENGER), newest[0] if newest else None)

    def state(self, model: ModelVersion) -> str | None:
        """Return where a version stands; None of one that is not known."""
        last = self.last(model)
        return None if last is None else last.to_state

    @cached_property
    def models(self) -> dict[ModelVersion, str]:
        """Where each version stands, in the order in which they came."""
        return {event.model: event.to_state for event in self.events}

    def known(self, model: ModelVersion) -> ModelVersion:
        """Return a version of MLflow's as the events know it: its tags may have been changed there by hand."""
        same_number = [each for each in self.models if each.version == model.version]
        return model if model in same_number else (same_number or [model])[-1]

    @cached_property
    def champion(self) -> ModelVersion | None:
        return self.champion_at(len(self.events))

    def champion_at(self, place: int) -> ModelVersion | None:
        """Return who was champion after the first so many events."""
        champion = None
        for event in self.events[:place]:
            if event.to_state == CHAMPION:
                champion = event.model
            elif event.model == champion:
                champion = None
        return champion

    @property
    def challenger(self) -> ModelVersion | None:
        """Who has the alias challenger: the newest version that was registered, until it is decided about."""
        return self._challengers[-1]

    @cached_property
    def _challengers(self) -> list[ModelVersion | None]:
        """Who was challenger before the first event, and after each."""
        challengers: list[ModelVersion | None] = [None]
        for event in self.events:
            challenger = challengers[-1]
            is_newer = challenger is None or challenger.version < event.model_version
            if event.event == CHALLENGER_SET or (event.event == REGISTERED and is_newer):
                challenger = event.model
            elif event.model == challenger and (event.event == CHALLENGER_TAKEN_OFF or event.to_state in _SETTLED):
                challenger = None
            challengers.append(challenger)
        return challengers

    @cached_property
    def last_move(self) -> Event | None:
        """The newest event after which an alias is to be set or taken off."""
        before_and_after = zip(self.events, self._challengers, self._challengers[1:], strict=False)
        moves = [
            event
            for event, before, after in before_and_after
            if event.moves_champion or event.event in PUTS_BACK or before != after
        ]
        return moves[-1] if moves else None

    @cached_property
    def reigns(self) -> list[Event]:
        """Each event that made a version champion, oldest first."""
        return [event for event in self.events if event.to_state == CHAMPION and event.moves_champion]

    def end_of(self, reign: Event) -> Event | None:
        """Return what ended the reign that this event began, if anything has."""
        later = self.events[self.events.index(reign) + 1 :]
        return next((event for event in later if event.model == reign.model and event.to_state != CHAMPION), None)

    def trusted_package(self, version: int) -> str | None:
        """Return the digest that the package of a version must have; None where no event says one.

        A number may be given again where MLflow's store was lost: the newest version of it counts. One that was never
        registered here is trusted as it was when a move to it was followed.
        """
        of_version = [event for event in self.events if event.model_version == version]
        registered = [event.package for event in of_version if event.event == REGISTERED]
        adopted = [event.package for event in of_version if event.to_state == CHAMPION]
        return (registered or adopted or [None])[-1]

    def grown(self, events: Sequence[Event], first: int) -> list[Event]:
        """Return further events as they are to be written: numbered from `first`, and from the states they leave."""
        states, grown = dict(self.models), []
        for place, event in enumerate(events):
            settled = replace(event, number=first + place, from_state=states.get(event.model))
            grown.append(replace(settled, event_id=_digest(settled)))
            states[event.model] = event.to_state
        return grown


def _digest(event: Event) -> str:
    said = json.dumps({**asdict(event), "event_id": ""}, default=str, sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def events_of(engine: Engine, table: Snapshot | Rows, model_name: str) -> list[Event]:
    """Return the events of a model that `model_events` has, oldest first."""
    columns = ", ".join(f"e.{name}" for name in MODEL_EVENTS.names)  # a bare `at` is a word of SQL's own
    query = f"SELECT {columns} FROM model_events AS e"  # noqa: S608 - the table's own columns
    rows = engine.sql(query, {MODEL_EVENTS.name: table}).arrow().to_pylist()
    events = (Event(**row | {"at": row["at"].astimezone(dt.UTC)}) for row in rows if row["model_name"] == model_name)
    return sorted(events, key=lambda event: event.number)


Plan = Callable[[History], Sequence[Event]]


def write_events(
    engine: Engine, lake: Lake, model_name: str, plan: Plan, provenance: Mapping[str, Any]
) -> tuple[History, list[Event]]:
    """Add the events that `plan` makes of the model's history; return what the history is then, and what was added.

    All are one commit, which is refused where another came first: then it is planned anew, on what is so by then. So
    whatever `plan` finds there already need not be written again, however often it is killed and repeated.
    """
    import pyarrow as pa

    app_id = f"{MODEL_EVENTS.name}:{model_name}"

    def write() -> tuple[History, list[Event]]:
        table = evolve(lake, MODEL_EVENTS)
        history = History(events_of(engine, table, model_name))
        # Numbers go on where rows are gone, as in a table that was restored: Delta remembers them.
        last = max([transaction_version(table, app_id), *(event.number for event in history.events)])
        added = history.grown(plan(history), max(last, 0) + 1)
        if added:
            rows = pa.Table.from_pylist([asdict(event) for event in added], schema=MODEL_EVENTS.schema)
            commit = Commit(provenance, Transaction(app_id, added[-1].number))
            engine.append(engine.rows(rows), MODEL_EVENTS, table.uri, commit)
        return History([*history.events, *added]), added

    return replanned(write)


def signed(events: Sequence[Event], actor: str, run_id: str) -> Iterator[Event]:
    """Yield events as done now by this one, in this run, with no secret; those of before keep what they say."""
    now = dt.datetime.now(dt.UTC)
    for event in events:
        if event.at == _UNTIMED:
            yield replace(event, actor=event.actor or masked(actor), reason=masked(event.reason), at=now, run_id=run_id)
        else:
            yield event


# Of a run of Dagster: who launched it, where that is known.
USER_TAG = "user"


def acting(setting: str | None, tags: Mapping[str, str]) -> str:
    """Return who acts: by the setting, else by the tags of Dagster's run, else the user of this process.

    What a clock or sensor starts is nobody's.
    """
    if setting:
        return setting
    if user := tags.get(USER_TAG):
        return user
    for tag in ("dagster/schedule_name", "dagster/sensor_name"):
        if tag in tags:
            return f"{tag.removeprefix('dagster/').removesuffix('_name')} {tags[tag]}"
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may have no such entry
        return f"uid {os.getuid()}"
