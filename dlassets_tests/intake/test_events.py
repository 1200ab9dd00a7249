"""The event manifest: what a line may be, what is read and how often, on a folder and on S3."""

import datetime as dt
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dlassets.errors import DlassetsError
from dlassets.intake import events
from dlassets.intake.events import Manifest
from dlassets.settings import LandingZone
from dlassets.storage.lake import Lake

ZONE = LandingZone(uri="unlabeled", labelled=False)
BUCKET = LandingZone(uri="s3a://photos/in/new", labelled=False)


@pytest.fixture
def manifest(lake: Lake) -> Manifest:
    return Manifest.of(lake, "unlabeled", ZONE)


def write(lake: Lake, text: str, name: str = "a.jsonl") -> Path:
    file = Path(lake.events("unlabeled"), name)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as opened:
        opened.write(text)
    return file


def line(path: str, **more: Any) -> str:
    return json.dumps({"path": path, **more}) + "\n"


def s3(bucket: str, key: str, event: str = "ObjectCreated:Put") -> str:
    return json.dumps({"Records": [{"eventName": event, "s3": {"bucket": {"name": bucket}, "object": {"key": key}}}]})


def bridge(bucket: str, key: str, event: str = "Object Created") -> str:
    return json.dumps({"detail-type": event, "detail": {"bucket": {"name": bucket}, "object": {"key": key}}})


def test_without_events_there_is_nothing(manifest) -> None:
    pending = manifest.pending()
    assert (bool(pending), pending.paths, pending.bad_lines, manifest.listed_at) == (False, (), 0, None)


def test_noted_paths_come_once_in_order_of_last_mention(manifest) -> None:
    odd = "ü ä/a b%20#'\"\n.jpg"
    manifest.record([("a.jpg", "created"), ("b.jpg", "created")])
    manifest.record([("a.jpg", "deleted"), (odd, "created")])
    assert manifest.pending().paths == ("b.jpg", "a.jpg", odd)


def test_events_come_again_until_advanced(lake, manifest) -> None:
    manifest.record([("a.jpg", "created")])
    first = manifest.pending()
    again = Manifest.of(lake, "unlabeled", ZONE).pending()
    assert first == again
    manifest.advance(json.loads(json.dumps(first.position)))
    assert not Manifest.of(lake, "unlabeled", ZONE).pending()
    manifest.record([("b.jpg", "created")])
    assert manifest.pending().paths == ("b.jpg",)


def test_a_half_written_line_waits_for_its_end(lake, manifest) -> None:
    whole = line("b.jpg")
    write(lake, line("a.jpg") + whole[:9])
    pending = manifest.pending()
    assert (pending.paths, pending.bad_lines) == (("a.jpg",), 0)
    manifest.advance(pending.position)
    assert not manifest.pending()
    write(lake, whole[9:])
    assert manifest.pending().paths == ("b.jpg",)


@pytest.mark.parametrize(
    "location", ["a/1.jpg", "./a//1.jpg", "{zone}/a/1.jpg", "file://{zone}/a/1.jpg", "file:{zone}/%61/1.jpg"]
)
def test_a_path_may_be_relative_absolute_or_a_uri(lake, manifest, location) -> None:
    write(lake, line(location.format(zone=lake.zone("unlabeled"))))
    assert manifest.pending().paths == ("a/1.jpg",)


def test_a_linked_zone_is_known_by_both_names(lake, tmp_path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    zone = LandingZone(uri=str(tmp_path / "link"), labelled=False)
    write(lake, line(f"{tmp_path}/link/a.jpg") + line(f"{tmp_path}/real/b.jpg"))
    assert Manifest.of(lake, "unlabeled", zone).pending().paths == ("a.jpg", "b.jpg")


@pytest.mark.parametrize(
    "text",
    [
        s3("photos", "in/new/a+b/%C3%BC%2B1.jpg"),
        s3("photos", "in/new/a+b/%C3%BC%2B1.jpg", "s3:ObjectCreated:CompleteMultipartUpload"),
        s3("photos", "in/new/a+b/%C3%BC%2B1.jpg", "ObjectRemoved:Delete"),
        bridge("photos", "in/new/a b/ü+1.jpg"),
        bridge("photos", "in/new/a b/ü+1.jpg", "Object Deleted"),
        line("a b/ü+1.jpg"),
        line("s3://photos/in/new/a b/ü+1.jpg"),
        line("s3a://photos/in/new/a b/ü+1.jpg", event="deleted"),
    ],
)
def test_every_form_tells_of_an_object(lake, text) -> None:
    write(lake, text + "\n")
    assert Manifest.of(lake, "unlabeled", BUCKET).pending().paths == ("a b/ü+1.jpg",)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nonsense", "Expecting value"),
        ("[]", "not a JSON object"),
        ("{}", "neither an event of ours"),
        ('{"path": 1}', "neither an event of ours"),
        ('{"path": "a.jpg", "event": "renamed"}', "neither created nor deleted"),
        ('{"path": "../a.jpg"}', "may not go up"),
        ('{"path": "a/../../b.jpg"}', "may not go up"),
        ('{"path": "/etc/passwd"}', "not in this landing zone"),
        ('{"path": "s3://photos/in/newer/a.jpg"}', "not in this landing zone"),
        ('{"path": "\\ud800.jpg"}', "surrogates"),
        ('{"path": "a\\u0000b.jpg"}', "has a NUL in it"),
        (s3("photos", "in/new/a%00b.jpg"), "has a NUL in it"),
        (s3("photos", f"in/new/{'x' * 1025}"), "may have 1024 bytes"),
        ('{"path": "' + "x" * 2**20 + '"}', "longer than 1048576 bytes"),
        ("\x01\x1b[31m", "Expecting value"),
        ('{"Records": [{}]}', "neither an event of ours"),
        ('{"Records": 3}', "neither an event of ours"),
        (s3("photos", "in/new/../a.jpg"), "may not go up"),
        ("[" * 200_000, ""),
    ],
)
def test_a_bad_line_is_counted_and_named_and_stops_nothing(lake, text, why) -> None:
    write(lake, line("a.jpg") + text + "\n" + line("b.jpg"))
    pending = Manifest.of(lake, "unlabeled", BUCKET).pending()
    assert (pending.paths, pending.lines, pending.bad_lines) == (("a.jpg", "b.jpg"), 3, 1)
    assert pending.first_bad is not None
    assert pending.first_bad.startswith(f"a.jsonl, byte {len(line('a.jpg'))}: ")
    assert why in pending.first_bad


def test_a_line_without_end_is_read_once_and_costs_itself_alone(lake, manifest, monkeypatch) -> None:
    read: list[int] = []
    chunks = Manifest._chunks

    def counted(*args: Any) -> Iterator[bytes]:
        for chunk in chunks(*args):
            read.append(len(chunk))
            yield chunk

    monkeypatch.setattr(Manifest, "_chunks", counted)
    write(lake, line("a.jpg"))
    write(lake, "x" * 5 * 2**20)
    pending = manifest.pending()
    assert (pending.paths, pending.lines, pending.bad_lines) == (("a.jpg",), 2, 1)
    manifest.advance(pending.position)
    write(lake, "x" * 100)
    read.clear()
    going_on = manifest.pending()
    assert (going_on.paths, going_on.lines) == ((), 0)
    assert sum(read) < 1000
    manifest.advance(going_on.position)
    write(lake, "\n" + line("b.jpg"))
    pending = manifest.pending()
    assert (pending.paths, pending.lines, pending.bad_lines) == (("b.jpg",), 1, 0)


def test_a_listing_passes_over_a_line_without_end_as_well(lake, manifest) -> None:
    write(lake, line("a.jpg") + "x" * 3 * 2**20)
    manifest.advance(manifest.end(), dt.datetime.now(dt.UTC))
    write(lake, "x\n" + line("b.jpg"))
    pending = manifest.pending()
    assert (pending.paths, pending.bad_lines) == (("b.jpg",), 0)


def test_a_look_ends_after_so_many_lines_and_the_next_goes_on(lake, manifest, monkeypatch) -> None:
    monkeypatch.setattr(events, "LINES_AT_ONCE", 2)
    write(lake, line("a.jpg") + line("b.jpg") + line("c.jpg"), "1.jsonl")
    write(lake, line("d.jpg"), "2.jsonl")
    looks = []
    while pending := manifest.pending():
        looks.append((pending.paths, pending.more))
        manifest.advance(pending.position)
    assert looks == [(("a.jpg", "b.jpg"), True), (("c.jpg", "d.jpg"), True)]


def test_what_is_hidden_a_folder_or_not_in_the_pattern_is_left_out_silently(lake) -> None:
    zone = LandingZone(uri="unlabeled", labelled=False, pattern=r"\.jpg$")
    names = [".a.jpg", "_temporary/0/b.jpg", "@eaDir/b.jpg", "b.jpg.part", "c.png", "folder/", "d.jpg"]
    write(lake, "\n" + "".join(map(line, names)) + '{"Event": "s3:TestEvent"}\n')
    pending = Manifest.of(lake, "unlabeled", zone).pending()
    assert (pending.paths, pending.bad_lines) == (("d.jpg",), 0)


def test_what_a_store_tells_of_other_places_is_left_out_silently(lake) -> None:
    elsewhere = [s3("others", "in/new/a.jpg"), bridge("photos", "elsewhere/a.jpg"), s3("photos", "in/new/b.jpg")]
    write(lake, "\n".join([*elsewhere, ""]))
    pending = Manifest.of(lake, "unlabeled", BUCKET).pending()
    assert (pending.paths, pending.bad_lines) == (("b.jpg",), 0)


@pytest.mark.parametrize(
    "state", ["", "{", "[]", '{"files": 3}', '{"files": {"a.jsonl": [1]}}', '{"listed_at": "noon"}']
)
def test_without_a_readable_state_everything_is_read_again(lake, manifest, state) -> None:
    manifest.record([("a.jpg", "created")])
    manifest.advance(manifest.pending().position, dt.datetime.now(dt.UTC))
    Path(lake.checkpoint("ingest-unlabeled"), "events.json").write_text(state)
    assert manifest.pending().paths == ("a.jpg",)
    assert manifest.listed_at is None


@pytest.mark.parametrize(
    ("text", "paths"), [(line("b.jpg"), ("b.jpg",)), (line("b.jpg") + line("c.jpg") * 9, ("b.jpg", "c.jpg"))]
)
def test_a_file_that_was_replaced_is_read_from_its_start(lake, manifest, text, paths) -> None:
    file = write(lake, line("a.jpg") * 3)
    manifest.advance(manifest.pending().position)
    file.write_text(text)
    assert manifest.pending().paths == paths


def test_a_file_that_was_only_touched_is_not_read_again(lake, manifest) -> None:
    file = write(lake, line("a.jpg"))
    manifest.advance(manifest.pending().position)
    os.utime(file, (1, 1))
    assert not manifest.pending()


def test_what_was_written_before_a_listing_is_passed_over(lake, manifest) -> None:
    half = line("c.jpg")
    write(lake, line("a.jpg") + line("b.jpg") + half[:5])
    manifest.advance(manifest.end(), dt.datetime.now(dt.UTC))
    write(lake, half[5:])
    assert manifest.pending().paths == ("c.jpg",)


def test_when_all_was_listed_is_remembered_until_events_are_lost(manifest) -> None:
    listed = dt.datetime.now(dt.UTC)
    manifest.advance({}, listed)
    manifest.record([("a.jpg", "created")])
    manifest.advance(manifest.pending().position)
    assert manifest.listed_at == listed
    manifest.request_listing()
    assert manifest.listed_at is None
    again = dt.datetime.now(dt.UTC)
    manifest.advance(manifest.end(), again)
    assert manifest.listed_at == again


def test_a_line_cut_off_by_a_full_disk_spoils_no_other(lake, manifest, monkeypatch) -> None:
    whole_write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, text: whole_write(descriptor, text[:20]))
        with pytest.raises(DlassetsError, match="disk may be full"):
            manifest.record([("a.jpg", "created")])
    manifest.record([("b.jpg", "created")])
    pending = manifest.pending()
    assert (pending.paths, pending.bad_lines) == (("b.jpg",), 1)


def test_files_read_to_their_end_and_old_are_tidied_away(lake, manifest) -> None:
    read, unread, half = (write(lake, line(f"{name}.jpg"), f"{name}.jsonl") for name in ("read", "unread", "half"))
    position = manifest.pending().position
    manifest.advance({name: position[name] for name in ("read.jsonl", "half.jsonl")})
    with half.open("a") as opened:
        opened.write("{")
    assert manifest.tidy(older_than_days=1) == 0
    for file in (read, unread, half):
        os.utime(file, (1, 1))
    position = manifest.pending().position
    manifest.advance({name: position[name] for name in ("read.jsonl", "half.jsonl")})
    assert manifest.tidy() == 1
    assert (read.exists(), unread.exists(), half.exists()) == (False, True, True)


def test_an_events_folder_that_is_not_ours_to_write_is_said(lake, manifest) -> None:
    Path(lake.events("unlabeled")).parent.mkdir(parents=True)
    Path(lake.events("unlabeled")).write_text("a file")
    with pytest.raises(DlassetsError, match=r"events of landing zone 'unlabeled' .* cannot be written"):
        manifest.record([("a.jpg", "created")])
