"""What people may be asked now: every open request in its turn, and who has said what to it by what the tables have."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from dlassets.lakehouse.labels import STANDING_ANSWERS
from dlassets.lakehouse.tables import ANSWERED, CLASSES, HUMAN_LABELS, LABEL_REQUESTS, OPEN, PLANNED
from dlassets.monitoring.views.reading import Reading, one_row

# What all of it is read from: where none has another version, all of it is the same.
READS = (LABEL_REQUESTS, HUMAN_LABELS, CLASSES)
_COLUMNS = f"""
    SELECT r.request_id, r.path, r.image_id, r.predicted_label, r.predicted_name, r.confidence,
        COALESCE(r.answers_wanted, 1) AS wanted
    FROM {LABEL_REQUESTS.name} AS r
"""  # noqa: S608 - a constant


@dataclass(frozen=True)
class OpenRequest:
    """A request that `wanted` people are to answer, and what the model thinks."""

    request_id: str
    path: str
    image_id: str
    predicted_label: int
    predicted_name: str | None
    confidence: float
    wanted: int


@dataclass(frozen=True)
class Word:
    """What a person has said of a request until `seen_at`: whether an answer of theirs stands."""

    is_answer: bool
    seen_at: dt.datetime


@dataclass(frozen=True)
class OpenRequests:
    """`requests` are those that are open by their ids, in the order in which people are asked: what matters most, then
    what the model is least sure of. `words` are by request and annotator. `answered` counts requests that are closed.
    """

    requests: Mapping[str, OpenRequest] = field(default_factory=dict)
    words: Mapping[str, Mapping[str | None, Word]] = field(default_factory=dict)
    answered: int = 0
    classes: Mapping[int, str] = field(default_factory=dict)


def open_requests(reading: Reading) -> OpenRequests:
    rows = reading.asked(
        f"{_COLUMNS} WHERE r.status = '{OPEN}' ORDER BY COALESCE(r.priority, 0) DESC, r.confidence, r.request_id",
        [LABEL_REQUESTS],
    )
    answered = reading.asked(
        f"SELECT COUNT(*) AS answered FROM label_requests WHERE status = '{ANSWERED}'",  # noqa: S608 - constants
        [LABEL_REQUESTS],
    )
    classes = reading.asked("SELECT label, name FROM classes ORDER BY label", [CLASSES])
    return OpenRequests(
        {row["request_id"]: OpenRequest(**row) for row in rows},
        _words(reading),
        answered[0]["answered"],
        {row["label"]: row["name"] for row in classes},
    )


def _words(reading: Reading) -> Mapping[str, Mapping[str | None, Word]]:
    query = f"""
        SELECT h.request_id, h.annotator, MAX(h.answered_at) AS seen_at,
            MAX(CASE WHEN s.request_id IS NULL THEN 0 ELSE 1 END) AS is_answer
        FROM human_labels AS h
        JOIN label_requests AS r ON r.request_id = h.request_id AND r.status = '{OPEN}'
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
    rows = reading.asked(query, [LABEL_REQUESTS], wanted=one_row(request_id=request_id))
    return OpenRequest(**rows[0]) if rows else None
