"""Downloads against a real server on loopback that misbehaves on demand, and the one entry to every set."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dlassets.errors import DlassetsError
from dlassets.samples.fetch import fetch
from dlassets.samples.sets import ARCHIVES, Archive, samples
from dlassets_tests.samples.test_unpack import contents, make_zip

CONTENT = bytes(i * 31 % 251 for i in range(700_000))
OTHER = CONTENT[::-1]


@dataclass
class Site:
    """What the server holds, how it misbehaves, and what it was asked for."""

    url: str = ""
    content: bytes = CONTENT
    etag: str = '"one"'
    ranges: bool = True
    shift: int = 0  # a 206 begins this many bytes late
    statuses: list[int] = field(default_factory=list)  # answered first, one a request
    drops: list[int] = field(default_factory=list)  # the next answers end after so many bytes
    requested_ranges: list[str | None] = field(default_factory=list)  # one a request

    def sha256(self) -> str:
        return "sha256:" + hashlib.sha256(self.content).hexdigest()


@pytest.fixture
def site(monkeypatch, tmp_path) -> Iterator[Site]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    state = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.requested_ranges.append(asked)
            if state.statuses:
                self.send_error(state.statuses.pop(0))
                return
            start = 0
            if state.ranges and asked and self.headers.get("If-Range") in {None, state.etag}:
                start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) + state.shift
                if start >= len(state.content):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(state.content) - 1}/{len(state.content)}")
            else:
                self.send_response(200)
            if state.etag:
                self.send_header("ETag", state.etag)
            self.send_header("Content-Length", str(len(state.content) - start))
            self.end_headers()
            end = start + state.drops.pop(0) if state.drops else None
            self.wfile.write(state.content[start:end])

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_port}/photos.zip"
        yield state
        server.shutdown()
        thread.join()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_comes_whole_and_verified_with_progress_and_is_not_asked_for_again(site, tmp_path):
    reported = []
    folder = tmp_path / "cache"

    path = fetch(site.url, folder, checksum=site.sha256(), progress=lambda *args: reported.append(args))

    assert path.read_bytes() == CONTENT
    assert path.suffix == ".zip"
    assert reported[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in reported] == sorted({done for done, _ in reported})
    assert names(folder) == {path.name}
    assert fetch(site.url, folder, checksum="md5:" + hashlib.md5(CONTENT).hexdigest()) == path
    assert fetch(site.url, folder) == path
    assert site.requested_ranges == [None]


def test_a_dropped_connection_is_resumed_where_it_broke_off(site, tmp_path):
    site.drops = [300_000, 200_000]
    reported = []

    path = fetch(site.url, tmp_path, checksum=site.sha256(), progress=lambda *args: reported.append(args), backoff=0)

    assert path.read_bytes() == CONTENT
    assert site.requested_ranges == [None, "bytes=300000-", "bytes=500000-"]
    assert {total for _, total in reported} == {len(CONTENT)}
    assert [done for done, _ in reported] == sorted({done for done, _ in reported})


def test_the_next_run_goes_on_from_what_the_last_one_left(site, tmp_path):
    site.drops = [300_000]
    with pytest.raises(DlassetsError, match="300,000 bytes are kept"):
        fetch(site.url, tmp_path, retries=0)
    assert {name.partition(".zip")[2] for name in names(tmp_path)} == {".part", ".part.tag"}

    assert fetch(site.url, tmp_path, backoff=0).read_bytes() == CONTENT
    assert site.requested_ranges == [None, "bytes=300000-"]


def test_busy_and_broken_servers_are_asked_again(site, tmp_path):
    site.statuses = [503, 429, 500]

    assert fetch(site.url, tmp_path, backoff=0).read_bytes() == CONTENT
    assert len(site.requested_ranges) == 4


@pytest.mark.parametrize(
    ("behaviour", "said", "requests"),
    [
        ({"statuses": [503] * 10}, "could not be downloaded: Service Unavailable", 3),
        ({"ranges": False, "drops": [300_000] * 20}, "ended after 300,000 of 700,000 bytes", 3),
        ({"statuses": [404]}, r"answered 404 Not Found\. Check the address", 1),
    ],
    ids=["broken", "starts over and drops", "not found"],
)
def test_a_server_is_given_up_after_the_retries_and_at_once_where_they_cannot_help(
    site, tmp_path, behaviour, said, requests
):
    vars(site).update(behaviour)

    with pytest.raises(DlassetsError, match=said):
        fetch(site.url, tmp_path, retries=2, backoff=0)

    assert len(site.requested_ranges) == requests


@pytest.mark.parametrize("change", [{"etag": '"two"'}, {"etag": 'W/"two"'}, {"etag": ""}, {"content": b"short"}])
def test_a_file_that_changed_at_its_source_or_is_shorter_than_its_part_is_started_over(site, tmp_path, change):
    site.drops = [300_000]
    with pytest.raises(DlassetsError):
        fetch(site.url, tmp_path, retries=0)

    vars(site).update({"content": OTHER} | change)
    assert fetch(site.url, tmp_path, backoff=0).read_bytes() == site.content


@pytest.mark.parametrize("etag", ['W/"one"', ""])
def test_without_a_strong_tag_nothing_is_pieced_together(site, tmp_path, etag):
    site.etag, site.drops = etag, [300_000]

    assert fetch(site.url, tmp_path, backoff=0).read_bytes() == CONTENT
    assert site.requested_ranges == [None, None]


@pytest.mark.parametrize("behaviour", [{"ranges": False}, {"shift": 7}])
def test_an_answer_that_begins_elsewhere_than_asked_is_not_appended(site, tmp_path, behaviour):
    vars(site).update(behaviour | {"drops": [300_000]})

    assert fetch(site.url, tmp_path, backoff=0).read_bytes() == CONTENT


def test_a_wrong_checksum_removes_the_file_and_says_both(site, tmp_path):
    wrong = "md5:" + "0" * 32

    with pytest.raises(DlassetsError, match=f"MD5 .* expected {wrong} but got {hashlib.md5(CONTENT).hexdigest()}"):
        fetch(site.url, tmp_path, checksum=wrong)

    assert names(tmp_path) == set()


def test_a_damaged_file_in_the_cache_is_fetched_anew(site, tmp_path):
    path = fetch(site.url, tmp_path)
    path.write_bytes(b"damaged")

    assert fetch(site.url, tmp_path, checksum=site.sha256()).read_bytes() == CONTENT


def test_a_silent_server_times_out_and_a_refused_connection_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/f"
        with pytest.raises(DlassetsError, match="timed out"):
            fetch(url, tmp_path, retries=0, timeout=0.05)

    with pytest.raises(DlassetsError, match=r"could not be downloaded: .*refused"):
        fetch(url, tmp_path, retries=1, backoff=0)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/f", "photos.zip"])
def test_only_http_is_fetched(tmp_path, url):
    with pytest.raises(DlassetsError, match="only http"):
        fetch(url, tmp_path)


@pytest.mark.parametrize("checksum", ["abc", "md5:abc", "sha1:" + "0" * 40])
def test_a_checksum_that_is_none_is_refused(tmp_path, checksum):
    with pytest.raises(DlassetsError, match="is no checksum"):
        fetch("http://127.0.0.1/f", tmp_path, checksum=checksum)


def test_a_target_that_cannot_be_written_is_one_clear_error(site, tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(DlassetsError, match="could not be written to"):
        fetch(site.url, tmp_path / "file" / "below")


@pytest.fixture
def site_of_two(site, tmp_path) -> Site:
    """A site that has a zip of two photos."""
    site.content = make_zip(tmp_path / "two.zip", {"top/cat/1.jpg": b"cat", "top/ant/1.jpg": b"ant"}).read_bytes()
    return site


def test_samples_takes_a_url_and_a_second_run_does_nothing(site_of_two, tmp_path):
    site, reported = site_of_two, []

    for _ in range(2):
        count = samples(site.url, tmp_path / "out", progress=lambda *args: reported.append(args)).photos
        assert count == 2

    assert contents(tmp_path / "out") == {"001.ant/1.jpg": b"ant", "002.cat/1.jpg": b"cat"}
    assert len(site.requested_ranges) == 1
    assert reported[0] == ("download", len(site.content), len(site.content))
    assert reported[-1] == ("unpack", 2, 2)


def test_samples_takes_an_archive_by_name_and_holds_it_to_its_checksum(site_of_two, tmp_path, monkeypatch):
    monkeypatch.setitem(ARCHIVES, "small", Archive(site_of_two.url, site_of_two.sha256(), "two photos"))
    monkeypatch.setitem(ARCHIVES, "forged", Archive(site_of_two.url, "md5:" + "0" * 32, "two photos"))

    assert samples("small", tmp_path / "out").photos == 2
    with pytest.raises(DlassetsError, match="expected md5:0000"):
        samples("forged", tmp_path / "out2")
    assert not (tmp_path / "out2").exists()


def test_samples_keeps_two_urls_of_one_file_name_apart(site_of_two, tmp_path):
    samples(site_of_two.url, tmp_path / "out")
    samples(site_of_two.url.replace("/photos", "/other/photos"), tmp_path / "out")

    assert len(names(tmp_path / "cache" / "dlassets")) == 2


def test_samples_generates_and_takes_a_path(tmp_path):
    assert samples("generated", tmp_path / "made", classes=2, per_class=1).photos == 2
    assert samples(tmp_path / "made", tmp_path / "out").photos == 2
    assert names(tmp_path / "out") == {"001.balloon", "002.lollipop"}


def test_samples_says_what_it_knows_when_it_does_not_know_the_name(tmp_path):
    with pytest.raises(DlassetsError, match=r"one of generated, caltech256, .* Did you mean caltech256\?"):
        samples("caltech-256", tmp_path)


def test_the_public_archives_have_checksums_but_for_the_one_made_on_request():
    unchecked = {name: archive.checksum is None for name, archive in ARCHIVES.items()}
    assert unchecked == {"caltech256": False, "caltech101": False, "clothing": True}
