"""What people answer on the page: lines of JSON among the answers, as anybody may put them there.

A line is kept by the storage before its answer counts, and their times rise.
"""

from __future__ import annotations

import errno
import json
import threading
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from dlassets.errors import DlassetsError
from dlassets.labeling.page_files import SUFFIX, PageFiles
from dlassets.labeling.services import Act
from dlassets.storage.records import as_text, read_records

# The service's name, and that of its folder among the answers.
PAGE = "page"

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
    """What lies in `files`, of which this process knows what it says. Safe in many threads and processes."""

    def __init__(self, files: PageFiles) -> None:
        self._files = files
        self._lock = threading.RLock()
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
                for chunks in self._files.new_lines():
                    for _, record in read_records(chunks, SUFFIX):
                        if isinstance(record, dict):  # of what is none, `human_labels` says why
                            self._note(record)
            except OSError as error:
                raise DlassetsError(f"The page's answers in {self._files.place} cannot be read: {error}.") from error

    def write(self, given: Sequence[Given]) -> None:
        """Have storage keep these, in their order, but for those that it has already.

        Raises UnwrittenError where it does not take them: then none of them is there.
        """
        with self._lock:
            try:
                with self._files.alone():
                    self.follow()
                    now = datetime.now(UTC)
                    if lines := b"".join(self._lines(given, now)):
                        self._files.add(lines, now)
            except OSError as error:
                raise UnwrittenError(
                    f"Answers cannot be written to {self._files.place}: {error.strerror or error}.",
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
