"""What happens in a landing zone that is a local folder, as it happens: recorded in the zone's event manifest.

It is Linux's inotify itself, called directly: a general library for it passes over what matters here (a queue that
overflowed, folders moved in with all that is in them), and that would be files lost without a word.

Nothing is lost, because whatever the watcher cannot know makes it request a listing: what was there before it began, a
queue that overflowed, a folder that was moved away, a zone that was deleted and made again.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import stat
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dlassets.errors import DlassetsError
from dlassets.intake.events import Manifest
from dlassets.settings import LandingZone
from dlassets.storage.junk import Junk
from dlassets.storage.lake import is_uri
from dlassets.storage.local_files import Links, decode_path

# From inotify(7).
_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _UNMOUNT, _OVERFLOW, _IGNORED = 0x400, 0x800, 0x2000, 0x4000, 0x8000
_ONLYDIR, _ISDIR = 0x1000000, 0x40000000
_WATCHED = _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
_HEADER = struct.Struct("iIII")
_BUFFER = 2**18

# A file in a new folder may have been closed before the folder was watched, so no event tells that it is whole.
NEW_FOLDER_SECONDS = 0.5
# A new file is recorded when it is closed. One that never will be (linked in, say), when it no longer changes.
CREATED_SECONDS = 5.0
IDLE_SECONDS = 0.25
RETRY_SECONDS = 1.0
# More than these are not kept while they cannot be recorded: a listing finds what they tell of.
MOST_EVENTS = 1_000_000


def can_be_watched(uri: str) -> bool:
    """Whether a landing zone is a folder whose changes this machine gives events of."""
    return sys.platform == "linux" and (not is_uri(uri) or uri.startswith("file://"))


class ZoneWatcher(threading.Thread):
    """Records what happens in one landing zone, in appends of what came within `seconds`, until it is stopped.

    `on_events` is called after each append with the time (`time.monotonic`) of its first event, or None where it only
    requests a listing, as the first one does; `log` gets messages for people.
    `failed` is set where the zone cannot be watched after all; it must be listed then.
    """

    def __init__(
        self,
        manifest: Manifest,
        folder: str,
        zone: LandingZone,
        seconds: float,
        on_events: Callable[[float | None], None],
        log: Callable[[str], None],
    ) -> None:
        super().__init__(name=f"watch-{manifest.name}", daemon=True)
        self.failed = False
        self._manifest = manifest
        self._folder = folder
        self._zone = zone
        self._seconds = seconds
        self._on_events = on_events
        self._log = log
        self._stopping = threading.Event()
        self._last_message: str | None = None

    def stop(self) -> None:
        """Stop once all that has happened is recorded."""
        self._stopping.set()
        self.join()

    def run(self) -> None:
        watch: FolderWatch | None = None
        try:
            while not self._stopping.is_set():
                if watch is None or not watch.is_current():
                    # What the old one saw stands; the new one requests a listing.
                    watch = self._open(watch.close() if watch is not None else None)
                if watch is None:
                    self._stopping.wait(RETRY_SECONDS)
                    continue
                watch.read(min(IDLE_SECONDS, self._seconds))
                if watch.changes and time.monotonic() - watch.changes.since >= self._seconds:
                    self._record(watch)
            if watch is not None:
                watch.read(0)
                if watch.changes:
                    self._record(watch)
        except DlassetsError as error:
            self.failed = True
            self._log_once(str(error))
        except Exception:  # noqa: BLE001 - the zone is listed from now on, which a thread that just ends would not cause
            self.failed = True
            self._log_once(f"Landing zone {self._manifest.name!r} is no longer watched: {traceback.format_exc()}")
        finally:
            if watch is not None:
                watch.close()

    def _open(self, earlier: Changes | None) -> FolderWatch | None:
        try:
            watch = FolderWatch(self._folder, self._zone, earlier)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EMFILE, errno.ENOSYS}:
                raise DlassetsError(
                    f"Landing zone {self._manifest.name!r} at {self._folder} cannot be watched: {error}. It is listed "
                    "instead; raise fs.inotify.max_user_watches (sysctl) and start again to have it watched."
                ) from error
            self._log_once(f"Landing zone {self._manifest.name!r} cannot be watched yet: {error}. Waiting for it.")
            return None
        self._last_message = None
        for folder in watch.unreadable:
            self._log(f"Landing zone {self._manifest.name!r}: {folder} cannot be read, and what is in it not taken in.")
        return watch

    def _record(self, watch: FolderWatch) -> None:
        changes = watch.changes
        try:
            self._manifest.record(changes.events.items())
            if changes.missed:
                self._manifest.request_listing()
        except DlassetsError as error:  # a full disk, say: they are kept, and recorded once there is room
            self._log_once(str(error))
            self._stopping.wait(RETRY_SECONDS)
            return
        self._last_message = None
        watch.changes = Changes()
        self._on_events(changes.since if changes.events else None)

    def _log_once(self, message: str) -> None:
        if message != self._last_message:
            self._last_message = message
            self._log(message)


@dataclass
class Changes:
    """What was seen and not recorded yet. Where something was `missed`, only a listing finds it."""

    events: dict[str, str] = field(default_factory=dict)
    missed: bool = False
    since: float = field(default_factory=time.monotonic)

    def __bool__(self) -> bool:
        return bool(self.events) or self.missed


class FolderWatch:
    """Everything below one folder, linked folders too, as `list_local` follows links.

    Raises OSError where it is not there or cannot be watched.
    """

    def __init__(self, folder: str, zone: LandingZone, earlier: Changes | None = None) -> None:
        self.changes = earlier or Changes()
        self.changes.missed, self.changes.since = True, 0  # what is there already, no event tells of
        self.unreadable: list[str] = []
        self._folder = folder
        self._takes_in = zone.takes_in
        self._junk = Junk(zone.junk)
        self._may_lead = Links(folder, zone.links)
        self._is_current = True
        self._folders: dict[int, list[str]] = {}  # watch → the folder within the zone, by all names that links give it
        self._links: set[str] = set()
        self._settling: dict[str, _Settling] = {}
        self._identity = _identity(folder)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._inotify < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            self._watch("", settle_seconds=None)
        except OSError:
            os.close(self._inotify)
            raise

    def is_current(self) -> bool:
        """Whether the folder is still the one that is watched, and nothing was missed since."""
        try:
            return self._is_current and _identity(self._folder) == self._identity
        except OSError:
            return False

    def close(self) -> Changes:
        """Stop watching; return what is not recorded yet."""
        if self._inotify >= 0:
            os.close(self._inotify)
            self._inotify = -1
        return self.changes

    def read(self, seconds: float) -> None:
        """Wait so long for something to happen, and add what has happened to `changes`."""
        due = min((waiting.due for waiting in self._settling.values()), default=float("inf"))
        seconds = min(seconds, max(due - time.monotonic(), 0))
        if select.select([self._inotify], [], [], seconds)[0]:
            for watch, mask, name in _events(os.read(self._inotify, _BUFFER)):
                self._handle(watch, mask, name)
        self._check_settling()

    def _handle(self, watch: int, mask: int, name: str) -> None:
        if mask & _OVERFLOW:
            self._is_current = False  # watched anew: folders may have been made that no event told of
            return
        if mask & _IGNORED:
            self._folders.pop(watch, None)
            return
        for folder in list(self._folders.get(watch, ())):
            if mask & (_DELETE_SELF | _MOVE_SELF | _UNMOUNT):
                # The folder itself has gone; of those within the zone their own parents tell.
                if not folder:
                    self._is_current = False
                elif folder in self._links:
                    self._forget(folder)
            elif not self._junk.leaves_out(name):
                self._handle_path(f"{folder}/{name}" if folder else name, mask)

    def _handle_path(self, path: str, mask: int) -> None:
        if mask & _ISDIR:
            if mask & (_CREATE | _MOVED_TO):
                self._watch(path, NEW_FOLDER_SECONDS if mask & _CREATE else 0)
            elif mask & _MOVED_FROM:
                self._forget(path)
        elif path in self._links and mask & (_DELETE | _MOVED_FROM):
            self._forget(path)
        elif mask & (_CLOSE_WRITE | _MOVED_TO):
            self._add(path, "created")
        elif mask & (_DELETE | _MOVED_FROM):
            self._add(path, "deleted")
        elif mask & _CREATE:
            self._settle(path, CREATED_SECONDS)

    def _forget(self, gone: str) -> None:
        """A folder was moved away. What was in it nobody says, and its watches would go on telling of its old name."""
        for watch, folders in list(self._folders.items()):
            folders[:] = [folder for folder in folders if not _is_within(folder, gone)]
            if not folders:
                del self._folders[watch]
                self._libc.inotify_rm_watch(self._inotify, watch)
        self._links = {link for link in self._links if not _is_within(link, gone)}
        self._begin()
        self.changes.missed = True

    def _watch(self, top: str, settle_seconds: float | None) -> None:
        """Watch a folder and all below it. Its files are recorded, unless `settle_seconds` is None, after so long.

        Watched first and listed then, so that a file is either found or told of.
        """
        left = [top]
        while left:
            folder = left.pop()
            path = os.path.join(self._folder, folder) if folder else self._folder  # noqa: PTH118 - undecodable names
            try:
                if not self._add_watch(path, folder):
                    continue
                with os.scandir(path) as entries:
                    for entry in entries:
                        inner = f"{folder}/{entry.name}" if folder else entry.name
                        if self._junk.leaves_out(entry.name):
                            continue
                        if entry.is_dir() and not (entry.is_symlink() and self._is_closed(inner)):
                            left.append(inner)
                            self._links |= {inner} if entry.is_symlink() else set()
                        elif settle_seconds is not None:
                            self._settle(inner, settle_seconds)
            except (FileNotFoundError, NotADirectoryError):
                if not folder:
                    raise
            except PermissionError:
                self.unreadable.append(path)

    def _add_watch(self, path: str, folder: str) -> bool:
        """Watch one folder; False where a link led back to a folder that it is in."""
        watch = self._libc.inotify_add_watch(self._inotify, os.fsencode(path), _WATCHED)
        if watch < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
        folders = self._folders.setdefault(watch, [])
        if any(_is_within(folder, earlier) for earlier in folders):
            return False
        folders.append(folder)
        return True

    def _settle(self, path: str, seconds: float) -> None:
        """Record a file once it has not changed for so long; at once, where it is a link, and so whole."""
        state = _state_of(os.path.join(self._folder, path))  # noqa: PTH118
        if state is None:
            return
        if state.is_link_to_folder and not self._is_closed(path):
            self._links.add(path)
            self._watch(path, 0)
        elif state.is_link or not seconds:
            self._add(path, "created")
        else:
            self._settling[path] = _Settling(time.monotonic() + seconds, seconds, state)

    def _is_closed(self, link: str) -> bool:
        """Whether a link to a folder is not followed: the one that takes its files in says why."""
        if any(_is_within(link, outer) for outer in self._links if outer != link):
            return True
        return not self._may_lead.allow(os.path.realpath(os.path.join(self._folder, link)))  # noqa: PTH118

    def _check_settling(self) -> None:
        now = time.monotonic()
        for path, waiting in list(self._settling.items()):
            if waiting.due > now:
                continue
            state = _state_of(os.path.join(self._folder, path))  # noqa: PTH118
            if state == waiting.state:
                self._add(path, "created")
            elif state is None:
                del self._settling[path]
            else:
                self._settling[path] = _Settling(now + waiting.seconds, waiting.seconds, state)

    def _add(self, path: str, event: str) -> None:
        self._settling.pop(path, None)
        name = decode_path(os.fsencode(path))
        if self._takes_in(name):
            self._begin()
            self.changes.events.pop(name, None)
            self.changes.events[name] = event
            if len(self.changes.events) > MOST_EVENTS:
                self.changes.events.clear()
                self.changes.missed = True

    def _begin(self) -> None:
        if not self.changes:
            self.changes.since = time.monotonic()


@dataclass(frozen=True)
class _FileState:
    size: int
    modified: int
    is_link: bool
    is_link_to_folder: bool


@dataclass(frozen=True)
class _Settling:
    due: float
    seconds: float
    state: _FileState


def _state_of(path: str) -> _FileState | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    is_symlink = stat.S_ISLNK(status.st_mode)
    is_link = is_symlink or status.st_nlink > 1
    return _FileState(status.st_size, status.st_mtime_ns, is_link, is_symlink and os.path.isdir(path))  # noqa: PTH112


def _is_within(folder: str, outer: str) -> bool:
    return not outer or folder == outer or folder.startswith(outer + "/")


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116 - undecodable names
    return status.st_dev, status.st_ino


def _events(buffer: bytes) -> Iterator[tuple[int, int, str]]:
    start = 0
    while start < len(buffer):
        watch, mask, _, length = _HEADER.unpack_from(buffer, start)
        start += _HEADER.size + length
        yield watch, mask, os.fsdecode(buffer[start - length : start].rstrip(b"\0"))
