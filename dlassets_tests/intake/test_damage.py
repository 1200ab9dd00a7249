"""Bytes that are no longer those that were taken in are noticed before anyone uses them, and put back."""

from pathlib import Path

import pytest

from dlassets.engines.base import Engine
from dlassets.engines.local import LocalEngine
from dlassets.intake import damage
from dlassets.intake.damage import PutBack, damaged, paths_of, put_back
from dlassets.intake.ingest import ingest
from dlassets.lakehouse.maintenance import maintain
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import RAW_IMAGES
from dlassets.pipeline import steps
from dlassets.pipeline.reproduce import is_rebuilt
from dlassets.pipeline.session import Session
from dlassets.settings import IngestSettings, MaintenanceSettings, Settings, TrainingSettings
from dlassets.storage.lake import Lake
from dlassets_tests.flipping import flip_a_bit, flip_in_training_set
from dlassets_tests.intake.test_ingest import photo, put
from dlassets_tests.programs import invoke
from dlassets_tests.tables import get

ENGINE = LocalEngine()
ARRIVED = {f"labeled/001.cat/{number}.jpg": photo(10 * number) for number in range(4)}
FLIPPED = "labeled/001.cat/2.jpg"


@pytest.fixture(params=["table", "files"])
def settings(request: pytest.FixtureRequest, lake: Lake) -> Settings:
    Path(lake.zone("unlabeled")).mkdir(parents=True)
    for path, content in ARRIVED.items():
        put(Path(lake.zone(path)), content)
    return Settings(root=lake.root, ingest=IngestSettings(storage=request.param))


def photos_of(engine: Engine, lake: Lake) -> Photos:
    return Photos(engine, lake, pin(lake, "raw_images"))


def damage_of(engine: Engine, lake: Lake) -> list[str]:
    photos = photos_of(engine, lake)
    assert paths_of(photos) == list(ARRIVED)
    assert len({*paths_of(photos, some=2)} & {*ARRIVED}) == 2
    return damaged(photos, paths_of(photos))


def put_back_all(lake: Lake, settings: Settings) -> PutBack:
    return put_back(photos_of(ENGINE, lake), settings, damage_of(ENGINE, lake), {})


@pytest.mark.parametrize("place", [0, 30, -1])
def test_a_flipped_bit_is_noticed_and_nobody_is_given_the_photo(engine, lake, settings, place) -> None:
    ingest(engine, lake, settings, {})
    assert damage_of(engine, lake) == []

    assert flip_a_bit(lake, ARRIVED[FLIPPED], place % len(ARRIVED[FLIPPED])) == 1

    assert damage_of(engine, lake) == [FLIPPED]
    others = {path: content for path, content in ARRIVED.items() if path != FLIPPED}
    assert photos_of(engine, lake).bytes_of(list(ARRIVED)) == others


def test_it_is_put_back_from_the_landing_zone(lake, settings) -> None:
    ingest(ENGINE, lake, settings, {})
    flip_a_bit(lake, ARRIVED[FLIPPED])

    assert put_back_all(lake, settings) == PutBack([FLIPPED], [])

    assert damage_of(ENGINE, lake) == []
    assert photos_of(ENGINE, lake).bytes_of(list(ARRIVED)) == ARRIVED
    assert ingest(ENGINE, lake, settings, {}).batches == 0, "the row is about the file that it was about"


@pytest.mark.parametrize("settings", ["table"], indirect=True)
def test_it_is_put_back_from_an_older_version_of_the_table(lake, settings) -> None:
    one_at_a_time = settings.model_copy(update={"ingest": IngestSettings(files_per_batch=1)})
    ingest(ENGINE, lake, one_at_a_time, {})
    before = set(Path(lake.table("raw_images")).rglob("*.parquet"))
    maintain(ENGINE, lake, RAW_IMAGES, MaintenanceSettings())
    for path in ARRIVED:
        Path(lake.zone(path)).unlink()
    kept = {file: file.read_bytes() for file in before}
    flip_a_bit(lake, ARRIVED[FLIPPED])
    for file, content in kept.items():
        file.write_bytes(content)

    assert put_back_all(lake, settings) == PutBack([FLIPPED], [])
    assert photos_of(ENGINE, lake).bytes_of(list(ARRIVED)) == ARRIVED


def test_what_is_nowhere_any_more_is_said_to_be_lost(lake, settings) -> None:
    ingest(ENGINE, lake, settings, {})
    flip_a_bit(lake, ARRIVED[FLIPPED])
    put(Path(lake.zone(FLIPPED)), photo(99))

    assert put_back_all(lake, settings) == PutBack([], [FLIPPED])
    assert damage_of(ENGINE, lake) == [FLIPPED]


def test_verify_names_what_is_damaged_and_puts_it_back(lake, settings) -> None:
    ingest(ENGINE, lake, settings, {})
    whole = invoke("verify", DLASSETS_ROOT=lake.root)
    flip_a_bit(lake, ARRIVED[FLIPPED])

    seen = invoke("verify", DLASSETS_ROOT=lake.root)
    mended = invoke("verify", "--restore", DLASSETS_ROOT=lake.root)

    assert (whole.exit_code, seen.exit_code, mended.exit_code) == (0, 1, 0)
    assert "4 photos compared, 1 damaged." in seen.output
    assert f"damaged: {FLIPPED}" in seen.output
    assert "1 put back." in mended.output


# ---- a training set of pixels, which has bytes of its own


@pytest.fixture
def session(lake, settings) -> Session:
    """Photos that were taken in and have labels, to be learned from as pixels."""
    ingest(ENGINE, lake, settings, {})
    session = Session(settings.model_copy(update={"training": TrainingSettings(trainable="all")}))
    steps.classes.run(session)
    steps.labeled_images.run(session)
    return session


def learned_from(lake: Lake) -> dict[str, bytes]:
    return {row["path"]: row["content"] for row in get(ENGINE, lake, "training_set", "path, content")}


@pytest.mark.parametrize("settings", ["table"], indirect=True)
def test_what_a_training_set_holds_is_verified_and_put_back(lake, session) -> None:
    steps.training_set.run(session)
    split = get(ENGINE, lake, "training_set", "split")[0]["split"]
    flipped = flip_in_training_set(lake, split)
    assert learned_from(lake) != ARRIVED

    seen = invoke("verify", DLASSETS_ROOT=lake.root)
    mended = invoke("verify", "--restore", DLASSETS_ROOT=lake.root)

    assert (seen.exit_code, mended.exit_code) == (1, 0)
    assert "4 photos compared, 0 damaged." in seen.output
    assert f"4 photos of training_set compared, {len(flipped)} damaged." in seen.output
    assert f"damaged: {flipped[0]}" in seen.output
    assert f"{len(flipped)} put back." in mended.output
    assert learned_from(lake) == ARRIVED
    assert not steps.training_set.run(session).changed, "it is made of what it was made of"
    assert is_rebuilt(session, pin(lake, "training_set"))


@pytest.mark.parametrize("settings", ["table"], indirect=True)
def test_a_photo_that_a_training_set_lacks_for_its_damage_comes_into_it_once_it_is_whole(lake, session) -> None:
    flip_a_bit(lake, ARRIVED[FLIPPED])
    without = steps.training_set.run(session).written["training_set"]
    again = steps.training_set.run(session).written["training_set"]
    assert (without.inserted, without.left_out) == (3, 1)
    assert (again.changed, again.left_out) == (False, 1)

    invoke("verify", "--restore", DLASSETS_ROOT=lake.root)
    whole = steps.training_set.run(session).written["training_set"]

    assert (whole.inserted, whole.left_out) == (4, 0)
    assert learned_from(lake) == ARRIVED


@pytest.mark.parametrize("settings", ["table"], indirect=True)
def test_bytes_are_not_put_under_a_path_that_has_another_photo_by_then(lake, settings, monkeypatch) -> None:
    ingest(ENGINE, lake, settings, {})
    flip_a_bit(lake, ARRIVED[FLIPPED])
    found = damage_of(ENGINE, lake)
    photos = photos_of(ENGINE, lake)
    real = damage._found

    def overtaken(*arguments):
        whole = real(*arguments)
        put(Path(lake.zone(FLIPPED)), photo(99))
        ingest(ENGINE, lake, settings, {})
        return whole

    monkeypatch.setattr(damage, "_found", overtaken)
    put_back(photos, settings, found, {})

    assert damage_of(ENGINE, lake) == []
    assert photos_of(ENGINE, lake).bytes_of([FLIPPED]) == {FLIPPED: photo(99)}
