"""Photos come in from buckets, once each, whatever the store does meanwhile. A real S3 server, with real faults."""

import hashlib
from collections.abc import Iterable

import pytest

from dlassets.engines.base import Engine
from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError
from dlassets.intake.ingest import Ingested, ingest
from dlassets.intake.quarantine import drop, refused_files
from dlassets.intake.waiting import waiting_files
from dlassets.lakehouse.snapshots import pin
from dlassets.settings import LandingZone, Settings
from dlassets.storage.lake import Lake
from dlassets_tests.intake.test_ingest import photo, rows
from dlassets_tests.storage.s3 import S3
from dlassets_tests.storage.server import Faults

ENGINE = LocalEngine()
ODD = (
    "001.cat/a b.jpg",
    "001.cat/über café.jpg",
    "001.cat/100%25 sure%.jpg",
    "001.cat/a#b?c=d&e.jpg",
    '002.dog/it\'s "quoted".jpg',
    "002.dog/a+b.jpg",
    "002.dog/日本.jpg",
    "002.dog/semi;colon=[x]{y}.jpg",
)


def photos(paths: Iterable[str]) -> dict[str, bytes]:
    return {path: photo(shade, (30 + shade, 20)) for shade, path in enumerate(paths)}


def land(s3: S3, bucket: str, arriving: dict[str, bytes]) -> None:
    for path, content in arriving.items():
        s3.put(bucket, f"incoming/{path}", content)


def zone_in(bucket: str, root: str) -> Settings:
    zone = LandingZone(uri=f"s3a://{bucket}/incoming", labelled=True)
    return Settings(root=root, landing={"photos": zone})


@pytest.fixture
def settings(bucket: str, lake: Lake) -> Settings:
    return zone_in(bucket, lake.root)


def taken_in(engine: Engine, lake: Lake) -> list[tuple[object, ...]]:
    return rows(engine, lake, "raw_images", "path, length, image_id")


def as_rows(arrived: dict[str, bytes]) -> list[tuple[object, ...]]:
    return sorted((f"photos/{p}", len(c), hashlib.sha256(c).hexdigest()) for p, c in arrived.items())


def test_nothing_is_lost_or_doubled_by_a_store_that_is_busy_slow_and_breaks_off(s3, bucket, lake, settings) -> None:
    arrived = photos([*ODD, *(f"003.more/{number:02}.jpg" for number in range(8))])
    land(s3, bucket, arrived)

    with s3.faults(Faults(busy_every=13, slow_every=5, cut_every=7)):
        done = ingest(ENGINE, lake, settings, {})
        again = ingest(ENGINE, lake, settings, {})
        injected = s3.injected

    assert all(times > 0 for times in injected.values()), injected
    assert (done.images, done.quarantined) == (len(arrived), 0)
    assert again == Ingested(zones={"photos": 0})
    assert taken_in(ENGINE, lake) == as_rows(arrived)


def test_a_lake_in_a_bucket_holds_what_arrived_changed_and_went_though_the_store_fails(engine, s3, bucket) -> None:
    settings = zone_in(bucket, f"s3://{bucket}/lake")
    lake = Lake.at(settings.root)
    arrived = photos(ODD[:6])
    land(s3, bucket, arrived)

    with s3.faults(Faults(busy_every=50, slow_every=40, cut_every=45)):
        until_it_ends(engine, lake, settings)
        changed = {ODD[0]: photo(200, (90, 20)), "004.new/late.jpg": photo(210, (91, 20))}
        land(s3, bucket, changed)
        s3.delete(bucket, f"incoming/{ODD[1]}")
        until_it_ends(engine, lake, settings)
        injected = s3.injected

    assert all(times > 0 for times in injected.values()), injected
    assert taken_in(engine, lake) == as_rows(arrived | changed)
    gone = rows(engine, lake, "deleted_files", "path, deleted_at IS NOT NULL, returned_at IS NULL")
    assert gone == [(f"photos/{ODD[1]}", True, True)]
    assert rows(engine, lake, "quarantined_files", "path") == []


def test_what_has_gone_by_a_listing_handed_over_is_looked_at_whatever_its_name(s3, bucket) -> None:
    settings = zone_in(bucket, f"s3://{bucket}/lake")
    lake = Lake.at(settings.root)
    odd = [*ODD, "001.cat//no name.jpg", "/001.cat/first.jpg"]
    land(s3, bucket, photos(odd))
    ingest(ENGINE, lake, settings, {})
    for path in odd:
        s3.delete(bucket, f"incoming/{path}")
    land(s3, bucket, photos(["001.cat/new.jpg"]))
    waiting = waiting_files(lake, settings, "photos")
    assert waiting.handover is not None
    waiting.handover.write(waiting.listing)
    land(s3, bucket, photos(ODD[:1]))

    done = ingest(ENGINE, lake, settings, {}, listed_zone="photos")

    assert (done.images, done.deleted) == (1, len(odd) - 1)
    gone = {path for (path,) in rows(ENGINE, lake, "deleted_files", "path")}
    assert gone == {f"photos/{path}" for path in odd[1:]}


def test_an_object_whose_name_cannot_be_deleted_is_kept_when_others_are_dropped(s3, bucket, lake, settings) -> None:
    land(s3, bucket, {"001.cat/plain.jpg": b"no photo", "001.cat//no name.jpg": b"no photo"})
    ingest(ENGINE, lake, settings, {})

    done = drop(ENGINE, lake, settings, refused_files(ENGINE, lake), {}, delete_files=True)

    assert (done.dropped, done.deleted) == (1, 1)
    assert "Empty path component" in done.kept["photos/001.cat//no name.jpg"]


def until_it_ends(engine: Engine, lake: Lake, settings: Settings) -> None:
    """Ingest, and again where the store did not let it: each failure is one that tells a user what happened."""
    for _ in range(5):
        try:
            ingest(engine, lake, settings, {})
        except DlassetsError:
            continue
        return
    pytest.fail("The store never let an ingest through.")


def test_a_zone_that_nothing_lies_in_is_empty_and_one_that_was_emptied_is_noted(s3, bucket, lake, settings) -> None:
    assert ingest(ENGINE, lake, settings, {}) == Ingested(zones={"photos": 0})

    land(s3, bucket, photos(["001.cat/a.jpg"]))
    ingest(ENGINE, lake, settings, {})
    s3.delete(bucket, "incoming/001.cat/a.jpg")

    assert ingest(ENGINE, lake, settings, {}).deleted == 1


def test_an_object_that_may_not_be_read_is_set_aside_and_the_others_come_in(s3, bucket, lake, settings) -> None:
    land(s3, bucket, photos(["001.cat/fine.jpg", "001.cat/secret.jpg", "001.cat//no name.jpg", "/001.cat/first.jpg"]))

    with s3.faults(Faults(denied="secret")):
        done = ingest(ENGINE, lake, settings, {})

    assert (done.images, done.quarantined) == (1, 3)
    assert rows(ENGINE, lake, "quarantined_files", "path, reason") == [
        ("photos//001.cat/first.jpg", "unreadable"),
        ("photos/001.cat//no name.jpg", "unreadable"),
        ("photos/001.cat/secret.jpg", "unreadable"),
    ]


def test_a_photo_that_the_store_cannot_give_just_now_is_no_bad_file(s3, bucket, lake, settings) -> None:
    arrived = photos(["001.cat/a.jpg"])
    land(s3, bucket, arrived)

    with s3.faults(Faults(down="cat/a")), pytest.raises(DlassetsError, match=r"photos/001\.cat/a\.jpg .* run again"):
        ingest(ENGINE, lake, settings, {})
    assert rows(ENGINE, lake, "quarantined_files", "path") == []

    assert ingest(ENGINE, lake, settings, {}).images == 1
    assert taken_in(ENGINE, lake) == as_rows(arrived)


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("AWS_ACCESS_KEY_ID", "unknown", "set AWS_ACCESS_KEY_ID"),
        pytest.param(
            "AWS_ENDPOINT_URL",
            "http://127.0.0.1:9",
            r"set AWS_ENDPOINT_URL .*127\.0\.0\.1:9",
            marks=pytest.mark.slow,  # it is asked again and again
        ),
        ("AWS_ALLOW_HTTP", "false", "set AWS_ALLOW_HTTP=true"),
    ],
)
@pytest.mark.parametrize("place", ["zone", "root"])
def test_what_is_out_of_reach_says_what_to_set(bucket, lake, monkeypatch, place, variable, value, named) -> None:
    """Before any engine comes to it: tables are pinned, and zones listed, in this process on either."""
    monkeypatch.setenv(variable, value)
    settings = zone_in(bucket, lake.root if place == "zone" else f"s3://{bucket}/lake")

    with pytest.raises(DlassetsError, match=named) as raised:
        ingest(ENGINE, Lake.at(settings.root), settings, {})

    assert "\n" not in str(raised.value)
    assert "test-secret" not in str(raised.value)


@pytest.mark.slow
def test_a_bucket_that_is_not_there_is_one_clear_error(bucket, lake) -> None:
    with pytest.raises(DlassetsError, match=r"no such bucket: create missing-bucket"):
        ingest(ENGINE, lake, zone_in("missing-bucket", lake.root), {})
    with pytest.raises(DlassetsError, match=r"no such bucket: create missing-bucket"):
        pin(Lake.at("s3://missing-bucket/lake"), "raw_images")
