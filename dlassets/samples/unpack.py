"""Photos out of a folder, a zip or a tar that somebody else made, into `NNN.class/` folders."""

from __future__ import annotations

import io
import lzma
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from gzip import BadGzipFile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, TYPE_CHECKING

from dlassets.errors import DlassetsError
from dlassets.images.folders import class_folder, class_of_folder

if TYPE_CHECKING:
    from dlassets.engines.base import Progress

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
_ARCHIVE_NAME = re.compile(r"(?i)\.(zip|tar|tgz|tar\.(gz|bz2|xz))$")
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    BadGzipFile,
    EOFError,
    NotImplementedError,
)


@dataclass(frozen=True)
class _Member:
    """One file of a source."""

    path: PurePosixPath  # within the source
    size: int
    open: Callable[[], IO[bytes]]


def unpack(source: Path, folder: Path, progress: Progress | None = None) -> int:
    """Copy the photos of a folder, zip or tar (.gz, .bz2, .xz) to `folder/NNN.class/` and return how many it holds.

    Class folders may lie anywhere in the source, also in an archive within it. Those whose names begin with a number
    keep their names; where none does, the folders that hold photos are numbered from 001 in the order of their names,
    those of one name (`train/dress`, `test/dress`) being one class. Files that are no photos by their names, hidden
    files (`.` or `_` first) and photos outside a class folder are left out; photos that cannot be decoded come along,
    for ingest to quarantine. A class appears in `folder` when it is complete; photos already there are left as they
    are, so a run that was stopped goes on. `progress` is told the photos done and the photos in all.
    Raises DlassetsError for a source that is missing, damaged, has no class folders, or has members that point outside.
    """
    if not source.exists():
        raise DlassetsError(f"{source} does not exist. Give a folder, a zip or a tar of photos in class folders.")
    if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
        raise DlassetsError(f"{folder} lies in {source} itself: photos of a folder must go to another place.")
    try:
        with ExitStack() as stack:
            plan = _plan(list(_members(source, stack)), source)
            check_classes(folder, {place.parent.name for place in plan})
            _copy(plan, folder, progress)
    except _DAMAGED as error:
        raise DlassetsError(f"{source} cannot be read ({error}). It may be damaged: fetch or make it again.") from error
    except OSError as error:
        raise DlassetsError(
            f"{source} could not be unpacked to {folder}: {error}. Put that right and run again: it goes on from there."
        ) from error
    return len(plan)


def check_classes(folder: Path, names: Iterable[str]) -> None:
    """Raise DlassetsError where two class folders, of `names` and those already in `folder`, have the same number."""
    there = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    by_number: dict[int, str] = {}
    for name in sorted(there.union(names)):
        meant = class_of_folder(name)
        other = by_number.setdefault(meant.label, name) if meant else name
        if other != name:
            raise DlassetsError(
                f"{folder} would hold two classes of one number, {other} and {name}: they would become one label. "
                "Choose an empty folder, or rename one of them."
            )


def _members(source: Path, stack: ExitStack) -> Iterator[_Member]:
    if not source.is_dir():
        yield from _archive_members(stack.enter_context(source.open("rb")), str(source), stack)
        return

    def unreadable(error: OSError) -> None:
        raise error  # os.walk leaves out what it cannot list unless told so

    for parent, folders, names in os.walk(source, onerror=unreadable):
        folders.sort()
        for path in (Path(parent, name) for name in sorted(names)):
            if path.is_file():
                relative = PurePosixPath(path.relative_to(source).as_posix())
                yield _Member(relative, path.stat().st_size, partial(io.FileIO, path))


def _archive_members(file: IO[bytes], name: str, stack: ExitStack, *, nested: bool = False) -> Iterator[_Member]:
    """The files of an archive in the order they lie in it, those of archives within it (one level deep) last."""
    if zipfile.is_zipfile(file):
        members = list(_zip_members(stack.enter_context(zipfile.ZipFile(file)), name))
    else:
        file.seek(0)
        if not tarfile.is_tarfile(file):
            raise DlassetsError(f"{name} is neither a folder nor a zip nor a tar, or it is damaged: fetch it again.")
        file.seek(0)
        archive = stack.enter_context(tarfile.open(fileobj=file))  # noqa: SIM115 (the stack closes it)
        members = list(_tar_members(archive, name))
    yield from members
    for member in members:
        if _ARCHIVE_NAME.search(member.path.name) and not _is_hidden(member.path) and not nested:
            inner = stack.enter_context(member.open())
            yield from _archive_members(inner, f"{name}, {member.path}", stack, nested=True)


def _zip_members(archive: zipfile.ZipFile, name: str) -> Iterator[_Member]:
    for info in archive.infolist():
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise _refused(name, info.filename, "is a link or a device")
        if info.flag_bits & 1:
            raise DlassetsError(f"{name} is locked with a password. Unpack it yourself and give the folder.")
        path = _inside(name, info.filename)
        if not info.is_dir():
            yield _Member(path, info.file_size, partial(archive.open, info))


def _tar_members(archive: tarfile.TarFile, name: str) -> Iterator[_Member]:
    def opened(info: tarfile.TarInfo) -> IO[bytes]:
        file = archive.extractfile(info)
        if file is None:
            raise tarfile.ReadError(f"{info.name} has no content")
        return file

    for info in archive.getmembers():
        if not (info.isreg() or info.isdir()):
            raise _refused(name, info.name, "is a link or a device")
        path = _inside(name, info.name)
        if info.isreg():
            yield _Member(path, info.size, partial(opened, info))


def _inside(archive: str, name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive:
        raise _refused(archive, name, "points outside the archive")
    return path


def _refused(archive: str, name: str, reason: str) -> DlassetsError:
    return DlassetsError(f"{archive}: {name!r} {reason}, so nothing of it was unpacked. Get the archive elsewhere.")


def _is_hidden(path: PurePosixPath) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _plan(members: list[_Member], source: Path) -> dict[PurePosixPath, _Member]:
    """Where each photo goes: `NNN.class/name`, photos of one name in one class told apart by where they come from."""
    photos = [m for m in members if m.path.suffix.lower() in PHOTO_SUFFIXES and not _is_hidden(m.path)]
    classes = _class_names({m.path.parent for m in photos if len(m.path.parts) > 1})
    chosen = [(m, classes[m.path.parent]) for m in photos if m.path.parent in classes]
    if not chosen:
        raise DlassetsError(
            f"{source} has no photos in class folders. Put each class's photos into a folder, 001.name."
        )
    same = Counter((name, m.path.name) for m, name in chosen)
    return {
        PurePosixPath(name, m.path.name if same[name, m.path.name] == 1 else "_".join(m.path.parts)): m
        for m, name in chosen
    }


def _class_names(parents: set[PurePosixPath]) -> dict[PurePosixPath, str]:
    """The class folders among those that hold photos, and what they will be called."""
    numbered = {path for path in parents if class_of_folder(path.name)}
    if numbered:
        beside = {path.parent for path in numbered}
        if strays := sorted(path.name for path in parents - numbered if path.parent in beside):
            raise DlassetsError(
                f"Some class folders begin with a number and others do not ({', '.join(strays[:5])}). "
                "Give every one a number, or none."
            )
        return {path: path.name for path in numbered}
    above = {folder for path in parents for folder in path.parents}
    names = sorted({path.name for path in parents - above})
    return {path: class_folder(names.index(path.name) + 1, path.name) for path in parents - above}


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
            with member.open() as reader, staged.open("wb") as writer:
                shutil.copyfileobj(reader, writer)
            if staged.stat().st_size != member.size:
                raise EOFError(f"{member.path} ends early")
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
