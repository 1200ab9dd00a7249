"""The files people answer with (CSV, JSON, JSONL), and those they are given (a list, a contact sheet, a how-to)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any
from urllib.parse import quote

from dlassets.images.folders import class_folder
from dlassets.labeling.services import Answer, Request

REQUIRED = ("request_id", "label")

# What stands at one place of a file: the place ("line 3"), and a record or what is wrong with it.
_Entry = tuple[str, dict[str, Any] | str]

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def read_answers(data: bytes, suffix: str, origin: str, written_at: datetime) -> list[Answer]:
    """Return the answers in a file's bytes; each entry that is none becomes an answer with a problem.

    `suffix` is a key of READERS. Entries with an empty label are not answered yet and are left out. `origin` names the
    file, `written_at` dates the answers that say no time themselves.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        return [problem(f"{origin}, line {line}", "is not UTF-8 text: save it as UTF-8 (CSV UTF-8)", written_at)]
    answers = [_answer(entry, f"{origin}, {place}", written_at) for place, entry in READERS[suffix](text)]
    return _last_answers([answer for answer in answers if answer is not None])


def problem(origin: str, message: str, written_at: datetime) -> Answer:
    """Return what stands for an answer that cannot be read."""
    place = as_text(origin)
    return Answer(place, None, None, written_at, place, dated=False, problem=f"{place}: {message}")


def as_text(value: object) -> str:
    """Return a value as trimmed text that any table can hold; None is empty text."""
    return "" if value is None else str(value).strip().encode("utf-8", "replace").decode()


def _answer(entry: dict[str, Any] | str, origin: str, written_at: datetime) -> Answer | None:
    if isinstance(entry, str):
        return problem(origin, entry, written_at)
    if missing := [name for name in REQUIRED if name not in entry]:
        return problem(origin, f"lacks {' and '.join(missing)}", written_at)
    request_id, label, annotator, time = (as_text(entry.get(name)) for name in (*REQUIRED, "annotator", "answered_at"))
    if not label:
        return None
    if not request_id:
        return problem(origin, f"has the label {label[:60]!r} but no request_id", written_at)
    try:
        answered_at = _utc(time) if time else written_at
    except (ValueError, OverflowError):
        return problem(origin, f"answered_at {time[:60]!r} is no time such as 2026-01-31T14:05:00Z", written_at)
    return Answer(request_id, label, annotator or None, answered_at, as_text(origin), dated=bool(time))


def _last_answers(answers: Sequence[Answer]) -> list[Answer]:
    """Keep, of the answers of one person to one request in one file without a time, the last."""
    last = {(answer.request_id, answer.annotator): answer for answer in answers if not answer.dated}
    return [a for a in answers if a.dated or a is last[a.request_id, a.annotator]]


def _utc(text: str) -> datetime:
    """Read an ISO 8601 time, to the microsecond; one without a zone is UTC."""
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _csv_entries(text: str) -> Iterator[_Entry]:
    first = text.lstrip().split("\n", 1)[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    try:
        for row in rows:
            place = f"line {rows.line_num}"
            if not any(field.strip() for field in row):
                continue
            if not header:
                header = [field.strip().lower() for field in row]
                if missing := [name for name in REQUIRED if name not in header]:
                    yield place, f"the header lacks {' and '.join(missing)}"
                    return
            elif len(row) > len(header):
                yield place, f"has {len(row)} fields where the header has {len(header)}: quote text that holds a comma"
            else:
                yield place, dict(zip(header, row, strict=False))  # trailing empty fields may be left away
    except csv.Error as error:
        yield f"line {rows.line_num}", f"is not CSV: {error}"
    if not header:
        yield "line 1", "the header lacks request_id and label"


def _json_entries(text: str) -> Iterator[_Entry]:
    content, wrong = _parse_json(text)
    if wrong is not None:
        yield wrong
        return
    for number, item in enumerate(content if isinstance(content, list) else [content], 1):
        yield f"item {number}", _record(item)


def _jsonl_entries(text: str) -> Iterator[_Entry]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            content, wrong = _parse_json(line)
            yield f"line {number}", _record(content) if wrong is None else wrong[1]


def _parse_json(text: str) -> tuple[Any, _Entry | None]:
    try:
        return json.loads(text), None
    except json.JSONDecodeError as error:
        return None, (f"line {error.lineno}", f"is not JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets nested as deep
        return None, ("line 1", f"is not JSON that can be read: {error}")


def _record(item: object) -> dict[str, Any] | str:
    return item if isinstance(item, dict) else "is no object with request_id and label"


READERS: Mapping[str, Callable[[str], Iterator[_Entry]]] = {
    ".csv": _csv_entries,
    ".json": _json_entries,
    ".jsonl": _jsonl_entries,
}


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


def contact_sheet(batch_id: str, requests: Sequence[Request], photos: Mapping[str, str]) -> str:
    """Return a page that shows every photo of a batch; `photos` is the file name beside it, by request id."""
    figures = "\n".join(
        f'<figure><img src="{escape(quote(photos[r.request_id]))}" alt="" loading="lazy"><figcaption>'
        f"<b>{escape(_class_text(r))}</b> {r.confidence:.1%}<br><small>{escape(r.request_id)}<br>{escape(r.path)}"
        "</small></figcaption></figure>"
        for r in requests
    )
    title = f"{escape(batch_id)}: {len(requests)} photos to label"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 14px/1.4 sans-serif; margin: 2em }}
main {{ display: grid; gap: 1em; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)) }}
figure {{ margin: 0; padding: .5em; border: 1px solid #ccc; border-radius: 4px; overflow-wrap: anywhere }}
img {{ width: 100%; height: 200px; object-fit: contain; background: #f4f4f4 }}
small {{ color: #666 }}
</style></head><body><h1>{title}</h1>
<p>Under each photo: what the model thinks it shows and how sure it is, the least sure first. README.txt says how to
answer. A photo that was moved into a class folder no longer shows here.</p>
<main>
{figures}
</main></body></html>
"""


def how_to_answer(classes: Mapping[int, str], answers: str) -> str:
    """Return the text that tells a person how to answer; `answers` is the folder that answers go to."""
    known = "\n".join(f"    {class_folder(label, name)}" for label, name in sorted(classes.items()))
    return f"""These photos need a label. Answer in whichever way suits you:

1. Move (or copy) a photo into the folder of its class, without renaming it:
    {answers}
2. Or copy requests.csv into that folder, under any name that ends in .csv, and fill in its column `label`: the
   number of the class (2), its name, or both (002.name). Leave it empty where you have no answer. You may add the
   columns `annotator` (who you are) and `answered_at` (2026-01-31T14:05:00Z). Save it as CSV UTF-8, with commas or
   semicolons.
3. Or put a .json file there (a list of objects) or a .jsonl file (an object a line) with request_id and label.

Changed your mind? Move the photo to another folder, or answer again: the newest answer counts.

The classes:
{known}
"""


def _class_text(request: Request) -> str:
    return f"{request.predicted_label} {request.predicted_name or ''}".strip()


def _cell(text: str) -> str:
    """Keep a spreadsheet from taking the text, which came from outside as a file's name, for a formula."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
