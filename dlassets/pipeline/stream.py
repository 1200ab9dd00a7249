"""The pipeline as a process that stays up: files are taken in as they land, then looked at, embedded and scored.

How a file is noticed depends on where its zone lies: a local folder is watched, anything else is listed every few
seconds. From there on it is the pipeline that Dagster schedules, batch by batch: the same steps, the same tables, and
what either has done the other leaves.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlassets.errors import DlassetsError
from dlassets.lakehouse.tables import (
    CLASSES,
    IMAGE_FEATURES,
    IMAGE_PROFILES,
    LABELED_IMAGES,
    PREDICTIONS,
    PREDICTIONS_CURRENT,
)
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Made
from dlassets.pipeline.zones import Log, StreamedZone, zones_of
from dlassets.settings import LandingZone

if TYPE_CHECKING:
    from dlassets.intake.ingest import Ingested

# A signal to stop is noticed after so long.
TICK_SECONDS = 0.25

_DONE_WORDS = {
    CLASSES.name: "classes named",
    IMAGE_PROFILES.name: "profiled",
    LABELED_IMAGES.name: "labelled",
    IMAGE_FEATURES.name: "embedded",
    PREDICTIONS.name: "scored",
    PREDICTIONS_CURRENT.name: "current",
}


@dataclass(frozen=True)
class Batch:
    """What one batch did: ingest first, then what followed.

    It took `seconds`, and `latency` from the first file's event until its row was readable.
    """

    zone: str
    made: Sequence[Made]
    seconds: float
    latency: float | None

    @property
    def files(self) -> Ingested:
        done: Ingested = self.made[0].details["ingested"]
        return done

    @property
    def images(self) -> int:
        return self.files.images + self.files.replaced

    def __bool__(self) -> bool:
        return any(made.changed for made in self.made) or bool(self.files.bad_events)

    def __str__(self) -> str:
        files = self.files
        followed = [item for made in self.made[1:] for item in made.written.items()]
        counts = [
            (files.images, "new"),
            (files.replaced, "changed"),
            (files.quarantined, "quarantined"),
            (files.deleted, "gone"),
            (files.returned, "back"),
            (files.bad_events, "events not understood"),
            *((written.inserted + written.updated, _DONE_WORDS[name]) for name, written in followed),
        ]
        parts = [", ".join(f"{count:,} {what}" for count, what in counts if count)]
        rate = f", {self.images / self.seconds:,.0f} images/s" if self.images else ""
        parts.append(f"{self.seconds:.2f} s{rate}")
        if self.latency is not None:
            parts.append(f"readable {self.latency:.2f} s after the first was seen")
        if files.first_bad is not None:
            parts.append(files.first_bad)
        return f"{self.zone}: {'; '.join(parts)}"


def stream(
    session: Session,
    stop: threading.Event,
    log: Log,
    *,
    zones: Sequence[str] = (),
    then: Callable[[], Sequence[Made]] | None = None,
) -> Generator[Batch | None]:
    """Take files of the landing zones (of all, by default) in as they come until `stop` is set; yield what was done.

    None is yielded in between, so that the caller has its turn several times a second where nothing happens.
    `then` follows each batch. A batch that fails (a full disk, another writer, a zone that is away, a file that nobody
    thought of) is logged and tried again, later and later: nothing is lost, since what was not written is still new.
    `log` gets such messages. Raises SettingsError for a zone that is not declared.
    """
    _ = session.engine  # what it lacks ends the stream: a batch that failed for it would be tried again for ever
    loop = _Loop(session, log, zones_of(session.settings, zones), then)
    try:
        loop.start()
        while not stop.is_set():
            yield from loop.due()
            yield None
    finally:
        loop.end()


class _Loop:
    """The zones of a stream in turn, one batch at a time."""

    def __init__(
        self,
        session: Session,
        log: Log,
        zones: dict[str, LandingZone],
        then: Callable[[], Sequence[Made]] | None,
    ) -> None:
        self._session = session
        self._then = then
        self._zones = [StreamedZone(name, zone, log) for name, zone in zones.items()]
        self._wake = threading.Event()

    def start(self) -> None:
        for zone in self._zones:
            zone.watch(self._session.lake, self._session.settings, self._wake.set)

    def due(self) -> Iterator[Batch]:
        """Yield what was done, waiting a moment where nothing is to be."""
        for zone in self._zones:
            zone.check_watcher(self._session.settings)
            if zone.is_due(time.monotonic()) and (batch := self._batch(zone)):
                yield batch
        next_due = min(zone.due for zone in self._zones)
        self._wake.wait(min(max(next_due - time.monotonic(), 0), TICK_SECONDS))
        self._wake.clear()

    def end(self) -> None:
        for zone in self._zones:
            zone.stop()

    def _batch(self, zone: StreamedZone) -> Batch | None:
        """Take in what has come to a zone, and do what follows; None where it could not be taken in now."""
        started, since = time.monotonic(), zone.begin()
        try:
            made = [self._take_in(zone)]
        except Exception as error:  # noqa: BLE001 - what one zone holds must not end the others
            zone.failed(error)
            zone.note_events(since)
            return None
        latency = None if since is None else time.monotonic() - since
        try:
            made += self._then() if self._then is not None else ()
        except (DlassetsError, OSError) as error:  # the files are in: this alone is tried again
            zone.failed(error)
        else:
            zone.succeeded(self._session.settings.stream.listing_seconds)
        return Batch(zone.name, made, time.monotonic() - started, latency)

    def _take_in(self, zone: StreamedZone) -> Made:
        """Run ingest on this zone alone, as it is told of at the moment."""
        settings = self._session.settings.model_copy(update={"landing": {zone.name: zone.zone}})
        return steps.ingested_files.run(self._session.changed(settings=settings))
