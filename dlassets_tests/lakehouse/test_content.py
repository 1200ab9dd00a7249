"""The three forms in which photos' bytes are kept: the same rows, and the same bytes for whoever asks for them."""

import hashlib
import shutil
from pathlib import Path

import pytest

from dlassets.engines.base import Engine
from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError
from dlassets.intake.ingest import ingest
from dlassets.lakehouse.content import Keeper
from dlassets.lakehouse.derived import Derivation
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.profiles import profile_images
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import IMAGE_PROFILES
from dlassets.settings import IngestSettings, Settings
from dlassets.storage.lake import Lake
from dlassets_tests.intake.test_ingest import photo, put, rows
from dlassets_tests.killing import killed_at
from dlassets_tests.lakehouse.test_derived import derived_from

ENGINE = LocalEngine()
ARRIVED = {
    "labeled/001.cat/a b ü%20#.jpg": photo(10),
    "labeled/012.dog/c.jpg": photo(30),
    "unlabeled/2026/d.jpg": photo(40),
    "unlabeled/same as c.jpg": photo(30),
}


@pytest.fixture(params=["table", "files", "landing"])
def storage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def landing(lake: Lake) -> Path:
    for place, content in ARRIVED.items():
        put(Path(lake.zone(place)), content)
    put(Path(lake.zone("unlabeled/broken.jpg")), b"no picture")
    return Path(lake.zone(""))


@pytest.fixture
def settings(lake: Lake, storage: str) -> Settings:
    return Settings(root=lake.root, ingest=IngestSettings(storage=storage))


def bytes_of(engine: Engine, lake: Lake) -> dict[str, bytes]:
    paths = [str(path) for (path,) in rows(engine, lake, "raw_images", "path")]
    return Photos(engine, lake, pin(lake, "raw_images")).bytes_of(paths)


def profiled(engine: Engine, lake: Lake) -> int:
    return derived_from(engine, lake, Derivation(IMAGE_PROFILES, profile_images)).inserted


def test_the_same_rows_and_bytes_in_every_form(engine, lake, settings, landing, storage) -> None:
    done = ingest(engine, lake, settings, {})

    assert (done.images, done.quarantined) == (4, 1)
    assert rows(engine, lake, "raw_images", "path, image_id, length") == sorted(
        (path, hashlib.sha256(content).hexdigest(), len(content)) for path, content in ARRIVED.items()
    )
    assert bytes_of(engine, lake) == ARRIVED
    assert profiled(engine, lake) == 3
    in_table = rows(engine, lake, "raw_images", "content IS NOT NULL, location IS NULL")
    assert in_table == [(storage == "table", storage == "table")] * 4
    kept = [path for path in Path(lake.files).rglob("*") if path.is_file()]
    assert len(kept) == (3 if storage == "files" else 0)
    assert ingest(engine, lake, settings, {}).batches == 0


def test_an_overwritten_photo_has_its_new_bytes(lake, settings, landing) -> None:
    ingest(ENGINE, lake, settings, {})
    put(landing / "unlabeled/2026/d.jpg", photo(99, (64, 64)))

    assert ingest(ENGINE, lake, settings, {}).replaced == 1

    assert bytes_of(ENGINE, lake) == ARRIVED | {"unlabeled/2026/d.jpg": photo(99, (64, 64))}


def test_a_photo_that_left_the_landing_zone_is_kept_unless_that_is_its_place(lake, settings, landing, storage) -> None:
    ingest(ENGINE, lake, settings, {})
    (landing / "unlabeled/2026/d.jpg").unlink()
    # Overwritten, and not yet taken in again: no longer the bytes that the row is about.
    put(landing / "labeled/001.cat/a b ü%20#.jpg", photo(11))

    gone = {"unlabeled/2026/d.jpg", "labeled/001.cat/a b ü%20#.jpg"} if storage == "landing" else set()
    assert bytes_of(ENGINE, lake) == {path: content for path, content in ARRIVED.items() if path not in gone}
    assert profiled(ENGINE, lake) == (1 if gone else 3)


def test_of_two_paths_the_one_that_is_still_there_is_read(lake, settings, landing) -> None:
    ingest(ENGINE, lake, settings, {})
    (landing / "labeled/012.dog/c.jpg").unlink()
    ingest(ENGINE, lake, settings, {})

    assert profiled(ENGINE, lake) == 3


def test_a_lake_may_hold_all_three_forms(lake, landing) -> None:
    for number, storage in enumerate(("table", "files", "landing")):
        put(landing / f"unlabeled/{number}.jpg", photo(50 + number))
        ingest(ENGINE, lake, Settings(root=lake.root, ingest=IngestSettings(storage=storage)), {})

    assert bytes_of(ENGINE, lake) == ARRIVED | {f"unlabeled/{n}.jpg": photo(50 + n) for n in range(3)}


def test_a_moved_lake_finds_its_photos(tmp_path, lake, settings, landing) -> None:
    ingest(ENGINE, lake, settings, {})
    shutil.move(lake.root, tmp_path / "elsewhere")

    assert bytes_of(ENGINE, Lake.at(str(tmp_path / "elsewhere"))) == ARRIVED


def test_a_run_killed_between_file_and_row_leaves_nothing_half_written(lake, landing) -> None:
    settings = Settings(root=lake.root, ingest=IngestSettings(storage="files"))
    with killed_at(Path, "replace"):
        ingest(ENGINE, lake, settings, {})

    ingest(ENGINE, lake, settings, {})
    assert bytes_of(ENGINE, lake) == ARRIVED
    names = {hashlib.sha256(content).hexdigest() for content in ARRIVED.values()}
    assert {p.name for p in Path(lake.files).rglob("*") if p.is_file() and not p.name.startswith(".")} == names


def test_a_photo_that_cannot_be_kept_as_a_file_is_said_with_what_to_do(lake) -> None:
    import pyarrow as pa

    Path(lake.root).mkdir()
    Path(lake.files).write_text("no folder")
    columns = {"path": ["new/a.jpg"], "content": [b"1"], "image_id": ["ab12"], "reason": [None]}
    checked = pa.RecordBatch.from_pydict(columns)

    with pytest.raises(DlassetsError, match=r"files/ab/ab12 cannot be written: .*has room and is yours to write"):
        Keeper("files", lake, "new").keep(checked)
