"""One photo, and all that was ever said of it: by its folder, by models, by people; and photos that are searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dlassets.lakehouse.classes import with_classes_in_force
from dlassets.lakehouse.tables import (
    CLASSES,
    DELETED_FILES,
    EVALUATED_ROWS,
    HONEYPOT,
    HUMAN_LABELS,
    IMAGE_PROFILES,
    LABEL_ERRORS,
    LABEL_REQUESTS,
    LABELED_IMAGES,
    PREDICTIONS,
    PREDICTIONS_CURRENT,
    QUARANTINED_FILES,
    RAW_IMAGES,
    WAITING,
)
from dlassets.monitoring.views.reading import Reading, Row, one_row

MOST_FOUND = 120


@dataclass(frozen=True)
class Found:
    """A file that was searched: `image_id` is None of one that was never taken in, `reason` why it was refused."""

    path: str
    image_id: str | None
    name: str | None
    reason: str | None


@dataclass(frozen=True)
class Search:
    """Some of the files that were found, and how many there are."""

    shown: Sequence[Found]
    total: int


def search(reading: Reading, text: str) -> Search:
    """Return the files whose path has this text, whose image_id begins so, or that a request of this name is about.

    Without regard to case. Those whose file's name it is come first.
    """
    query = """
        WITH known AS (
            SELECT path, image_id, CAST(NULL AS STRING) AS reason FROM raw_images
            UNION ALL
            SELECT q.path, q.image_id, q.reason FROM quarantined_files AS q
            WHERE q.stage IS NULL AND NOT EXISTS (SELECT 1 FROM raw_images AS r WHERE r.path = q.path)
        ), found AS (
            SELECT known.path, MAX(known.image_id) AS image_id, MAX(known.reason) AS reason,
                MAX(CASE WHEN LOWER(known.path) LIKE CONCAT('%/', wanted.text) THEN 0 ELSE 1 END) AS farther
            FROM known CROSS JOIN wanted
            WHERE POSITION(wanted.text IN LOWER(known.path)) > 0 OR POSITION(wanted.text IN known.image_id) = 1
                OR EXISTS (
                    SELECT 1 FROM label_requests AS a WHERE a.request_id = wanted.text AND a.path = known.path)
            GROUP BY known.path
        ), placed AS (
            SELECT found.*, COUNT(*) OVER () AS total, ROW_NUMBER() OVER (ORDER BY farther, path) AS place FROM found
        )
        SELECT placed.path, placed.image_id, placed.reason, placed.total, l.label_name AS name
        FROM placed LEFT JOIN labeled_images AS l ON l.path = placed.path CROSS JOIN part
        WHERE placed.place <= part.last ORDER BY placed.place
    """
    tables = [RAW_IMAGES, QUARANTINED_FILES, LABEL_REQUESTS, LABELED_IMAGES]
    wanted, part = one_row(text=text.strip().lower()), one_row(last=MOST_FOUND)
    rows = reading.asked(query, tables, wanted=wanted, part=part)
    shown = [Found(row["path"], row["image_id"], row["name"], row["reason"]) for row in rows]
    return Search(shown, rows[0]["total"] if rows else 0)


@dataclass(frozen=True)
class Word:
    """What one model said of a photo, as a class and how sure it was: `label` is the class that it was tested against.

    `model_version` is None of a run that is no version. `split` is None of a prediction for use.
    """

    model_version: int | None
    run_id: str | None
    predicted_label: int
    predicted_name: str
    confidence: float
    split: str | None
    label: int | None
    label_name: str | None
    at: Any
    top_k: Sequence[Row]

    @property
    def is_right(self) -> bool | None:
        """Whether it was right; None where it was not tested."""
        return None if self.label is None else self.label == self.predicted_label


@dataclass(frozen=True)
class Photo:
    """All rows that tell of one path: of `image` and `profile` there is one each at most, of the others any number."""

    path: str
    image: Row | None
    profile: Row | None
    label: Row | None
    label_error: Row | None
    words: Sequence[Word]
    requests: Sequence[Row]
    answers: Sequence[Row]
    refusals: Sequence[Row]
    deleted: Row | None
    copies: Sequence[str]

    @property
    def image_id(self) -> str | None:
        return self.image["image_id"] if self.image else None


def photo(reading: Reading, path: str) -> Photo | None:
    """Return what the lake knows of a path; None where it knows nothing."""
    wanted = one_row(path=path)
    image = _first(
        reading.asked(
            "SELECT r.path, r.image_id, r.landing, r.folder, r.length, r.modificationTime, r.load_date "
            "FROM raw_images AS r JOIN wanted ON r.path = wanted.path",
            [RAW_IMAGES],
            wanted=wanted,
        )
    )
    refusals = reading.asked(
        "SELECT q.reason, q.detail, q.load_date, q.dropped_at, q.retry_at, q.stage "
        "FROM quarantined_files AS q JOIN wanted ON q.path = wanted.path ORDER BY q.load_date DESC, q.reason",
        [QUARANTINED_FILES],
        wanted=wanted,
    )
    if image is None and not refusals:
        return None
    of_image = one_row(path=path, image_id=image["image_id"] if image else None)
    return Photo(
        path=path,
        image=image,
        profile=_profile(reading, of_image),
        label=_label(reading, wanted),
        label_error=_label_error(reading, wanted),
        words=[*_predictions(reading, of_image), *_evaluations(reading, of_image)],
        requests=_requests(reading, of_image),
        answers=_answers(reading, of_image),
        refusals=refusals,
        deleted=_deleted(reading, wanted),
        copies=[row["path"] for row in _copies(reading, of_image)],
    )


def paths_of(reading: Reading, image_id: str) -> list[str]:
    """Return the paths that have a photo of these bytes."""
    return [row["path"] for row in _copies(reading, one_row(path=None, image_id=image_id))]


def _copies(reading: Reading, of_image: Any) -> list[Row]:
    """Return the other paths whose photo has the same bytes."""
    query = """
        SELECT r.path FROM raw_images AS r JOIN wanted ON r.image_id = wanted.image_id
        WHERE wanted.path IS NULL OR r.path <> wanted.path ORDER BY r.path
    """
    return reading.asked(query, [RAW_IMAGES], wanted=of_image)


def _profile(reading: Reading, of_image: Any) -> Row | None:
    query = """
        SELECT p.width, p.height, p.mode, p.brightness, p.sharpness
        FROM image_profiles AS p JOIN wanted ON p.image_id = wanted.image_id
    """
    return _first(reading.asked(query, [IMAGE_PROFILES], wanted=of_image))


def _label(reading: Reading, wanted: Any) -> Row | None:
    query = """
        SELECT l.label, COALESCE(l.label_name, CAST(l.label AS STRING)) AS name, l.source, l.annotator, l.labeled_at,
            l.split, classes.name AS contradicts
        FROM labeled_images AS l JOIN wanted ON l.path = wanted.path
        LEFT JOIN classes ON classes.label = l.contradicts
    """
    return _first(reading.asked(query, [LABELED_IMAGES, CLASSES], wanted=wanted))


def _label_error(reading: Reading, wanted: Any) -> Row | None:
    query = """
        SELECT COALESCE(e.suggested_name, CAST(e.suggested_label AS STRING)) AS suggested, e.confidence, e.quality
        FROM label_errors AS e JOIN wanted ON e.path = wanted.path
    """
    return _first(reading.asked(query, [LABEL_ERRORS], wanted=wanted))


def _predictions(reading: Reading, of_image: Any) -> list[Word]:
    """Return what versions said of the photo, the newest first; once each, though both tables may have it."""
    columns = "path, image_id, model_version, predicted_label, predicted_name, confidence, top_k, scored_at"
    query = f"""
        WITH said AS (
            SELECT {columns} FROM ({with_classes_in_force(PREDICTIONS)}) AS p
            UNION ALL
            SELECT {columns} FROM ({with_classes_in_force(PREDICTIONS_CURRENT)}) AS p
        )
        SELECT s.model_version, s.predicted_label,
            COALESCE(s.predicted_name, CAST(s.predicted_label AS STRING)) AS predicted_name, s.confidence,
            s.scored_at AS at, s.top_k
        FROM said AS s JOIN wanted ON s.path = wanted.path
        WHERE wanted.image_id IS NULL OR s.image_id = wanted.image_id
        ORDER BY s.model_version DESC, s.scored_at DESC
    """  # noqa: S608 - columns
    rows = reading.asked(query, [PREDICTIONS, PREDICTIONS_CURRENT, CLASSES], wanted=of_image)
    once = {row["model_version"]: row for row in reversed(rows)}
    return [
        Word(**{**row, "top_k": row["top_k"] or ()}, run_id=None, split=None, label=None, label_name=None)
        for row in reversed(once.values())
    ]


def _evaluations(reading: Reading, of_image: Any) -> list[Word]:
    """Return what trained models said of the photo where it was one that they were tested on."""
    query = f"""
        SELECT e.run_id, e.split, e.label, COALESCE(e.label_name, CAST(e.label AS STRING)) AS label_name,
            e.predicted_label, COALESCE(e.predicted_name, CAST(e.predicted_label AS STRING)) AS predicted_name,
            e.confidence, e.evaluated_at AS at
        FROM ({with_classes_in_force(EVALUATED_ROWS)}) AS e JOIN wanted ON e.image_id = wanted.image_id
        ORDER BY e.evaluated_at DESC, e.run_id
    """  # noqa: S608 - columns
    rows = reading.asked(query, [EVALUATED_ROWS, CLASSES], wanted=of_image)
    return [Word(**row, model_version=None, top_k=()) for row in rows]


def _requests(reading: Reading, of_image: Any) -> list[Row]:
    # Who is yet to answer is not to see which is a honeypot.
    query = f"""
        SELECT r.request_id, r.batch_id, r.service, r.status, r.confidence, r.requested_at,
            CASE WHEN r.strategy = '{HONEYPOT}' AND r.{WAITING} THEN 'least_confidence' ELSE r.strategy END AS strategy,
            COALESCE(r.predicted_name, CAST(r.predicted_label AS STRING)) AS predicted_name
        FROM ({with_classes_in_force(LABEL_REQUESTS)}) AS r
        JOIN wanted ON r.path = wanted.path OR r.image_id = wanted.image_id
        ORDER BY r.requested_at DESC, r.request_id
    """  # noqa: S608 - constants and columns
    return reading.asked(query, [LABEL_REQUESTS, CLASSES], wanted=of_image)


def _answers(reading: Reading, of_image: Any) -> list[Row]:
    query = """
        SELECT h.answer, h.label, h.annotator, h.answered_at, h.status, h.reason
        FROM human_labels AS h JOIN wanted ON h.path = wanted.path OR h.image_id = wanted.image_id
        ORDER BY h.answered_at DESC, h.read_order DESC
    """
    return reading.asked(query, [HUMAN_LABELS], wanted=of_image)


def _deleted(reading: Reading, wanted: Any) -> Row | None:
    query = "SELECT d.deleted_at, d.returned_at FROM deleted_files AS d JOIN wanted ON d.path = wanted.path"
    return _first(reading.asked(query, [DELETED_FILES], wanted=wanted))


def _first(rows: list[Row]) -> Row | None:
    return rows[0] if rows else None
