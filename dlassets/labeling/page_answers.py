"""What people answer on the page: lines of JSON in the folder of answers, as anybody may put them there.

A line is on the disk before its answer counts. Servers that write at the same time wait for each other, and write into
one file a day: so its lines stand in the order in which they came, whichever server took them, and their times rise.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock

from dlassets.errors import DlassetsError
from dlassets.labeling.services import Act
from dlassets.storage.files import open_regular, sync_folder
from dlassets.storage.lines import ended_lines
from dlassets.storage.records import as_text, read_records

# The service's name, and that of its folder among the answers.
PAGE = "page"

_SUFFIX = ".jsonl"
# Of a name that begins with a dot the folder of answers knows nothing.
_LOCK, _LOCK_SECONDS = ".lock", 30
_READ_BYTES = 2**20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What comes later has the later time, though the clock be set back; unless the time before is this far ahead and wrong.
_AHEAD = timedelta(minutes=1)
_TICK = timedelta(microseconds=1)


class UnwrittenError(DlassetsError):
    """Answers could not be written down; `is_full` says that it is for lack of room."""

    def __init__(self, message: str, *, is_full: bool = False) -> None:
        super().__init__(message)
        self.is_full = is_full


@dataclass(frozen=True)
class Given:
    """What a person did with a request. `answer_id` is the browser's name for it, by which it is written once."""

    answer_id: str
    request_id: str
    annotator: str
    act: Act
    label: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Said:
    """What a person did last with a request, and when."""

    act: str
    answered_at: datetime


class PageAnswers:
    """`folder` has the page's answers, and this process knows what they say. Safe in many threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self._read_to: dict[str, int] = {}
        self._ids: set[str] = set()
        self._said: dict[str, dict[str, Said]] = defaultdict(dict)
        self._answered: dict[str, set[str]] = defaultdict(set)
        self._newest = datetime.min.replace(tzinfo=UTC)

    def of(self, request_id: str) -> Mapping[str, Said]:
        """Return what people did last with a request, by person."""
        return self._said.get(request_id, {})

    @property
    def requests(self) -> Collection[str]:
        """The requests that people did anything with."""
        return self._said.keys()

    def answered_by(self, annotator: str) -> int:
        """Return how many requests a person has answered here."""
        return len(self._answered.get(annotator, ()))

    def follow(self) -> None:
        """Read what was written since, by this or another server. Raises DlassetsError where that cannot be."""
        with self._lock:
            try:
                for path in sorted(self._folder.glob(f"[!.]*{_SUFFIX}")):
                    self._follow(path)
            except OSError as error:
                raise DlassetsError(f"The page's answers in {self._folder} cannot be read: {error}.") from error

    def write(self, given: Sequence[Given]) -> None:
        """Have the disk keep these, in their order, but for those that it has already.

        Raises UnwrittenError where it does not take them: then none of them is there.
        """
        with self._lock:
            try:
                _make(self._folder)
                with FileLock(self._folder / _LOCK, timeout=_LOCK_SECONDS):
                    self.follow()
                    now = datetime.now(UTC)
                    lines = b"".join(self._lines(given, now))
                    if lines:
                        _append(self._file(now), lines)
            except OSError as error:
                raise UnwrittenError(
                    f"Answers cannot be written to {self._folder}: {error.strerror or error}.",
                    is_full=error.errno in _FULL,
                ) from error
            self.follow()

    def _lines(self, given: Sequence[Given], now: datetime) -> Iterator[bytes]:
        """Yield a line of each that is not there yet, with times that rise."""
        new = {each.answer_id: each for each in given if each.answer_id not in self._ids}
        newest = max(self._newest, now - _TICK)
        for place, each in enumerate(new.values(), 1):
            record = {
                "request_id": each.request_id,
                **({} if each.label is None else {"label": str(each.label)}),
                "annotator": each.annotator,
                "answered_at": (newest + place * _TICK).isoformat(timespec="microseconds"),
                **({} if each.seconds is None else {"seconds": round(each.seconds, 2)}),
                "service": PAGE,
                "status": each.act,
                "answer_id": each.answer_id,
            }
            yield json.dumps(record).encode() + b"\n"

    def _file(self, now: datetime) -> Path:
        """Return the day's file that is to be added to: none whose last line a killed server has left unended."""
        names = (f"{now:%Y-%m-%d}{f'-{number}' if number > 1 else ''}{_SUFFIX}" for number in count(1))
        return next(path for path in map(self._folder.joinpath, names) if _is_ended(path))

    def _follow(self, path: Path) -> None:
        status = path.lstat()
        begin = self._read_to.get(path.name, 0)
        if status.st_size == begin or not stat.S_ISREG(status.st_mode):
            return
        with open_regular(path) as file:
            file.seek(begin if status.st_size > begin else 0)
            self._read_to[path.name] = file.tell()

            def chunks() -> Iterator[bytes]:
                for ended in ended_lines(iter(lambda: file.read(_READ_BYTES), b"")):
                    self._read_to[path.name] += len(ended)
                    yield ended

            for _, record in read_records(chunks(), _SUFFIX):
                if isinstance(record, dict):  # of what is none, `human_labels` says why
                    self._note(record)

    def _note(self, record: Mapping[str, Any]) -> None:
        names = ("answer_id", "request_id", "annotator", "status", "answered_at")
        answer_id, request_id, annotator, act, time = (as_text(record.get(name)) for name in names)
        try:
            answered_at = datetime.fromisoformat(time)
        except ValueError:  # a line of somebody else's, of which `human_labels` says so
            return
        if answered_at.tzinfo is None:
            answered_at = answered_at.replace(tzinfo=UTC)
        self._ids.add(answer_id)
        if answered_at < datetime.now(UTC) + _AHEAD:
            self._newest = max(self._newest, answered_at)
        before = self._said[request_id].get(annotator)
        if before is not None and before.answered_at > answered_at:
            return
        self._said[request_id][annotator] = Said(act or "answered", answered_at)
        if act in {"", "answered"}:
            self._answered[annotator].add(request_id)
        else:
            self._answered[annotator].discard(request_id)


def _make(folder: Path) -> None:
    """Make the folder. Raises OSError, also where it is a link: those who read answers would not follow it."""
    if folder.is_symlink():
        raise OSError(errno.ELOOP, "it is a link, and links are not followed")
    folder.mkdir(parents=True, exist_ok=True)


def _is_ended(path: Path) -> bool:
    """Whether a file may be added to: it is not there, empty, or its last line has its end."""
    try:
        with open_regular(path) as file:
            if file.seek(0, os.SEEK_END) == 0:
                return True
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
    except FileNotFoundError:
        return True


def _append(path: Path, lines: bytes) -> None:
    """Add lines to a file and have the disk keep them. Raises OSError, and takes off again then what it has added."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o644)
    try:
        whole = os.fstat(descriptor).st_size
        try:
            view = memoryview(lines)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fdatasync(descriptor)
        except BaseException:
            os.ftruncate(descriptor, whole)  # where that fails, the next goes into another file
            raise
    finally:
        os.close(descriptor)
    if not whole:
        sync_folder(path.parent)
