"""What must stand in the tables, worked out from the files on disk with plain dictionaries: no Arrow, no SQL, no Delta.

Written from what ingestion promises, not from how it does it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from dlassets_tests.soak.contents import Content

ZONES = {"labeled": True, "unlabeled": False}
# A label folder begins with a number, and a name after it is set off.
BAD = None  # a line of events that nobody can read


@dataclass(frozen=True)
class File:
    """One state of a file on disk. `mtime` is in milliseconds."""

    content: Content
    mtime: int
    readable: bool = True

    @property
    def length(self) -> int:
        return len(self.content.data)


class State(NamedTuple):
    """What tells states of files apart."""

    path: str
    mtime: int
    length: int


class Row(NamedTuple):
    """A row of `raw_images`. `location` is None where the bytes stand in the table."""

    mtime: int
    length: int
    image_id: str
    landing: str
    folder: str
    location: str | None


@dataclass
class Tables:
    """What the three tables hold: of `gone`, whether the path is gone now or has come back."""

    raw: dict[str, Row] = field(default_factory=dict)
    refused: dict[State, str] = field(default_factory=dict)
    gone: dict[str, bool] = field(default_factory=dict)

    def copy(self) -> Tables:
        return Tables(dict(self.raw), dict(self.refused), dict(self.gone))

    def parts(self) -> dict[str, dict[Any, Any]]:
        return {"raw_images": self.raw, "quarantined_files": self.refused, "deleted_files": self.gone}


@dataclass(frozen=True)
class Options:
    """The settings that an ingest may find changed."""

    events: frozenset[str] = frozenset()  # zones that are read by their events
    storage: str = "table"
    max_file_bytes: int = 100 * 2**20
    files_per_batch: int = 1000
    pattern: str = ""  # of the zone without labels
    capture: tuple[str, ...] = ()

    def takes_in(self, path: str) -> bool:
        zone, _, within = path.partition("/")
        return zone == "labeled" or re.search(self.pattern, within) is not None


@dataclass(frozen=True)
class EventFile:
    """The whole lines of one file of events, each a path or BAD, how many were read, and what its last line lacks."""

    lines: tuple[str | None, ...] = ()
    read: int = 0
    half: str | None = None


@dataclass
class Events:
    """A zone's files of events, and whether all of the zone is to be listed whatever they say."""

    files: dict[str, EventFile] = field(default_factory=dict)
    due: bool = True

    @property
    def unread(self) -> list[str | None]:
        return [line for file in self.files.values() for line in file.lines[file.read :]]

    def all_read(self) -> Events:
        return Events({name: replace(file, read=len(file.lines)) for name, file in self.files.items()}, due=False)

    def lost(self, due: bool) -> Events:
        """What it is like once it is not known how far the files were read."""
        return Events({name: replace(file, read=0) for name, file in self.files.items()}, due or self.due)

    def seen(self, takes_in: Callable[[str], bool]) -> tuple[bool, frozenset[str]]:
        """Return whether all is to be listed, and which paths are told of."""
        return self.due or BAD in self.unread, frozenset(p for p in self.unread if p is not BAD and takes_in(p))


@dataclass
class Counts:
    images: int = 0
    replaced: int = 0
    quarantined: int = 0
    deleted: int = 0
    returned: int = 0
    bad_events: int = 0


@dataclass
class Outcome:
    """What an ingest that runs to its end leaves behind."""

    tables: Tables
    events: dict[str, Events]
    counts: Counts


class Model:
    """`disk` is by `<zone>/<path within it>`, as the tables have it."""

    def __init__(self) -> None:
        self.disk: dict[str, File] = {}
        self.tables = Tables()
        self.events = {zone: Events() for zone in ZONES}
        self.options = Options()

    def ingested(self) -> Outcome:
        tables, counts, events = self.tables.copy(), Counts(), dict(self.events)
        for zone in ZONES:
            looked_at = self._looked_at(zone)
            if zone in self.options.events:
                counts.bad_events += self.events[zone].unread.count(BAD)
                if looked_at is None or self.events[zone].unread:
                    events[zone] = self.events[zone].all_read()
            self._take_in(zone, looked_at, tables, counts)
            self._note(zone, looked_at, tables, counts)
        return Outcome(tables, events, counts)

    def visible(self, path: str) -> bool:
        parts = path.split("/")[1:]
        return not any(part.startswith((".", "_")) for part in parts) and self.options.takes_in(path)

    def _looked_at(self, zone: str) -> frozenset[str] | None:
        """Return the paths that an ingest looks at; None for all."""
        if zone not in self.options.events:
            return None
        everything, told = self.events[zone].seen(self.visible)
        return None if everything else told

    def _present(self, zone: str, looked_at: frozenset[str] | None) -> dict[str, File]:
        return {
            path: file
            for path, file in self.disk.items()
            if path.startswith(f"{zone}/") and self.visible(path) and (looked_at is None or path in looked_at)
        }

    def _take_in(self, zone: str, looked_at: frozenset[str] | None, tables: Tables, counts: Counts) -> None:
        for path, file in self._present(zone, looked_at).items():
            state, known = State(path, file.mtime, file.length), tables.raw.get(path)
            if state in tables.refused or (known and (known.mtime, known.length) == (file.mtime, file.length)):
                continue
            reason = self.verdict(path, file)
            if reason is not None:
                tables.refused[state] = reason
                counts.quarantined += 1
                continue
            tables.raw[path] = self._row(path, file)
            counts.images += known is None
            counts.replaced += known is not None

    def _note(self, zone: str, looked_at: frozenset[str] | None, tables: Tables, counts: Counts) -> None:
        known = {
            path for path in (*tables.raw, *(state.path for state in tables.refused)) if path.startswith(f"{zone}/")
        }
        present = self._present(zone, looked_at)
        for path in known if looked_at is None else known & looked_at:
            if path not in present and not tables.gone.get(path, False) and self.options.takes_in(path):
                tables.gone[path] = True
                counts.deleted += 1
            if path in present and tables.gone.get(path, False):
                tables.gone[path] = False
                counts.returned += 1

    def verdict(self, path: str, file: File) -> str | None:
        """Return why a file is no usable image, in the order in which reasons win over each other."""
        if file.length > self.options.max_file_bytes:
            return "too_large"
        if file.length and not file.readable:
            return "unreadable"
        if file.content.reason is not None:
            return file.content.reason
        if ZONES[path.split("/", maxsplit=1)[0]] and not _folder(path):
            return "bad_label_folder"
        return None

    def _row(self, path: str, file: File) -> Row:
        image_id = hashlib.sha256(file.content.data).hexdigest()
        locations = {"table": None, "files": f"files/{image_id[:2]}/{image_id}", "landing": f"landing/{path}"}
        zone, location = path.split("/", maxsplit=1)[0], locations[self.options.storage]
        return Row(file.mtime, file.length, image_id, zone, _folder(path), location)


def _folder(path: str) -> str:
    parts = path.split("/")
    return parts[-2] if len(parts) > 2 else ""


def differences(actual: Tables, expected: Sequence[Tables], loose: Iterable[str] = ()) -> list[str]:
    """Say what of `actual` is not as in one of `expected`, entry by entry; paths in `loose` may be as they like.

    With several expected, each entry may be as any of them has it: a run that was killed has done some of its work.
    """
    loose = set(loose)
    found = []
    for name, entries in actual.parts().items():
        wanted: list[Mapping[Any, Any]] = [tables.parts()[name] for tables in expected]
        for key in sorted({*entries, *(key for entry in wanted for key in entry)}, key=repr):
            if (key.path if isinstance(key, State) else key) in loose:
                continue
            allowed = [entry.get(key, "nothing") for entry in wanted]
            if entries.get(key, "nothing") not in allowed:
                should = " or ".join(dict.fromkeys(map(repr, allowed)))
                found.append(f"{name}: {key!r} is {entries.get(key, 'nothing')!r}, and should be {should}")
    return found
