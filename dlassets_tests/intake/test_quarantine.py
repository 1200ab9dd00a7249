"""What is quarantined now, looking at it again, and dropping it, on real files of a landing zone."""

import datetime as dt
import os
from pathlib import Path
from typing import Any

import pytest

from dlassets.engines.base import Engine
from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError
from dlassets.intake import quarantine
from dlassets.intake.events import Manifest
from dlassets.intake.ingest import ingest
from dlassets.intake.quarantine import Dropped, Refused, Retried, by_reason, drop, refused_files, retry
from dlassets.lakehouse.snapshots import pin
from dlassets.settings import IngestSettings, LandingZone, Settings
from dlassets.storage.lake import Lake
from dlassets_tests.intake.test_ingest import photo, put
from dlassets_tests.killing import killed_at, overtaken_at
from dlassets_tests.tables import NOON, get
from dlassets_tests.tables import put as put_rows

# What is tried on both engines elsewhere, this one does in a fraction of the time.
EMBEDDED = LocalEngine()


@pytest.fixture
def landing(lake: Lake, settings: Settings) -> Path:
    """Two photos that are no usable images, and one that is."""
    landing = Path(lake.zone(""))
    put(landing / "labeled/001.cat/empty.jpg", b"")
    put(landing / "labeled/001.cat/good.jpg", photo(10))
    put(landing / "unlabeled/note.jpg", b"not a picture at all")
    return landing


def paths(engine: Engine, lake: Lake, *pattern: str, **options: Any) -> list[str]:
    return sorted(file.path for file in refused_files(engine, lake, *pattern, **options))


def states(engine: Engine, lake: Lake) -> list[tuple[str, str]]:
    return sorted((file.path, file.state) for file in refused_files(engine, lake, everything=True))


def images(engine: Engine, lake: Lake) -> list[str]:
    return [row["path"] for row in get(engine, lake, "raw_images", "path")]


def test_what_came_after_decides_what_is_quarantined_now(engine, lake, settings, landing) -> None:
    put(landing / "labeled/001.cat/cut.jpg", photo()[:100])
    put(landing / "unlabeled/gone.jpg", b"x")
    ingest(EMBEDDED, lake, settings, {})
    put(landing / "labeled/001.cat/empty.jpg", photo(20))
    # As a copy that keeps its source's time does: the usable file is older than the broken one was.
    os.utime(landing / "labeled/001.cat/empty.jpg", (1e9, 1e9))
    put(landing / "labeled/001.cat/cut.jpg", photo()[:120])
    (landing / "unlabeled/gone.jpg").unlink()
    ingest(EMBEDDED, lake, settings, {})

    assert states(engine, lake) == [
        ("labeled/001.cat/cut.jpg", "quarantined"),
        ("labeled/001.cat/cut.jpg", "superseded"),
        ("labeled/001.cat/empty.jpg", "superseded"),
        ("unlabeled/gone.jpg", "gone"),
        ("unlabeled/note.jpg", "quarantined"),
    ]
    assert paths(engine, lake) == ["labeled/001.cat/cut.jpg", "unlabeled/note.jpg"]
    put(landing / "labeled/001.cat/empty.jpg", b"!")
    ingest(EMBEDDED, lake, settings, {})
    assert paths(engine, lake, "*empty*") == ["labeled/001.cat/empty.jpg"]


def test_files_are_chosen_by_path_glob_reason_and_zone(lake, settings, landing) -> None:
    put(landing / "unlabeled/[1] a*.jpg", b"")
    put(landing / "unlabeled/1.jpg", b"")
    ingest(EMBEDDED, lake, settings, {})

    assert paths(EMBEDDED, lake, "unlabeled/*.jpg") == ["unlabeled/1.jpg", "unlabeled/[1] a*.jpg", "unlabeled/note.jpg"]
    assert paths(EMBEDDED, lake, "*/empty.jpg") == ["labeled/001.cat/empty.jpg"]
    assert paths(EMBEDDED, lake, "unlabeled/[1] a*.jpg") == ["unlabeled/[1] a*.jpg"]
    assert paths(EMBEDDED, lake, "Unlabeled/*") == []
    assert paths(EMBEDDED, lake, reason="not_an_image") == ["unlabeled/note.jpg"]
    assert paths(EMBEDDED, lake, zone="labeled") == ["labeled/001.cat/empty.jpg"]
    assert by_reason(refused_files(EMBEDDED, lake)) == {"empty": 3, "not_an_image": 1}


def test_the_newest_come_first(lake) -> None:
    batches = [("labeled", 1), ("labeled", 3), ("unlabeled", 2)]
    rows = [{"path": f"{zone}/{n}.jpg", "batch_id": f"{zone}-00000{n}", "landing": zone} for zone, n in batches]
    put_rows(lake, "quarantined_files", *rows)

    found = [file.path for file in refused_files(EMBEDDED, lake)]
    assert found == ["labeled/3.jpg", "unlabeled/2.jpg", "labeled/1.jpg"]


def test_a_raised_limit_and_another_look_take_files_in(engine, lake, settings, landing) -> None:
    strict = settings.model_copy(update={"ingest": IngestSettings(max_file_bytes=100)})
    ingest(EMBEDDED, lake, strict, {})
    assert paths(engine, lake, reason="too_large") == ["labeled/001.cat/good.jpg"]
    assert ingest(EMBEDDED, lake, settings, {}).images == 0

    done = retry(engine, lake, settings, refused_files(engine, lake), {})

    assert done == Retried(taken_in=1, refused=2, missing=0)
    assert images(engine, lake) == ["labeled/001.cat/good.jpg"]
    assert states(engine, lake) == [("labeled/001.cat/empty.jpg", "quarantined"), ("unlabeled/note.jpg", "quarantined")]


def test_another_look_leaves_other_rows_as_they_are(lake, settings, landing) -> None:
    ingest(EMBEDDED, lake, settings, {})
    put(landing / "unlabeled/note.jpg", b"still none")
    ingest(EMBEDDED, lake, settings, {})
    before, version = get(EMBEDDED, lake, "quarantined_files"), pin(lake, "quarantined_files").version

    retry(EMBEDDED, lake, settings, refused_files(EMBEDDED, lake, "unlabeled/*"), {})

    assert get(EMBEDDED, lake, "quarantined_files") == before
    assert pin(lake, "quarantined_files").version == version + 2


def test_killed_after_the_rows_are_gone_the_next_ingest_does_the_rest(lake, settings, landing) -> None:
    ingest(EMBEDDED, lake, settings.model_copy(update={"ingest": IngestSettings(max_file_bytes=100)}), {})
    with killed_at(quarantine, "ingest"):
        retry(EMBEDDED, lake, settings, refused_files(EMBEDDED, lake, "*good*"), {})
    assert paths(EMBEDDED, lake, "*good*") == images(EMBEDDED, lake) == []

    for _ in range(2):
        ingest(EMBEDDED, lake, settings, {})
    assert images(EMBEDDED, lake) == ["labeled/001.cat/good.jpg"]
    assert len(refused_files(EMBEDDED, lake, everything=True)) == 2


def read_by_events(settings: Settings) -> tuple[LandingZone, Settings, Settings]:
    """Return a zone that is read by its events, the settings with it alone, and those by which photos are too large."""
    zone = LandingZone(uri="labeled", labelled=True, discovery="events")
    settings = settings.model_copy(update={"landing": {"labeled": zone}})
    return zone, settings, settings.model_copy(update={"ingest": IngestSettings(max_file_bytes=100)})


def test_a_zone_with_events_is_told_of_what_to_look_at(lake, settings, landing) -> None:
    zone, settings, strict = read_by_events(settings)
    manifest = Manifest.of(lake, "labeled", zone)
    ingest(EMBEDDED, lake, strict, {})
    listed_at = manifest.listed_at

    assert retry(EMBEDDED, lake, settings, refused_files(EMBEDDED, lake, "*good*"), {}).taken_in == 1

    assert manifest.listed_at == listed_at
    assert not manifest.pending()
    assert images(EMBEDDED, lake) == ["labeled/001.cat/good.jpg"]
    drop(EMBEDDED, lake, settings, refused_files(EMBEDDED, lake), {}, delete_files=True)
    assert manifest.pending().paths == ("001.cat/empty.jpg",)


def test_events_that_another_reader_took_too_soon_are_noted_again(lake, settings, landing) -> None:
    zone, settings, strict = read_by_events(settings)
    ingest(EMBEDDED, lake, strict, {})

    def read_too_soon() -> None:
        assert ingest(EMBEDDED, lake, settings, {}).images == 0
        assert not Manifest.of(lake, "labeled", zone).pending()

    chosen = refused_files(EMBEDDED, lake, "*good*")
    with overtaken_at(quarantine, "_forget_all", read_too_soon):
        assert retry(EMBEDDED, lake, settings, chosen, {}).taken_in == 1


def test_many_files_are_looked_at_again_a_part_at_a_time(lake, settings, landing, monkeypatch) -> None:
    monkeypatch.setattr(quarantine, "REPLACED_AT_ONCE", 2)
    for number in range(4):
        put(landing / f"unlabeled/{number}.jpg", b"")
    ingest(EMBEDDED, lake, settings, {})
    before = refused_files(EMBEDDED, lake)

    assert retry(EMBEDDED, lake, settings, before, {}) == Retried(taken_in=0, refused=6, missing=0)
    assert paths(EMBEDDED, lake) == sorted(file.path for file in before)


def test_what_ingest_refuses_meanwhile_is_not_lost(lake, settings, landing) -> None:
    def refuse_other_bytes() -> None:
        put(landing / "unlabeled/note.jpg", b"other bytes")
        ingest(EMBEDDED, lake, settings, {})

    ingest(EMBEDDED, lake, settings, {})
    chosen = refused_files(EMBEDDED, lake, "unlabeled/*")
    with overtaken_at(LocalEngine, "replace", refuse_other_bytes, table="quarantined_files"):
        quarantine._forget_all(EMBEDDED, lake, chosen, {})

    assert [file.length for file in refused_files(EMBEDDED, lake, "unlabeled/*")] == [len(b"other bytes")]


def test_a_file_that_has_gone_is_said_to_be_missing(lake, settings, landing) -> None:
    ingest(EMBEDDED, lake, settings, {})
    chosen = refused_files(EMBEDDED, lake)
    (landing / "unlabeled/note.jpg").unlink()

    assert retry(EMBEDDED, lake, settings, chosen, {}) == Retried(taken_in=0, refused=1, missing=1)


def test_dropped_files_are_not_quarantined_until_other_bytes_come(engine, lake, settings, landing) -> None:
    ingest(EMBEDDED, lake, settings, {})

    assert drop(engine, lake, settings, refused_files(engine, lake, "unlabeled/*"), {}) == Dropped(1, 0)

    assert paths(engine, lake) == ["labeled/001.cat/empty.jpg"]
    assert (landing / "unlabeled/note.jpg").exists()
    assert ingest(EMBEDDED, lake, settings, {}).quarantined == 0
    put(landing / "unlabeled/note.jpg", b"no picture either")
    ingest(EMBEDDED, lake, settings, {})
    assert paths(engine, lake) == ["labeled/001.cat/empty.jpg", "unlabeled/note.jpg"]
    assert len(get(engine, lake, "quarantined_files", "path")) == 3


def test_a_photo_comes_in_after_a_file_was_dropped_that_lay_beside_one_that_was_not(lake, settings, landing) -> None:
    put(landing / "unlabeled/empty.jpg", b"")
    ingest(EMBEDDED, lake, settings, {})
    drop(EMBEDDED, lake, settings, refused_files(EMBEDDED, lake, "unlabeled/note.jpg"), {})
    put(landing / "unlabeled/new.jpg", photo(71))

    assert ingest(EMBEDDED, lake, settings, {}).images == 1


def test_deleted_with_the_drop_a_file_leaves_the_zone_and_is_noted_as_gone(lake, settings, landing) -> None:
    ingest(EMBEDDED, lake, settings, {})

    done = drop(EMBEDDED, lake, settings, refused_files(EMBEDDED, lake, "unlabeled/*"), {}, delete_files=True)

    assert done == Dropped(1, 1)
    assert not (landing / "unlabeled/note.jpg").exists()
    assert (landing / "labeled/001.cat/empty.jpg").exists()
    assert ingest(EMBEDDED, lake, settings, {}).deleted == 1
    assert states(EMBEDDED, lake) == [("labeled/001.cat/empty.jpg", "quarantined"), ("unlabeled/note.jpg", "dropped")]


def test_killed_between_the_deletion_and_the_note_a_second_drop_ends_it(lake, settings, landing) -> None:
    ingest(EMBEDDED, lake, settings, {})
    (landing / "unlabeled/note.jpg").unlink()

    chosen = refused_files(EMBEDDED, lake, "unlabeled/*")
    assert drop(EMBEDDED, lake, settings, chosen, {}, delete_files=True) == Dropped(1, 0)


def test_only_the_file_that_was_refused_is_deleted_and_only_within_the_zone(lake, settings, landing, tmp_path) -> None:
    ingest(EMBEDDED, lake, settings, {})
    put(landing / "unlabeled/note.jpg", b"somebody's new upload")
    outside = tmp_path / "outside"
    put(outside / "precious.jpg", b"")
    (landing / "unlabeled/link").symlink_to(outside)
    (landing / "unlabeled/pointer.jpg").symlink_to(outside / "precious.jpg")
    put(landing / "secret.jpg", b"")
    named = ("link/precious.jpg", "../secret.jpg", "x/../../secret.jpg", "pointer.jpg")
    (landing / "unlabeled/x").mkdir()
    put_rows(lake, "quarantined_files", *(refused(landing / "unlabeled" / name, name) for name in named))

    done = drop(EMBEDDED, lake, settings, refused_files(EMBEDDED, lake, "unlabeled/*"), {}, delete_files=True)

    assert (outside / "precious.jpg").exists()
    assert (landing / "secret.jpg").exists()
    assert (landing / "unlabeled/note.jpg").read_bytes() == b"somebody's new upload"
    assert not (landing / "unlabeled/pointer.jpg").is_symlink()
    elsewhere = f"it does not lie in the landing zone at {landing}/unlabeled"
    changed = {"unlabeled/note.jpg": "it has changed since it was refused"}
    assert done == Dropped(1, 1, changed | {f"unlabeled/{name}": elsewhere for name in named[:3]})
    assert paths(EMBEDDED, lake, "unlabeled/*") == sorted(done.kept)


def refused(file: Path, name: str) -> dict[str, Any]:
    import pyarrow.fs as pafs

    info = pafs.LocalFileSystem().get_file_info(str(file))
    seen = info.mtime.replace(microsecond=info.mtime.microsecond // 1000 * 1000)
    length = info.size
    if file.is_symlink():  # refused for where it leads
        own = file.lstat()
        seen = dt.datetime.fromtimestamp(own.st_mtime_ns // 1_000_000 / 1000, dt.UTC)
        length = own.st_size
    return {
        "path": f"unlabeled/{name}",
        "landing": "unlabeled",
        "modificationTime": seen,
        "length": length,
        "reason": "empty",
        "load_date": NOON.date(),
    }


def test_a_file_that_storage_does_not_let_go_is_kept_and_not_dropped(lake, settings, landing, monkeypatch) -> None:
    import pyarrow.fs as pafs

    class ReadOnly:
        type_name = "local"

        def delete_file(self, _: str) -> None:
            raise OSError("read-only file system")

    ingest(EMBEDDED, lake, settings, {})
    monkeypatch.setattr(quarantine, "filesystem_of", lambda uri: (ReadOnly(), pafs.FileSystem.from_uri(uri)[1]))

    done = drop(EMBEDDED, lake, settings, refused_files(EMBEDDED, lake, "unlabeled/*"), {}, delete_files=True)

    assert done == Dropped(0, 0, {"unlabeled/note.jpg": "read-only file system"})
    assert paths(EMBEDDED, lake, "unlabeled/*") == ["unlabeled/note.jpg"]


def test_a_zone_that_the_settings_no_longer_have_is_named(lake, settings, landing) -> None:
    ingest(EMBEDDED, lake, settings, {})
    chosen = refused_files(EMBEDDED, lake)
    fewer = settings.model_copy(update={"landing": {"labeled": settings.landing["labeled"]}})

    with pytest.raises(DlassetsError, match=r"settings do not have: unlabeled.*--zone \(labeled\)"):
        retry(EMBEDDED, lake, fewer, chosen, {})
    with pytest.raises(DlassetsError, match="settings do not have: unlabeled"):
        drop(EMBEDDED, lake, fewer, chosen, {}, delete_files=True)
    assert paths(EMBEDDED, lake) == [file.path for file in sorted(chosen, key=lambda file: file.path)]

    assert drop(EMBEDDED, lake, fewer, chosen, {}).dropped == 2


def test_a_root_that_is_no_lake_is_said_to_be_none_and_is_left_alone(lake) -> None:
    with pytest.raises(DlassetsError, match=r"There is no lake at .*DLASSETS_ROOT"):
        refused_files(EMBEDDED, lake)
    assert not Path(lake.root).exists()


def test_object_storage_has_no_way_up() -> None:
    class Bucket:
        type_name = "s3"

    assert quarantine._is_confined(Bucket(), "bucket/landing", "a/b.jpg")
    assert not quarantine._is_confined(Bucket(), "bucket/landing", "../b.jpg")


def test_a_path_within_a_zone_is_without_the_zone_s_name() -> None:
    row: dict[str, Any] = dict.fromkeys(Refused.__dataclass_fields__)
    assert Refused(**{**row, "path": "a/a/b.jpg", "landing": "a"}).within == "a/b.jpg"
