"""A zone's listing on its way from a sensor to the run that this starts, and what happens meanwhile."""

import datetime as dt
import os
from dataclasses import replace
from pathlib import Path

import pytest

from dlassets.engines.local import LocalEngine
from dlassets.intake.ingest import Ingested, ingest
from dlassets.intake.waiting import SLOW_SECONDS, waiting_files
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.intake.test_ingest import deleted, photo, put, rows
from dlassets_tests.tables import put as put_rows

ENGINE = LocalEngine()
ZONE = "labeled"


@pytest.fixture
def zone(lake: Lake, settings: Settings) -> Path:
    """A zone whose file `known.jpg` was taken in, and where `new.jpg` waits; `gone.jpg` was taken in, and has gone."""
    folder = Path(lake.zone(ZONE)) / "001.cat"
    put(folder / "known.jpg", photo(10))
    put(folder / "gone.jpg", photo(20))
    put(Path(lake.zone("unlabeled")) / "other.jpg", photo(30))
    ingest(ENGINE, lake, settings, {}, zones=[ZONE])
    (folder / "gone.jpg").unlink()
    put(folder / "new.jpg", photo(40))
    return folder


def hand_over(lake: Lake, settings: Settings) -> Path:
    """Do as a sensor does; return the file that the listing lies in."""
    waiting = replace(waiting_files(lake, settings, ZONE), listing_seconds=SLOW_SECONDS)
    waiting.hand_over()
    assert waiting.handover is not None
    return Path(waiting.handover.location)


def take_in(lake: Lake, settings: Settings) -> Ingested:
    return ingest(ENGINE, lake, settings, {}, listed_zone=ZONE)


def taken_in(lake: Lake) -> set[str]:
    return {str(path).rpartition("/")[2] for (path,) in rows(ENGINE, lake, "raw_images", "path")}


def test_the_zone_alone_is_taken_in_by_its_listing_which_is_gone_then(lake, settings, zone, listed) -> None:
    handed = hand_over(lake, settings)

    done = take_in(lake, settings)

    assert listed == [ZONE]
    assert (done.images, done.deleted, done.zones) == (1, 1, {ZONE: 1})
    assert taken_in(lake) == {"known.jpg", "gone.jpg", "new.jpg"}
    assert deleted(ENGINE, lake) == {f"{ZONE}/001.cat/gone.jpg": False}
    assert not handed.exists()
    assert take_in(lake, settings) == Ingested(zones={ZONE: 0})
    assert listed == [ZONE, ZONE]


def test_a_file_that_has_gone_since_has_no_row_and_one_that_came_waits_for_the_next(lake, settings, zone) -> None:
    hand_over(lake, settings)
    (zone / "new.jpg").rename(zone / "late.jpg")

    assert take_in(lake, settings).images == 0
    assert taken_in(lake) == {"known.jpg", "gone.jpg"}
    hand_over(lake, settings)
    assert take_in(lake, settings).images == 1
    assert taken_in(lake) == {"known.jpg", "gone.jpg", "late.jpg"}


def test_a_file_that_is_back_since_is_not_noted_as_gone(lake, settings, zone) -> None:
    hand_over(lake, settings)
    put(zone / "gone.jpg", photo(20))

    assert take_in(lake, settings).deleted == 0
    assert deleted(ENGINE, lake) == {}


def test_a_file_that_was_back_and_has_gone_since_is_not_noted_as_back(lake, settings, zone) -> None:
    ingest(ENGINE, lake, settings, {}, zones=[ZONE])
    put(zone / "gone.jpg", photo(20))
    put(zone / "newer.jpg", photo(50))
    hand_over(lake, settings)
    (zone / "gone.jpg").unlink()

    done = take_in(lake, settings)

    assert (done.images, done.returned) == (1, 0)
    assert deleted(ENGINE, lake) == {f"{ZONE}/001.cat/gone.jpg": False}


@pytest.mark.parametrize("size", [(400, 300), (4, 3)], ids=["larger", "smaller"])
def test_a_file_that_was_changed_since_is_right_after_the_next_listing(lake, settings, zone, size) -> None:
    hand_over(lake, settings)
    put(zone / "new.jpg", photo(60, size))
    os.utime(zone / "new.jpg", (2e9, 2e9))

    take_in(lake, settings)
    hand_over(lake, settings)
    take_in(lake, settings)

    time = dt.datetime.fromtimestamp(2e9, dt.UTC)
    found = rows(ENGINE, lake, "raw_images", "path, modificationTime, content")
    assert found[-1] == (f"{ZONE}/001.cat/new.jpg", time, photo(60, size))
    assert waiting_files(lake, settings, ZONE).files == 0


def cut_off(handed: Path) -> None:
    handed.write_bytes(handed.read_bytes()[:-9])


def damaged(handed: Path) -> None:
    content = bytearray(handed.read_bytes())
    content[content.index(b"new.jpg")] ^= 1
    handed.write_bytes(content)


@pytest.mark.parametrize("damage", [Path.unlink, cut_off, damaged, lambda handed: handed.write_bytes(b"")])
def test_a_listing_that_is_not_whole_is_made_anew(lake, settings, zone, listed, damage) -> None:
    damage(hand_over(lake, settings))

    assert take_in(lake, settings).images == 1
    assert listed == [ZONE, ZONE]


@pytest.mark.parametrize("table", ["raw_images", "quarantined_files", "deleted_files"])
def test_a_listing_is_made_anew_where_a_table_has_moved_on(lake, settings, zone, listed, table) -> None:
    handed = hand_over(lake, settings)
    put_rows(lake, table, {"path": "another/1.jpg", "landing": "another"})

    assert take_in(lake, settings).images == 1
    assert listed == [ZONE, ZONE]
    assert not handed.exists()


def test_a_listing_is_made_anew_where_the_zone_is_set_otherwise(lake, settings, zone, listed) -> None:
    hand_over(lake, settings)
    fewer = settings.landing[ZONE].model_copy(update={"pattern": "known"})

    assert take_in(lake, settings.model_copy(update={"landing": {ZONE: fewer}})).images == 0
    assert listed == [ZONE, ZONE]


def test_a_zone_that_is_listed_in_no_time_is_listed_by_the_run(lake, settings, zone, listed) -> None:
    handed = hand_over(lake, settings)  # for a run that did not come to it
    waiting_files(lake, settings, ZONE).hand_over()
    assert not handed.exists()
    (zone / "new.jpg").rename(zone / "late.jpg")

    assert take_in(lake, settings).images == 1
    assert taken_in(lake) == {"known.jpg", "gone.jpg", "late.jpg"}
    assert listed == [ZONE] * 3
