"""What people may be asked now: every open request in its turn, and who has said what to it by what the tables have."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from dlassets.lakehouse.classes import with_classes_in_force
from dlassets.lakehouse.labels import STANDING_ANSWERS
from dlassets.lakehouse.tables import ANSWERED, CLASSES, HONEYPOT, HUMAN_LABELS, LABEL_REQUESTS, OPEN, PHOTO, PLANNED
from dlassets.monitoring.views.reading import Reading, one_row

# What all of it is read from: where none has another version, all of it is the same.
READS = (LABEL_REQUESTS, HUMAN_LABELS, CLASSES)
_COLUMNS = f"""
    SELECT r.request_id, r.path, r.image_id, r.predicted_label, r.predicted_name, r.confidence,
        COALESCE(r.answers_wanted, 1) AS wanted
    FROM ({with_classes_in_force(LABEL_REQUESTS)}) AS r
"""  # noqa: S608 - a constant

# SQL over `label_requests`: of each open request, those whose answers count for it. What several people are asked is
# about the photo, whichever request they answered; but to a honeypot an answer says nothing of that.
_COUNTED = f"""
    SELECT request_id, request_id AS answered FROM label_requests WHERE status = '{OPEN}'
    UNION
    SELECT r.request_id, other.request_id AS answered FROM label_requests AS r
    JOIN label_requests AS other ON other.image_id = r.image_id AND other.strategy <> '{HONEYPOT}'
    WHERE r.status = '{OPEN}' AND r.answers_wanted > 1 AND r.strategy <> '{HONEYPOT}'
    UNION
    SELECT r.request_id, CONCAT('{PHOTO}', r.image_id) AS answered FROM label_requests AS r
    WHERE r.status = '{OPEN}' AND r.answers_wanted > 1 AND r.strategy <> '{HONEYPOT}'
"""  # noqa: S608 - constants


@dataclass(frozen=True)
class OpenRequest:
    """A request that `wanted` people are to answer, and what the model thinks.

    `others` are further requests of which an answer is one to this as well: where several people are asked, those about
    the same photo.
    """

    request_id: str
    path: str
    image_id: str
    predicted_label: int
    predicted_name: str | None
    confidence: float
    wanted: int
    others: Collection[str] = ()

    @property
    def counted(self) -> tuple[str, ...]:
        """Every request of which an answer is one to this."""
        return (self.request_id, *self.others)


@dataclass(frozen=True)
class Word:
    """What a person has said of a request until `seen_at`: whether an answer of theirs stands."""

    is_answer: bool
    seen_at: dt.datetime


@dataclass(frozen=True)
class OpenRequests:
    """`requests` are those that are open by their ids, in the order in which people are asked: what matters most, then
    what the model is least sure of. `words` are by request and annotator. `answered` counts requests that are closed.

    `classes` are those that people choose among; an answer may also mean one of `merged`, which is another by now.
    """

    requests: Mapping[str, OpenRequest] = field(default_factory=dict)
    words: Mapping[str, Mapping[str | None, Word]] = field(default_factory=dict)
    answered: int = 0
    classes: Mapping[int, str] = field(default_factory=dict)
    merged: Collection[int] = frozenset()

    @cached_property
    def counts_for(self) -> Mapping[str, Collection[str]]:
        """The open requests to which an answer to a request is one."""
        found: dict[str, list[str]] = defaultdict(list)
        for name, request in self.requests.items():
            for each in request.counted:
                found[each].append(name)
        return dict(found)

    def has_class(self, label: int | None) -> bool:
        """Whether a label is, or was, that of a class."""
        return label in self.classes or label in self.merged


def open_requests(reading: Reading) -> OpenRequests:
    rows = reading.asked(
        f"{_COLUMNS} WHERE r.status = '{OPEN}' ORDER BY COALESCE(r.priority, 0) DESC, r.confidence, r.request_id",
        [LABEL_REQUESTS, CLASSES],
    )
    answered = reading.asked(
        f"SELECT COUNT(*) AS answered FROM label_requests WHERE status = '{ANSWERED}'",  # noqa: S608 - constants
        [LABEL_REQUESTS],
    )
    classes = reading.asked("SELECT label, name, merged_into FROM classes ORDER BY label", [CLASSES])
    others = _others(reading)
    return OpenRequests(
        {row["request_id"]: OpenRequest(**row, others=others.get(row["request_id"], ())) for row in rows},
        _words(reading),
        answered[0]["answered"],
        {row["label"]: row["name"] for row in classes if row["merged_into"] is None},
        frozenset(row["label"] for row in classes if row["merged_into"] is not None),
    )


def _others(reading: Reading) -> Mapping[str, Collection[str]]:
    query = f"""
        SELECT request_id, answered FROM ({_COUNTED}) AS counted
        WHERE answered <> request_id ORDER BY request_id, answered
    """  # noqa: S608 - constants
    others: dict[str, list[str]] = defaultdict(list)
    for row in reading.asked(query, [LABEL_REQUESTS]):
        others[row["request_id"]].append(row["answered"])
    return others


def _words(reading: Reading) -> Mapping[str, Mapping[str | None, Word]]:
    query = f"""
        SELECT h.request_id, h.annotator, MAX(h.answered_at) AS seen_at,
            MAX(CASE WHEN s.request_id IS NULL THEN 0 ELSE 1 END) AS is_answer
        FROM human_labels AS h
        JOIN (SELECT DISTINCT answered FROM ({_COUNTED}) AS counted) AS asked ON asked.answered = h.request_id
        LEFT JOIN ({STANDING_ANSWERS}) AS s
            ON s.request_id = h.request_id AND s.annotator IS NOT DISTINCT FROM h.annotator
        GROUP BY h.request_id, h.annotator
    """  # noqa: S608 - constants
    words: dict[str, dict[str | None, Word]] = defaultdict(dict)
    for row in reading.asked(query, [HUMAN_LABELS, LABEL_REQUESTS]):
        words[row["request_id"]][row["annotator"]] = Word(bool(row["is_answer"]), row["seen_at"])
    return dict(words)


def sent_request(reading: Reading, request_id: str) -> OpenRequest | None:
    """Return a request that people were asked at some time, whatever has become of it."""
    query = f"{_COLUMNS} JOIN wanted ON wanted.request_id = r.request_id WHERE r.status <> '{PLANNED}'"
    rows = reading.asked(query, [LABEL_REQUESTS, CLASSES], wanted=one_row(request_id=request_id))
    return OpenRequest(**rows[0]) if rows else None
