"""Backups of files in a folder or bucket: each content once, by its SHA-256, and a manifest that is written last.

    <target>/objects/ab/<sha-256>       what the files of any backup hold
    <target>/backups/<time>-<16 digits of its sha-256>.json     which files a backup has, and what they hold

A backup that was killed has no manifest, and so is none; what it copied the next one finds. Nothing is ever changed,
and nothing deleted unless that is asked for: see `Backups.thin`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace

from dlassets.errors import DlassetsError, some_of
from dlassets.storage.files import (
    files_under,
    is_unfinished,
    listed,
    opened,
    read_whole,
    remove_file,
    write_lines_where_changed,
    write_whole,
)
from dlassets.storage.stores import advice, cached_filesystem_of

_FORM = 1
_NAME = re.compile(r"\d{8}T\d{12}Z-([0-9a-f]{16})\.json")
_CHUNK = 8 * 2**20
_COPYING, _SMALL = 8, 64 * 2**20
_SHOWN = 3
_YOUNG_SECONDS = 24 * 60 * 60


@dataclass(frozen=True)
class Held:
    """What a file of a backup holds; `stamp` tells whether the file it was copied from has been written since."""

    sha256: str
    size: int
    stamp: str


@dataclass(frozen=True)
class Manifest:
    """A backup: its `files` by their paths from the lake's root, the version of each table, and what else it says."""

    made_at: str
    files: Mapping[str, Held]
    tables: Mapping[str, int]
    left_out: Sequence[str] = ()
    form: int = _FORM
    name: str = field(default="", compare=False)

    @property
    def bytes(self) -> int:
        return sum(held.size for held in self.files.values())


@dataclass(frozen=True)
class Source:
    """A file to be copied: where it is, its size, and its stamp."""

    location: str
    size: int
    stamp: str


def named(source: str) -> tuple[Backups, str | None]:
    """Return the backups at a place, and the name of the one that is meant where `source` is its manifest's path."""
    place, _, name = source.rpartition("/backups/")
    return (Backups(place), name) if _NAME.fullmatch(name) else (Backups(source), None)


class Backups:
    """The backups at a place, which is a path or URI."""

    def __init__(self, place: str) -> None:
        self.place = place.rstrip("/")

    def names(self) -> list[str]:
        """Return the backups that there are, oldest first. Raises DlassetsError where the place cannot be read."""
        try:
            return sorted(name for name in files_under(f"{self.place}/backups") if _NAME.fullmatch(name))
        except OSError as error:
            raise DlassetsError(f"{self.place} cannot be read: {advice(self.place, error)}") from error

    def newest(self) -> Manifest | None:
        names = self.names()
        return self.read(names[-1]) if names else None

    def to_build_on(self) -> Manifest | None:
        """Return the newest backup, less what of it is no longer there: what is need not be copied again."""
        if (manifest := self.newest()) is None:
            return None
        there = self._objects()
        files = {path: held for path, held in manifest.files.items() if there.get(held.sha256) == held.size}
        return replace(manifest, files=files)

    def _objects(self) -> dict[str, int]:
        return {name.rpartition("/")[2]: info.size for name, info in files_under(f"{self.place}/objects").items()}

    def required(self, name: str | None = None) -> Manifest:
        """Return the backup of this name, or the newest. Raises DlassetsError where it is not there, or is damaged."""
        if name is not None:
            if name not in (names := self.names()):
                raise DlassetsError(f"There is no backup {name} at {self.place}. There are {some_of(names, _SHOWN)}.")
            return self.read(name)
        if (manifest := self.newest()) is None:
            raise DlassetsError(
                f"There is no backup at {self.place}: one that was killed is none. Name the place that `dlassets "
                "backup` was given."
            )
        return manifest

    def read(self, name: str) -> Manifest:
        content = read_whole(f"{self.place}/backups/{name}")
        found = _NAME.fullmatch(name)
        if found is None or hashlib.sha256(content).hexdigest()[:16] != found[1]:
            raise DlassetsError(
                f"The manifest {self.place}/backups/{name} is damaged: delete it, to take the one before."
            )
        said = json.loads(content)
        if said["form"] != _FORM:
            raise DlassetsError(f"{name} was made by another release (form {said['form']}): use that one's dlassets.")
        files = {path: Held(**held) for path, held in said.pop("files").items()}
        return Manifest(**said, files=files, name=name)

    def add(self, manifest: Manifest) -> str:
        """Write a manifest, which makes what it names a backup, and return its name."""
        said = asdict(manifest)
        said.pop("name")
        content = json.dumps(said, sort_keys=True).encode()
        made_at = dt.datetime.fromisoformat(manifest.made_at)
        name = f"{made_at:%Y%m%dT%H%M%S%f}Z-{hashlib.sha256(content).hexdigest()[:16]}.json"
        write_whole(f"{self.place}/backups/{name}", content)
        return name

    def thin(self, keep: int) -> tuple[list[str], int]:
        """Delete all but the newest backups; return their names, and the bytes of what no other holds.

        An object that is younger than a day stays: another backup may have written it, whose manifest is yet to come.
        Raises DlassetsError where a backup that is kept cannot be read: nothing is deleted then.
        """
        names = self.names()
        old, kept = names[:-keep], names[-keep:]
        needed = {held.sha256 for name in kept for held in self.read(name).files.values()}
        for name in old:  # first, so that none is left whose objects have gone
            remove_file(f"{self.place}/backups/{name}")
        freed, oldest = 0, time.time_ns() - _YOUNG_SECONDS * 10**9
        for name, info in files_under(f"{self.place}/objects").items():
            if name.rpartition("/")[2] not in needed and info.mtime_ns < oldest:
                remove_file(f"{self.place}/objects/{name}")
                freed += info.size
        return old, freed

    def copy(
        self, sources: Mapping[str, Source], before: Manifest | None, done: Callable[[int], None]
    ) -> tuple[dict[str, Held], int]:
        """Copy what is not there yet; return what each file holds, and the bytes that were copied.

        A file that is as it was at the backup before is not read again. One that has gone meanwhile is left out.
        """
        known = before.files if before else {}
        there = self._objects()

        def copied(path: str) -> tuple[str, Held | None, int]:
            source, held = sources[path], known.get(path)
            if held is not None and source.stamp and held.stamp == source.stamp:
                return path, held, 0
            return path, *self._copied(source, there)

        found, copied_bytes = {}, 0
        with ThreadPoolExecutor(_COPYING) as pool:
            for number, (path, held, size) in enumerate(pool.map(copied, sources), 1):
                if held is not None:
                    found[path] = held
                copied_bytes += size
                done(number)
        return found, copied_bytes

    def _copied(self, source: Source, there: Mapping[str, int]) -> tuple[Held | None, int]:
        try:
            # Of a small one, which others may be writing to, what is read is what is written.
            whole = read_whole(source.location) if source.size < _SMALL else None
            digest, size = _digest_of(source.location) if whole is None else _digest([whole])
            if there.get(digest) == size:
                return Held(digest, size, source.stamp), 0
            chunks = _chunks(source.location, digest) if whole is None else [whole]
            write_lines_where_changed(self._object(digest), chunks)
        except FileNotFoundError:
            return None, 0
        except OSError as error:
            raise DlassetsError(
                f"{source.location} could not be copied to {self.place}: {advice(self.place, error)} Then run again: "
                "what was copied stands."
            ) from error
        return Held(digest, size, source.stamp), size

    def damaged(self, manifest: Manifest, done: Callable[[int], None]) -> list[str]:
        """Read all that a backup holds, and return the files of it that are gone or not what they were."""

        def is_whole(path: str) -> bool:
            held = manifest.files[path]
            try:
                return _digest_of(self._object(held.sha256)) == (held.sha256, held.size)
            except FileNotFoundError:
                return False

        with ThreadPoolExecutor(_COPYING) as pool:
            wrong = []
            for number, (path, whole) in enumerate(
                zip(manifest.files, pool.map(is_whole, manifest.files), strict=True), 1
            ):
                if not whole:
                    wrong.append(path)
                done(number)
        return wrong

    def refuse_damaged(self, manifest: Manifest, done: Callable[[int], None]) -> None:
        """Raise DlassetsError where anything of a backup is gone or damaged, with which files."""
        if wrong := self.damaged(manifest, done):
            paths = ", ".join(f"{path} ({self._object(manifest.files[path].sha256)})" for path in wrong[:_SHOWN])
            more = "" if len(wrong) <= _SHOWN else f" and {len(wrong) - _SHOWN} more"
            raise DlassetsError(
                f"The backup {manifest.name} at {self.place} is damaged, in {len(wrong)} of {len(manifest.files)} "
                f"files: {paths}{more}. Where the lake is still there, delete these objects: the next backup copies "
                "them again. Else put them back from a copy, or delete the manifest to take the backup before."
            )

    def put_back(
        self, manifest: Manifest, paths: Sequence[str], place_of: Callable[[str], str], done: Callable[[int], None]
    ) -> None:
        """Write files of a backup where they are to lie, in any order; one that lies there whole is left."""

        def put(path: str) -> None:
            held = manifest.files[path]
            write_lines_where_changed(place_of(path), _chunks(self._object(held.sha256), held.sha256))

        with ThreadPoolExecutor(_COPYING) as pool:
            for number, _ in enumerate(pool.map(put, paths), 1):
                done(number)

    def _object(self, digest: str) -> str:
        return f"{self.place}/objects/{digest[:2]}/{digest}"


def sources_under(folder: str, prefix: str = "") -> dict[str, Source]:
    """Return every file below a folder as a source, by its path within it after a prefix; none that is unfinished."""
    return {
        f"{prefix}{path}": Source(f"{folder}/{path}", info.size, f"{info.size}-{info.mtime_ns}")
        for path, info in files_under(folder).items()
        if not is_unfinished(info.base_name)
    }


def is_empty(location: str, but: str) -> bool:
    """Whether nothing lies below a path or URI, but for a file of this name."""
    filesystem, folder = cached_filesystem_of(location)
    return all(info.base_name == but for info in listed(filesystem, folder))


def _digest_of(location: str) -> tuple[str, int]:
    return _digest(_read(location))


def _digest(chunks: Iterable[bytes]) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def _chunks(location: str, sha256: str) -> Iterator[bytes]:
    """Yield a file's bytes. Raises DlassetsError at its end where they are not those of this digest."""
    digest = hashlib.sha256()
    for chunk in _read(location):
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != sha256:
        raise DlassetsError(f"{location} is not what it was a moment ago: run again.")


def _read(location: str) -> Iterator[bytes]:
    with closing(opened(location)) as file:
        while chunk := file.read(_CHUNK):
            yield bytes(chunk)
