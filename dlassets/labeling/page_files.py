"""Where the page keeps what people answer, and finds what others did: files of a folder, or objects of a bucket."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from itertools import count
from pathlib import Path

from filelock import FileLock

from dlassets.storage.files import files_under, open_regular, read_whole, sync_folder, write_whole
from dlassets.storage.lake import is_local, local_path
from dlassets.storage.lines import ended_lines

SUFFIX = ".jsonl"
# Of a name that begins with a dot the folder of answers knows nothing.
_LOCK, _LOCK_SECONDS = ".lock", 30
_READ_BYTES = 2**20
# An object cannot be added to: it is written anew with each answer, and another is begun where that is long.
_OBJECT_BYTES = 2**17


class PageFiles(ABC):
    """Lines that servers add to, each whole and in the order of one server, and that every server follows."""

    place: str

    @abstractmethod
    def alone(self) -> AbstractContextManager[object]:
        """Have no other server add lines meanwhile, where they share files. Raises OSError."""

    @abstractmethod
    def add(self, lines: bytes, now: datetime) -> None:
        """Have storage keep lines that end: all of them, or none. Raises OSError."""

    @abstractmethod
    def new_lines(self) -> Iterator[Iterable[bytes]]:
        """Yield, file by file, the whole lines that this process has not seen, in chunks. Raises OSError."""


def page_files(location: str) -> PageFiles:
    """Return the files of a folder, a path or URI."""
    return PageFolder(local_path(location)) if is_local(location) else PageBucket(location)


class PageFolder(PageFiles):
    """A file a day. Servers that write at the same time wait for each other: lines stand in the order they came."""

    def __init__(self, folder: Path) -> None:
        self.place = str(folder)
        self._folder = folder
        self._read_to: dict[str, int] = {}

    @contextmanager
    def alone(self) -> Iterator[None]:
        _make(self._folder)
        with FileLock(self._folder / _LOCK, timeout=_LOCK_SECONDS):
            yield

    def add(self, lines: bytes, now: datetime) -> None:
        _append(self._file(now), lines)

    def new_lines(self) -> Iterator[Iterable[bytes]]:
        for path in sorted(self._folder.glob(f"[!.]*{SUFFIX}")):
            yield from self._follow(path)

    def _file(self, now: datetime) -> Path:
        """Return the day's file that is to be added to: none whose last line a killed server has left unended."""
        names = (f"{now:%Y-%m-%d}{f'-{number}' if number > 1 else ''}{SUFFIX}" for number in count(1))
        return next(path for path in map(self._folder.joinpath, names) if _is_ended(path))

    def _follow(self, path: Path) -> Iterator[Iterable[bytes]]:
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

            yield chunks()


class PageBucket(PageFiles):
    """Objects of a day, each of one process alone: nobody waits, and times of lines are the order between servers."""

    def __init__(self, location: str) -> None:
        self.place = location
        self._seen: dict[str, tuple[int, int]] = {}
        self._own, self._begun, self._added = "", b"", b""
        self._own_names: set[str] = set()

    def alone(self) -> AbstractContextManager[object]:
        return nullcontext()

    def add(self, lines: bytes, now: datetime) -> None:
        day = f"{now:%Y-%m-%d}"
        if not self._own.startswith(day) or len(self._begun) > _OBJECT_BYTES:
            self._own, self._begun = f"{day}-{uuid.uuid4().hex}{SUFFIX}", b""
        own, whole = self._own, self._begun + lines
        self._own = ""  # where it fails nobody can say whether it was written: the next goes into another object
        write_whole(f"{self.place}/{own}", whole)
        self._own, self._begun = own, whole
        self._own_names.add(own)
        self._added += lines

    def new_lines(self) -> Iterator[Iterable[bytes]]:
        added, self._added = self._added, b""
        yield [added]
        for name, info in files_under(self.place).items():
            state = (info.size, info.mtime_ns)
            if name.endswith(SUFFIX) and name not in self._own_names and self._seen.get(name) != state:
                self._seen[name] = state
                yield ended_lines([read_whole(f"{self.place}/{name}")])


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
