"""The files people answer with (CSV, JSON, JSONL), and those they are given (a list, a contact sheet, a how-to)."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from itertools import chain
from typing import Any
from urllib.parse import quote

from dlassets.images.folders import class_folder
from dlassets.labeling.services import Answer, Request
from dlassets.storage.lines import LONGEST_LINE, Line, bounded_lines

REQUIRED = ("request_id", "label")
# Of one file so many are told one by one.
MOST_PROBLEMS = 1000
_ROW_LINES = 10_000
_NOT_UTF8 = "is not UTF-8 text: save it as UTF-8 (CSV UTF-8)"
_JSON = json.JSONDecoder()
# What a spreadsheet writes first, or is told by, where commas are not what it expects.
_SEPARATOR = re.compile(r'"?sep=([^"\s]|\t)"?\s*', re.IGNORECASE)

# What stands at one place of a file: the place ("line 3"), and a record or what is wrong with it.
_Entry = tuple[str, dict[str, Any] | str]

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def read_answers(chunks: Iterable[bytes], suffix: str, origin: str, written_at: datetime) -> Iterator[Answer]:
    """Yield the answers in a file, which comes in chunks, as they stand there: one that is none has a problem.

    `suffix` is a key of READERS. Text is UTF-8, or UTF-16 with its mark; a list has commas, semicolons or tabs between
    its fields, whichever its header has most of, or what its first line says (`sep=;`). Entries with an empty label are
    not answered yet and are left out. `origin` names the file, `written_at` dates the answers that say no time
    themselves. An entry that cannot be read costs itself alone; of more than MOST_PROBLEMS, the number is said. Memory
    is of a few entries, none longer than LONGEST_LINE.
    """
    problems = 0
    for place, entry in READERS[suffix](_as_utf8(chunks)):
        answer = _answer(entry, f"{origin}, {place}", written_at, origin)
        if answer is None:
            continue
        problems += answer.problem is not None
        if answer.problem is None or problems <= MOST_PROBLEMS:
            yield answer
    if problems > MOST_PROBLEMS:
        yield problem(f"{origin}, further entries", f"{problems - MOST_PROBLEMS:,} more cannot be read", written_at)


def _as_utf8(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes of a file as UTF-8 where its mark says that it is UTF-16, as they are else."""
    chunks = iter(chunks)
    begun = b""
    while len(begun) < len(codecs.BOM_UTF16) and (chunk := next(chunks, b"")):
        begun += chunk
    if not begun.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        yield begun
        yield from chunks
        return
    decode = codecs.getincrementaldecoder("utf-16")("replace").decode
    for chunk in chain([begun], chunks):
        yield decode(chunk).encode("utf-8", "replace")
    yield decode(b"", True).encode()


def problem(origin: str, message: str, written_at: datetime) -> Answer:
    """Return what stands for an answer that cannot be read."""
    place = as_text(origin)
    return Answer(place, None, None, written_at, place, dated=False, problem=f"{place}: {message}", file=place)


def as_text(value: object) -> str:
    """Return a value as trimmed text that any table can hold; None is empty text."""
    return "" if value is None else str(value).strip().encode("utf-8", "replace").decode()


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


class _CsvLines:
    """The lines of a CSV as text, for its reader. Lines that are none stand in `wrong`, and can be come back to."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._numbered = enumerate(bounded_lines(chunks), 1)
        self._again: deque[tuple[int, str]] = deque()
        self.row: list[tuple[int, str]] = []  # of the row that is being read
        self.wrong: list[_Entry] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while True:
            number, text = self._again.popleft() if self._again else self._next()
            if text is None:
                continue
            self.row.append((number, text))
            if sum(len(line) for _, line in self.row[-2:]) > LONGEST_LINE or len(self.row) > _ROW_LINES:
                raise csv.Error("a row that is too long")
            return text

    def _next(self) -> tuple[int, str | None]:
        number, line = next(self._numbered)
        text, wrong = _text(line)
        if wrong is not None:
            self.wrong.append((f"line {number}", wrong))
            return number, None
        return number, text.removeprefix("\ufeff") if number == 1 else text

    def separator(self) -> str:
        """Return what stands between fields: as a line of its own says, which is read then, or as the header shows."""
        begun = next((text for text in self if text.strip()), "")
        if said := _SEPARATOR.fullmatch(begun):
            return said[1]
        self.put_back(0)
        return max(",;\t", key=begun.count)

    def put_back(self, first: int) -> None:
        """Have the row's lines from `first` on read again."""
        self._again.extendleft(reversed(self.row[first:]))


def _csv_entries(chunks: Iterable[bytes]) -> Iterator[_Entry]:
    lines = _CsvLines(chunks)
    separator = lines.separator()
    if lines.wrong:
        yield lines.wrong[0]
        return
    rows = csv.reader(lines, delimiter=separator, strict=True)
    header: list[str] = []
    errors = 0
    while True:
        lines.row.clear()
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error as error:
            errors += 1
            yield f"line {lines.row[0][0]}", f"is not CSV: {error}"
            if errors <= MOST_PROBLEMS:  # a quote that nothing ends has taken them for its own
                lines.put_back(1)
            continue
        finally:
            yield from lines.wrong
            lines.wrong.clear()
        place = f"line {lines.row[-1][0]}"
        if not any(field.strip() for field in row):
            continue
        if header:
            yield place, _csv_record(header, row)
            continue
        header = [field.strip().lower() for field in row]
        if missing := [name for name in REQUIRED if name not in header]:
            yield place, f"the header lacks {' and '.join(missing)}"
            return
    if not header:
        yield "line 1", "the header lacks request_id and label"


def _csv_record(header: Sequence[str], row: Sequence[str]) -> dict[str, Any] | str:
    if len(row) > len(header):
        return f"has {len(row)} fields where the header has {len(header)}: quote text that holds a comma"
    return dict(zip(header, row, strict=False))  # trailing empty fields may be left away


class _JsonText:
    """The text of a JSON file, of which no more is held than one value takes."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._text, self._at = "", 0
        self._line, self._column = 1, 0  # of the text's beginning, in the file

    def next_sign(self) -> str:
        """Go to the next sign that is no space, and return it; empty text at the end."""
        while True:
            while self._at < len(self._text):
                if not (sign := self._text[self._at]).isspace():
                    return sign
                self._at += 1
            if not self._grow():
                return ""

    def skip(self) -> None:
        self._at += 1

    def value(self) -> Any:
        """Return the next value. Raises ValueError where there is none, or it is longer than LONGEST_LINE."""
        while True:
            try:
                value, end = _JSON.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                within = error.pos - self._at
                if len(self._text) - self._at > LONGEST_LINE or not self._grow():
                    raise json.JSONDecodeError(error.msg, self._text, self._at + within) from error
                continue
            if end < len(self._text) or not self._grow():  # a number may go on
                self._at = end
                return value

    def place(self, error: Exception) -> _Entry:
        """Return where an error is, and what it is."""
        if isinstance(error, json.JSONDecodeError):
            column = error.colno + (self._column if error.lineno == 1 else 0)
            return f"line {self._line + error.lineno - 1}", f"is not JSON: {error.msg} at column {column}"
        line = f"line {self._line + self._text.count(chr(10), 0, self._at)}"
        if isinstance(error, UnicodeDecodeError):
            return line, _NOT_UTF8
        return (
            line,
            f"is not JSON that can be read: {error}",
        )  # a number of thousands of digits, brackets nested as deep

    def error(self, message: str) -> _Entry:
        return self.place(json.JSONDecodeError(message, self._text, self._at))

    def _grow(self) -> bool:
        self._line += self._text.count("\n", 0, self._at)
        newline = self._text.rfind("\n", 0, self._at)
        self._column = self._at - newline - 1 if newline >= 0 else self._column + self._at
        self._text, self._at = self._text[self._at :], 0
        for chunk in self._chunks:
            if more := self._decode(chunk):
                self._text += more
                return True
        self._decode(b"", True)  # a sign that was cut off is an error
        return False


def _json_entries(chunks: Iterable[bytes]) -> Iterator[_Entry]:
    text, number = _JsonText(chunks), 0
    try:
        is_list = text.next_sign() == "["
        if is_list:
            text.skip()
        while (sign := text.next_sign()) != "]" or not is_list:
            if number and (not is_list or sign != ","):
                break
            if number:
                text.skip()
                text.next_sign()
            number += 1
            yield f"item {number}", _record(text.value())
        if is_list and sign == "]":
            text.skip()
        elif is_list:
            yield text.error("Expecting ',' delimiter")
            return
        if text.next_sign():
            yield text.error("Extra data")
    except (ValueError, RecursionError) as error:
        yield text.place(error)


def _jsonl_entries(chunks: Iterable[bytes]) -> Iterator[_Entry]:
    for number, line in enumerate(bounded_lines(chunks), 1):
        text, wrong = _text(line)
        if wrong is not None:
            yield f"line {number}", wrong
        elif text.strip().removeprefix("\ufeff"):
            yield f"line {number}", _parse_json(text.removeprefix("\ufeff") if number == 1 else text)


def _text(line: Line) -> tuple[str, str | None]:
    """Return a line as text, and what is wrong with it."""
    if line.is_cut:
        return "", f"is longer than {LONGEST_LINE} bytes"
    try:
        return line.data.decode() + "\n" * line.ended, None
    except UnicodeDecodeError:
        return "", _NOT_UTF8


def _parse_json(text: str) -> dict[str, Any] | str:
    try:
        return _record(json.loads(text))
    except json.JSONDecodeError as error:
        return f"is not JSON: {error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets nested as deep
        return f"is not JSON that can be read: {error}"


def _record(item: object) -> dict[str, Any] | str:
    return item if isinstance(item, dict) else "is no object with request_id and label"


READERS: Mapping[str, Callable[[Iterable[bytes]], Iterator[_Entry]]] = {
    ".csv": _csv_entries,
    ".tsv": _csv_entries,
    ".txt": _csv_entries,
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
