"""The watcher of landing zones on real folders: what is done to files stands in the manifest soon after."""

import datetime as dt
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dlassets.intake import watcher
from dlassets.intake.events import Manifest
from dlassets.intake.watcher import FolderWatch, ZoneWatcher, can_be_watched
from dlassets.settings import LandingZone
from dlassets.storage.lake import Lake

ZONE = LandingZone(uri="new", labelled=False, pattern=r"\.jpg$", links=("/",))
pytestmark = pytest.mark.skipif(not can_be_watched("/"), reason="inotify is Linux's")


class Watched:
    """A zone under watch, and what was recorded of it."""

    def __init__(self, lake: Lake) -> None:
        self.folder = Path(lake.zone(ZONE.uri))
        self.manifest = Manifest.of(lake, "new", ZONE)
        self.times: list[float | None] = []
        self.messages: list[str] = []
        self.watcher = ZoneWatcher(self.manifest, str(self.folder), ZONE, 0.02, self.times.append, self.messages.append)

    def start(self) -> None:
        self.watcher.start()
        until(lambda: self.times)
        self.forget()

    def forget(self) -> None:
        """Take what was recorded for read, as an ingest does that listed everything."""
        self.manifest.advance(self.manifest.end(), dt.datetime.now(dt.UTC))

    def recorded(self) -> set[str]:
        return set(self.manifest.pending().paths)

    def wait_for(self, *paths: str) -> None:
        """Wait until exactly these paths stand in the manifest."""
        until(lambda: self.recorded() >= {*paths})
        assert self.recorded() == {*paths}


def until(holds: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            pytest.fail("it did not happen")
        time.sleep(0.005)


@pytest.fixture
def watched(lake: Lake) -> Iterator[Watched]:
    made = Watched(lake)
    made.folder.mkdir(parents=True)
    (made.folder / "old").mkdir()
    (made.folder / "old" / "0.jpg").write_bytes(b"0")
    yield made
    if made.watcher.is_alive():
        made.watcher.stop()


@pytest.fixture
def running(watched: Watched) -> Watched:
    watched.start()
    return watched


def test_the_first_thing_asked_for_is_a_listing(watched) -> None:
    watched.forget()
    watched.watcher.start()
    until(lambda: watched.times)
    assert (watched.times[0], watched.manifest.listed_at, watched.recorded()) == (None, None, set())


def test_a_file_is_noted_when_it_is_closed_and_not_before(running) -> None:
    with (running.folder / "slow.jpg").open("wb") as slow:
        slow.write(b"half")
        slow.flush()
        (running.folder / "ü '%\n.jpg").write_bytes(b"whole")
        running.wait_for("ü '%\n.jpg")
    running.wait_for("ü '%\n.jpg", "slow.jpg")
    assert running.times[-1] is not None


def test_what_is_hidden_or_not_in_the_pattern_is_not_noted(running) -> None:
    for name in (".a.jpg", "_b.jpg", "c.png", "Thumbs.db", "e.jpg.part"):
        (running.folder / name).write_bytes(b"x")
    (running.folder / "_temporary").mkdir()
    (running.folder / "_temporary" / "d.jpg").write_bytes(b"x")
    (running.folder / "@eaDir").mkdir()
    (running.folder / "@eaDir" / "f.jpg").write_bytes(b"x")
    (running.folder / ".a.jpg").rename(running.folder / "a.jpg")
    running.wait_for("a.jpg")


def test_moved_linked_changed_and_removed_files_are_noted(running, tmp_path) -> None:
    for name in ("moved", "linked", "sym"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "moved").rename(running.folder / "moved.jpg")
    os.link(tmp_path / "linked", running.folder / "linked.jpg")
    (running.folder / "sym.jpg").symlink_to(tmp_path / "sym")
    running.wait_for("moved.jpg", "linked.jpg", "sym.jpg")
    running.forget()
    (running.folder / "moved.jpg").rename(tmp_path / "moved")
    (running.folder / "linked.jpg").unlink()
    (running.folder / "sym.jpg").rename(running.folder / "other.jpg")
    with (running.folder / "old" / "0.jpg").open("r+b") as changed:
        changed.write(b"1")
    running.wait_for("moved.jpg", "linked.jpg", "sym.jpg", "other.jpg", "old/0.jpg")


def test_a_file_linked_in_whose_first_name_goes_is_noted_all_the_same(watched, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(watcher, "CREATED_SECONDS", 0.05)
    watched.start()
    os.mknod(watched.folder / "made.jpg")  # made and never opened, as a linked one looks when its first name is gone
    watched.wait_for("made.jpg")


def test_folders_made_and_filled_at_once_lose_nothing(running) -> None:
    names = {f"{a}/{b}/{c}.jpg" for a in "abcdef" for b in "ghij" for c in "klm"}
    for name in sorted(names):
        file = running.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    running.wait_for(*names)


def test_a_folder_moved_in_is_noted_with_all_that_is_in_it_and_watched(running, tmp_path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "1.jpg").write_bytes(b"1")
    (tmp_path / "in" / "deep" / "2.jpg").write_bytes(b"2")
    (tmp_path / "in").rename(running.folder / "in")
    running.wait_for("in/1.jpg", "in/deep/2.jpg")
    (running.folder / "in" / "deep" / "3.jpg").write_bytes(b"3")
    running.wait_for("in/1.jpg", "in/deep/2.jpg", "in/deep/3.jpg")


def test_a_folder_moved_away_asks_for_a_listing_and_tells_no_more(running, tmp_path) -> None:
    (running.folder / "old").rename(tmp_path / "away")
    until(lambda: running.manifest.listed_at is None)
    (tmp_path / "away" / "1.jpg").write_bytes(b"1")
    (running.folder / "2.jpg").write_bytes(b"2")
    running.wait_for("2.jpg")


def test_a_folder_renamed_within_the_zone_is_noted_under_its_new_name(running) -> None:
    (running.folder / "old").rename(running.folder / "new")
    running.wait_for("new/0.jpg")
    until(lambda: running.manifest.listed_at is None)
    (running.folder / "new" / "1.jpg").write_bytes(b"1")
    running.wait_for("new/0.jpg", "new/1.jpg")


def test_linked_folders_are_watched_and_loops_are_not(watched, tmp_path) -> None:
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.jpg").write_bytes(b"0")
    (watched.folder / "before").symlink_to(tmp_path / "before")
    (watched.folder / "old" / "loop").symlink_to(watched.folder)
    watched.start()
    (watched.folder / "after").symlink_to(tmp_path / "after")
    watched.wait_for("after/0.jpg")
    for name in ("before", "after"):
        (tmp_path / name / "1.jpg").write_bytes(b"1")
    (watched.folder / "old" / "1.jpg").write_bytes(b"1")
    watched.wait_for("after/0.jpg", "after/1.jpg", "before/1.jpg", "old/1.jpg")
    assert watched.manifest.listed_at is not None
    (watched.folder / "after").unlink()
    until(lambda: watched.manifest.listed_at is None)
    (tmp_path / "after" / "2.jpg").write_bytes(b"2")
    (tmp_path / "before" / "2.jpg").write_bytes(b"2")
    watched.wait_for("after/0.jpg", "after/1.jpg", "before/1.jpg", "old/1.jpg", "before/2.jpg")


def test_a_link_that_may_not_be_followed_is_not_watched(lake, tmp_path) -> None:
    folder = Path(lake.zone(ZONE.uri))
    for path in (tmp_path / "out", folder):
        path.mkdir(parents=True)
    (folder / "before").symlink_to(tmp_path / "out")
    (folder / "processes").symlink_to("/proc/self")
    watch = FolderWatch(str(folder), ZONE.model_copy(update={"links": ()}))
    (folder / "after").symlink_to("/proc")
    (folder / "1.jpg").write_bytes(b"1")
    (tmp_path / "out" / "2.jpg").write_bytes(b"2")

    def seen() -> bool:
        watch.read(0.01)
        return bool(watch.changes.events)

    until(seen)
    assert watch.changes.events == {"1.jpg": "created"}
    assert len(watch._folders) == 1
    watch.close()


def test_a_name_that_is_no_text_is_noted_as_a_listing_has_it(running) -> None:
    Path(os.fsdecode(os.fsencode(running.folder) + b"/\xff.jpg")).write_bytes(b"x")
    running.wait_for("‰FF.jpg")


def test_removing_a_folder_notes_each_of_its_files(running) -> None:
    shutil.rmtree(running.folder / "old")
    running.wait_for("old/0.jpg")
    assert running.manifest.listed_at is not None


def test_a_zone_deleted_and_made_again_is_watched_again(running) -> None:
    shutil.rmtree(running.folder)
    until(lambda: running.messages)
    assert "Waiting for it" in running.messages[0]
    running.folder.mkdir()
    until(lambda: running.manifest.listed_at is None)
    (running.folder / "1.jpg").write_bytes(b"1")
    until(lambda: "1.jpg" in running.recorded())


def test_a_zone_that_is_not_there_yet_is_waited_for(lake) -> None:
    watched = Watched(lake)
    watched.watcher.start()
    until(lambda: watched.messages)
    watched.folder.mkdir(parents=True)
    until(lambda: watched.times)
    assert watched.manifest.listed_at is None
    watched.watcher.stop()


def test_more_events_than_the_kernel_keeps_ask_for_a_listing(running, monkeypatch) -> None:
    events = watcher._events
    overflow = [(-1, watcher._OVERFLOW, "")]
    with monkeypatch.context() as patched:
        patched.setattr(watcher, "_events", lambda buffer: [*events(buffer), *overflow])
        (running.folder / "1.jpg").write_bytes(b"1")
        until(lambda: running.manifest.listed_at is None)
    running.forget()
    (running.folder / "2.jpg").write_bytes(b"2")
    until(lambda: "2.jpg" in running.recorded())


def test_what_has_happened_is_noted_when_the_watcher_stops(lake, monkeypatch) -> None:
    read = FolderWatch.read
    # Read at no other time, as if it all had happened in the last moment.
    monkeypatch.setattr(FolderWatch, "read", lambda self, seconds: time.sleep(0.01) if seconds else read(self, 0))
    watched = Watched(lake)
    watched.folder.mkdir(parents=True)
    watched.watcher = ZoneWatcher(watched.manifest, str(watched.folder), ZONE, 60, print, print)
    watched.watcher.start()
    until(lambda: watched.manifest._events.get_file_info(f"{watched.manifest._folder}/missed").is_file)
    (watched.folder / "1.jpg").write_bytes(b"1")
    watched.watcher.stop()
    assert watched.recorded() == {"1.jpg"}


def test_what_cannot_be_noted_is_kept_until_it_can(running, lake, monkeypatch) -> None:
    monkeypatch.setattr(watcher, "RETRY_SECONDS", 0.02)
    events = Path(lake.events("new"))
    shutil.rmtree(events)
    events.write_text("no folder")
    (running.folder / "1.jpg").write_bytes(b"1")
    until(lambda: running.messages)
    (running.folder / "2.jpg").write_bytes(b"2")
    events.unlink()
    running.wait_for("1.jpg", "2.jpg")
    assert len(running.messages) == 1


def test_a_zone_with_more_folders_than_may_be_watched_says_what_to_do(watched, monkeypatch) -> None:
    def refuse(self: object, path: str, folder: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr(watcher.FolderWatch, "_add_watch", refuse)
    watched.watcher.start()
    watched.watcher.join(10)
    assert watched.watcher.failed
    assert "max_user_watches" in watched.messages[0]


def test_object_storage_cannot_be_watched() -> None:
    assert [can_be_watched(uri) for uri in ("s3a://photos/in", "file:///in", "/in")] == [False, True, True]
