"""What a format of another labelling service is: how its files are known, written and read."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import chain
from typing import Any

from dlassets.labeling.services import Act, Request
from dlassets.storage.records import READERS, Entry, read_members, read_records

JSON_LINES, JSON = ".jsonl", ".json"


@dataclass(frozen=True, slots=True)
class ForeignAnswer:
    """What a file of another service says of one photo, at one place of it ("line 3").

    The photo is named by its request, its SHA-256, or as the service calls it: a path, a URL, a file's name. Without a
    label, and with no problem, it is not answered yet. `label` is the text that the service has for the class.
    """

    place: str
    photo: str = ""
    request_id: str = ""
    image_id: str = ""
    label: str | None = None
    annotator: str | None = None
    answered_at: datetime | None = None
    seconds: float | None = None
    act: Act = "answered"
    problem: str | None = None


@dataclass(frozen=True)
class ShownRequest:
    """A request as another service is told of it: where its photo lies for that, and the photo's size in pixels."""

    request: Request
    place: str
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True)
class Beginning:
    """How a file begins, by which its format is known: its suffix in lower case, and its first bytes."""

    suffix: str
    data: bytes

    @cached_property
    def record(self) -> Mapping[str, Any]:
        """The first record that can be read; empty where there is none."""
        suffix = self.suffix if self.suffix in READERS else JSON_LINES
        both = (suffix,) if suffix in READERS and suffix not in {JSON, JSON_LINES} else (JSON, JSON_LINES)
        found = (record for each in both for _, record in read_records([self.data], each) if isinstance(record, dict))
        return next(found, {})

    @cached_property
    def members(self) -> Mapping[str, Any]:
        """What the one object of a JSON file holds, as far as that is in here: of a list, its last item."""
        read = read_members([self.data]) if self.data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else ()
        return {member.key: member.value for member in read if member.problem is None}


class FileFormat(ABC):
    """How one service's files are known, written and read. `title` says whose they are."""

    name: str
    title: str
    suffixes: tuple[str, ...]

    @abstractmethod
    def recognises(self, beginning: Beginning) -> bool:
        """Whether a file that begins so is one of these."""

    @abstractmethod
    def write(self, requests: Sequence[ShownRequest], classes: Mapping[int, str]) -> dict[str, bytes]:
        """Return the files, by name, that ask a service about these requests; `classes` are the possible answers."""

    @abstractmethod
    def read(self, chunks: Iterable[bytes], suffix: str) -> Iterator[ForeignAnswer]:
        """Yield what a file, which comes in chunks, says of each photo. What cannot be read is among it, with why."""


def records_of(chunks: Iterable[bytes], suffix: str) -> Iterator[Entry]:
    """Yield the records of a file, JSON lines or a JSON list whatever it is called, or by its suffix."""
    if suffix in READERS and suffix not in {JSON, JSON_LINES}:
        return read_records(chunks, suffix)
    chunks = iter(chunks)
    begun = b""
    while not (sign := begun.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")[:1]):
        if not (chunk := next(chunks, b"")):
            break
        begun += chunk
    return read_records(chain([begun], chunks), JSON if sign == b"[" else JSON_LINES)


def json_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(_said(record), ensure_ascii=False)}\n" for record in records).encode()


def json_file(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()


def _said(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if value is not None}


def class_name(label: int, classes: Mapping[int, str]) -> str:
    """Return what a class is called in another service: its name, its number where it has none."""
    return classes.get(label) or str(label)
