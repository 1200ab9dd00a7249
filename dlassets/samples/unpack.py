"""Photos out of a folder, a zip or a tar that somebody else made, into `NNN.class/` folders."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from gzip import BadGzipFile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, TYPE_CHECKING, Any

from dlassets.errors import DlassetsError
from dlassets.images.folders import class_of_folder
from dlassets.images.kinds import in_words, is_photo_name
from dlassets.samples.layout import understand
from dlassets.settings import FORMATS, JUNK, LISTS, ArchiveSettings
from dlassets.storage.junk import Junk

if TYPE_CHECKING:
    from dlassets.engines.base import Progress

_JUNK = Junk(JUNK)
ARCHIVE_NAME = re.compile(r"(?i)\.(zip|tar|tgz|tar\.(gz|bz2|xz))$")
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    BadGzipFile,
    EOFError,
    NotImplementedError,
    # What the readers of archives let through of headers that make no sense.
    RecursionError,
    OverflowError,
    ValueError,
    struct.error,
)
_COMPRESSIONS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
# Whatever they pack, archives may unpack to so much: a ratio says nothing of less.
_SMALL_BYTES = 64 * 2**20
# All headers of one member of a tar, and an entry of a zip's directory, on average: names are a few hundred at most.
_HEADER_BYTES, _ENTRY_BYTES = 2**20, 256
_COPY_BYTES = 2**16
# No list of labels is longer: it is read as a whole.
_LONGEST_LIST = 100 * 2**20
# A step through what zip's other methods pack is decompressed as a whole, to thousands of times its size.
_SMALL_COPY_BYTES = 2**12


@dataclass(frozen=True)
class _Member:
    """One file of a source."""

    path: PurePosixPath  # within the source
    size: int
    open: Callable[[], IO[bytes]]
    step: int = _COPY_BYTES


@dataclass
class _Budget:
    """What a source's archives declare, of all that they may unpack to: nothing is unpacked before all is counted."""

    limits: ArchiveSettings
    members: int = 0
    unpacked: int = 0
    _by_archive: Counter[str] = field(default_factory=Counter)

    def count(self, archive: str, packed: int, size: int, members: int = 1) -> None:
        """Count a member of an archive that has so many bytes itself. Raises DlassetsError where it is too much."""
        if size < 0:
            raise tarfile.ReadError("a member of negative size")
        self.members += members
        self.unpacked += size
        self._by_archive[archive] += size
        self._check("max_members", self.members, f"{archive}: more than {self.limits.max_members:,} members")
        self._check("max_bytes", self.unpacked, f"{archive} would unpack to more than {self.limits.max_bytes:,} bytes")
        here = self._by_archive[archive]
        if here > _SMALL_BYTES:
            message = f"{archive} would unpack to {here:,} bytes and more, from {packed:,}"
            self._check("max_ratio", here / max(packed, 1), message)

    def check_depth(self, depth: int, archive: str) -> None:
        self._check("max_depth", depth, f"{archive} lies in more than {self.limits.max_depth} archives")

    def _check(self, setting: str, value: float, message: str) -> None:
        if value > getattr(self.limits, setting):
            raise DlassetsError(
                f"{message}, so nothing of it was unpacked. If you trust it, raise archives.{setting}, or unpack it "
                "yourself and give the folder."
            )


@dataclass(frozen=True)
class Taken:
    """How many photos a set has of which a class is known, and what was understood of them, in a sentence.

    `not_taken_in` are sentences about its other files, and about photos of a format that is off.
    """

    photos: int
    understood: str
    not_taken_in: tuple[str, ...] = ()


def unpack(
    source: Path,
    folder: Path,
    progress: Progress | None = None,
    limits: ArchiveSettings | None = None,
    formats: Iterable[str] = FORMATS,
) -> Taken:
    """Copy the photos of a folder, zip or tar (.gz, .bz2, .xz) to `folder/NNN.class/`, by what says their classes.

    Class folders may lie anywhere in the source, also in archives within it. Those whose names begin with a number
    keep their names; where none does, the folders that hold photos are numbered from 001 in the order of their names,
    those of one name (`train/dress`, `test/dress`) being one class. A list of labels beside the photos, or file names
    of a class and a number, say classes as well: see `understand`. Files that are no photos by their names and photos
    without a class are left out and counted, hidden files (`.` or `_` first) and junk are left out; photos that cannot
    be decoded, or are not of the `formats`, come along, for ingest to quarantine. A class appears in `folder` when it
    is complete; photos already there are left as they are, so a run that was stopped goes on. `progress` is told the
    photos done and the photos in all.
    Raises DlassetsError for a source that is missing, damaged, says no classes, has members that point outside, or
    by what its headers declare goes beyond the `limits`, those of the settings' defaults if none are given.
    """
    if not source.exists():
        raise DlassetsError(f"{source} does not exist. Give a folder, a zip or a tar of photos in class folders.")
    if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
        raise DlassetsError(f"{folder} lies in {source} itself: photos of a folder must go to another place.")
    try:
        with ExitStack() as stack:
            plan, taken = _plan(list(_members(source, stack, _Budget(limits or ArchiveSettings()))), source, formats)
            check_classes(folder, folders_in(folder), {place.parent.name for place in plan})
            _copy(plan, folder, progress)
    except _DAMAGED as error:
        raise DlassetsError(f"{source} cannot be read ({error}). It may be damaged: fetch or make it again.") from error
    except OSError as error:
        raise DlassetsError(
            f"{source} could not be unpacked to {folder}: {error}. Put that right and run again: it goes on from there."
        ) from error
    return taken


def folders_in(folder: Path) -> set[str]:
    """Return the names of the folders in a folder: none where it is not there."""
    return {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()


def check_classes(place: str | Path, there: set[str], names: Iterable[str]) -> None:
    """Raise DlassetsError where two class folders, of `names` and those `there` already, have the same number."""
    by_number: dict[int, str] = {}
    for name in sorted(there.union(names)):
        meant = class_of_folder(name)
        other = name if meant is None or meant.label is None else by_number.setdefault(meant.label, name)
        if other != name:
            raise DlassetsError(
                f"{place} would hold two classes of one number, {other} and {name}: they would become one label. "
                "Choose an empty folder, or rename one of them."
            )


def _members(source: Path, stack: ExitStack, budget: _Budget) -> Iterator[_Member]:
    if not source.is_dir():
        yield from _archive_members(stack.enter_context(source.open("rb")), str(source), stack, budget)
        return

    def unreadable(error: OSError) -> None:
        raise error  # os.walk leaves out what it cannot list unless told so

    for parent, folders, names in os.walk(source, onerror=unreadable):
        folders.sort()
        for path in (Path(parent, name) for name in sorted(names)):
            if path.is_file():
                relative = PurePosixPath(path.relative_to(source).as_posix())
                yield _Member(relative, path.stat().st_size, partial(io.FileIO, path))


def _archive_members(
    file: IO[bytes], name: str, stack: ExitStack, budget: _Budget, depth: int = 1
) -> Iterator[_Member]:
    """The files of an archive in the order they lie in it, those of archives within it last."""
    budget.check_depth(depth, name)
    packed = file.seek(0, os.SEEK_END)
    found = _zip_members if zipfile.is_zipfile(file) else _tar_members
    file.seek(0)
    members = list(found(file, name, stack, partial(budget.count, name, packed)))
    yield from members
    for member in members:
        if ARCHIVE_NAME.search(member.path.name) and not _JUNK.holds(str(member.path)):
            # On disk, since reading an archive goes to and fro, and a stream that is packed begins anew each time.
            inner = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - it is one
            _write_to(inner, member)
            yield from _archive_members(inner, f"{name}, {member.path}", stack, budget, depth + 1)


def _zip_members(file: IO[bytes], name: str, stack: ExitStack, count: Callable[..., None]) -> Iterator[_Member]:
    entries, size = _directory(file)
    declared = max(entries, size // _ENTRY_BYTES)
    count(0, declared)  # before a list is made of them
    archive = stack.enter_context(zipfile.ZipFile(file))
    count(0, len(archive.infolist()) - declared)
    for info in archive.infolist():
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise _refused(name, info.filename, "is a link or a device")
        if info.flag_bits & 1:
            raise DlassetsError(f"{name} is locked with a password. Unpack it yourself and give the folder.")
        path = _inside(name, info.filename)
        count(info.file_size, 0)
        if not info.is_dir():
            is_bounded = info.compress_type in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
            step = _COPY_BYTES if is_bounded else _SMALL_COPY_BYTES
            yield _Member(path, info.file_size, partial(archive.open, info), step)


def _directory(file: IO[bytes]) -> tuple[int, int]:
    """Return how many entries a zip declares, and how many bytes of them, as it says at its end."""
    start = max(file.seek(0, os.SEEK_END) - 2**16 - 128, 0)
    file.seek(start)
    end = file.read()
    entries, size = struct.unpack_from("<HI", end, end.rindex(b"PK\5\6") + 10)
    if (large := end.rfind(b"PK\6\6")) >= 0:
        more, larger = struct.unpack_from("<QQ", end, large + 32)
        entries, size = max(entries, more), larger if size == 2**32 - 1 else size
    return entries, size


class _TarFile(io.RawIOBase):
    """What a tar is read from: it gives `left` bytes and no more, since a header may declare any number for itself."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.left: float = _HEADER_BYTES

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0 or size > self.left:
            raise tarfile.ReadError("a header that is larger than any name needs")
        self.left -= size
        return self._file.read(size)

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(position, whence)

    def tell(self) -> int:
        return self._file.tell()


def _tar_members(file: IO[bytes], name: str, stack: ExitStack, count: Callable[..., None]) -> Iterator[_Member]:
    beginning = file.read(8)
    file.seek(0)
    opened = next((made for start, made in _COMPRESSIONS.items() if beginning.startswith(start)), None)
    reader = _TarFile(stack.enter_context(opened(file)) if opened else file)
    try:
        archive = tarfile.TarFile(fileobj=reader)
    except tarfile.ReadError as error:
        raise DlassetsError(
            f"{name} is neither a folder nor a zip nor a tar, or it is damaged ({error}): fetch it again."
        ) from error

    def content(info: tarfile.TarInfo) -> IO[bytes]:
        found = archive.extractfile(info)
        if found is None:
            raise tarfile.ReadError(f"{info.name} has no content")
        return found

    while (info := archive.next()) is not None:
        count(info.size)  # before the next one, to which all of this one's bytes must be gone through
        if not (info.isreg() or info.isdir()):
            raise _refused(name, info.name, "is a link or a device")
        path = _inside(name, info.name)
        if info.isreg():
            yield _Member(path, info.size, partial(content, info))
        reader.left = _HEADER_BYTES
    reader.left = float("inf")


def _write_to(writer: IO[bytes], member: _Member) -> None:
    """Copy a member. Raises EOFError where it has not as many bytes as its header says."""
    left = member.size
    with member.open() as reader:
        while data := reader.read(member.step):
            left -= len(data)
            if left < 0:
                raise EOFError(f"{member.path} is longer than its header says")
            writer.write(data)
    if left:
        raise EOFError(f"{member.path} ends early")


def _inside(archive: str, name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if "\0" in name:
        raise _refused(archive, name, "has a NUL in it")
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive:
        raise _refused(archive, name, "points outside the archive")
    return path


def _refused(archive: str, name: str, reason: str) -> DlassetsError:
    return DlassetsError(f"{archive}: {name!r} {reason}, so nothing of it was unpacked. Get the archive elsewhere.")


def _plan(members: list[_Member], source: Path, formats: Iterable[str]) -> tuple[dict[PurePosixPath, _Member], Taken]:
    """Where each photo goes: `NNN.class/name`, photos of one name in one class told apart by where they come from.

    And what was understood of the set.
    """
    wanted = [m for m in members if not _JUNK.holds(str(m.path))]
    photos = [m for m in wanted if is_photo_name(m.path.name)]
    lists = {
        m.path: partial(_content, m)
        for m in wanted
        if m.size <= _LONGEST_LIST and any(m.path.match(kind) for kind in LISTS)
    }
    layout = understand([m.path for m in photos], lists)
    if layout is None:
        raise DlassetsError(
            f"{source} has {len(photos)} photos and nothing that says their classes. Put each class's photos into a "
            "folder of its name, or a list beside them: a CSV with the columns path and label."
        )
    chosen = [(m, layout.folders[m.path]) for m in photos if m.path in layout.folders]
    same = Counter((name, m.path.name) for m, name in chosen)
    plan = {
        PurePosixPath(name, m.path.name if same[name, m.path.name] == 1 else "_".join(m.path.parts)): m
        for m, name in chosen
    }
    not_taken_in = in_words(_other_than(lists, wanted, source), formats)
    return plan, Taken(len(plan), layout.told(len(photos)), tuple(not_taken_in))


def _other_than(lists: Iterable[PurePosixPath], wanted: Iterable[_Member], source: Path) -> Iterator[str]:
    """Yield the names of files that are no lists, and no archives in an archive, which were looked into."""
    left_alone, is_archive = {*lists}, not source.is_dir()
    for member in wanted:
        if member.path not in left_alone and not (is_archive and ARCHIVE_NAME.search(member.path.name)):
            yield member.path.name


def _content(member: _Member) -> bytes:
    with member.open() as reader:
        return reader.read(_LONGEST_LIST)


def _copy(plan: dict[PurePosixPath, _Member], folder: Path, progress: Progress | None) -> None:
    """Copy what `folder` lacks, in the source's order: a compressed tar read backwards is read again from its start."""
    missing = {place: member for place, member in plan.items() if not (folder / place).exists()}
    left = Counter(place.parent for place in missing)
    done = len(plan) - len(missing)
    folder.mkdir(parents=True, exist_ok=True)
    if progress:
        progress(done, len(plan))
    # In `folder`, so that renaming stays on one file system, and hidden, so that ingest does not look at it.
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as staging:
        for place, member in missing.items():
            staged = Path(staging, place)
            staged.parent.mkdir(exist_ok=True)
            with staged.open("wb") as writer:
                _write_to(writer, member)
            left[place.parent] -= 1
            if not left[place.parent]:
                _publish(staged.parent, folder / place.parent)
            done += 1
            if progress:
                progress(done, len(plan))


def _publish(staged: Path, target: Path) -> None:
    if not target.exists():
        staged.replace(target)
        return
    for path in staged.iterdir():
        path.replace(target / path.name)
