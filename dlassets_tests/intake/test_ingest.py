"""Photos come in once, changed ones take their old rows' place, and bad files are set aside with a reason."""

import datetime as dt
import errno
import hashlib
import io
import itertools
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from dlassets.engines import columns, delta_log, spark
from dlassets.engines.base import Commit, Engine
from dlassets.engines.local import LocalEngine
from dlassets.errors import ConflictError, DlassetsError
from dlassets.intake import listing
from dlassets.intake.events import Manifest
from dlassets.intake.handover import Handover
from dlassets.intake.ingest import Ingested, ingest
from dlassets.intake.listing import left_out
from dlassets.intake.quarantine import drop, refused_files
from dlassets.intake.waiting import waiting_files
from dlassets.lakehouse.snapshots import pin, provenance_of
from dlassets.lakehouse.tables import QUARANTINED_FILES
from dlassets.settings import IngestSettings, Settings
from dlassets.storage import files, local_files
from dlassets.storage.lake import Lake
from dlassets_tests.images.corpus import heif, scene
from dlassets_tests.killing import killed_at, overtaken_at
from dlassets_tests.storage.test_local_files import refuse
from dlassets_tests.tables import get

ENGINE = LocalEngine()


def photo(shade: int = 128, size: tuple[int, int] = (40, 30)) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, 255 - shade, shade // 2)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def landing(lake: Lake) -> Path:
    """Both landing zones, with three labelled photos in two classes and one without a label."""
    landing = Path(lake.zone(""))
    for place, shade in {"001.cat/a.jpg": 10, "001.cat/b.JPG": 20, "012.dog/c.jpeg": 30}.items():
        put(landing / "labeled" / place, photo(shade))
    put(landing / "unlabeled/2026/01/d.jpg", photo(40))
    return landing


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def rows(engine: Engine, lake: Lake, table: str, columns: str) -> list[tuple[Any, ...]]:
    return sorted(tuple(row.values()) for row in get(engine, lake, table, columns))


def test_every_photo_comes_in_with_its_path_folder_and_hash(engine, lake, settings, landing) -> None:
    done = ingest(engine, lake, settings, {})

    assert (done.images, done.replaced, done.quarantined) == (4, 0, 0)
    assert done.zones == {"labeled": 3, "unlabeled": 1}
    assert rows(engine, lake, "raw_images", "path, landing, folder, length, image_id") == [
        (path, path.split("/")[0], path.split("/")[-2], len(content), hashlib.sha256(content).hexdigest())
        for path, content in (
            ("labeled/001.cat/a.jpg", photo(10)),
            ("labeled/001.cat/b.JPG", photo(20)),
            ("labeled/012.dog/c.jpeg", photo(30)),
            ("unlabeled/2026/01/d.jpg", photo(40)),
        )
    ]


def test_junk_is_counted_and_neither_taken_in_nor_quarantined(lake, settings, landing) -> None:
    for name in ("@eaDir/a.jpg/SYNO.jpg", "#recycle/001.cat/z.jpg", "001.cat/Thumbs.db", "001.cat/z.jpg.crdownload"):
        put(landing / "labeled" / name, photo(99))

    waiting = waiting_files(lake, settings, "labeled")
    done = ingest(ENGINE, lake, settings, {})

    assert waiting.files == 3
    assert (done.images, done.quarantined, done.left_out) == (4, 0, {"labeled": 4})
    tables = [pin(lake, name) for name in ("raw_images", "quarantined_files", "deleted_files")]
    handover = Handover.of(lake, "labeled", settings.landing["labeled"], tables)
    handover.write(waiting.listing)
    assert left_out(handover.take()) == 4


def test_what_was_taken_in_before_its_name_was_known_as_junk_is_gone_then(lake, settings, landing) -> None:
    put(landing / "labeled/001.cat/Thumbs.db", b"no photo")
    put(landing / "labeled/#recycle/002.bin/z.jpg", photo(99))
    zones = {name: zone.model_copy(update={"junk": ()}) for name, zone in settings.landing.items()}
    before = ingest(ENGINE, lake, settings.model_copy(update={"landing": zones}), {})

    after = ingest(ENGINE, lake, settings, {})

    assert (before.images, before.quarantined, before.left_out) == (5, 1, {})
    assert (after.deleted, after.left_out) == (2, {"labeled": 2})
    assert refused_files(ENGINE, lake) == []


def test_nothing_new_makes_no_version(engine, lake, settings, landing) -> None:
    ingest(engine, lake, settings, {})
    before = pin(lake, "raw_images"), pin(lake, "quarantined_files")

    done = ingest(engine, lake, settings, {})

    assert (pin(lake, "raw_images"), pin(lake, "quarantined_files")) == before
    assert done == Ingested(zones={"labeled": 0, "unlabeled": 0})


def test_an_overwritten_file_takes_its_old_row_s_place(engine, lake, settings, landing) -> None:
    ingest(engine, lake, settings, {})
    put(landing / "labeled/001.cat/a.jpg", photo(99, (50, 50)))
    put(landing / "labeled/001.cat/new.jpg", photo(77))

    done = ingest(engine, lake, settings, {})

    assert (done.images, done.replaced) == (1, 1)
    found: dict[str, str] = dict(rows(engine, lake, "raw_images", "path, image_id"))
    assert len(found) == 5
    assert found["labeled/001.cat/a.jpg"] == hashlib.sha256(photo(99, (50, 50))).hexdigest()


BAD = {
    "001.cat/empty.jpg": (b"", "empty"),
    "001.cat/cut.jpg": (photo()[: len(photo()) // 2], "truncated"),
    "001.cat/note.jpg": (b"not a picture at all", "not_an_image"),
    "train/fine.jpg": (photo(55), "bad_label_folder"),
}


def test_bad_files_are_set_aside_with_their_reason_and_the_good_ones_come_in(engine, lake, settings, landing) -> None:
    for place, (content, _) in BAD.items():
        put(landing / "labeled" / place, content)
    for format_ in ("HEIC", "AVIF"):
        put(landing / f"unlabeled/{format_}.jpg", heif(scene(), format_))

    done = ingest(engine, lake, settings, {})

    assert (done.images, done.quarantined) == (6, len(BAD))
    assert rows(engine, lake, "quarantined_files", "path, reason") == sorted(
        (f"labeled/{place}", reason) for place, (_, reason) in BAD.items()
    )
    assert ingest(engine, lake, settings, {}).quarantined == 0


def test_a_photo_that_was_off_comes_in_once_it_is_on_and_not_before(lake, settings, landing, lacking) -> None:
    heic, avif = (heif(scene(), format_) for format_ in ("HEIC", "AVIF"))
    put(landing / "unlabeled/phone.jpg", heic)
    put(landing / "unlabeled/b.avif", avif)
    put(landing / "unlabeled/broken.heic", heic[:400])
    without_avif = settings.model_copy(update={"ingest": IngestSettings(formats=("JPEG", "HEIC"))})

    with lacking("heif"):
        assert ingest(ENGINE, lake, without_avif, {}).quarantined == 3
        off = {file.path: (file.reason, file.detail[:12]) for file in refused_files(ENGINE, lake)}
        assert off == {
            "unlabeled/b.avif": ("format_off", "AVIF is off:"),
            "unlabeled/broken.heic": ("format_off", "HEIC is off:"),
            "unlabeled/phone.jpg": ("format_off", "HEIC is off:"),
        }
        versions = [pin(lake, name).version for name in ("raw_images", "quarantined_files")]
        assert ingest(ENGINE, lake, without_avif, {}).batches == 0
        assert [pin(lake, name).version for name in ("raw_images", "quarantined_files")] == versions
        assert ingest(ENGINE, lake, settings, {}).images == 1  # the AVIF alone, by its setting
    done = ingest(ENGINE, lake, settings, {})

    assert (done.images, done.quarantined) == (1, 0)
    assert [(file.path, file.reason) for file in refused_files(ENGINE, lake)] == [
        ("unlabeled/broken.heic", "truncated")
    ]
    came = {row["path"] for row in get(ENGINE, lake, "raw_images", "path")}
    assert {"unlabeled/phone.jpg", "unlabeled/b.avif"} <= came
    assert ingest(ENGINE, lake, settings, {}).batches == 0


def test_no_file_leaves_without_a_row_or_a_count(lake, settings, landing) -> None:
    zones = {**settings.landing, "labeled": settings.landing["labeled"].model_copy(update={"pattern": r"(?i)\.jpe?g$"})}
    put(landing / "labeled/001.cat/raw.nef", photo())
    for name in ("notes.txt", "film.mp4", "sheet.psd", "archive.zip", "no_ending"):
        put(landing / "unlabeled" / name, b"what it is")

    done = ingest(ENGINE, lake, settings.model_copy(update={"landing": zones}), {})

    assert done.unmatched == {"labeled": 1}
    files = sum(path.is_file() for path in landing.rglob("*"))
    assert done.images + done.quarantined + 1 == files == 10
    assert all(file.detail for file in refused_files(ENGINE, lake))


@pytest.fixture
def failing(monkeypatch) -> set[str]:
    """Endings of paths that cannot be read for as long as they are in this set, each for another reason."""
    endings: set[str] = set()
    opened, numbers = files._descriptor, itertools.cycle([errno.ESTALE, errno.EMFILE, errno.EACCES, errno.EIO])

    def refusing(path, *flags):
        if os.fsdecode(path).endswith(tuple(endings)):
            raise OSError(next(numbers), "not\nnow", path)
        return opened(path, *flags)

    monkeypatch.setattr(files, "_descriptor", refusing)
    return endings


def test_a_file_that_cannot_be_read_now_comes_in_by_a_later_run(lake, settings, landing, failing, monkeypatch) -> None:
    failing |= {"001.cat/a.jpg", "001.cat/b.JPG", "012.dog/c.jpeg", "01/d.jpg"}
    assert ingest(ENGINE, lake, settings, {}).quarantined == 4
    assert {file.reason for file in refused_files(ENGINE, lake)} == {"unreadable"}
    failing.clear()
    assert ingest(ENGINE, lake, settings, {}).batches == 0, "a moment after, nothing will have changed"
    assert waiting_files(lake, settings, "labeled").files == 0

    make_due(lake)

    assert waiting_files(lake, settings, "labeled").files == 3
    assert ingest(ENGINE, lake, settings, {}).images == 4
    assert refused_files(ENGINE, lake) == []
    assert ingest(ENGINE, lake, settings, {}).batches == 0


def test_it_is_tried_less_and_less_often_and_said_how_often(lake, settings, landing, failing) -> None:
    failing |= {"001.cat/a.jpg"}
    waits, digests = [], set()
    for tries in range(1, 5):
        before = dt.datetime.now(dt.UTC)
        ingest(ENGINE, lake, settings, {})
        (row,) = get(ENGINE, lake, "quarantined_files")
        assert (row["path"], row["reason"], row["tries"]) == ("labeled/001.cat/a.jpg", "unreadable", tries)
        assert row["detail"].startswith(f"the file could not be read: not now (tried {tries} times, and again after")
        waits.append(round((row["retry_at"] - before).total_seconds() / 60))
        make_due(lake)
        digests.add(waiting_files(lake, settings, "labeled").digest)

    assert waits == [1, 2, 4, 8]
    assert len(digests) == 4, "each is a run of its own to a sensor"


def test_one_that_a_person_dropped_is_not_tried_again(lake, settings, landing, failing) -> None:
    failing |= {"001.cat/a.jpg"}
    ingest(ENGINE, lake, settings, {})
    drop(ENGINE, lake, settings, refused_files(ENGINE, lake), {})
    make_due(lake)

    assert ingest(ENGINE, lake, settings, {}).batches == 0


def make_due(lake: Lake) -> None:
    """Have what waits to be tried again waited long enough."""
    import pyarrow as pa

    refused = pin(lake, "quarantined_files")
    earlier = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    found = [row | {"retry_at": row["retry_at"] and earlier} for row in get(ENGINE, lake, "quarantined_files")]
    table = pa.Table.from_pylist(found, schema=QUARANTINED_FILES.schema)
    ENGINE.merge(ENGINE.rows(table), QUARANTINED_FILES, refused.uri, Commit({}))


def test_a_mended_file_comes_in(lake, settings, landing) -> None:
    engine = ENGINE
    put(landing / "labeled/001.cat/cut.jpg", photo()[:100])
    ingest(engine, lake, settings, {})
    put(landing / "labeled/001.cat/cut.jpg", photo())

    assert ingest(engine, lake, settings, {}).images == 1


@pytest.mark.spark
@pytest.mark.slow
def test_a_lake_moves_from_one_engine_to_the_other_midway(local_engine, spark_engine, lake, settings, landing) -> None:
    ingest(local_engine, lake, settings, {})
    put(landing / "unlabeled/e.jpg", photo(50))
    put(landing / "labeled/001.cat/a.jpg", photo(98, (60, 60)))

    done = ingest(spark_engine, lake, settings, {})

    assert (done.images, done.replaced) == (1, 1)
    put(landing / "unlabeled/f.jpg", photo(60))
    assert ingest(local_engine, lake, settings, {}).images == 1
    columns = "path, modificationTime, length, image_id, landing, folder"
    assert rows(local_engine, lake, "raw_images", columns) == rows(spark_engine, lake, "raw_images", columns)
    assert len(rows(local_engine, lake, "raw_images", "path")) == 6


def test_small_batches_take_in_the_same_files(local_engine, lake, settings, landing) -> None:
    one_by_one = settings.model_copy(update={"ingest": IngestSettings(files_per_batch=1)})

    done = ingest(local_engine, lake, one_by_one, {})

    assert (done.images, done.batches) == (4, 4)
    assert len(rows(local_engine, lake, "raw_images", "path")) == 4


def test_a_listing_is_split_by_bytes_one_file_after_the_other() -> None:
    import pyarrow as pa

    mib = 2**20
    lengths = pa.table({"length": pa.array([mib] * 4 + [4 * mib, 8 * mib], pa.int64())})

    assert spark.parts_of(lengths, 2).to_pylist() == [0, 0, 0, 0, 0, 1]
    assert spark.parts_of(lengths, 4).to_pylist() == [0, 0, 0, 0, 1, 3]
    assert spark.parts_of(pa.table({"length": pa.array([0, 0, 0, 0], pa.int64())}), 4).to_pylist() == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_batch_of_a_cluster_grows_with_its_cores(spark_engine, lake, settings, landing, monkeypatch) -> None:
    import pyarrow as pa

    one_by_one = settings.model_copy(update={"ingest": IngestSettings(files_per_batch=1)})
    assert spark_engine.shares == 1
    assert spark_engine._cores() == spark_engine.session.sparkContext.defaultParallelism
    monkeypatch.setattr(spark_engine, "_shares", 2)  # as a cluster of two cores has

    done = ingest(spark_engine, lake, one_by_one, {})

    assert (done.images, done.batches) == (4, 3)  # three photos of one zone, and one of the other
    assert len(rows(spark_engine, lake, "raw_images", "path")) == 4
    listing = pa.table({"path": ["a/1", "a/2", "a/3"], "length": pa.array([10, 10, 10**7], pa.int64())})
    parts = spark_engine._spread(listing).selectExpr("path", "spark_partition_id() AS part").toArrow()
    assert sorted(parts.to_pylist(), key=lambda row: row["path"]) == [
        {"path": "a/1", "part": 0},
        {"path": "a/2", "part": 0},
        {"path": "a/3", "part": 1},
    ]


@pytest.mark.parametrize("commits", [1, 2], ids=["raw_images", "quarantined_files"])
def test_killed_after_a_commit_and_run_again_it_ends_with_the_same_rows(lake, settings, landing, commits) -> None:
    put(landing / "labeled/001.cat/empty.jpg", b"")
    with killed_at(LocalEngine, "append", after=commits):
        ingest(ENGINE, lake, settings, {})

    ingest(ENGINE, lake, settings, {})

    assert len(rows(ENGINE, lake, "raw_images", "path")) == 4
    assert rows(ENGINE, lake, "quarantined_files", "path") == [("labeled/001.cat/empty.jpg",)]


@pytest.mark.parametrize("files_per_batch", [IngestSettings().files_per_batch, 1])
def test_what_another_run_took_in_since_the_plan_does_not_double(lake, settings, landing, files_per_batch) -> None:
    put(landing / "labeled/001.cat/empty.jpg", b"")
    batches = settings.model_copy(update={"ingest": IngestSettings(files_per_batch=files_per_batch)})
    with overtaken_at(LocalEngine, "append", lambda: ingest(ENGINE, lake, settings, {})):
        done = ingest(ENGINE, lake, batches, {})

    assert (done.images, done.quarantined) == (0, 0)
    assert len(rows(ENGINE, lake, "raw_images", "path")) == 4
    assert len(rows(ENGINE, lake, "quarantined_files", "path")) == 1


def test_what_another_run_refused_meanwhile_does_not_double(lake, settings, landing) -> None:
    ingest(ENGINE, lake, settings, {})
    put(landing / "labeled/001.cat/a.jpg", b"")
    put(landing / "labeled/001.cat/new.jpg", photo(70))
    # After this run's new photos are committed, and before it writes that none of them was refused.
    with overtaken_at(LocalEngine, "append", lambda: ingest(ENGINE, lake, settings, {}), table="quarantined_files"):
        ingest(ENGINE, lake, settings, {})

    assert rows(ENGINE, lake, "quarantined_files", "path") == [("labeled/001.cat/a.jpg",)]
    assert len(rows(ENGINE, lake, "raw_images", "path")) == 5


def test_a_file_that_two_runs_at_once_find_gone_is_noted_once(lake, settings, landing) -> None:
    from deltalake.table import TableMerger

    put(landing / "unlabeled/two '' quotes.jpg", photo(70))
    ingest(ENGINE, lake, settings, {})
    (landing / "unlabeled/two '' quotes.jpg").unlink()
    with overtaken_at(TableMerger, "execute", lambda: ingest(ENGINE, lake, settings, {})):
        ingest(ENGINE, lake, settings, {})

    assert rows(ENGINE, lake, "deleted_files", "path") == [("unlabeled/two '' quotes.jpg",)]


def test_a_run_that_is_always_overtaken_gives_up_and_says_so(lake, settings, landing) -> None:
    class UnluckyEngine(LocalEngine):
        def append(self, *_rows_table_uri_commit):
            raise ConflictError("another run was first")

    with pytest.raises(ConflictError, match="another run was first"):
        ingest(UnluckyEngine(), lake, settings, {})


def test_a_missing_zone_is_named_and_the_others_still_come_in(local_engine, lake, settings, landing) -> None:
    shutil.rmtree(landing / "labeled")

    with pytest.raises(DlassetsError, match=r"landing zone 'labeled' is not there.*landing\.labeled\.uri"):
        ingest(local_engine, lake, settings, {})

    assert rows(local_engine, lake, "raw_images", "path") == [("unlabeled/2026/01/d.jpg",)]


def test_a_folder_that_cannot_be_listed_is_named_and_all_else_comes_in(lake, settings, landing, monkeypatch) -> None:
    ingest(ENGINE, lake, settings, {})
    put(landing / "labeled/012.dog/new.jpg", photo(61))
    refuse(monkeypatch, "001.cat")

    with pytest.raises(DlassetsError, match=r"1 folders of the landing zone 'labeled' cannot be listed.*001\.cat"):
        ingest(ENGINE, lake, settings, {})

    assert len(rows(ENGINE, lake, "raw_images", "path")) == 5
    assert deleted(ENGINE, lake) == {}


def test_an_empty_zone_is_no_error(local_engine, lake, settings, landing) -> None:
    shutil.rmtree(landing)
    (landing / "labeled").mkdir(parents=True)
    (landing / "unlabeled").mkdir()

    assert ingest(local_engine, lake, settings, {}).images == 0


def test_what_was_read_stands_in_the_table_s_log(lake, settings, landing) -> None:
    ingest(ENGINE, lake, settings, {"run_id": "r1", "asset": "raw_images"})

    assert provenance_of(pin(lake, "raw_images")) == {"run_id": "r1", "asset": "raw_images"}


def test_waiting_files_are_counted_until_they_are_in(lake, settings, landing) -> None:
    waiting = waiting_files(lake, settings, "labeled")
    assert waiting.files == 3
    assert waiting_files(lake, settings, "labeled").digest == waiting.digest

    ingest(ENGINE, lake, settings, {})
    assert waiting_files(lake, settings, "labeled").files == 0

    put(landing / "labeled/001.cat/late.jpg", photo(61))
    late = waiting_files(lake, settings, "labeled")
    assert late.files == 1
    assert late.digest != waiting.digest


def deleted(engine: Engine, lake: Lake) -> dict[object, bool]:
    """Every path that is noted as gone, and whether it has come back."""
    return {path: back is not None for path, back in rows(engine, lake, "deleted_files", "path, returned_at")}


def test_a_file_that_has_gone_is_noted_and_its_row_stays(engine, lake, settings, landing) -> None:
    put(landing / "unlabeled/bad.jpg", b"no picture")
    ingest(engine, lake, settings, {})
    (landing / "labeled/001.cat/a.jpg").unlink()
    (landing / "unlabeled/bad.jpg").unlink()

    done = ingest(engine, lake, settings, {})

    assert (done.deleted, done.returned) == (2, 0)
    assert deleted(engine, lake) == {"labeled/001.cat/a.jpg": False, "unlabeled/bad.jpg": False}
    assert len(rows(engine, lake, "raw_images", "path")) == 4
    version = pin(lake, "deleted_files").version
    assert ingest(engine, lake, settings, {}).deleted == 0
    assert pin(lake, "deleted_files").version == version


def test_a_file_that_is_back_is_noted_and_taken_in_where_it_is_another(local_engine, lake, settings, landing) -> None:
    place = landing / "labeled/001.cat/a.jpg"
    ingest(local_engine, lake, settings, {})
    place.rename(landing / "kept")
    ingest(local_engine, lake, settings, {})
    (landing / "kept").rename(place)

    done = ingest(local_engine, lake, settings, {})

    assert (done.images, done.replaced, done.returned) == (0, 0, 1)
    assert deleted(local_engine, lake) == {"labeled/001.cat/a.jpg": True}
    place.unlink()
    assert ingest(local_engine, lake, settings, {}).deleted == 1
    put(place, photo(200, (9, 9)))
    done = ingest(local_engine, lake, settings, {})
    assert (done.images, done.replaced, done.returned) == (0, 1, 1)
    assert deleted(local_engine, lake) == {"labeled/001.cat/a.jpg": True}


def test_what_a_new_pattern_leaves_out_has_not_gone(lake, settings, landing) -> None:
    ingest(ENGINE, lake, settings, {})
    zones = {name: zone.model_copy(update={"pattern": r"\.JPG$"}) for name, zone in settings.landing.items()}

    assert ingest(ENGINE, lake, settings.model_copy(update={"landing": zones}), {}).deleted == 0


def test_the_same_bytes_under_two_paths_are_one_image_with_two_paths(local_engine, lake, settings, landing) -> None:
    put(landing / "unlabeled/copy of a.jpg", photo(10))

    ingest(local_engine, lake, settings, {})

    paths: dict[str, list[str]] = {}
    for path, image in rows(local_engine, lake, "raw_images", "path, image_id"):
        paths.setdefault(image, []).append(path)
    assert ["labeled/001.cat/a.jpg", "unlabeled/copy of a.jpg"] in paths.values()
    assert len(paths) == 4


def test_what_cameras_wrote_becomes_columns_and_older_rows_have_null(local_engine, lake, settings, landing) -> None:
    from PIL import Image

    ingest(local_engine, lake, settings, {})
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Maker", "Model 7"
    exif.get_ifd(0x8769)[0x9003] = "2026:01:31 12:30:00"
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20)).save(buffer, "JPEG", exif=exif)
    put(landing / "unlabeled/e.jpg", buffer.getvalue())
    put(landing / "unlabeled/plain.jpg", photo(70))
    put(landing / "unlabeled/bad.jpg", b"no picture")
    capture = settings.model_copy(update={"ingest": IngestSettings(capture=("camera", "taken_at"))})

    assert ingest(local_engine, lake, capture, {}).images == 2

    raw = {"raw_images": pin(lake, "raw_images")}
    found = local_engine.sql("SELECT path, camera, taken_at FROM raw_images WHERE camera IS NOT NULL", raw).arrow()
    taken_at = dt.datetime(2026, 1, 31, 12, 30, tzinfo=dt.UTC)
    assert found.to_pylist() == [{"path": "unlabeled/e.jpg", "camera": "Maker Model 7", "taken_at": taken_at}]
    put(landing / "unlabeled/later.jpg", photo(71))
    assert ingest(local_engine, lake, settings, {}).images == 1
    assert len(rows(local_engine, lake, "raw_images", "path, camera")) == 7


class TestEvents:
    """Zones that are read by their events. The first look, which knows of no listing yet, lists them."""

    @pytest.fixture
    def settings(self, settings: Settings, lake: Lake, landing: Path) -> Settings:
        assert landing.is_dir()
        zones = {name: zone.model_copy(update={"discovery": "events"}) for name, zone in settings.landing.items()}
        settings = settings.model_copy(update={"landing": zones})
        assert ingest(ENGINE, lake, settings, {}).images == 4
        return settings

    def record(self, lake: Lake, settings: Settings, *paths: str) -> None:
        Manifest.of(lake, "unlabeled", settings.landing["unlabeled"]).record([(path, "created") for path in paths])

    def test_only_files_with_an_event_are_looked_at(self, engine, lake, settings, landing) -> None:
        put(landing / "unlabeled/told.jpg", photo(41))
        put(landing / "unlabeled/2026/01/d.jpg", photo(42, (8, 8)))
        put(landing / "unlabeled/untold.jpg", photo(43))
        self.record(lake, settings, "told.jpg", "2026/01/d.jpg", "told.jpg", "never there.jpg")

        done = ingest(engine, lake, settings, {})

        assert (done.images, done.replaced, done.deleted) == (1, 1, 0)
        assert ingest(engine, lake, settings, {}) == Ingested(zones={"labeled": 0, "unlabeled": 0})

    def test_a_file_that_an_event_names_and_that_has_gone_is_noted(self, local_engine, lake, settings, landing) -> None:
        (landing / "unlabeled/2026/01/d.jpg").unlink()
        self.record(lake, settings, "2026/01/d.jpg")

        assert ingest(local_engine, lake, settings, {}).deleted == 1
        assert deleted(local_engine, lake) == {"unlabeled/2026/01/d.jpg": False}

    def test_a_listing_finds_what_events_missed_when_it_is_due(self, local_engine, lake, settings, landing) -> None:
        put(landing / "unlabeled/untold.jpg", photo(43))
        assert ingest(local_engine, lake, settings, {}).images == 0

        due = settings.model_copy(update={"ingest": IngestSettings(reconcile_minutes=1e-9)})
        assert ingest(local_engine, lake, due, {}).images == 1

    def test_a_line_that_cannot_be_read_has_every_file_listed(self, local_engine, lake, settings, landing) -> None:
        put(landing / "unlabeled/untold.jpg", photo(43))
        Path(lake.events("unlabeled")).mkdir(parents=True, exist_ok=True)
        (Path(lake.events("unlabeled")) / "producer.jsonl").write_text('{"path": "unt\n')

        done = ingest(local_engine, lake, settings, {})

        assert (done.images, done.bad_events) == (1, 1)
        assert "producer.jsonl" in str(done.first_bad)
        assert ingest(local_engine, lake, settings, {}).bad_events == 0

    def test_lost_notes_of_where_reading_stopped_add_nothing(self, local_engine, lake, settings, landing) -> None:
        put(landing / "unlabeled/told.jpg", photo(41))
        self.record(lake, settings, "told.jpg")
        ingest(local_engine, lake, settings, {})
        versions = pin(lake, "raw_images"), pin(lake, "deleted_files")
        shutil.rmtree(lake.checkpoint("ingest-unlabeled"))

        assert ingest(local_engine, lake, settings, {}) == Ingested(zones={"labeled": 0, "unlabeled": 0})
        assert (pin(lake, "raw_images"), pin(lake, "deleted_files")) == versions

    def test_nothing_new_opens_no_table(self, lake, settings, monkeypatch) -> None:
        """So that a look costs the same, however many files there are."""
        monkeypatch.setattr("deltalake.DeltaTable.__init__", None)
        ingest(ENGINE, lake, settings, {})


def test_an_ingest_reads_no_more_of_an_old_lake_than_of_a_young_one(lake, settings, landing, monkeypatch) -> None:
    """Of the log and of the photos that came before; the tables are not cared for."""
    from deltalake import DeltaTable

    opens: list[object] = []
    open_ = DeltaTable.__init__

    def counted(*args, **more) -> None:
        opens.append(args)
        open_(*args, **more)

    monkeypatch.setattr(DeltaTable, "__init__", counted)
    monkeypatch.setattr(columns, "MOST_FRESH", 4)

    def opens_of_next(number: int) -> int:
        put(landing / f"unlabeled/{number}.jpg", photo(number))
        delta_log._held.clear()  # as in another process
        opens.clear()
        assert ingest(ENGINE, lake, settings, {}, zones=["unlabeled"]).images == 1
        return len(opens)

    ingest(ENGINE, lake, settings, {})
    young = opens_of_next(0)
    for number in range(1, 14):
        opens_of_next(number)
    folder = Path(lake.table("raw_images"))
    (last,) = sorted((folder / columns.FOLDER).iterdir())[-1:]
    read = DeltaTable(folder, version=int(last.name[:20])).file_uris()
    for file in read:
        Path(file).unlink()

    assert len(read) > 8
    assert opens_of_next(14) == young
    assert ingest(ENGINE, lake, settings, {}) == Ingested(zones={"labeled": 0, "unlabeled": 0})


def test_a_link_out_of_the_zone_is_quarantined_once_and_what_came_by_it_before_has_not_gone(
    lake, settings, landing, tmp_path
) -> None:
    put(tmp_path / "archive/e.jpg", photo(50))
    zone = landing / "unlabeled"
    (zone / "all").symlink_to(tmp_path / "archive")
    (zone / "one.jpg").symlink_to(tmp_path / "archive/e.jpg")
    (zone / "self").symlink_to("/proc/self")
    allowed = {"unlabeled": settings.landing["unlabeled"].model_copy(update={"links": (str(tmp_path / "archive"),)})}
    followed = ingest(ENGINE, lake, settings.model_copy(update={"landing": allowed}), {})
    assert (followed.images, followed.quarantined) == (3, 1)

    done = ingest(ENGINE, lake, settings, {})

    assert (done.images, done.replaced, done.quarantined, done.deleted) == (3, 0, 2, 0)
    real = (tmp_path / "archive").resolve()
    found = {(path, detail.split(",")[0]) for path, detail in rows(ENGINE, lake, "quarantined_files", "path, detail")}
    assert {each for each in found if "self" not in each[0]} == {
        ("unlabeled/all", f"leads to {real}/"),
        ("unlabeled/one.jpg", f"leads to {real}/e.jpg"),
    }
    assert {reason for (reason,) in rows(ENGINE, lake, "quarantined_files", "reason")} == {"link_outside"}
    assert ingest(ENGINE, lake, settings, {}).batches == 0


def test_a_zone_with_more_files_than_it_may_have_says_so_and_takes_those_in(lake, settings, landing) -> None:
    few = {"labeled": settings.landing["labeled"].model_copy(update={"max_files": 2})}

    with pytest.raises(DlassetsError, match=r"holds more than 2 files.*raise landing\.labeled\.max_files"):
        ingest(ENGINE, lake, settings.model_copy(update={"landing": few}), {})

    assert len(rows(ENGINE, lake, "raw_images", "path")) == 2


def with_events(settings: Settings) -> Settings:
    zones = {name: zone.model_copy(update={"discovery": "events"}) for name, zone in settings.landing.items()}
    return settings.model_copy(update={"landing": zones})


def test_an_event_with_a_nul_costs_itself_alone(lake, settings, landing) -> None:
    by_events = with_events(settings)
    ingest(ENGINE, lake, by_events, {})
    put(landing / "unlabeled/new.jpg", photo(60))
    put(landing / "labeled/001.cat/new.jpg", photo(70))
    for name, path in {"labeled": "001.cat/new.jpg", "unlabeled": "new.jpg"}.items():
        Manifest.of(lake, name, by_events.landing[name]).record([("a\0.jpg", "created"), (path, "created")])

    done = ingest(ENGINE, lake, by_events, {})

    assert (done.images, done.bad_events) == (2, 2)
    assert "has a NUL in it" in str(done.first_bad)
    assert ingest(ENGINE, lake, by_events, {}) == Ingested(zones={"labeled": 0, "unlabeled": 0})


def test_an_event_of_a_file_that_cannot_be_looked_at_costs_itself_alone(lake, settings, landing, monkeypatch) -> None:
    by_events = with_events(settings)
    ingest(ENGINE, lake, by_events, {})
    put(landing / "unlabeled/new.jpg", photo(60))
    manifest = Manifest.of(lake, "unlabeled", by_events.landing["unlabeled"])
    manifest.record([("shut/a.jpg", "created"), ("new.jpg", "created")])
    lstat = os.lstat

    def refusing(path: str) -> os.stat_result:
        if str(path).endswith("shut/a.jpg"):
            raise PermissionError(13, "Permission denied", path)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", refusing)

    with pytest.raises(DlassetsError, match=r"cannot be looked at, such as .*shut/a\.jpg: Permission denied"):
        ingest(ENGINE, lake, by_events, {})

    assert ("unlabeled/new.jpg",) in rows(ENGINE, lake, "raw_images", "path")
    assert not manifest.pending()


def test_an_error_that_nobody_thought_of_in_one_zone_leaves_the_others_alone(
    lake, settings, landing, monkeypatch
) -> None:
    whole = local_files.list_local

    def odd(folder, *args):
        if folder.endswith("/labeled"):
            raise ValueError("odd")
        return whole(folder, *args)

    monkeypatch.setattr(listing, "list_local", odd)

    with pytest.raises(ValueError, match="odd"):
        ingest(ENGINE, lake, settings, {})

    assert rows(ENGINE, lake, "raw_images", "path") == [("unlabeled/2026/01/d.jpg",)]
