"""The landing zones of a stream: what tells of their files, and when each is to be looked at."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dlassets.errors import DlassetsError, SettingsError
from dlassets.intake.events import Manifest
from dlassets.intake.watcher import ZoneWatcher, can_be_watched
from dlassets.settings import LandingZone, Settings
from dlassets.storage.lake import Lake, local_path

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 30.0

Log = Callable[[str], None]


def zones_of(settings: Settings, names: Sequence[str]) -> dict[str, LandingZone]:
    """Return these landing zones, all where none is named. Raises SettingsError for one that is not declared."""
    if unknown := [name for name in names if name not in settings.landing]:
        raise SettingsError(f"No landing zone {unknown[0]!r}. Declared are: {', '.join(settings.landing)}.")
    return {name: zone for name, zone in settings.landing.items() if not names or name in names}


def watcher_of(
    lake: Lake, settings: Settings, name: str, on_events: Callable[[float | None], None], log: Log
) -> ZoneWatcher:
    """Return the watcher of a landing zone that is a local folder; it is to be started."""
    zone = settings.landing[name]
    manifest = Manifest.of(lake, name, zone)
    folder = str(local_path(lake.zone(zone.uri)))
    return ZoneWatcher(manifest, folder, zone, settings.stream.batch_seconds, on_events, log)


@dataclass
class StreamedZone:
    """A landing zone and its turn. It is watched where that can be; else it is listed every few seconds."""

    name: str
    zone: LandingZone
    log: Log
    due: float = 0.0
    watcher: ZoneWatcher | None = None
    # Set by the watcher's thread: there are events, of which the first was seen at `since`.
    has_events: bool = False
    since: float | None = None
    _failures: int = 0
    _last_message: str | None = None

    def watch(self, lake: Lake, settings: Settings, wake: Callable[[], None]) -> None:
        """Watch the zone, if it can be; while it is watched its events say it all, and the first asks for a listing."""
        if not can_be_watched(lake.zone(self.zone.uri)):
            return

        def on_events(since: float | None) -> None:
            self.note_events(since)
            wake()

        self.watcher = watcher_of(lake, settings, self.name, on_events, self.log)
        self.zone = self.zone.model_copy(update={"discovery": "events"})
        self.due = float("inf")
        self.watcher.start()

    def check_watcher(self, settings: Settings) -> None:
        """List the zone from now on where it cannot be watched after all."""
        if self.watcher is not None and self.watcher.failed:
            self.watcher, self.zone, self.due = None, settings.landing[self.name], 0

    def note_events(self, since: float | None) -> None:
        self.since = since if self.since is None else self.since
        self.has_events = True

    def is_due(self, now: float) -> bool:
        return self.due <= now or (self.has_events and not self._failures)

    def begin(self) -> float | None:
        """Take note that it is looked at now; return when the first event was seen, if any was."""
        since, self.since, self.has_events = self.since, None, False
        return since

    def succeeded(self, seconds_until_next: float) -> None:
        self._failures, self._last_message = 0, None
        self.due = time.monotonic() + seconds_until_next

    def failed(self, error: Exception) -> None:
        """Put the zone off, for longer each time; what is wrong is logged once."""
        self._failures += 1
        self.due = time.monotonic() + min(FIRST_WAIT_SECONDS * 2.0 ** (self._failures - 1), LONGEST_WAIT_SECONDS)
        known = isinstance(error, DlassetsError | OSError)
        message = str(error) if known else "".join(traceback.format_exception(error))
        if message != self._last_message:
            self._last_message = message
            self.log(f"{self.name}: {message}")

    def stop(self) -> None:
        if self.watcher is not None and self.watcher.is_alive():
            self.watcher.stop()
