"""Taking in what people answered: each answer is written down once, accepted or refused with a reason."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Commit, Engine, Rows, Snapshot, Transaction, Written
from dlassets.engines.schema import schema_of
from dlassets.images.folders import class_of_folder, comparable
from dlassets.labeling.formats import MOST_PROBLEMS, problem
from dlassets.labeling.services import Answer, Known, LabelingService, Refusal
from dlassets.lakehouse.labels import NEWEST_ANSWER, STANDING_ANSWERS
from dlassets.lakehouse.snapshots import transaction_version
from dlassets.lakehouse.tables import ACCEPTED, HUMAN_LABELS, REFUSED

if TYPE_CHECKING:
    import pyarrow as pa

# A number, and whatever stands after it: 2, 002.hat, and 2.0 as spreadsheets write it.
_NUMBERED = r"^(?P<label>\d+)(?:[._ -]+(?P<name>.+))?$"
# Answers that are Python's at a time; of the others, Arrow has rows.
_READ_AT_ONCE = 10_000
_APP_ID = f"dlassets/{HUMAN_LABELS.name}"

CHANGES_NOTHING = "changes nothing: the answer in force says the same"

# SQL over `given` and `label_requests`: the answers that count of those given, accepted or refused. A photo answers by
# where it lies, and is a file of its own: in folders of two classes it says two things, of which neither counts.
_RESOLVED = f"""
        placed AS (
            SELECT given.*, ROW_NUMBER() OVER (PARTITION BY file, request_id, annotator, dated ORDER BY place DESC)
                AS nth
            FROM given
        ), counted AS (
            SELECT placed.*, ROW_NUMBER() OVER (
                PARTITION BY request_id, answered_at, annotator, answer ORDER BY place DESC) AS again
            FROM placed WHERE dated OR nth = 1
        ), laid AS (
            SELECT request_id, file, label, MIN(label) OVER (PARTITION BY request_id) AS lowest,
                MAX(label) OVER (PARTITION BY request_id) AS highest
            FROM given WHERE file = origin AND NOT dated AND label IS NOT NULL
        ), laid_twice AS (
            SELECT request_id, MIN(CASE WHEN label = lowest THEN file END) AS one,
                MIN(CASE WHEN label = highest THEN file END) AS other
            FROM laid WHERE lowest <> highest GROUP BY request_id
        ), judged AS (
            SELECT g.request_id, r.path, r.image_id, g.label, g.annotator, g.answered_at,
                CASE WHEN g.reason IS NOT NULL THEN g.reason
                    WHEN r.request_id IS NULL THEN 'no such request'
                    WHEN t.request_id IS NOT NULL
                        THEN 'lies in folders of two classes, ' || t.one || ' and ' || t.other || ': leave it in one'
                    END AS reason,
                g.answer, g.origin, g.dated, g.read_at, g.seen_at, g.file, g.place, g.act, g.service, g.seconds
            FROM counted AS g LEFT JOIN label_requests AS r ON r.request_id = g.request_id
            LEFT JOIN laid_twice AS t ON t.request_id = g.request_id AND g.file = g.origin AND NOT g.dated
            WHERE g.again = 1
        ), resolved AS (
            SELECT judged.*, CASE WHEN reason IS NOT NULL THEN '{REFUSED}' WHEN act = 'answered' THEN '{ACCEPTED}'
                ELSE act END AS status
            FROM judged
        )"""  # noqa: S608 - constants


def collect_answers(
    engine: Engine,
    service: LabelingService,
    human_labels: Snapshot,
    label_requests: Snapshot,
    classes: Mapping[int, Sequence[str]],
    commit: Commit,
) -> tuple[Written, list[Refusal]]:
    """Append the answers that `human_labels` does not have yet; none new, no new version. Return what is refused now.

    An answer is refused where it cannot be read, its class is not among `classes` (the names it goes by, by label),
    there is no such request, or its photo lies in folders of two classes; and accepted later should that have changed.
    An answer without a time of its own is new only if it is not what that person's newest answer already says: saving
    a list again answers nothing again. Raises ConflictError where another run wrote answers since `human_labels` was
    pinned: pin and collect again.

    Answers stand in the order in which they are read (`read_order`), those that are read together in the order in which
    the service saw their files, and those of one file by its own times and lines: which of two computers' clocks is
    ahead decides nothing, and no time counts as later than now. Of one that changes nothing the reason says so.
    """
    query = f"""
        WITH {_RESOLVED}, newest AS (
            SELECT request_id, annotator, answer, status FROM (
                SELECT request_id, annotator, answer, status, ROW_NUMBER() OVER (
                    PARTITION BY request_id, annotator
                    ORDER BY COALESCE(read_order, 0) DESC, answered_at DESC, status) AS place
                FROM human_labels) AS ranked
            WHERE place = 1
        ), in_force AS (
            SELECT image_id, label FROM (
                SELECT image_id, label, ROW_NUMBER() OVER (PARTITION BY image_id ORDER BY {NEWEST_ANSWER}) AS place
                FROM ({STANDING_ANSWERS}) AS standing) AS ranked
            WHERE place = 1
        ), fresh AS (
            SELECT a.*, ROW_NUMBER() OVER (
                ORDER BY LEAST(a.seen_at, a.read_at), a.file, LEAST(a.answered_at, a.read_at), a.place) AS nth
            FROM resolved AS a
        WHERE NOT EXISTS (
            SELECT 1 FROM human_labels AS h
            WHERE h.request_id = a.request_id AND h.answered_at = a.answered_at
                AND h.annotator IS NOT DISTINCT FROM a.annotator AND h.answer IS NOT DISTINCT FROM a.answer
                AND (h.status = a.status OR h.status = 'accepted'))
        AND (a.dated OR NOT EXISTS (
            SELECT 1 FROM newest AS n
            WHERE n.request_id = a.request_id AND n.annotator IS NOT DISTINCT FROM a.annotator
                AND n.answer IS NOT DISTINCT FROM a.answer AND (n.status = a.status OR n.status = 'accepted')))
        ), compared AS (
            SELECT f.*, COALESCE(
                LAG(f.label) OVER (PARTITION BY f.image_id, f.status ORDER BY f.nth), in_force.label) AS label_before
            FROM fresh AS f LEFT JOIN in_force ON in_force.image_id = f.image_id
        ), furthest AS (
            SELECT COALESCE(MAX(read_order), 0) AS read_order FROM human_labels
        )
        SELECT c.request_id, c.path, c.image_id, c.label, c.annotator, c.answered_at, c.status,
            CASE WHEN c.status = 'accepted' AND c.label = c.label_before THEN '{CHANGES_NOTHING}' ELSE c.reason END
                AS reason,
            c.answer, c.origin, c.read_at, furthest.read_order + c.nth AS read_order, c.service, c.seconds
        FROM compared AS c CROSS JOIN furthest
    """  # noqa: S608 - constants
    asked = engine.sql("SELECT request_id FROM label_requests", {"label_requests": label_requests}).arrow()
    known = set(asked["request_id"].to_pylist())
    given = engine.rows(_answer_rows(_of_requests(service.each_answer(_known(engine, human_labels)), known), classes))
    tables: dict[str, Snapshot | Rows] = {
        "given": given,
        "human_labels": human_labels,
        "label_requests": label_requests,
    }
    new = engine.sql(query, tables)
    transaction = Transaction(_APP_ID, transaction_version(human_labels, _APP_ID) + 1)
    written = engine.append(new, HUMAN_LABELS, human_labels.uri, replace(commit, transaction=transaction))
    return written, _refusals(engine, tables)


def _known(engine: Engine, human_labels: Snapshot) -> Known:
    """Return what a service need not give again."""
    import pyarrow as pa

    table = {HUMAN_LABELS.name: human_labels}

    def standing(service: str, request_ids: Collection[str]) -> dict[str, dict[str | None, datetime]]:
        asked = engine.rows(pa.table({"request_id": pa.array(request_ids, pa.string())}))
        query = f"""
            SELECT said.request_id, said.annotator, said.answered_at FROM ({STANDING_ANSWERS}) AS said
            JOIN asked ON asked.request_id = said.request_id WHERE said.service = '{service}'
        """  # noqa: S608 - constants, and a class's own name
        found: dict[str, dict[str | None, datetime]] = defaultdict(dict)
        for row in engine.sql(query, {**table, "asked": asked}).arrow().to_pylist():
            found[row["request_id"]][row["annotator"]] = row["answered_at"]
        return found

    newest = engine.sql("SELECT service, MAX(answered_at) AS since FROM human_labels GROUP BY service", table).arrow()
    since = {row["service"]: row["since"] for row in newest.to_pylist() if row["service"] is not None}
    return Known(since, standing)


def _refusals(engine: Engine, tables: Mapping[str, Snapshot | Rows]) -> list[Refusal]:
    """Return what is refused of the answers that stand there; of one file, MOST_PROBLEMS and how many more there are.

    An answer that was accepted once stays so.
    """
    query = f"""
        WITH {_RESOLVED}, refused AS (
            SELECT r.file, r.origin, r.request_id, r.answer, r.annotator, r.reason,
                ROW_NUMBER() OVER (PARTITION BY r.file ORDER BY r.place) AS nth,
                COUNT(*) OVER (PARTITION BY r.file) AS refused_there
            FROM resolved AS r
            WHERE r.status = 'refused' AND NOT EXISTS (
                SELECT 1 FROM human_labels AS h
                WHERE h.request_id = r.request_id AND h.status = 'accepted'
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


def class_of(answer: str, classes: Mapping[int, Sequence[str]]) -> int | None:
    """Return the class that an answer means: its number (`2`, `002`), a name of it (`hat`) or both (`002.hat`).

    None where it means none, or contradicts itself: the number of one class with the name of another.
    """
    named = _named(answer, classes)
    if len(named) == 1 and not answer.isdigit():
        return named[0]
    meant = class_of_folder(answer, _NUMBERED)
    if meant is None or meant.label not in classes:
        return None
    others = _named(meant.name or "", classes)
    return None if others and meant.label not in others else meant.label


def _named(name: str, classes: Mapping[int, Sequence[str]]) -> list[int]:
    """Return the classes of that name: as it is written, else whatever the case of its letters."""
    for ignore_case in (False, True):
        same = functools.partial(comparable, ignore_case=ignore_case)
        if found := [label for label, names in classes.items() if same(name) in map(same, names)]:
            return found
    return []


def _of_requests(answers: Iterator[Answer], known: Collection[str]) -> Iterator[Answer]:
    """Yield the answers, but of those in one file that name no request, MOST_PROBLEMS and how many more there are."""
    for file, together in groupby(answers, lambda answer: answer.file):
        strange, last = 0, None
        for answer in together:
            strange += answer.problem is None and answer.request_id not in known
            if strange <= MOST_PROBLEMS or answer.problem is not None or answer.request_id in known:
                yield answer
            else:
                last = answer
        if last is not None:
            message = f"{strange - MOST_PROBLEMS:,} more answers name no request"
            yield problem(f"{file}, further answers", message, last.answered_at)


def _answer_rows(answers: Iterator[Answer], classes: Mapping[int, Sequence[str]]) -> pa.Table:
    """Return the answers as rows with label or reason, and the place that each has among them: a part at a time."""
    import pyarrow as pa

    told = ("request_id", "label", "annotator", "answered_at", "reason", "answer", "origin", "service", "seconds")
    said = HUMAN_LABELS.columns_named(*told)
    times = dict.fromkeys(("read_at", "seen_at"), HUMAN_LABELS.schema.field("answered_at").type)
    more = {"act": pa.string(), "dated": pa.bool_(), "file": pa.string(), "place": pa.int64(), **times}
    schema = pa.schema([*schema_of(said), *(pa.field(name, kind) for name, kind in more.items())])
    now = datetime.now(UTC)
    labels: dict[str, int | None] = {}
    parts = []
    place = 0
    while part := list(islice(answers, _READ_AT_ONCE)):
        # Of a hostile file, each answer is another text.
        labels = labels if len(labels) < _READ_AT_ONCE else {}
        labels |= {a.label: class_of(a.label, classes) for a in part if a.label is not None and a.label not in labels}
        rows = [
            {**_row(answer, labels, classes), "place": place + nth, "read_at": now, "seen_at": answer.seen_at or now}
            for nth, answer in enumerate(part)
        ]
        parts.append(pa.RecordBatch.from_pylist(rows, schema=schema))
        place += len(part)
    return pa.Table.from_batches(parts, schema=schema)


def _row(answer: Answer, labels: Mapping[str, int | None], classes: Mapping[int, Sequence[str]]) -> dict[str, Any]:
    text, reason = answer.label or "", answer.problem
    label = labels.get(text)
    if reason is None and label is None and answer.act == "answered":
        known = (
            ", ".join(" ".join([str(number), *names[:1]]) for number, names in sorted(classes.items())) or "none yet"
        )
        reason = f"unknown class {text[:60]}: the classes are {known}"
    return {
        "request_id": answer.request_id,
        "label": label,
        "annotator": answer.annotator,
        "answered_at": answer.answered_at,
        "reason": reason,
        "answer": answer.label,
        "origin": answer.origin,
        "service": answer.service,
        "seconds": answer.seconds,
        "act": answer.act,
        "dated": answer.dated,
        "file": answer.file,
    }
