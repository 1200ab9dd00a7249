"""Time travel: what a table was, and back to it."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from dlassets.engines.base import Commit, Engine
from dlassets.engines.local import LocalEngine
from dlassets.errors import ConflictError, DlassetsError
from dlassets.intake.ingest import ingest
from dlassets.lakehouse import history as history_module
from dlassets.lakehouse.history import history, restore, restore_to, table_of, version_at, whole_version
from dlassets.lakehouse.maintenance import maintain
from dlassets.lakehouse.snapshots import commits, evolve, pin, provenance_of, row_count, time_of, transaction_version
from dlassets.lakehouse.tables import IMAGE_PROFILES, raw_images_with
from dlassets.settings import MaintenanceSettings
from dlassets.storage.lake import Lake
from dlassets_tests.images.corpus import encoded, flat
from dlassets_tests.killing import killed_at
from dlassets_tests.tables import NOON, get, image_id, put


def write(engine: Engine, lake: Lake, provenance: dict[str, Any], *names: str) -> None:
    rows = ({"image_id": image_id(name)} for name in names)
    put(lake, "image_profiles", *rows, engine=engine, commit=Commit(provenance))


def land(lake: Lake, *names: str) -> None:
    for name in names:
        path = Path(lake.zone("labeled"), "001.cat", f"{name}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(flat((ord(name[0]), 9, 9)), "JPEG"))
    Path(lake.zone("unlabeled")).mkdir(exist_ok=True)


def names_in(engine: Engine, lake: Lake) -> list[str]:
    return [Path(row["path"]).stem for row in get(engine, lake, "raw_images", "path")]


def test_history_says_when_what_how_much_and_from_what(engine, lake) -> None:
    write(engine, lake, {"inputs": {"raw_images": 1}}, "a")
    write(engine, lake, {"inputs": {"raw_images": 2}}, "b", "c")
    maintain(engine, lake, IMAGE_PROFILES, MaintenanceSettings())

    found = list(history(table_of(lake, "image_profiles")))

    assert [(v.version, v.operation, v.rows) for v in found] == [
        (3, "OPTIMIZE", 3),
        (2, "WRITE", 3),
        (1, "WRITE", 1),
        (0, "CREATE TABLE", 0),
    ]
    assert [v.provenance for v in found[1:3]] == [{"inputs": {"raw_images": 2}}, {"inputs": {"raw_images": 1}}]
    assert found[2].bytes_written == found[2].bytes
    assert found[1].bytes == sum(v.bytes_written or 0 for v in found[1:3])
    assert found[0].bytes == found[0].bytes_written
    assert found[3].bytes_written == 0
    assert [v.at for v in found] == sorted((v.at for v in found), reverse=True)
    assert abs((found[0].at - dt.datetime.now(dt.UTC)).total_seconds()) < 600
    assert [v.version for v in history(table_of(lake, "image_profiles"), 2)] == [3, 2]


def test_an_older_version_s_history_is_its_own(local_engine, lake) -> None:
    for number in range(14):  # beyond a checkpoint of Spark's
        write(local_engine, lake, {"n": number}, str(number))
    newest = pin(lake, "image_profiles")

    for version in (14, 11, 10, 3, 1):
        older = type(newest)(newest.name, newest.uri, version)
        assert provenance_of(older) == {"n": version - 1}
        assert [commit["version"] for commit in commits(older)] == list(range(version, -1, -1))


@pytest.mark.contract
def test_a_restored_table_has_the_rows_and_columns_it_had_as_a_new_version(engine, lake) -> None:
    write(engine, lake, {"rows_sha256": "old"}, "a")
    before = get(engine, lake, "image_profiles")
    write(engine, lake, {"rows_sha256": "new"}, "b")
    now = table_of(lake, "image_profiles")

    done = restore(now, whole_version(now, 1, 168))

    assert (done.version, done.rows, done.changed) == (3, 1, True)
    assert get(engine, lake, "image_profiles") == before
    # What is looked up to tell whether rows are what they would be must be said of these rows.
    assert provenance_of(pin(lake, "image_profiles")) == {"rows_sha256": "old", "restored_from": 1}
    again = table_of(lake, "image_profiles")
    assert restore(again, whole_version(again, 1, 168)).changed is False
    assert restore(again, whole_version(again, 2, 168)).rows == 2
    assert len(get(engine, lake, "image_profiles")) == 2


def test_columns_added_since_come_back_when_the_table_is_next_pinned(local_engine, lake) -> None:
    put(lake, "raw_images", {"path": "z/a.jpg", "content": b"a"})
    wide = raw_images_with(["camera"])
    evolve(lake, wide)
    now = table_of(lake, "raw_images")

    restore(now, whole_version(now, 1, 168))

    # The files are the same, so nothing but a column of nulls would go: the table is left as it is.
    assert pin(lake, "raw_images") == now
    put(lake, "raw_images", {"path": "z/b.jpg", "content": b"b"})
    now = table_of(lake, "raw_images")
    restore(now, whole_version(now, 1, 168))
    evolve(lake, wide)
    assert get(local_engine, lake, "raw_images", "path, camera") == [{"path": "z/a.jpg", "camera": None}]


def test_a_restore_that_another_write_overtook_is_refused(lake, local_engine) -> None:
    write(local_engine, lake, {}, "a")
    write(local_engine, lake, {}, "b")
    seen = table_of(lake, "image_profiles")
    write(local_engine, lake, {}, "c")

    with pytest.raises(ConflictError):
        restore(seen, whole_version(seen, 1, 168))
    assert len(get(local_engine, lake, "image_profiles")) == 3


def test_a_version_is_written_elsewhere_and_the_live_table_left_alone(engine, lake, tmp_path) -> None:
    from deltalake import DeltaTable

    put(lake, "raw_images", *({"path": f"z/{n}.jpg", "content": bytes([n]) * 100} for n in range(150)))
    put(lake, "raw_images", {"path": "z/later.jpg", "load_date": dt.date(2026, 3, 1)})
    now = table_of(lake, "raw_images")

    done = restore_to(whole_version(now, 1, 168), str(tmp_path / "as it was"))

    assert done.rows == 150
    assert table_of(lake, "raw_images") == now
    copy = type(now)("raw_images", done.uri, done.version)
    rows = engine.sql("SELECT path, content, load_date FROM t", {"t": copy}).arrow().to_pylist()
    assert sorted(row["path"] for row in rows) == sorted(f"z/{n}.jpg" for n in range(150))
    assert {row["path"]: row["content"] for row in rows}["z/7.jpg"] == bytes([7]) * 100
    delta = DeltaTable(done.uri)
    assert delta.metadata().partition_columns == ["load_date"]
    assert delta.schema() == DeltaTable(now.uri).schema()
    assert not restore_to(whole_version(now, 1, 168), done.uri).changed
    with pytest.raises(DlassetsError, match="exists already"):
        restore_to(whole_version(now, 2, 168), done.uri)
    (tmp_path / "one's own").mkdir()
    (tmp_path / "one's own" / "part-0.parquet").write_bytes(b"rows")
    with pytest.raises(DlassetsError, match="exists already"):
        restore_to(whole_version(now, 1, 168), str(tmp_path / "one's own"))


@pytest.mark.parametrize("moment", ["_copy", "_tidy", "row_count"])
def test_a_restore_that_was_killed_can_be_run_again(lake, tmp_path, moment) -> None:
    put(lake, "raw_images", *({"path": f"z/{n}.jpg", "content": bytes([n])} for n in range(9)))
    target, folder = table_of(lake, "raw_images"), tmp_path / "as it was"
    with killed_at(history_module, moment):
        restore_to(target, str(folder))
    part = folder / "load_date=2026-01-01" / "part-written-before-the-kill.parquet"
    if moment == "_copy":
        part.parent.mkdir(parents=True)
        part.write_bytes(b"half of it")

    done = restore_to(target, str(folder))

    assert done.rows == 9
    rows = LocalEngine().sql("SELECT path FROM t", {"t": type(target)("raw_images", done.uri, done.version)}).arrow()
    assert sorted(rows["path"].to_pylist()) == [f"z/{n}.jpg" for n in range(9)]
    assert not part.exists()
    assert not list(folder.glob("_restore*"))
    assert not restore_to(target, str(folder)).changed


def test_a_restored_raw_images_takes_its_missing_photos_in_again_and_counts_on(local_engine, lake, settings) -> None:
    land(lake, "a", "b")
    ingest(local_engine, lake, settings, {})
    first = pin(lake, "raw_images")
    land(lake, "c", "d", "e")
    ingest(local_engine, lake, settings, {})
    now = table_of(lake, "raw_images")
    restore(now, whole_version(now, first.version, 168))
    assert names_in(local_engine, lake) == ["a", "b"]
    counted = transaction_version(pin(lake, "raw_images"), "dlassets/ingest")

    done = ingest(local_engine, lake, settings, {})

    assert (done.images, names_in(local_engine, lake)) == (3, ["a", "b", "c", "d", "e"])
    assert transaction_version(pin(lake, "raw_images"), "dlassets/ingest") == counted + 1
    batches = {row["batch_id"] for row in get(local_engine, lake, "raw_images", "batch_id")}
    assert batches == {"labeled-000000", f"labeled-{counted + 1:06d}"}
    assert ingest(local_engine, lake, settings, {}).images == 0


def test_a_time_means_the_version_that_stood_then(lake) -> None:
    local_engine = LocalEngine()
    for name in "abc":
        write(local_engine, lake, {}, name)
    table = table_of(lake, "image_profiles")
    times = {commit["version"]: time_of(commit) for commit in commits(table)}

    assert [version_at(table, times[version]) for version in (1, 2, 3)] == [1, 2, 3]
    assert version_at(table, times[3] + dt.timedelta(days=1)) == 3
    assert version_at(table, times[2] - dt.timedelta(microseconds=1)) == 1
    with pytest.raises(DlassetsError, match=r"log of image_profiles begins at .* UTC, after"):
        version_at(table, NOON)


def test_what_is_not_there_is_said(lake) -> None:
    local_engine = LocalEngine()
    with pytest.raises(DlassetsError, match=r"no table 'raw_image'\. Did you mean raw_images\?"):
        table_of(lake, "raw_image")
    with pytest.raises(DlassetsError, match="predictions has not been made yet"):
        table_of(lake, "predictions")
    assert not Path(lake.table("predictions")).exists()
    for name in "ab":
        write(local_engine, lake, {}, name)
    with pytest.raises(DlassetsError, match=r"image_profiles has no version 9\. Its log has 0 to 2"):
        whole_version(table_of(lake, "image_profiles"), 9, 168)

    maintain(local_engine, lake, IMAGE_PROFILES, MaintenanceSettings().model_copy(update={"retention_hours": 0}))

    with pytest.raises(DlassetsError, match=r"Version 2 of image_profiles .* 2 of its files .* \(now 168\)"):
        whole_version(table_of(lake, "image_profiles"), 2, 168)
    assert row_count(pin(lake, "image_profiles")) == 2
