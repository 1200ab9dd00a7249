"""What is kept of a table's narrow columns: the same rows as its data files have, whatever happens to either."""

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from dlassets.engines import columns, delta_log
from dlassets.engines.base import Commit, Snapshot
from dlassets.engines.columns import FOLDER
from dlassets.engines.local import LocalEngine, dataset_of
from dlassets.engines.schema import text_column
from dlassets.lakehouse.history import restore
from dlassets.lakehouse.maintenance import maintain
from dlassets.lakehouse.snapshots import at_version, evolve, pin
from dlassets.lakehouse.tables import PREDICTIONS, RAW_IMAGES, raw_images_with
from dlassets.settings import MaintenanceSettings
from dlassets.storage.files import write_whole
from dlassets.storage.lake import Lake
from dlassets_tests.tables import AT_ONCE, arrow, image_id, put

FRESH = 4


def earlier(table: Snapshot, version: int) -> Snapshot:
    found = at_version(table, version)
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def keep_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "MOST_FRESH", FRESH)


def grow(lake: Lake, commits: int, start: int = 0, engine: LocalEngine | None = None) -> Snapshot:
    for number in range(start, start + commits):
        put(lake, "raw_images", raw_image(number), engine=engine)
    return pin(lake, "raw_images")


def raw_image(number: int, name: str | None = None) -> dict[str, Any]:
    return {"path": f"photos/{number:04}.jpg", "image_id": image_id(name or str(number)), "length": number}


def rows(table: Snapshot) -> list[dict]:
    """The narrow columns as SQL has them."""
    query = "SELECT path, modificationTime, length, image_id, load_date FROM t ORDER BY path"
    return LocalEngine().sql(query, {"t": table}).arrow().to_pylist()


def whole_rows(table: Snapshot) -> list[dict]:
    """The same from the data files themselves."""
    found = dataset_of(table).to_table(["path", "modificationTime", "length", "image_id", "load_date"])
    return found.sort_by("path").to_pylist()


def kept(lake: Lake, name: str = "raw_images") -> list[Path]:
    return sorted(Path(lake.table(name), FOLDER).glob("*"))


def forget() -> None:
    """As in another process: what this one has open is opened anew."""
    columns._lately.clear()
    columns._opened.cache_clear()
    columns._refused.clear()
    delta_log._held.clear()


def hide_data_files(lake: Lake, name: str = "raw_images") -> None:
    for file in Path(lake.table(name)).rglob("*.parquet"):
        if "_delta_log" not in file.parts:
            file.rename(file.with_suffix(".hidden"))


def test_a_data_file_is_read_once_and_never_again(lake) -> None:
    table = grow(lake, FRESH)
    before = rows(table)
    hide_data_files(lake)
    table = grow(lake, 1, start=FRESH)
    forget()

    assert [row["path"] for row in rows(table)] == [f"photos/{number:04}.jpg" for number in range(FRESH + 1)]
    assert rows(earlier(table, FRESH)) == before
    wanted = text_column("path", ["photos/0003.jpg", "nowhere"])["path"]
    found = LocalEngine().look_up(table, ["path"], "path", wanted).arrow()
    assert found["path"].to_pylist() == ["photos/0003.jpg"]
    assert LocalEngine().look_up(table, ["path"], "path", wanted.slice(0, 0)).count() == 0


def test_one_large_data_file_is_read_once_as_well(lake, monkeypatch) -> None:
    monkeypatch.setattr(columns, "FRESH_ROWS", 3)
    put(lake, "raw_images", *(raw_image(number) for number in range(4)))
    table = pin(lake, "raw_images")
    before = rows(table)
    hide_data_files(lake)
    put(lake, "raw_images", raw_image(4))
    forget()

    assert rows(table) == before
    assert len(rows(pin(lake, "raw_images"))) == 5
    assert len(kept(lake)) == 1, "a file of one row beside it is no reason to write what is kept anew"


def test_what_is_kept_is_what_the_data_files_have_whatever_is_done_to_a_table(lake, local_engine) -> None:
    table = grow(lake, 2 * FRESH)
    rows(table)
    local_engine.replace(
        local_engine.rows(arrow("raw_images", raw_image(3, "other bytes"))),
        RAW_IMAGES,
        table.uri,
        Commit(),
        {"path": ["photos/0003.jpg"]},
    )
    maintain(local_engine, lake, RAW_IMAGES, MaintenanceSettings(), needed=())
    rows(pin(lake, "raw_images"))
    grow(lake, FRESH, start=2 * FRESH)
    restore(pin(lake, "raw_images"), earlier(table, 5))
    newest = grow(lake, 1, start=90)

    for version in range(newest.version + 1):
        forget()
        assert rows(earlier(newest, version)) == whole_rows(earlier(newest, version)), version
    assert len(rows(newest)) == 6


def test_rows_that_a_merge_rewrote_are_found_once(lake, local_engine) -> None:
    uri = pin(lake, "predictions").uri
    for number in range(5 * FRESH):
        row = arrow("predictions", {"path": f"photos/{number % 9}.jpg", "confidence": 0.5})
        local_engine.merge(local_engine.rows(row), PREDICTIONS, uri, Commit())
        table = pin(lake, "predictions")
        paths = local_engine.sql("SELECT path FROM t", {"t": table}).arrow()["path"].to_pylist()
        assert len(paths) == len(set(paths)) == min(number + 1, 9)


@pytest.mark.parametrize("damage", ["gone", "cut short", "another file", "empty", "begun", "not to be written"])
def test_what_is_kept_may_be_broken_and_nothing_is_lost(lake, damage, monkeypatch) -> None:
    table = grow(lake, FRESH)
    expected = rows(table)
    (file,) = kept(lake)
    content = file.read_bytes()
    match damage:
        case "gone":
            file.unlink()
        case "cut short":
            file.write_bytes(content[: len(content) // 2])
        case "another file":
            shutil.copy(next(Path(table.uri).glob("*/*.parquet")), file)
        case "empty":
            file.write_bytes(b"")
        case "begun":
            file.rename(file.with_name(f".{file.name}-0"))
        case "not to be written":
            file.unlink()
            monkeypatch.setattr(columns, "write_whole", _refuse)
    forget()

    assert rows(table) == expected
    monkeypatch.setattr(columns, "write_whole", write_whole)
    forget()
    assert rows(table) == expected
    hide_data_files(lake)  # what is kept was made anew
    forget()
    assert rows(grow(lake, 1, start=FRESH))[:-1] == expected


def _refuse(*_: object) -> None:
    raise OSError("read-only file system")


def test_one_bit_that_is_not_as_it_was_written_is_noticed(lake) -> None:
    table = grow(lake, FRESH)
    expected = rows(table)
    (file,) = kept(lake)
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 0xFF
    file.write_bytes(content)
    forget()

    assert rows(table) == expected


def test_columns_that_came_later_are_null_in_older_rows(lake) -> None:
    rows(grow(lake, FRESH))
    evolve(lake, raw_images_with(["camera"]))
    table = grow(lake, 1, start=FRESH)

    cameras = LocalEngine().sql("SELECT path, camera FROM t", {"t": table}).arrow()
    assert (len(cameras), cameras["camera"].null_count) == (FRESH + 1, FRESH + 1)


def test_a_table_that_was_made_anew_has_its_own_rows(lake) -> None:
    rows(grow(lake, FRESH))
    shutil.rmtree(lake.table("raw_images"))

    assert rows(pin(lake, "raw_images")) == []
    assert len(rows(grow(lake, 2, start=50))) == 2


def test_many_at_once_see_the_rows_of_their_version(lake, local_engine) -> None:
    """Writers and readers, each of which makes what is kept anew."""
    grow(lake, FRESH - 2)
    wrong: list[object] = []

    def work(worker: int) -> None:
        try:
            for number in range(6):
                table = pin(lake, "raw_images")
                found = LocalEngine().sql("SELECT COUNT(*) AS n FROM t", {"t": table}).arrow()["n"].to_pylist()
                if found != [table.version]:  # a row a commit
                    wrong.append((table.version, found))
                put(lake, "raw_images", raw_image(100 * worker + 100 + number))
        except BaseException as error:  # noqa: BLE001 - shown below
            wrong.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert wrong == []
    assert len(rows(pin(lake, "raw_images"))) == FRESH - 2 + 18


def test_what_was_superseded_is_deleted_once_nobody_can_be_reading_it(lake) -> None:
    rows(grow(lake, FRESH))
    (first,) = kept(lake)
    rows(grow(lake, FRESH, start=FRESH))
    assert first in kept(lake)
    os.utime(first, (0, 0))
    rows(grow(lake, FRESH, start=2 * FRESH))

    assert first not in kept(lake)
    assert len(kept(lake)) == 2


def test_a_vacuum_leaves_what_is_kept_and_older_versions_do_not_replace_it(lake, local_engine) -> None:
    table = grow(lake, FRESH)
    rows(table)
    maintain(local_engine, lake, RAW_IMAGES, AT_ONCE)
    assert len(kept(lake)) == 1
    table = grow(lake, 2 * FRESH, start=FRESH)
    rows(table)
    files = kept(lake)
    for version in (table.version - 6, table.version - 5):
        rows(earlier(table, version))
    assert kept(lake) == files


def test_a_lake_as_old_as_it_may_be_is_opened_as_often_as_a_young_one(lake, monkeypatch) -> None:
    """Opens of the log, and the commits that one of them reads."""
    opened: list[object] = []
    open_table = delta_log.open_table

    def counted(*args):
        opened.append(args)
        return open_table(*args)

    monkeypatch.setattr(delta_log, "open_table", counted)

    def opens() -> int:
        forget()
        opened.clear()
        for table in (pin(lake, "raw_images"), pin(lake, "raw_images")):
            rows(table)
        return len(opened)

    grow(lake, 1)
    young = opens()
    table = grow(lake, 30, start=1)
    assert opens() == young == 1
    log = Path(table.uri, "_delta_log")
    last = max(int(file.name[:20]) for file in log.glob("*.checkpoint.parquet"))
    assert table.version - last < 10
    for commit in log.glob("*.json"):
        if int(commit.name[:20]) <= last:
            commit.unlink()
    assert opens() == 1
    assert len(rows(pin(lake, "raw_images"))) == 31
