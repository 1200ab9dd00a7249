"""Taking in what people answered: each answer is written down once, accepted or refused with a reason."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Commit, Engine, Rows, Snapshot, Transaction, Written
from dlassets.engines.schema import schema_of
from dlassets.images.folders import class_of_folder, comparable
from dlassets.labeling.formats import MOST_PROBLEMS, problem
from dlassets.labeling.services import Answer, Known, LabelingService, Refusal, is_duration
from dlassets.lakehouse.classes import Class, classes_of
from dlassets.lakehouse.labels import NEWEST_ANSWER, STANDING_ANSWERS, STANDING_LABELS
from dlassets.lakehouse.snapshots import transaction_version
from dlassets.lakehouse.tables import (
    ACCEPTED,
    CLASSES,
    HUMAN_LABELS,
    LABEL_REQUESTS,
    PHOTO,
    RAW_IMAGES,
    REFUSED,
    SKIPPED,
    TAKEN_BACK,
)

if TYPE_CHECKING:
    import pyarrow as pa

# A number, and whatever stands after it: 2, 002.hat, and 2.0 as spreadsheets write it.
_NUMBERED = r"^(?P<label>\d+)(?:[._ -]+(?P<name>.+))?$"
# Answers that are Python's at a time; of the others, Arrow has rows.
_READ_AT_ONCE = 10_000
_APP_ID = f"dlassets/{HUMAN_LABELS.name}"

CHANGES_NOTHING = "changes nothing: the answer in force says the same"
EMPTY = "empty: no class was chosen"
NO_PHOTO = "no such photo"
# Why what is kept besides answers is not applied.
NOTHING_SAID, TAKES_BACK = "skipped: nothing was answered", "takes back what that person answered before"
# Longer texts are cut, and longer names of people refused, which would be one if they were cut.
_LONGEST_TEXT, _LONGEST_NAME = 1000, 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

# SQL over `given`, `photos` and `label_requests`: the answers that count of those given, accepted or refused. A photo
# answers by where it lies, and is a file of its own: in folders of two classes it says two things, of which neither
# counts. Of one file's answers to photos that are not there, MOST_PROBLEMS are kept: it may name any number.
_RESOLVED = f"""
        addressed AS (
            SELECT given.*, COALESCE(given.requested, CONCAT('{PHOTO}', COALESCE(photos.image_id, given.photo)))
                AS request_id, photos.path AS photo_path, photos.image_id AS photo_image_id
            FROM given LEFT JOIN photos ON photos.photo = given.photo
        ), placed AS (
            SELECT addressed.*, ROW_NUMBER() OVER (
                PARTITION BY file, request_id, annotator, dated, CASE WHEN act = '{SKIPPED}' THEN 1 ELSE 0 END
                ORDER BY place DESC) AS nth
            FROM addressed
        ), laid AS (
            SELECT request_id, file, label, MIN(label) OVER (PARTITION BY request_id) AS lowest,
                MAX(label) OVER (PARTITION BY request_id) AS highest
            FROM addressed WHERE file = origin AND NOT dated AND label IS NOT NULL
        ), laid_twice AS (
            SELECT request_id, MIN(CASE WHEN label = lowest THEN file END) AS one,
                MIN(CASE WHEN label = highest THEN file END) AS other
            FROM laid WHERE lowest <> highest GROUP BY request_id
        ), judged AS (
            SELECT g.request_id, COALESCE(r.path, g.photo_path) AS path,
                COALESCE(r.image_id, g.photo_image_id) AS image_id, g.label, g.annotator, g.answered_at,
                CASE WHEN g.problem IS NOT NULL THEN g.problem
                    WHEN g.photo IS NOT NULL AND g.photo_image_id IS NULL THEN '{NO_PHOTO}'
                    WHEN g.photo IS NULL AND r.request_id IS NULL THEN 'no such request'
                    WHEN t.request_id IS NOT NULL
                        THEN 'lies in folders of two classes, ' || t.one || ' and ' || t.other || ': leave it in one'
                    END AS problem,
                g.answer, g.origin, g.dated, g.read_at, g.seen_at, g.file, g.place, g.act, g.service, g.seconds, g.photo
            FROM placed AS g LEFT JOIN label_requests AS r ON r.request_id = g.request_id
            LEFT JOIN laid_twice AS t ON t.request_id = g.request_id AND g.file = g.origin AND NOT g.dated
            WHERE g.dated OR g.nth = 1
        ), decided AS (
            SELECT judged.*, CASE WHEN problem IS NOT NULL THEN '{REFUSED}' WHEN act = 'answered' THEN '{ACCEPTED}'
                ELSE act END AS status,
                CASE WHEN problem IS NOT NULL THEN problem WHEN act = '{SKIPPED}' THEN '{NOTHING_SAID}'
                    WHEN act = '{TAKEN_BACK}' THEN '{TAKES_BACK}' END AS reason
            FROM judged
        ), resolved AS (
            SELECT * FROM (
                SELECT decided.*, ROW_NUMBER() OVER (
                    PARTITION BY request_id, answered_at, annotator, answer, status ORDER BY place DESC) AS again,
                    ROW_NUMBER() OVER (
                    PARTITION BY file, CASE WHEN problem = '{NO_PHOTO}' THEN 1 ELSE 0 END ORDER BY place) AS nth_there
                FROM decided) AS each_once
            WHERE again = 1
        )"""  # noqa: S608 - constants
# SQL: the file that an answer in `human_labels` was read from; of a photo that was moved, where it lay.
_FILE = "REGEXP_REPLACE(origin, ', (line|item) [0-9]+$', '')"


def collect_answers(
    engine: Engine,
    service: LabelingService,
    human_labels: Snapshot,
    sources: Mapping[str, Snapshot],
    commit: Commit,
) -> tuple[Written, list[Refusal]]:
    """Append the answers that `human_labels` does not have yet; none new, no new version. Return what is refused now.

    `sources` are label_requests, raw_images and classes. An answer is refused where it cannot be read, its class is
    none of these, there is no such request or photo, or its photo lies in folders of two classes; and accepted later
    should that have changed. An answer without a time of its own is new only if it is not
    what that person's newest answer already says, or the newest of that file: saving a list again answers nothing
    again, and brings nothing back that was answered otherwise or taken back since. Raises ConflictError where another
    run wrote answers since `human_labels` was pinned: pin and collect again.

    An answer that names a photo is about the bytes that lie there when it is first read, whatever comes to lie there.

    Answers stand in the order in which they are read (`read_order`), those that are read together in the order in which
    the service saw their files, and those of one file by its own times and lines: which of two computers' clocks is
    ahead decides nothing, and no time counts as later than now. Of one that changes nothing the reason says so.
    """
    query = f"""
        WITH {_RESOLVED}, newest AS (
            SELECT request_id, path, annotator, answer, status, file, place FROM (
                SELECT request_id, path, annotator, answer, status, {_FILE} AS file, ROW_NUMBER() OVER (
                    PARTITION BY request_id, annotator
                    ORDER BY COALESCE(read_order, 0) DESC, answered_at DESC, status) AS place,
                    ROW_NUMBER() OVER (
                    PARTITION BY request_id, annotator, {_FILE}
                    ORDER BY COALESCE(read_order, 0) DESC, answered_at DESC, status) AS place_there
                FROM human_labels) AS ranked
            WHERE place = 1 OR place_there = 1
        ), in_force AS (
            SELECT image_id, label FROM (
                SELECT image_id, label, ROW_NUMBER() OVER (PARTITION BY image_id ORDER BY {NEWEST_ANSWER}) AS place
                FROM ({STANDING_LABELS}) AS standing) AS ranked
            WHERE place = 1
        ), fresh AS (
            SELECT a.*, ROW_NUMBER() OVER (
                ORDER BY LEAST(a.seen_at, a.read_at), a.file, LEAST(a.answered_at, a.read_at), a.place) AS nth
            FROM resolved AS a
            WHERE (a.problem IS NULL OR a.problem <> '{NO_PHOTO}' OR a.nth_there <= {MOST_PROBLEMS})
                AND NOT EXISTS (
                    SELECT 1 FROM human_labels AS h
                    WHERE h.request_id = a.request_id AND h.answered_at = a.answered_at
                        AND h.annotator IS NOT DISTINCT FROM a.annotator AND h.answer IS NOT DISTINCT FROM a.answer
                        AND (h.status = a.status OR h.status = '{ACCEPTED}'))
                AND NOT EXISTS (
                    SELECT 1 FROM human_labels AS h
                    WHERE h.path = a.photo AND h.answered_at = a.answered_at AND h.request_id LIKE '{PHOTO}%'
                        AND h.annotator IS NOT DISTINCT FROM a.annotator AND h.answer IS NOT DISTINCT FROM a.answer
                        AND h.status = a.status)
                AND (a.dated OR NOT EXISTS (
                    SELECT 1 FROM newest AS n
                    WHERE n.request_id = a.request_id AND n.annotator IS NOT DISTINCT FROM a.annotator
                        AND n.answer IS NOT DISTINCT FROM a.answer AND (n.status = a.status OR n.status = '{ACCEPTED}')
                        AND (n.place = 1 OR (n.file = a.file AND a.file <> a.origin))))
                AND (a.dated OR NOT EXISTS (
                    SELECT 1 FROM newest AS n
                    WHERE n.path = a.photo AND n.file = a.file AND n.request_id LIKE '{PHOTO}%'
                        AND n.annotator IS NOT DISTINCT FROM a.annotator AND n.answer IS NOT DISTINCT FROM a.answer
                        AND n.status = a.status))
        ), compared AS (
            SELECT f.*, COALESCE(
                LAG(f.label) OVER (PARTITION BY f.image_id, f.status ORDER BY f.nth), in_force.label) AS label_before
            FROM fresh AS f LEFT JOIN in_force ON in_force.image_id = f.image_id
        ), furthest AS (
            SELECT COALESCE(MAX(read_order), 0) AS read_order FROM human_labels
        )
        SELECT c.request_id, c.path, c.image_id, c.label, c.annotator, c.answered_at, c.status,
            CASE WHEN c.status = '{ACCEPTED}' AND c.label = c.label_before THEN '{CHANGES_NOTHING}' ELSE c.reason END
                AS reason,
            c.answer, c.origin, c.read_at, furthest.read_order + c.nth AS read_order, c.service, c.seconds
        FROM compared AS c CROSS JOIN furthest
    """  # noqa: S608 - constants
    label_requests = {LABEL_REQUESTS.name: sources[LABEL_REQUESTS.name]}
    asked = engine.sql("SELECT request_id FROM label_requests", label_requests).arrow()
    answers = _of_requests(service.each_answer(_known(engine, human_labels)), {*asked["request_id"].to_pylist()})
    given = _answer_rows(answers, classes_of(engine, sources[CLASSES.name]))
    tables: dict[str, Snapshot | Rows] = {
        "given": engine.rows(given),
        "photos": engine.rows(_photos(engine, given, sources[RAW_IMAGES.name])),
        CLASSES.name: sources[CLASSES.name],
        HUMAN_LABELS.name: human_labels,
        **label_requests,
    }
    new = engine.sql(query, tables)
    transaction = Transaction(_APP_ID, transaction_version(human_labels, _APP_ID) + 1)
    written = engine.append(new, HUMAN_LABELS, human_labels.uri, replace(commit, transaction=transaction))
    return written, _refusals(engine, tables)


def _photos(engine: Engine, given: pa.Table, raw_images: Snapshot) -> pa.Table:
    """Return path and image_id of the photos that answers name themselves, by their name there: no photo's bytes."""
    import pyarrow as pa

    named = given["photo"].unique().drop_null()
    if not len(named):
        return pa.schema([(name, pa.string()) for name in ("photo", "path", "image_id")]).empty_table()
    query = """
        SELECT named.photo, r.path, r.image_id FROM raw_images AS r JOIN named ON named.photo = r.path
        UNION ALL
        SELECT named.photo, MIN(r.path) AS path, r.image_id FROM raw_images AS r JOIN named ON named.photo = r.image_id
        GROUP BY named.photo, r.image_id
    """
    return engine.sql(query, {RAW_IMAGES.name: raw_images, "named": engine.rows(pa.table({"photo": named}))}).arrow()


def _known(engine: Engine, human_labels: Snapshot) -> Known:
    """Return what a service need not give again."""
    import pyarrow as pa

    table = {HUMAN_LABELS.name: human_labels}

    def given(service: str, place: str) -> Rows:
        return engine.rows(pa.table({"service": [service], "place": [place]}))

    def since(service: str, place: str) -> datetime | None:
        query = """
            SELECT MAX(said.answered_at) AS since FROM human_labels AS said
            JOIN given ON said.service = given.service AND said.origin LIKE given.place
        """
        newest: datetime | None = (
            engine.sql(query, {**table, "given": given(service, place)}).arrow()["since"][0].as_py()
        )
        return newest

    def standing(service: str, place: str, request_ids: Collection[str]) -> dict[str, dict[str | None, datetime]]:
        asked = engine.rows(pa.table({"request_id": pa.array(request_ids, pa.string())}))
        query = f"""
            SELECT said.request_id, said.annotator, said.answered_at FROM ({STANDING_ANSWERS}) AS said
            JOIN asked ON asked.request_id = said.request_id
            JOIN given ON said.service = given.service AND said.origin LIKE given.place
        """  # noqa: S608 - constants
        found: dict[str, dict[str | None, datetime]] = defaultdict(dict)
        for row in engine.sql(query, {**table, "asked": asked, "given": given(service, place)}).arrow().to_pylist():
            found[row["request_id"]][row["annotator"]] = row["answered_at"]
        return found

    return Known(since, standing)


def _refusals(engine: Engine, tables: Mapping[str, Snapshot | Rows]) -> list[Refusal]:
    """Return what is refused of the answers that stand there; of one file, MOST_PROBLEMS and how many more there are.

    An answer that was accepted once stays so.
    """
    query = f"""
        WITH {_RESOLVED}, refused AS (
            SELECT r.file, r.origin, r.request_id, r.answer, r.annotator, r.problem AS reason,
                ROW_NUMBER() OVER (PARTITION BY r.file ORDER BY r.place) AS nth,
                COUNT(*) OVER (PARTITION BY r.file) AS refused_there
            FROM resolved AS r
            WHERE r.status = '{REFUSED}' AND NOT EXISTS (
                SELECT 1 FROM human_labels AS h
                WHERE h.request_id = r.request_id AND h.status = '{ACCEPTED}'
                    AND h.annotator IS NOT DISTINCT FROM r.annotator AND h.answer IS NOT DISTINCT FROM r.answer)
        )
        SELECT * FROM refused WHERE nth <= {MOST_PROBLEMS} ORDER BY file, nth
    """  # noqa: S608 - constants
    refusals = []
    for row in engine.sql(query, tables).arrow().to_pylist():
        nth, refused_there = row.pop("nth"), row.pop("refused_there")
        refusals.append(Refusal(**row))
        if nth == MOST_PROBLEMS < refused_there:
            place, more = f"{row['file']}, further answers", f"{refused_there - MOST_PROBLEMS:,} more are refused"
            refusals.append(Refusal(row["file"], place, "", None, None, more))
    return refusals


def class_of(answer: str, classes: Mapping[int, Class]) -> int | None:
    """Return the class that an answer means: its number (`2`, `002`), a name of it (`hat`) or both (`002.hat`).

    Of a class that was merged into another, that other. None where it means none, or contradicts itself: the number of
    one class with the name of another.
    """
    named = _named(answer, classes)
    if len(named) == 1 and not answer.isdigit():
        return named[0]
    meant = class_of_folder(answer, _NUMBERED)
    if meant is None or meant.label is None or meant.label not in classes:
        return None
    label, others = classes[meant.label].in_force, _named(meant.name or "", classes)
    return None if others and label not in others else label


def _named(name: str, classes: Mapping[int, Class]) -> list[int]:
    """Return the classes of that name: as it is written, else whatever the case of its letters."""
    for ignore_case in (False, True):
        same = functools.partial(comparable, ignore_case=ignore_case)
        if found := {each.in_force for each in classes.values() if same(name) in map(same, each.names)}:
            return sorted(found)
    return []


def _of_requests(answers: Iterator[Answer], known: Collection[str]) -> Iterator[Answer]:
    """Yield the answers, but of those in one file that name no request, MOST_PROBLEMS and how many more there are."""

    def is_strange(answer: Answer) -> bool:
        return answer.problem is None and answer.photo is None and answer.request_id not in known

    for file, together in groupby(answers, lambda answer: answer.file):
        strange, last = 0, None
        for answer in together:
            strange += is_strange(answer)
            if strange <= MOST_PROBLEMS or not is_strange(answer):
                yield answer
            else:
                last = answer
        if last is not None:
            message = f"{strange - MOST_PROBLEMS:,} more answers name no request"
            yield problem(f"{file}, further answers", message, last.answered_at, file)


def _answer_rows(answers: Iterator[Answer], classes: Mapping[int, Class]) -> pa.Table:
    """Return the answers as rows with label or reason, and the place that each has among them: a part at a time."""
    import pyarrow as pa

    told = ("label", "annotator", "answered_at", "answer", "origin", "service", "seconds")
    columns = HUMAN_LABELS.columns_named(*told)
    times = dict.fromkeys(("read_at", "seen_at"), HUMAN_LABELS.schema.field("answered_at").type)
    texts = dict.fromkeys(("requested", "photo", "problem", "act", "file"), pa.string())
    more = {**texts, "dated": pa.bool_(), "place": pa.int64(), **times}
    schema = pa.schema([*schema_of(columns), *(pa.field(name, kind) for name, kind in more.items())])
    now = datetime.now(UTC)
    labels: dict[str, int | None] = {}
    parts = []
    place = 0
    while part := list(islice(answers, _READ_AT_ONCE)):
        # Of a hostile file, each answer is another text.
        labels = labels if len(labels) < _READ_AT_ONCE else {}
        said = {answer.label for answer in part if answer.label is not None}
        labels |= {text: class_of(text, classes) for text in said - labels.keys()}
        rows = [
            {**_row(answer, labels, classes), "place": place + nth, "read_at": now, "seen_at": answer.seen_at or now}
            for nth, answer in enumerate(part)
        ]
        parts.append(pa.RecordBatch.from_pylist(rows, schema=schema))
        place += len(part)
    return pa.Table.from_batches(parts, schema=schema)


def _row(answer: Answer, labels: Mapping[str, int | None], classes: Mapping[int, Class]) -> dict[str, Any]:
    label = None if answer.act != "answered" else labels.get(answer.label or "")
    return {
        "requested": _plain(answer.request_id) if answer.photo is None else None,
        "photo": answer.photo,
        "label": label,
        "annotator": None if answer.annotator is None else _plain(answer.annotator)[:_LONGEST_NAME],
        "answered_at": answer.answered_at,
        "problem": _problem(answer, label, classes),
        "answer": None if answer.label is None else _plain(answer.label),
        "origin": answer.origin,
        "service": None if answer.service is None else _plain(answer.service)[:_LONGEST_NAME],
        "seconds": answer.seconds if is_duration(answer.seconds) else None,
        "act": answer.act,
        "dated": answer.dated,
        "file": answer.file,
    }


def _problem(answer: Answer, label: int | None, classes: Mapping[int, Class]) -> str | None:
    """Return why an answer is refused, whatever it answers to; None where nothing speaks against it."""
    if answer.problem is not None:
        return _plain(answer.problem)
    if answer.annotator is not None and len(answer.annotator) > _LONGEST_NAME:
        return f"annotator is longer than {_LONGEST_NAME} characters"
    if answer.act != "answered" or label is not None:
        return None
    if not answer.label:
        return EMPTY
    there = [each for each in classes.values() if not each.is_merged]
    known = ", ".join(f"{each.label} {each.name}" if each.has_name else f"{each.label}" for each in there)
    return f"unknown class {_plain(answer.label)[:60]}: the classes are {known or 'none yet'}"


def _plain(text: str) -> str:
    """Return a text as a table has it: not without end, and without signs that no page or terminal should be given."""
    return _CONTROL.sub("\ufffd", text[:_LONGEST_TEXT])
