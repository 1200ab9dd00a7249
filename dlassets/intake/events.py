"""Events of a landing zone: what arrived and what went, as JSON lines, read from where the last run stopped.

A zone with `discovery: events` is not listed each time. Whoever knows that a file came or went (`dlassets watch`, an S3
notification, a producer) adds a line to a `*.jsonl` file below `<root>/events/<zone>/`. A line is one of

    {"path": "a/1.jpg", "event": "created"}        a path in the zone, or an absolute one; event may be left out
    {"Records": [{"eventName": …, "s3": …}]}       what S3 or MinIO sends
    {"detail-type": "Object Created", "detail": …} what EventBridge sends

An event is a hint to look at a file, no more: the reader finds out itself whether it is new, changed or gone, so events
may come twice, late and in any order. Where reading stopped is kept beside the zone's checkpoint; without it everything
is read again, which costs time and changes no row.

A line that is no event costs itself alone, however long it is; since it may have named any file, all are listed once.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import socket
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, unquote_plus

from dlassets.errors import DlassetsError
from dlassets.settings import LandingZone
from dlassets.storage.files import listed, read_whole, write_whole
from dlassets.storage.junk import Junk, is_hidden
from dlassets.storage.lake import Lake, is_uri
from dlassets.storage.lines import LONGEST_LINE, Line, bounded_lines
from dlassets.storage.stores import filesystem_of

if TYPE_CHECKING:
    import pyarrow.fs as pafs

EVENTS = ("created", "deleted")
READ_BYTES = 2**20
TAIL_BYTES = 256
# A look ends after so many lines, and the next one goes on from there.
LINES_AT_ONCE = 100_000
# Of S3; a folder's own limits are the system's to say.
_LONGEST_KEY = 1024
# In an events folder: when events were lost, so that only a listing can say what came and went before.
MISSED = "missed"


class Mark(NamedTuple):
    """How far a file was read, and what tells that it is still the same file: the end of what was read."""

    consumed: int
    mtime: int
    tail: int
    crc: int


# File below the events folder → its mark, which JSON makes a list of.
Position = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Pending:
    """What was written since the last `advance`; true where that is at least one line.

    `paths` are distinct, relative to the zone, in order of last mention. `position` goes to `advance` once they are
    taken in; where there is `more`, a look after that finds it.
    """

    paths: tuple[str, ...]
    position: Position
    lines: int = 0
    bad_lines: int = 0
    first_bad: str | None = None
    more: bool = False

    def __bool__(self) -> bool:
        return self.lines > 0


class Manifest:
    """The events of one landing zone, on any storage. One reader at a time makes sense, and any number of writers."""

    def __init__(self, name: str, zone: LandingZone, uri: str, events: str, state: str) -> None:
        self.name = name
        self._zone = _ZonePaths(uri, zone)
        self._uri, self._state = events, state
        self._events, self._folder = filesystem_of(events)

    @classmethod
    def of(cls, lake: Lake, name: str, zone: LandingZone) -> Manifest:
        state = lake.checkpoint(f"ingest-{name}") + "/events.json"
        return cls(name, zone, lake.zone(zone.uri), lake.events(name), state)

    def pending(self) -> Pending:
        """Read what was added since the last `advance`, LINES_AT_ONCE of it: a half-written last line waits."""
        before, position = self._marks(), {}
        paths: dict[str, None] = {}
        lines = bad = 0
        first_bad = None
        for name, info in self._files():
            mark = start = self._start(before.get(name), info)
            if lines >= LINES_AT_ONCE:  # as far as it was read before
                position[name] = mark
                continue
            for line in self._lines(info, start.consumed):
                if not line.ended and not line.is_cut:
                    break
                mark = self._after(line, info)
                if not line.data.strip():
                    continue
                lines += 1
                try:
                    found = self._zone.paths(line)
                except (ValueError, RecursionError) as error:
                    bad += 1
                    shown = line.data[:200].decode(errors="replace")
                    first_bad = first_bad or f"{name}, byte {line.start}: {error}: {shown}"
                    continue
                for path in found:
                    paths.pop(path, None)
                    paths[path] = None
                if lines >= LINES_AT_ONCE:
                    break
            position[name] = mark._replace(mtime=info.mtime_ns)
        return Pending(tuple(paths), position, lines, bad, first_bad, lines >= LINES_AT_ONCE)

    def end(self) -> Position:
        """Return where everything written so far ends: taken before a listing, which finds all that they tell of."""
        return {name: self._last_line_end(info) for name, info in self._files()}

    def advance(self, position: Position, listed_at: dt.datetime | None = None) -> None:
        """Remember that everything up to `position` was taken in, and when all files were last listed."""
        before = self._load()
        at = listed_at.isoformat() if listed_at is not None else before.get("listed_at")
        state = {"files": {name: list(mark) for name, mark in position.items()}, "listed_at": at}
        if state != before:
            try:
                write_whole(self._state, json.dumps(state))
            except OSError as error:
                raise self._failure("advanced", error) from error

    @property
    def listed_at(self) -> dt.datetime | None:
        """When all files were last listed; None where they never were, or where events have been lost since."""
        try:
            listed = dt.datetime.fromisoformat(self._load().get("listed_at", ""))
            missed = dt.datetime.fromisoformat(read_whole(f"{self._uri}/{MISSED}").decode())
        except FileNotFoundError:
            return listed
        except (TypeError, ValueError):
            return None
        return listed if listed > missed else None

    def record(self, events: Iterable[tuple[str, str]]) -> None:
        """Write (path within the zone, `created` or `deleted`) down, all in one append.

        Raises DlassetsError where they cannot be written; then none of them may be relied on.
        """
        at = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        text = "".join(json.dumps({"path": path, "event": event, "at": at}) + "\n" for path, event in events).encode()
        if not text:
            return
        try:
            if self._events.type_name == "local":
                _append(f"{self._folder}/{at[:10]}-{_process()}.jsonl", text)
            else:
                write_whole(f"{self._uri}/{at[:10]}/{time.time_ns()}-{uuid.uuid4().hex}.jsonl", text)
        except OSError as error:
            raise self._failure("written", error) from error

    def request_listing(self) -> None:
        """Record that events were lost: `listed_at` is None until all files have been listed after this."""
        try:
            write_whole(f"{self._uri}/{MISSED}", dt.datetime.now(dt.UTC).isoformat())
        except OSError as error:
            raise self._failure("written", error) from error

    def tidy(self, older_than_days: float = 7) -> int:
        """Delete files that were read to their end and not written for so long; return how many."""
        marks, deleted = self._marks(), 0
        oldest = time.time_ns() - int(older_than_days * 86_400e9)
        for name, info in self._files():
            mark = marks.get(name)
            if mark is not None and mark.consumed == info.size and info.mtime_ns < oldest:
                with suppress(FileNotFoundError):  # another was at it as well
                    self._events.delete_file(info.path)
                    deleted += 1
        return deleted

    def _files(self) -> Iterator[tuple[str, pafs.FileInfo]]:
        """Yield the files of events by their name below the folder, in order."""
        import pyarrow.fs as pafs

        try:
            infos = listed(self._events, self._folder, recursive=True)
        except OSError as error:
            raise self._failure("listed", error) from error
        for info in sorted(infos, key=lambda info: info.path):
            name = info.path[len(self._folder) :].lstrip("/")
            if info.type == pafs.FileType.File and name.endswith(".jsonl") and not is_hidden(name):
                yield name, info

    def _start(self, mark: Mark | None, info: pafs.FileInfo) -> Mark:
        """Return where to go on reading: at the start of a file that is no longer the one that was read."""
        if mark is not None and (mark.consumed, mark.mtime) == (info.size, info.mtime_ns):
            return mark
        if mark is None or mark.consumed > info.size:
            return Mark(0, 0, 0, 0)
        tail = b"".join(self._chunks(info.path, mark.consumed - mark.tail, mark.consumed))
        return mark if zlib.crc32(tail) == mark.crc else Mark(0, 0, 0, 0)

    def _last_line_end(self, info: pafs.FileInfo) -> Mark:
        earliest, end = max(info.size - LONGEST_LINE, 0), info.size
        while end > earliest:
            start = max(end - READ_BYTES, earliest)
            block = b"".join(self._chunks(info.path, start, end))
            if (newline := block.rfind(b"\n")) >= 0:
                return self._mark(info, start + newline + 1)
            end = start
        return self._mark(info, info.size if earliest else 0)  # within a line too long to be an event

    def _mark(self, info: pafs.FileInfo, consumed: int) -> Mark:
        tail = b"".join(self._chunks(info.path, max(consumed - TAIL_BYTES, 0), consumed))
        return Mark(consumed, info.mtime_ns, len(tail), zlib.crc32(tail))

    def _after(self, line: Line, info: pafs.FileInfo) -> Mark:
        if line.is_cut:
            return self._mark(info, line.end)
        return Mark(line.end, info.mtime_ns, len(line.data) + 1, zlib.crc32(line.data + b"\n"))

    def _lines(self, info: pafs.FileInfo, start: int) -> Iterator[Line]:
        """Yield the lines from `start` on. Where that is within a line that was left out, its rest comes first, empty.

        The byte before tells: it ends a line, or it does not.
        """
        begin = max(start - 1, 0)
        for line in bounded_lines(self._chunks(info.path, begin, info.size)):
            if line.start or not start:
                yield line._replace(start=begin + line.start)
            elif line.length:
                yield Line(start, b"", line.length - 1, line.ended)

    def _chunks(self, path: str, start: int, end: int) -> Iterator[bytes]:
        if start >= end:
            return
        try:
            with self._events.open_input_file(path) as stream:
                stream.seek(start)
                while start < end and (chunk := stream.read(min(READ_BYTES, end - start))):
                    start += len(chunk)
                    yield chunk
        except FileNotFoundError:  # tidied away meanwhile
            return
        except OSError as error:
            raise self._failure("read", error) from error

    def _marks(self) -> dict[str, Mark]:
        try:
            return {name: Mark(*map(int, mark)) for name, mark in self._load()["files"].items()}
        except (KeyError, AttributeError, TypeError, ValueError):
            return {}

    def _load(self) -> dict[str, Any]:
        """Return the state; empty where there is none or it is broken, since reading all again loses nothing."""
        try:
            state = json.loads(read_whole(self._state))
        except (FileNotFoundError, ValueError):
            return {}
        except OSError as error:
            raise self._failure("read", error) from error
        return state if isinstance(state, dict) else {}

    def _failure(self, action: str, error: OSError) -> DlassetsError:
        return DlassetsError(
            f"The events of landing zone {self.name!r} at {self._folder} cannot be {action}: {error}. Check that the "
            f"place is there, has room and is yours to write, or set landing.{self.name}.discovery to listing."
        )


class _ZonePaths:
    """Which paths are the zone's, whoever names them and however."""

    def __init__(self, uri: str, zone: LandingZone) -> None:
        folder = _canonical(uri)
        # Who notes events may know a linked folder by its real name.
        self._folders = {folder} if is_uri(folder) else {folder, os.path.realpath(folder)}
        self._takes_in = zone.takes_in
        self._junk = Junk(zone.junk)

    def paths(self, line: Line) -> list[str]:
        """Return the paths within the zone that a line tells of and that are to be taken in.

        Raises ValueError, saying why, where the line is no event of this zone.
        """
        if line.is_cut:
            raise ValueError(f"longer than {LONGEST_LINE} bytes")
        event = json.loads(line.data)
        if not isinstance(event, dict):
            raise ValueError("not a JSON object")  # noqa: TRY004 - what is wrong with a line is a ValueError
        found = [self._relative(location, may_lie_elsewhere="path" not in event) for location in _locations(event)]
        return [path for path in found if path and not self._junk.holds(path) and self._takes_in(path)]

    def _relative(self, location: str, *, may_lie_elsewhere: bool) -> str | None:
        """Return the path within the zone, or None for a folder.

        A store tells of whole buckets, so what it tells of another folder is None too; a producer's line is wrong then.
        """
        location.encode()  # a name that is no Unicode could not be written to a table: a ValueError
        if location.startswith(("/", "file:/")) or is_uri(location):
            whole = _canonical(location, is_folder=False)
            folder = next((folder for folder in self._folders if whole.startswith(folder + "/")), None)
            if folder is None:
                if may_lie_elsewhere:
                    return None
                raise ValueError("not in this landing zone")
            location = whole[len(folder) + 1 :]
            if is_uri(folder) and len(location.encode()) > _LONGEST_KEY:
                raise ValueError(f"a path may have {_LONGEST_KEY} bytes in a store")
        if "\0" in location:
            raise ValueError("no file's path has a NUL in it")
        if location.endswith("/") or not location:
            return None
        if ".." in (parts := location.split("/")):
            raise ValueError("a path may not go up with ..")
        return "/".join(part for part in parts if part not in {"", "."})


def _locations(event: Mapping[str, Any]) -> list[str]:
    try:
        if "Records" in event:
            told = [record["s3"] for record in event["Records"]]
            return [f"s3://{s3['bucket']['name']}/{unquote_plus(s3['object']['key'])}" for s3 in told]
        if "detail-type" in event:
            detail = event["detail"]
            return [f"s3://{detail['bucket']['name']}/{_text(detail['object']['key'])}"]
        if event.get("Event") == "s3:TestEvent":  # what S3 sends when its notifications are switched on
            return []
        if event.get("event", EVENTS[0]) not in EVENTS:
            raise ValueError(f"event is neither {' nor '.join(EVENTS)}")
        return [_text(event["path"])]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("neither an event of ours nor one of S3 or EventBridge") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _canonical(location: str, *, is_folder: bool = True) -> str:
    """Return a location in the one form that others are compared with: without scheme for a file, s3:// for s3a://."""
    if location.startswith("file:/"):
        location = "/" + unquote(location.removeprefix("file:")).lstrip("/")
    location = re.sub(r"^s3[an]://", "s3://", location)
    return location.rstrip("/") if is_folder else location


def _append(path: str, text: bytes) -> None:
    """Add whole lines in one write. What a write that was cut off (a full disk) left behind is ended first."""
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            text = b"\n" + text
        if os.write(descriptor, text) != len(text):
            raise OSError("only a part could be written: the disk may be full")
    finally:
        os.close(descriptor)


def _process() -> str:
    """Name this process, so that no two processes append to one file."""
    return re.sub(r"[^A-Za-z0-9-]", "-", f"{socket.gethostname()}-{os.getpid()}")
