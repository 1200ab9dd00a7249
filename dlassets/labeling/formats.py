"""The files people answer with (CSV, JSON, JSONL), and those they are given (a list, a contact sheet, a how-to)."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any
from urllib.parse import quote

from dlassets.images.folders import class_folder
from dlassets.labeling.services import Act, Answer, Refusal, Request, Standing, is_duration
from dlassets.lakehouse.tables import ANSWERED, FOLDER, LONGEST_SECONDS, OPEN, PHOTO, SKIPPED, TAKEN_BACK
from dlassets.storage.records import as_text, lacking, read_records

# An answer is to a request, or about a photo that it names itself.
REQUIRED = (("request_id", "image_id", "path"), "label")
# Where an import says why an entry of another service's file is no answer.
UNUSABLE = "unusable"
# Of one file so many are told one by one.
MOST_PROBLEMS = 1000
# No more answers are read from one file: all of them are held while they are compared with those that were read before.
MOST_ANSWERS = 200_000
# The first column of a list of what was refused, by which that is known.
REFUSED = "refused"
_REFUSAL_LIST = (
    rb"""(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?(?:"?sep=."?\s+)?"?refused"?[,;\t|]"?request_id"?[,;\t|]"?answer\b"""
)
# What a person can do, by what the reason says; the first that fits.
_REMEDIES = {
    "unknown class": "Use one of the classes that are named. A new class: dlassets classes add <name>.",
    "empty:": "Write the class, or skipped into the column status.",
    "no such request": "Keep request_id, or the photo's name, as it was.",
    "no such photo": "Write the path as raw_images has it, beginning with the landing zone; it counts once that is in.",
    "name no request": "Keep request_id, or the photo's name, as it was.",
    "lies in folders of two classes": "Delete the photo from the folder of the class that it is not.",
    "lies in no class folder": "Move the photo into the folder of its class.",
    "links are not followed": "Put the file itself there.",
    "is neither a photo nor": "Save the list as CSV UTF-8, or take the file away.",
    "but no request_id": "Copy the request_id from the list that was sent.",
    "a file has no more than": "Put this line and those after it into another file.",
    "imported from": "Put it right where it was labelled, and import that file again.",
    "answered_at": "Write the time as 2026-01-31T14:05:00Z, or leave it empty.",
    "seconds": "Write how many seconds the answer took, or leave it empty.",
    "annotator": "Write a shorter name.",
    "more are refused": "See to those above first.",
    "": "Save the list anew as CSV UTF-8, with the first line that it was sent with.",
}
_ACTS: dict[str, Act] = {"": "answered", "answered": "answered", SKIPPED: "skipped", TAKEN_BACK: "taken_back"}
# A day as 31.01.2026, and the time after it, if any: with dots between them the day stands first wherever it is so.
_DAY_FIRST = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(?:,? +(\d{1,2}):(\d{2})(?::(\d{2}))?)?")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class _NoAnswerError(ValueError):
    """An entry is no answer: why not."""


def read_answers(chunks: Iterable[bytes], suffix: str, origin: str, written_at: datetime) -> Iterator[Answer]:
    """Yield the answers in a file, which comes in chunks, as they stand there: one that is none has a problem.

    For `suffix` and what a file may look like see `read_records`. Entries with an empty label that say neither a time
    nor a status are not answered yet and are left out. `origin` names the file, `written_at` dates the answers that say
    no time themselves. An entry that cannot be read costs itself alone, and so does one of which an import has said why
    it is UNUSABLE; of more than MOST_PROBLEMS, the number is said. Memory is of a few entries. After MOST_ANSWERS no
    more are read, which is said.
    """
    problems = number = 0
    for place, entry in read_records(chunks, suffix, REQUIRED):
        answer = _answer(entry, f"{origin}, {place}", written_at, origin)
        if answer is None:
            continue
        number += 1
        if number > MOST_ANSWERS:
            message = f"a file has no more than {MOST_ANSWERS:,} answers"
            yield problem(f"{origin}, {place}", message, written_at, origin)
            break
        problems += answer.problem is not None
        if answer.problem is None or problems <= MOST_PROBLEMS:
            yield answer
    if problems > MOST_PROBLEMS:
        message = f"{problems - MOST_PROBLEMS:,} more cannot be read"
        yield problem(f"{origin}, further entries", message, written_at, origin)


def problem(origin: str, message: str, written_at: datetime, file: str | None = None) -> Answer:
    """Return what stands for an answer that cannot be read, in a file with others or of a place of its own."""
    place, within = as_text(origin), as_text(origin if file is None else file)
    return Answer(place, None, None, written_at, place, dated=False, problem=f"{place}: {message}", file=within)


def _answer(entry: dict[str, Any] | str, origin: str, written_at: datetime, file: str) -> Answer | None:
    if isinstance(entry, str):
        return problem(origin, entry, written_at, file)
    try:
        return _said(entry, origin, written_at, file)
    except _NoAnswerError as error:
        return problem(origin, str(error), written_at, file)


def _said(entry: dict[str, Any], origin: str, written_at: datetime, file: str) -> Answer | None:
    """Return what an entry says, None where it says nothing yet. Raises _NoAnswerError."""
    if message := as_text(entry.get(UNUSABLE)):
        raise _NoAnswerError(message)
    status = as_text(entry.get("status"))
    try:
        act = act_of(status)
    except ValueError as error:
        raise _NoAnswerError(str(error)) from error
    if missing := lacking(REQUIRED if act == "answered" else REQUIRED[:1], entry):
        raise _NoAnswerError(f"lacks {' and '.join(missing)}")
    names = ("request_id", "image_id", "path", "label", "annotator", "answered_at", "service", "seconds")
    request_id, image_id, path, label, annotator, time, service, took = (as_text(entry.get(name)) for name in names)
    if not (label or time or status):  # a line of a list that nobody has come to yet
        return None
    if request_id.startswith(PHOTO):
        request_id, image_id = "", request_id.removeprefix(PHOTO)
    if not (request_id or image_id or path):
        raise _NoAnswerError(f"has the label {label[:60]!r} but no request_id, image_id or path")
    try:
        seconds = seconds_of(took) if took else None
    except ValueError as error:
        raise _NoAnswerError(f"seconds {error}") from error
    try:
        answered_at = time_of(time) if time else written_at
    except ValueError as error:
        raise _NoAnswerError(f"answered_at {error}") from error
    return Answer(
        request_id,
        (label or None) if act == "answered" else None,
        annotator or None,
        answered_at,
        as_text(origin),
        dated=bool(time),
        file=file,
        act=act,
        service=service or FOLDER,
        seconds=seconds,
        photo=None if request_id else image_id.lower() or path,
    )


def act_of(status: str) -> Act:
    """Return what a column `status` says that a person did; empty, they answered. Raises ValueError."""
    act = _ACTS.get(status.lower())
    if act is None:
        raise ValueError(f"status {status[:60]!r} is none of answered, {SKIPPED}, {TAKEN_BACK}")
    return act


def time_of(text: str) -> datetime:
    """Read an ISO 8601 time, to the microsecond, or one as 31.01.2026 14:05, the day first; UTC where it has no zone.

    Raises ValueError for all else: of 01/02/2026 nobody can say which is the month.
    """
    said = _DAY_FIRST.fullmatch(text)
    try:
        if said is not None:
            day, month, year, hour, minute, second = (int(part or 0) for part in said.groups())
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text[:60]!r} is no time such as 2026-01-31T14:05:00Z") from error


def seconds_of(text: str) -> float:
    """Read how long something took; 4,5 is 4.5, as spreadsheets of many countries have it. Raises ValueError."""
    try:
        seconds = float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except ValueError:
        seconds = math.nan
    if not is_duration(seconds):
        raise ValueError(f"{text[:60]!r} is no number from 0 to {LONGEST_SECONDS}")
    return seconds


def request_list(requests: Sequence[Request]) -> bytes:
    """Return the requests as CSV with an empty column `label`, in UTF-8 with the mark spreadsheets know it by."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(["request_id", "path", "predicted_label", "predicted_name", "confidence", "label"])
    for request in requests:
        name = _cell(request.predicted_name or "")
        writer.writerow(
            [request.request_id, _cell(request.path), request.predicted_label, name, f"{request.confidence:.4f}", ""]
        )
    return stream.getvalue().encode("utf-8-sig")


def contact_sheet(batch_id: str, standings: Sequence[Standing], photos: Mapping[str, str]) -> str:
    """Return a page that shows every request of a batch, in the order of `in_order`.

    `photos` is the photo's place, seen from the page, by request id: of one that it lacks no picture is shown.
    """
    closed = [s for s in standings if s.status != OPEN]
    answered = [s for s in closed if s.status == ANSWERED]
    title = f"{escape(batch_id)}: {len(answered):,} of {len(standings):,} answered"
    withdrawn = f", {len(closed) - len(answered):,} no longer asked" if len(closed) > len(answered) else ""
    figures = "\n".join(_figure(standing, photos.get(standing.request.request_id)) for standing in in_order(standings))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 14px/1.4 sans-serif; margin: 2em }}
main {{ display: grid; gap: 1em; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)) }}
figure {{ margin: 0; padding: .5em; border: 1px solid #ccc; border-radius: 4px; overflow-wrap: anywhere }}
figure.answered, figure.withdrawn {{ opacity: .6 }}
figure.answered b {{ color: #060 }}
em {{ color: #b00; font-style: normal }}
img {{ width: 100%; height: 200px; object-fit: contain; background: #f4f4f4 }}
small {{ color: #666 }}
</style></head><body><h1>{title}{withdrawn}</h1>
<p>Under each photo that waits: what the model thinks it shows and how sure it is. What matters most comes first, then
what it is least sure of. README.txt says how to answer. This page is written anew when answers are read.</p>
<main>
{figures}
</main></body></html>
"""


def in_order(standings: Sequence[Standing]) -> list[Standing]:
    """Return the requests as people see them: those that wait first, as `turn` has it."""
    places = {OPEN: 0, ANSWERED: 1}
    return sorted(standings, key=lambda standing: (places.get(standing.status, 2), *turn(standing.request)))


def turn(request: Request) -> tuple[int, float, str]:
    """Return what orders requests as people are to come to them: of the highest priority first, then the least sure."""
    return -(request.priority or 0), request.confidence, request.request_id


def _figure(standing: Standing, photo: str | None) -> str:
    request = standing.request
    picture = f'<img src="{escape(quote(photo))}" alt="" loading="lazy">' if photo else ""
    where = f"<br><small>{escape(request.request_id)}<br>{escape(request.path)}</small>"
    reason = escape(standing.reason or "")
    if standing.status == ANSWERED:
        by = f" by {escape(standing.annotator)}" if standing.annotator else ""
        said = f"answered <b>{escape(standing.answer or '')}</b>{by}"
    elif standing.status == OPEN:
        said = f"<b>{escape(_class_text(request))}</b> {request.confidence:.1%}"
        said += "" if photo else "<br>moved away"
        said += f"<br><em>answer refused: {reason}</em>" if reason else ""
    else:
        said = f"no longer asked: {reason}"
    return f'<figure class="{escape(standing.status)}">{picture}<figcaption>{said}{where}</figcaption></figure>'


def refusal_list(refusals: Sequence[Refusal]) -> bytes:
    """Return refused answers as CSV, with what to do about each, in UTF-8 with the mark spreadsheets know it by."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow([REFUSED, "request_id", "answer", "annotator", "reason", "what to do"])
    for each in refusals:
        told = (each.origin, each.request_id, each.answer or "", each.annotator or "", each.reason, remedy(each.reason))
        writer.writerow([_cell(as_text(text)) for text in told])
    return stream.getvalue().encode("utf-8-sig")


def is_refusal_list(beginning: bytes) -> bool:
    """Whether a file that begins so is a list of what was refused, also after a spreadsheet has saved it."""
    return re.match(_REFUSAL_LIST, beginning.replace(b"\0", b"").lower()) is not None


def remedy(reason: str) -> str:
    """Return what a person can do about an answer that was refused for this reason."""
    return next(what for part, what in _REMEDIES.items() if part in reason)


def how_to_answer(classes: Mapping[int, str], answers: str) -> str:
    """Return the text that tells a person how to answer; `answers` is the folder that answers go to, seen from it."""
    known = "\n".join(f"    {class_folder(label, name)}" for label, name in sorted(classes.items()))
    return f"""These photos need a label. Answer in whichever way suits you:

1. Move (or copy) a photo into the folder of its class, without renaming it. Seen from here, those are in
    {answers}
2. Or fill in the column `label` of requests.csv, here or as a copy in that folder, under any name that ends in .csv:
   the number of the class (2), its name, or both (002.name). Leave it empty where you have no answer. You may add the
   columns `annotator` (who you are), `answered_at` (2026-01-31T14:05:00Z) and `status` (skipped, or taken_back for what
   you answered before). Save it as CSV UTF-8, with commas, semicolons or tabs, or as Unicode text (.txt).
3. Or put a .json file there (a list of objects) or a .jsonl file (an object a line) with request_id and label.

Changed your mind? Move the photo to another folder, or answer again: the answer that is read last counts. A photo that
lies in the folders of two classes is no answer.

When your answers have been read, index.html shows which they are, and what was answered lies in the folder `answered`.
What was refused stands beside your answers, in a file whose name ends in refused.csv, with the reason and what to do.
More photos may join these; and where more are unsure than are asked about at once, they come as these are answered.

The classes:
{known}
"""


def _class_text(request: Request) -> str:
    return f"{request.predicted_label} {request.predicted_name or ''}".strip()


def _cell(text: str) -> str:
    """Keep a spreadsheet from taking the text, which came from outside as a file's name, for a formula."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
