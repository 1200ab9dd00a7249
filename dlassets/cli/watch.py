"""`dlassets watch` and `stream`: photos taken in, or taken in and scored, as they land, until stopped."""

from __future__ import annotations

import datetime as dt
import signal
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from dlassets.errors import SettingsError

if TYPE_CHECKING:
    from dlassets.pipeline.stream import Step
    from dlassets.resources.lake import LakeResource
    from dlassets.settings import Settings
    from dlassets.storage.lake import Lake


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
    from dlassets.resources.lake import LakeResource
    from dlassets.settings import load_settings

    settings = load_settings()
    if only_note:
        _note(settings, zones)
    else:
        _run(LakeResource(settings), zones, None)


@click.command()
@click.argument("zones", nargs=-1, metavar="[ZONE]...")
def stream(zones: tuple[str, ...]) -> None:
    """Take photos in, profile, embed and score them as they land in the landing zones; Ctrl-C stops it."""
    from dlassets.pipeline.stream import Scorer
    from dlassets.resources.lake import LakeResource
    from dlassets.resources.mlflow import MlflowResource
    from dlassets.settings import load_settings

    settings = load_settings()
    resource = LakeResource(settings)
    mlflow = MlflowResource(settings)
    scorer = Scorer(resource.engine, resource.lake, settings, lambda: mlflow.client, _say)
    scorer.warm()
    _run(resource, zones, scorer)


def _run(resource: LakeResource, zones: Sequence[str], then: Callable[[], Sequence[Step]] | None) -> None:
    from dlassets.pipeline.stream import stream as batches
    from dlassets.pipeline.stream import zones_of

    settings = resource.settings
    stop = _stop_on_signals()
    _say(f"watching {_named(resource.lake, settings, tuple(zones_of(settings, zones)))}")
    for batch in batches(resource.engine, resource.lake, settings, stop, _say, zones=zones, then=then):
        if batch:
            _say(str(batch))
    _say("stopped")


def _note(settings: Settings, names: Sequence[str]) -> None:
    from dlassets.intake.watcher import can_be_watched
    from dlassets.pipeline.stream import watch as watcher_of
    from dlassets.pipeline.stream import zones_of
    from dlassets.storage.lake import Lake

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
    watchers = [watcher_of(lake, settings, name, lambda _: None, _say) for name in zones]
    _say(f"noting what happens in {_named(lake, settings, tuple(zones))}")
    for watcher in watchers:
        watcher.start()
    while not stop.wait(1) and all(watcher.is_alive() for watcher in watchers):
        pass
    for watcher in watchers:
        watcher.stop()
    if any(watcher.failed for watcher in watchers):
        raise SettingsError("A landing zone could not be watched; see above.")
    _say("stopped")


def _named(lake: Lake, settings: Settings, zones: Sequence[str]) -> str:
    return ", ".join(f"{name} ({lake.zone(settings.landing[name].uri)})" for name in zones)


def _stop_on_signals() -> threading.Event:
    """Return an event that SIGINT and SIGTERM set: the batch in hand is finished, and the exit code is 0."""
    stop = threading.Event()

    def handle(*_: Any) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    return stop


def _say(text: str) -> None:
    click.echo(f"{dt.datetime.now(dt.UTC):%H:%M:%S} {text}")
