"""The stream: files taken in as they land, on both engines; what fails is tried again; what follows ingest."""

import datetime as dt
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from dlassets.engines.base import Engine, Written
from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError, SettingsError
from dlassets.intake.events import Manifest
from dlassets.intake.ingest import Ingested, Intake, ingest
from dlassets.lakehouse.provenance import Provenance
from dlassets.learning.backbones import BackboneRef, dimensions_of, feature_version
from dlassets.pipeline import zones as zones_module
from dlassets.pipeline.follower import FOLLOWING, Follower
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Made
from dlassets.pipeline.stream import Batch, stream
from dlassets.registry.lifecycle import CHAMPION, register
from dlassets.registry.package import ModelPackage
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.killing import killed_at
from dlassets_tests.pipelines import Warnings
from dlassets_tests.registry.conftest import Registry, head, registry  # noqa: F401 - a fixture
from dlassets_tests.tables import get

LOCAL = LocalEngine()
# The backbone that the settings have, and one that a champion brings.
OWN, OTHER = BackboneRef("efficientnet_lite0"), BackboneRef("torchvision/squeezenet1_1", "none")


@pytest.fixture
def settings(lake: Lake) -> Settings:
    for zone in ("labeled", "unlabeled"):
        Path(lake.zone(zone)).mkdir(parents=True)
    return Settings(root=lake.root, stream={"batch_seconds": 0.02, "listing_seconds": 0.5})


@pytest.fixture(autouse=True)
def _tries_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zones_module, "FIRST_WAIT_SECONDS", 0.02)


@pytest.fixture
def some(photos: Path) -> list[Path]:
    return sorted(photos.glob("*/*.jpg"))


def session_of(engine: Engine, settings: Settings) -> Session:
    session = Session(settings)
    session.engine = engine
    return session


class Running:
    """A stream in a thread, until the block ends."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        zones: Sequence[str] = (),
        then: Callable[[], Sequence[Made]] | None = None,
    ) -> None:
        self.batches: list[Batch] = []
        self.messages: list[str] = []
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._session = session_of(engine, settings)
        self._thread = threading.Thread(target=self._run, args=(zones, then))

    def _run(self, zones: Sequence[str], then: Any) -> None:
        try:
            for batch in stream(self._session, self._stop, self.messages.append, zones=zones, then=then):
                if batch:
                    self.batches.append(batch)
        except BaseException as error:
            self.error = error
            raise

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        assert self.error is None

    def until(self, holds: Callable[[], object], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end or not self._thread.is_alive():
                done = [str(batch) for batch in self.batches]
                pytest.fail(f"it did not happen; messages: {self.messages}, done: {done}")
            time.sleep(0.05)


def paths(lake: Lake) -> list[str]:
    return [row["path"] for row in get(LOCAL, lake, "raw_images", "path")]


def land(photo: Path, lake: Lake, name: str) -> None:
    target = Path(lake.zone(name))
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(photo, target)


def test_photos_are_taken_in_as_they_land_and_none_twice(engine, lake, settings, some) -> None:
    land(some[0], lake, "unlabeled/before.jpg")
    expected = ["unlabeled/before.jpg"]
    with Running(engine, settings, ["unlabeled"]) as running:
        running.until(lambda: paths(lake) == expected)
        land(some[0], lake, "unlabeled/_temporary/no.jpg")
        for number in range(1, 4):
            land(some[number], lake, f"unlabeled/new {number}/ü%{number}.jpg")
            expected.append(f"unlabeled/new {number}/ü%{number}.jpg")
        running.until(lambda: paths(lake) == sorted(expected))
    shutil.rmtree(lake.under("checkpoints"), ignore_errors=True)
    land(some[5], lake, "unlabeled/while away.jpg")
    expected.append("unlabeled/while away.jpg")
    with Running(engine, settings, ["unlabeled"]) as running:
        running.until(lambda: paths(lake) == sorted(expected))
    assert paths(lake) == sorted(expected)


def test_every_batch_is_taken_in_by_the_engine_that_the_stream_was_given(lake, settings, some, monkeypatch) -> None:
    engine, files = LocalEngine(), LocalEngine.files
    used: list[LocalEngine] = []
    landed: list[str] = []

    def used_files(self: LocalEngine, *more: Any) -> Any:
        used.append(self)
        return files(self, *more)

    monkeypatch.setattr(LocalEngine, "files", used_files)
    with Running(engine, settings, ["unlabeled"]) as running:
        for number in range(2):
            landed.append(f"unlabeled/{number}.jpg")
            land(some[number], lake, landed[-1])
            running.until(lambda: paths(lake) == landed)

    assert len(used) > 1
    assert all(each is engine for each in used)


def test_changed_and_removed_files_are_noticed_and_bad_ones_quarantined(lake, settings, some) -> None:
    with Running(LOCAL, settings) as running:
        land(some[0], lake, "unlabeled/a.jpg")
        running.until(lambda: paths(lake))
        before = get(LOCAL, lake, "raw_images", "image_id")
        land(some[1], lake, "unlabeled/a.jpg")
        running.until(lambda: get(LOCAL, lake, "raw_images", "image_id") != before)
        Path(lake.zone("unlabeled/bad.jpg")).write_text("no photo")
        running.until(lambda: get(LOCAL, lake, "quarantined_files"))
        Path(lake.zone("unlabeled/a.jpg")).unlink()
        running.until(lambda: get(LOCAL, lake, "deleted_files"))
    assert sum(batch.files.images for batch in running.batches) == 1
    assert {"1 new", "1 changed", "1 quarantined", "1 gone"} <= {
        str(batch).removeprefix("unlabeled: ").partition(";")[0] for batch in running.batches
    }


def test_a_batch_says_how_long_after_its_file_came_the_row_was_readable(lake, settings, some) -> None:
    with Running(LOCAL, settings, ["unlabeled"]) as running:
        running.until(lambda: Manifest.of(lake, "unlabeled", settings.landing["unlabeled"]).listed_at)
        land(some[0], lake, "unlabeled/a.jpg")
        running.until(lambda: running.batches)
    latency = running.batches[0].latency
    assert latency is not None
    assert 0.02 <= latency < 30


def test_a_batch_that_fails_is_said_once_and_tried_again_until_it_is_in(lake, settings, some, monkeypatch) -> None:
    take_in = Intake.take_in
    failed: list[int] = []

    def full_disk(self: Intake, listing: Any) -> None:
        if listing.num_rows and len(failed) < 3:
            failed.append(1)
            raise DlassetsError("No space left.")
        take_in(self, listing)

    monkeypatch.setattr(Intake, "take_in", full_disk)
    with Running(LOCAL, settings) as running:
        land(some[0], lake, "unlabeled/a.jpg")
        running.until(lambda: paths(lake))
    assert (len(failed), running.messages) == (3, ["unlabeled: No space left."])


def test_what_follows_is_tried_again_where_only_that_failed(lake, settings, some) -> None:
    left = ["first", "second"]

    def then() -> Sequence[Made]:
        if paths(lake) and left:
            raise DlassetsError(f"The {left.pop(0)} time it fails.")
        return []

    with Running(LOCAL, settings, ["unlabeled"], then) as running:
        land(some[0], lake, "unlabeled/a.jpg")
        running.until(lambda: not left and len(running.messages) == 2)
    assert paths(lake) == ["unlabeled/a.jpg"]
    assert running.messages == [f"unlabeled: The {which} time it fails." for which in ("first", "second")]


def test_a_run_killed_before_it_says_what_it_took_in_is_repeated_without_a_double(lake, settings, some) -> None:
    zone = settings.landing["unlabeled"].model_copy(update={"discovery": "events"})
    events = settings.model_copy(update={"landing": {"unlabeled": zone}})
    manifest = Manifest.of(lake, "unlabeled", zone)
    manifest.advance({}, dt.datetime.now(dt.UTC))
    land(some[0], lake, "unlabeled/a.jpg")
    manifest.record([("a.jpg", "created"), ("never.jpg", "deleted")])
    with killed_at(Manifest, "advance"):
        ingest(LOCAL, lake, events, {})
    assert (paths(lake), bool(manifest.pending())) == (["unlabeled/a.jpg"], True)
    again = ingest(LOCAL, lake, events, {})
    assert (paths(lake), again.images, bool(manifest.pending())) == (["unlabeled/a.jpg"], 0, False)


def two_photos_one_after_the_other(running: Running, lake: Lake, some: list[Path]) -> None:
    for number in range(2):
        land(some[number], lake, f"unlabeled/{number}.jpg")
        running.until(lambda: len(paths(lake)) == number + 1)  # noqa: B023 - called at once


def test_a_zone_that_cannot_be_watched_is_listed(lake, settings, some, monkeypatch) -> None:
    monkeypatch.setattr(zones_module, "can_be_watched", lambda _: False)
    with Running(LOCAL, settings) as running:
        two_photos_one_after_the_other(running, lake, some)
    assert not Path(lake.events("unlabeled")).exists()


def test_a_zone_whose_watch_fails_is_listed(lake, settings, some, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dlassets.intake.watcher.FolderWatch._add_watch", refuse)
    with Running(LOCAL, settings, ["unlabeled"]) as running:
        two_photos_one_after_the_other(running, lake, some)
    assert len(running.messages) == 1
    assert "max_user_watches" in running.messages[0]


def test_one_zone_that_is_away_keeps_no_other_waiting(lake, settings, some) -> None:
    Path(lake.zone("labeled")).rmdir()
    with Running(LOCAL, settings) as running:
        land(some[0], lake, "unlabeled/a.jpg")
        running.until(lambda: paths(lake))
        land(some[1], lake, "labeled/003.coat/b.jpg")
        running.until(lambda: len(paths(lake)) == 2)
    assert any("Waiting for it" in line for line in running.messages)


def test_a_zone_that_is_not_declared_is_refused(settings) -> None:
    with pytest.raises(SettingsError, match=r"No landing zone 'nope'. Declared are: labeled, unlabeled"):
        next(stream(Session(settings), threading.Event(), print, zones=["nope"]))


@pytest.fixture
def follower(settings: Settings, registry: Registry) -> Follower:  # noqa: F811
    session = Session(settings)
    session.mlflow = registry.resource
    return Follower(session, Warnings())


def champion(
    registry: Registry,  # noqa: F811
    inputs: str,
    *labels: int,
    backbone: BackboneRef = OWN,
) -> int:
    of_photos = head(*labels, features=dimensions_of(backbone))
    run = registry.run(ModelPackage(of_photos, backbone, feature_version(backbone)), inputs)
    version = register(registry.client, "image_classifier", run)
    registry.client.set_registered_model_alias("image_classifier", CHAMPION, version)
    return version


def rows_made(follower: Follower) -> dict[str, int]:
    """Let what follows ingest be done; return how many rows each table was given."""
    return {name: written.inserted for made in follower() for name, written in made.written.items()}


def test_each_photo_goes_through_each_step_and_champion(lake, settings, follower, registry, some, monkeypatch) -> None:  # noqa: F811
    warnings = follower._report.messages
    land(some[0], lake, "unlabeled/a.jpg")
    land(some[1], lake, "labeled/003.coat/b.jpg")
    ingest(LOCAL, lake, settings, {})
    follower.warm()
    assert rows_made(follower) == {"classes": 1, "image_profiles": 2, "labeled_images": 1, "image_features": 2}
    assert len(warnings) == 1
    assert "No version of image_classifier is champion yet" in warnings[0]
    with monkeypatch.context() as patched:  # with nothing new, no step so much as looks
        patched.setattr("dlassets.lakehouse.derived.derive", None)
        assert not follower()

    first = champion(registry, "one", 3, 4)
    assert rows_made(follower) == {"predictions": 2, "predictions_current": 2}
    second = champion(registry, "two", 5, 6)
    assert rows_made(follower) == {"predictions": 2, "predictions_current": 0}
    rows = get(LOCAL, lake, "predictions", "path, model_version, predicted_label")
    scored = [(row["path"], row["model_version"]) for row in rows]
    photos = ("labeled/003.coat/b.jpg", "unlabeled/a.jpg")
    assert scored == [(photo, version) for photo in photos for version in (first, second)]
    current = get(LOCAL, lake, "predictions_current", "path, model_version")
    assert [(row["path"], row["model_version"]) for row in current] == [(photo, second) for photo in photos]
    assert {row["predicted_label"] for row in rows} <= {3, 4, 5, 6}
    assert (len(warnings), follower()) == (1, [])


@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "unnoticed"])
@pytest.mark.parametrize("backbone", [OWN, OTHER], ids=["by its features", "by the photo"])
def test_a_photo_whose_file_was_away_meanwhile_is_made_up_for(
    lake,
    settings,
    follower,
    registry,  # noqa: F811
    some,
    backbone,
    noticed,
) -> None:
    """Whether or not a listing finds that it was away, and whichever step looks at the photo: here, the last too."""
    settings = settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"storage": "landing"})})
    photo, aside = Path(lake.zone("unlabeled/a.jpg")), Path(lake.under("aside.jpg"))
    land(some[0], lake, "unlabeled/a.jpg")
    ingest(LOCAL, lake, settings, {})
    photo.rename(aside)
    if noticed:
        ingest(LOCAL, lake, settings, {})
    champion(registry, "one", 3, 4, backbone=backbone)
    assert rows_made(follower) == {}

    aside.rename(photo)
    if noticed:
        ingest(LOCAL, lake, settings, {})

    made = {"image_profiles": 1, "image_features": 1, "predictions": 1, "predictions_current": 1}
    assert rows_made(follower) == made
    assert not follower()


def test_a_photo_that_was_away_when_the_champion_was_to_see_it_is_scored(
    lake,
    settings,
    follower,
    registry,  # noqa: F811
    some,
) -> None:
    """Its features are there, made by the settings' backbone: those of the champion's are not."""
    settings = settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"storage": "landing"})})
    photo, aside = Path(lake.zone("unlabeled/a.jpg")), Path(lake.under("aside.jpg"))
    for name in ("unlabeled/a.jpg", "unlabeled/b.jpg"):
        land(some[0], lake, name)
    ingest(LOCAL, lake, settings, {})
    assert rows_made(follower) == {"image_profiles": 1, "image_features": 1}
    photo.rename(aside)
    ingest(LOCAL, lake, settings, {})
    champion(registry, "one", 3, 4, backbone=OTHER)
    assert rows_made(follower) == {"predictions": 1, "predictions_current": 1}

    aside.rename(photo)
    ingest(LOCAL, lake, settings, {})

    assert rows_made(follower) == {"predictions": 1, "predictions_current": 1}
    assert [row["path"] for row in get(LOCAL, lake, "predictions", "path")] == ["unlabeled/a.jpg", "unlabeled/b.jpg"]


def test_a_batch_has_a_word_for_every_table_that_follows() -> None:
    provenance, files = Provenance("raw_images", {}), {"ingested": Ingested(images=1)}
    tables = [table for step in FOLLOWING for table in step.makes]
    followed = [Made(provenance, {table.name: Written(1, number)}) for number, table in enumerate(tables, start=1)]

    said = str(Batch("labeled", [Made(provenance, {}, files), *followed], 2.0, None))

    assert said == (
        "labeled: 1 new, 1 classes named, 2 profiled, 3 labelled, 4 embedded, 5 scored, 6 current; 2.00 s, 0 images/s"
    )
