"""The files people answer with (CSV, JSON, JSONL), and those they are given (a list, a contact sheet, a how-to)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any
from urllib.parse import quote

from dlassets.images.folders import class_folder
from dlassets.labeling.services import Answer, Request
from dlassets.storage.records import as_text, read_records

REQUIRED = ("request_id", "label")
# Of one file so many are told one by one.
MOST_PROBLEMS = 1000
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def read_answers(chunks: Iterable[bytes], suffix: str, origin: str, written_at: datetime) -> Iterator[Answer]:
    """Yield the answers in a file, which comes in chunks, as they stand there: one that is none has a problem.

    For `suffix` and what a file may look like see `read_records`. Entries with an empty label are not answered yet and
    are left out. `origin` names the file, `written_at` dates the answers that say no time themselves. An entry that
    cannot be read costs itself alone; of more than MOST_PROBLEMS, the number is said. Memory is of a few entries.
    """
    problems = 0
    for place, entry in read_records(chunks, suffix, REQUIRED):
        answer = _answer(entry, f"{origin}, {place}", written_at, origin)
        if answer is None:
            continue
        problems += answer.problem is not None
        if answer.problem is None or problems <= MOST_PROBLEMS:
            yield answer
    if problems > MOST_PROBLEMS:
        yield problem(f"{origin}, further entries", f"{problems - MOST_PROBLEMS:,} more cannot be read", written_at)


def problem(origin: str, message: str, written_at: datetime) -> Answer:
    """Return what stands for an answer that cannot be read."""
    place = as_text(origin)
    return Answer(place, None, None, written_at, place, dated=False, problem=f"{place}: {message}", file=place)


def _answer(entry: dict[str, Any] | str, origin: str, written_at: datetime, file: str) -> Answer | None:
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
    return Answer(request_id, label, annotator or None, answered_at, as_text(origin), dated=bool(time), file=file)


def _utc(text: str) -> datetime:
    """Read an ISO 8601 time, to the microsecond; one without a zone is UTC."""
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


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
    """Return the text that tells a person how to answer; `answers` is the folder that answers go to, seen from it."""
    known = "\n".join(f"    {class_folder(label, name)}" for label, name in sorted(classes.items()))
    return f"""These photos need a label. Answer in whichever way suits you:

1. Move (or copy) a photo into the folder of its class, without renaming it. Seen from here, those are in
    {answers}
2. Or copy requests.csv into that folder, under any name that ends in .csv, and fill in its column `label`: the
   number of the class (2), its name, or both (002.name). Leave it empty where you have no answer. You may add the
   columns `annotator` (who you are) and `answered_at` (2026-01-31T14:05:00Z). Save it as CSV UTF-8, with commas,
   semicolons or tabs, or as Unicode text (.txt).
3. Or put a .json file there (a list of objects) or a .jsonl file (an object a line) with request_id and label.

Changed your mind? Move the photo to another folder, or answer again: the answer that is read last counts.

The classes:
{known}
"""


def _class_text(request: Request) -> str:
    return f"{request.predicted_label} {request.predicted_name or ''}".strip()


def _cell(text: str) -> str:
    """Keep a spreadsheet from taking the text, which came from outside as a file's name, for a formula."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
