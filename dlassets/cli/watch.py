"""`dlassets watch` and `stream`: photos taken in, or taken in and scored, as they land, until stopped."""

from __future__ import annotations

import datetime as dt
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from dlassets.errors import DlassetsError, SettingsError
from dlassets.pipeline.report import Report
from dlassets.settings import Settings, load_settings
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    from dlassets.pipeline.session import Session
    from dlassets.pipeline.step import Made
    from dlassets.pipeline.stream import Batch

    OnBatch = Callable[[Batch], None]


@click.command()
@click.argument("zones", nargs=-1, metavar="[ZONE]...")
@click.option(
    "--only-note", is_flag=True, help="Write down what happens, for runs elsewhere, and take nothing in from here."
)
def watch(zones: tuple[str, ...], only_note: bool) -> None:
    """Take photos in as they land in the landing zones (all of them, or these); Ctrl-C stops it.

    Folders are watched, and what happens in them is noted in the zone's event manifest; what cannot be watched is
    listed every few seconds.
    """
    from dlassets.pipeline.session import Session

    settings = load_settings()
    if only_note:
        _record_events(settings, zones)
    else:
        _run(Session(settings), zones, None, lambda _: None)


@click.command()
@click.argument("zones", nargs=-1, metavar="[ZONE]...")
def stream(zones: tuple[str, ...]) -> None:
    """Take photos in, profile, embed and score them as they land in the landing zones; Ctrl-C stops it.

    What it makes shows in Dagster, at the tables and at photo_stream, where Dagster's folder (DAGSTER_HOME, or the one
    under the lake's root) can be written.
    """
    from dlassets.pipeline.follower import CHAMPION_SECONDS, Follower
    from dlassets.pipeline.session import Session

    session = Session(load_settings(), champion_seconds=CHAMPION_SECONDS)
    follower = Follower(session, _Lines())
    follower.warm()
    with _reporting(session) as on_batch:
        _run(session, zones, follower, on_batch)


class _Lines(Report):
    def warning(self, message: str) -> None:
        _log(message)


def _run(session: Session, zones: Sequence[str], then: Callable[[], Sequence[Made]] | None, on_batch: OnBatch) -> None:
    from dlassets.pipeline.stream import stream as batches
    from dlassets.pipeline.zones import zones_of

    stop = _stop_on_signals()
    _log(f"watching {_named(session.lake, session.settings, tuple(zones_of(session.settings, zones)))}")
    for batch in batches(session, stop, _log, zones=zones, then=then):
        if batch:
            _log(str(batch))
            on_batch(batch)
    _log("stopped")


@contextmanager
def _reporting(session: Session) -> Iterator[OnBatch]:
    """Give what is to be called with each batch, so that Dagster shows it, and that the stream is up."""
    from dlassets.resources.instance import HOME_VARIABLE, dagster_home

    try:
        os.environ[HOME_VARIABLE] = str(dagster_home(session.lake))
    except DlassetsError as error:
        _log(f"Dagster is not told of this stream: {error}")
        yield lambda _: None
        return
    import dagster as dg

    from dlassets.defs.streaming import StreamReporter

    with dg.DagsterInstance.get() as instance, StreamReporter(instance, session, _log) as reporter:
        yield reporter.report


def _record_events(settings: Settings, names: Sequence[str]) -> None:
    from dlassets.intake.watcher import can_be_watched
    from dlassets.pipeline.zones import watcher_of, zones_of

    lake = Lake.at(settings.root)
    zones = zones_of(settings, names)
    unread = [name for name, zone in zones.items() if zone.discovery != "events"]
    if (names and unread) or len(unread) == len(zones):
        raise SettingsError(
            f"Nobody would read the events of {', '.join(unread)}: set landing.<zone>.discovery to events."
        )
    zones = {name: zone for name, zone in zones.items() if name not in unread}
    if away := [name for name, zone in zones.items() if not can_be_watched(lake.zone(zone.uri))]:
        raise SettingsError(
            f"{', '.join(away)} cannot be watched from here: that takes a local folder, on Linux. Have the storage "
            f"send its notifications to {lake.events('<zone>')}."
        )
    stop = _stop_on_signals()
    watchers = [watcher_of(lake, settings, name, lambda _: None, _log) for name in zones]
    _log(f"noting what happens in {_named(lake, settings, tuple(zones))}")
    for watcher in watchers:
        watcher.start()
    while not stop.wait(1) and all(watcher.is_alive() for watcher in watchers):
        pass
    for watcher in watchers:
        watcher.stop()
    if any(watcher.failed for watcher in watchers):
        raise SettingsError("A landing zone could not be watched; see above.")
    _log("stopped")


def _named(lake: Lake, settings: Settings, zones: Sequence[str]) -> str:
    return ", ".join(f"{name} ({lake.zone(settings.landing[name].uri)})" for name in zones)


def _stop_on_signals() -> threading.Event:
    """Return an event that SIGINT and SIGTERM set: the batch in hand is finished, and the exit code is 0."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _log(text: str) -> None:
    click.echo(f"{dt.datetime.now(dt.UTC):%H:%M:%S} {text}")
