"""The pipeline as a stream that stays up: files are taken in as they land, then looked at, embedded and scored.

How a file is noticed depends on where its zone lies: a local folder is watched, anything else is listed every few
seconds. From there on it is the pipeline that Dagster schedules, batch by batch: the same functions, the same tables,
and what either has done the other leaves.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Commit, Engine, Snapshot, Written
from dlassets.engines.schema import Table
from dlassets.errors import DlassetsError, SettingsError
from dlassets.intake.events import Manifest
from dlassets.intake.ingest import Ingested, Intake
from dlassets.intake.watcher import ZoneWatcher, can_be_watched
from dlassets.lakehouse.derived import derive
from dlassets.lakehouse.labels import update_labels
from dlassets.lakehouse.profiles import profile_images
from dlassets.lakehouse.provenance import Provenance
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import (
    DELETED_FILES,
    HUMAN_LABELS,
    IMAGE_FEATURES,
    IMAGE_PROFILES,
    LABELED_IMAGES,
    PREDICTIONS,
    RAW_IMAGES,
)
from dlassets.learning.backbones import BackboneRef, feature_version
from dlassets.learning.embedding import embed_images, load_backbone
from dlassets.registry.store import backbone_in_use
from dlassets.scoring.batch import score_new, uncached_photos
from dlassets.settings import LandingZone, Settings
from dlassets.storage.lake import Lake, local_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from dlassets.registry.package import ModelPackage

# A signal to stop is noticed after so long.
TICK_SECONDS = 0.25
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 30.0
CHAMPION_SECONDS = 2.0

_DONE_WORDS = {
    IMAGE_PROFILES.name: "profiled",
    LABELED_IMAGES.name: "labelled",
    IMAGE_FEATURES.name: "embedded",
    PREDICTIONS.name: "scored",
}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """What was written to a table after ingest, and of what it was made."""

    table: Table
    written: Written
    provenance: Provenance


@dataclass(frozen=True)
class Batch:
    """What one batch did. It took `seconds`, and `latency` from the first file's event until its row was readable."""

    zone: str
    files: Ingested
    provenance: Provenance
    steps: Sequence[Step]
    seconds: float
    latency: float | None

    @property
    def images(self) -> int:
        return self.files.images + self.files.replaced

    def __bool__(self) -> bool:
        files = self.files
        return bool(
            self.images or files.quarantined or files.deleted or files.returned or files.bad_events or self.steps
        )

    def __str__(self) -> str:
        files = self.files
        counts = [
            (files.images, "new"),
            (files.replaced, "changed"),
            (files.quarantined, "quarantined"),
            (files.deleted, "gone"),
            (files.returned, "back"),
            (files.bad_events, "events not understood"),
            *((step.written.inserted + step.written.updated, _DONE_WORDS[step.table.name]) for step in self.steps),
        ]
        said = [", ".join(f"{count:,} {what}" for count, what in counts if count)]
        said.append(f"{self.seconds:.2f} s" + (f", {self.images / self.seconds:,.0f} images/s" if self.images else ""))
        if self.latency is not None:
            said.append(f"readable {self.latency:.2f} s after the first was seen")
        if files.first_bad is not None:
            said.append(files.first_bad)
        return f"{self.zone}: {'; '.join(said)}"


def stream(
    engine: Engine,
    lake: Lake,
    settings: Settings,
    stop: threading.Event,
    say: Say,
    *,
    zones: Sequence[str] = (),
    then: Callable[[], Sequence[Step]] | None = None,
    run_id: str = "",
) -> Generator[Batch | None]:
    """Take files of the landing zones (of all, by default) in as they come until `stop` is set; yield what was done.

    None is yielded in between, so that the caller has its turn several times a second where nothing happens.
    `then` follows each batch. A batch that fails for a reason outside of the code (a full disk, another writer, a zone
    that is away) is said and tried again, later and later: nothing is lost, since what was not written is still new.
    `say` gets such lines. Raises SettingsError for a zone that is not declared.
    """
    loop = _Loop(engine, lake, settings, say, zones_of(settings, zones), then, run_id)
    try:
        loop.start()
        while not stop.is_set():
            yield from loop.due()
            yield None
    finally:
        loop.end()


def zones_of(settings: Settings, names: Sequence[str]) -> dict[str, LandingZone]:
    """Return these landing zones, all where none is named. Raises SettingsError for one that is not declared."""
    if unknown := [name for name in names if name not in settings.landing]:
        raise SettingsError(f"No landing zone {unknown[0]!r}. Declared are: {', '.join(settings.landing)}.")
    return {name: zone for name, zone in settings.landing.items() if not names or name in names}


def watch(lake: Lake, settings: Settings, name: str, noted: Callable[[float | None], None], say: Say) -> ZoneWatcher:
    """Return the watcher of a landing zone that is a local folder; it is to be started."""
    zone = settings.landing[name]
    manifest = Manifest.of(lake, name, zone)
    folder = str(local_path(lake.zone(zone.uri)))
    return ZoneWatcher(manifest, folder, zone.takes_in, settings.stream.batch_seconds, noted, say)


@dataclass
class _Zone:
    """A landing zone, what tells of its files, and when it is to be looked at."""

    name: str
    zone: LandingZone
    seconds_between: float
    due: float = 0.0
    failures: int = 0
    said: str | None = None
    watcher: ZoneWatcher | None = None
    # Set by the watcher's thread: there are events, of which the first was seen at `since`.
    noted: bool = False
    since: float | None = None

    def note(self, since: float | None) -> None:
        self.since = since if self.since is None else self.since
        self.noted = True

    def is_due(self, now: float) -> bool:
        return self.due <= now or (self.noted and not self.failures)


class _Loop:
    """The zones of a stream in turn, one batch at a time."""

    def __init__(
        self,
        engine: Engine,
        lake: Lake,
        settings: Settings,
        say: Say,
        zones: Mapping[str, LandingZone],
        then: Callable[[], Sequence[Step]] | None,
        run_id: str,
    ) -> None:
        self._engine = engine
        self._lake = lake
        self._settings = settings
        self._say = say
        self._then = then
        self._run_id = run_id
        self._zones = [_Zone(name, zone, settings.stream.listing_seconds) for name, zone in zones.items()]
        self._wake = threading.Event()

    def start(self) -> None:
        for zone in self._zones:
            if can_be_watched(self._lake.zone(zone.zone.uri)):
                self._start_watcher(zone)

    def due(self) -> Iterator[Batch]:
        """Yield what was done, waiting a moment where nothing is to be."""
        for zone in self._zones:
            self._look_after(zone)
            if zone.is_due(time.monotonic()):
                yield from self._try(zone)
        next_due = min(zone.due for zone in self._zones)
        self._wake.wait(min(max(next_due - time.monotonic(), 0), TICK_SECONDS))
        self._wake.clear()

    def end(self) -> None:
        for zone in self._zones:
            if zone.watcher is not None and zone.watcher.is_alive():
                zone.watcher.stop()

    def _start_watcher(self, zone: _Zone) -> None:
        def noted(since: float | None) -> None:
            zone.note(since)
            self._wake.set()

        zone.watcher = watch(self._lake, self._settings, zone.name, noted, self._say)
        # While it is watched its events say it all; the first of them asks for a listing.
        zone.zone = zone.zone.model_copy(update={"discovery": "events"})
        zone.due = float("inf")
        zone.watcher.start()

    def _look_after(self, zone: _Zone) -> None:
        """See that what tells of a zone's files still does; else the zone is listed."""
        if zone.watcher is not None and zone.watcher.failed:
            zone.watcher, zone.zone, zone.due = None, self._settings.landing[zone.name], 0

    def _try(self, zone: _Zone) -> Iterator[Batch]:
        since = zone.since
        try:
            batch = self._batch(zone)
        except (DlassetsError, OSError) as error:
            self._failed(zone, error)
            zone.note(since)
            return
        if batch:
            yield batch

    def _batch(self, zone: _Zone) -> Batch:
        started, since = time.monotonic(), zone.since
        zone.noted, zone.since = False, None
        origin = Provenance.of(RAW_IMAGES.name, [], run_id=self._run_id)
        files = Ingested()
        settings = self._settings.model_copy(update={"landing": {zone.name: zone.zone}})
        Intake(self._engine, self._lake, settings, zone.name, origin.as_dict(), files).run()
        readable = time.monotonic()
        steps: Sequence[Step] = ()
        try:
            steps = self._then() if self._then is not None else ()
        except (DlassetsError, OSError) as error:  # the files are in: this alone is tried again
            self._failed(zone, error)
        else:
            zone.failures, zone.said = 0, None
            zone.due = time.monotonic() + zone.seconds_between
        latency = None if since is None else readable - since
        return Batch(zone.name, files, origin, steps, time.monotonic() - started, latency)

    def _failed(self, zone: _Zone, error: Exception) -> None:
        zone.failures += 1
        self._put_off(zone, str(error))

    def _put_off(self, zone: _Zone, text: str) -> None:
        zone.due = time.monotonic() + _wait(zone)
        if text != zone.said:
            zone.said = text
            self._say(f"{zone.name}: {text}")


def _wait(zone: _Zone) -> float:
    return min(FIRST_WAIT_SECONDS * 2.0 ** (zone.failures - 1), LONGEST_WAIT_SECONDS)


class Scorer:
    """What follows ingest: images profiled, labelled by their folders, embedded, and scored by the champion.

    A step whose inputs are as they were when it was last done is passed over. Without a champion nothing is scored; one
    that is promoted meanwhile is noticed. `client` gives MLflow's, when it is first needed.
    """

    def __init__(
        self,
        engine: Engine,
        lake: Lake,
        settings: Settings,
        client: Callable[[], MlflowClient],
        say: Say,
        run_id: str = "",
    ) -> None:
        self._engine = engine
        self._lake = lake
        self._settings = settings
        self._client = client
        self._say = say
        self._run_id = run_id
        self._done: dict[str, tuple[Any, ...]] = {}
        self._champion: tuple[int, ModelPackage] | None = None
        self._asked = -CHAMPION_SECONDS
        self._said_without = False

    def warm(self) -> None:
        """Load the backbone before the first image needs it; where kernels run elsewhere, they load it there."""
        if self._engine.name == "local":
            load_backbone(self._backbone, self._settings.features.runtime)

    def __call__(self) -> Sequence[Step]:
        steps = (self._profile, self._label, self._embed, self._score)
        return [step for step in (do() for do in steps) if step is not None and step.written.changed]

    def _profile(self) -> Step | None:
        raw = pin(self._lake, RAW_IMAGES.name)

        def work(origin: Provenance) -> Written:
            return derive(self._engine, self._lake, raw, IMAGE_PROFILES, profile_images, origin.as_dict())

        return self._step(IMAGE_PROFILES, [raw], work)

    def _label(self) -> Step | None:
        raw, deleted, human = (pin(self._lake, table.name) for table in (RAW_IMAGES, DELETED_FILES, HUMAN_LABELS))
        settings = self._settings

        def work(origin: Provenance) -> Written:
            labeled = pin(self._lake, LABELED_IMAGES.name)
            commit = Commit(origin.as_dict())
            return update_labels(self._engine, raw, deleted, human, labeled, settings.landing, settings.split, commit)

        return self._step(LABELED_IMAGES, [raw, deleted, human], work, parameters=settings.split.model_dump())

    def _embed(self) -> Step | None:
        raw = pin(self._lake, RAW_IMAGES.name)
        features = self._settings.features
        version = feature_version(self._backbone)
        kernel = functools.partial(embed_images, backbone=self._backbone, runtime=features.runtime)

        def work(origin: Provenance) -> Written:
            return derive(
                self._engine,
                self._lake,
                raw,
                IMAGE_FEATURES,
                kernel,
                origin.as_dict(),
                done_where=f"feature_version = '{version}'",
            )

        return self._step(IMAGE_FEATURES, [raw], work, parameters={"feature_version": version})

    @functools.cached_property
    def _backbone(self) -> BackboneRef:
        return backbone_in_use(self._settings, self._lake)

    def _score(self) -> Step | None:
        champion = self._newest_champion()
        if champion is None:
            return None
        version, package = champion
        name, settings = self._settings.registry.model_name, self._settings
        raw, labeled, features = (pin(self._lake, t.name) for t in (RAW_IMAGES, LABELED_IMAGES, IMAGE_FEATURES))

        def work(origin: Provenance) -> Written:
            return score_new(
                self._engine,
                raw,
                labeled,
                features,
                pin(self._lake, PREDICTIONS.name),
                package,
                (name, version),
                settings.scoring.top_k,
                settings.labels,
                origin.as_dict(),
                photos=uncached_photos(self._engine, self._lake, settings, raw, package),
            )

        parameters = settings.labels.model_dump()
        return self._step(PREDICTIONS, [raw, labeled, features], work, f"{name}/{version}", parameters)

    def _step(
        self,
        table: Table,
        inputs: Sequence[Snapshot],
        work: Callable[[Provenance], Written],
        model: str | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> Step | None:
        now = (*(snapshot.version for snapshot in inputs), model)
        if self._done.get(table.name) == now:
            return None
        origin = Provenance.of(table.name, inputs, run_id=self._run_id, model=model, parameters=parameters or {})
        written = work(origin)
        self._done[table.name] = now
        return Step(table, written, origin)

    def _newest_champion(self) -> tuple[int, ModelPackage] | None:
        """Return the champion's version and package, asked for every few seconds."""
        from mlflow.exceptions import MlflowException

        from dlassets.registry.lifecycle import load_version, version_of

        if time.monotonic() - self._asked < CHAMPION_SECONDS:
            return self._champion
        name = self._settings.registry.model_name
        try:
            client = self._client()
            version = version_of(client, name)
            if version is None:
                self._champion = None
            elif self._champion is None or self._champion[0] != version:
                self._champion = version, load_version(client, name, version)
        except MlflowException as error:
            raise DlassetsError(f"MLflow cannot say which version of {name} is champion: {error}") from error
        if version is None and not self._said_without:
            self._say(f"No version of {name} is champion yet: images are not scored until training_pipeline made one.")
        self._said_without = version is None
        self._asked = time.monotonic()
        return self._champion
