"""Files of records that people and programs write: CSV, JSON, JSON lines, read an entry at a time."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from dlassets.storage.lines import LONGEST_LINE, Line, bounded_lines

_ROW_LINES = 10_000
# After so many rows of a CSV that are none, a quote that nothing ends is no longer looked behind.
_MOST_ERRORS = 1000
_NOT_UTF8 = "is not UTF-8 text: save it as UTF-8 (CSV UTF-8)"
# What a spreadsheet writes first, or is told by, where commas are not what it expects.
_SEPARATOR = re.compile(r'"?sep=([^"\s]|\t)"?\s*', re.IGNORECASE)

# What stands at one place of a file: the place ("line 3"), and a record or what is wrong with it.
Entry = tuple[str, dict[str, Any] | str]
# The fields that a record must have; of several in a tuple one will do, and the first is the one that is named.
Required = Sequence[str | tuple[str, ...]]


class Member(NamedTuple):
    """What an object of JSON holds under `key`: a value, an item of a list, or neither where something is wrong."""

    place: str
    key: str
    value: Any = None
    problem: str | None = None


def read_records(chunks: Iterable[bytes], suffix: str, required: Required = ()) -> Iterator[Entry]:
    """Yield every entry of a file, which comes in chunks: its place, and a record or what is wrong with it.

    `suffix` is a key of READERS. Text is UTF-8, or UTF-16 with its mark; a CSV has commas, semicolons or tabs between
    its fields, whichever its header has most of, or what its first line says (`sep=;`); the names in its header are
    lower case then, and must have those `required`. An entry that cannot be read costs itself alone. Memory is of a few
    entries, none longer than LONGEST_LINE.
    """
    return READERS[suffix](_as_utf8(chunks), required)


def lacking(required: Required, there: Collection[str]) -> list[str]:
    """Return the fields that are required and not `there`, by their names."""
    any_of = [(name,) if isinstance(name, str) else name for name in required]
    return [names[0] for names in any_of if not any(name in there for name in names)]


def read_members(chunks: Iterable[bytes]) -> Iterator[Member]:
    """Yield what the one object of a JSON file holds, which comes in chunks: of a list its items, one at a time.

    What cannot be read ends it, with a problem. Memory is of one value, none longer than LONGEST_LINE.
    """
    text = _JsonText(_as_utf8(chunks))
    try:
        yield from _members(text)
    except (ValueError, RecursionError) as error:
        place, problem = text.place(error)
        yield Member(place, "", problem=str(problem))


def as_text(value: object) -> str:
    """Return a value as trimmed text that any table can hold; None is empty text."""
    return "" if value is None else str(value).strip().encode("utf-8", "replace").decode()


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


class _CsvLines:
    """The lines of a CSV as text, for its reader. Lines that are none stand in `wrong`, and can be come back to."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._numbered = enumerate(bounded_lines(chunks), 1)
        self._again: deque[tuple[int, str]] = deque()
        self.row: list[tuple[int, str]] = []  # of the row that is being read
        self.wrong: list[Entry] = []

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


def _csv_entries(chunks: Iterable[bytes], required: Required) -> Iterator[Entry]:
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
            if errors <= _MOST_ERRORS:  # a quote that nothing ends has taken them for its own
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
        if missing := lacking(required, header):
            yield place, f"the header lacks {' and '.join(missing)}"
            return
    if not header:
        yield "line 1", f"the header lacks {' and '.join(lacking(required, ()))}" if required else "there is no header"


def _csv_record(header: Sequence[str], row: Sequence[str]) -> dict[str, Any] | str:
    if len(row) > len(header):
        return f"has {len(row)} fields where the header has {len(header)}: quote text that holds a comma"
    return dict(zip(header, row, strict=False))  # trailing empty fields may be left away


class _Decoder(json.JSONDecoder):
    """Reads JSON, and notes a name that an object has twice: of the two values, which one is meant nobody can say."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._object)
        self._twice: str | None = None

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            self._twice = next(name for name in names if names.count(name) > 1)
        return found

    def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
        self._twice = None
        return super().raw_decode(s, idx)

    def wrong(self) -> str | None:
        """Return what is wrong with the value that was read last."""
        return None if self._twice is None else f"says {self._twice[:60]!r} twice"


class _JsonText:
    """The text of a JSON file, of which no more is held than one value takes."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self.decoder = _Decoder()
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
                value, end = self.decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                within = error.pos - self._at
                if len(self._text) - self._at > LONGEST_LINE or not self._grow():
                    raise json.JSONDecodeError(error.msg, self._text, self._at + within) from error
                continue
            length = end - self._at
            # A number may go on.
            if self._text[end : end + 1] not in {"", ".", "e", "E"} or not self._grow():
                self._at += length
                return value

    def place(self, error: Exception) -> Entry:
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

    def error(self, message: str) -> Entry:
        return self.place(self.unexpected(message))

    def unexpected(self, message: str) -> json.JSONDecodeError:
        return json.JSONDecodeError(message, self._text, self._at)

    def expect(self, sign: str) -> None:
        """Go beyond the next sign. Raises ValueError where that is another."""
        if self.next_sign() != sign:
            raise self.unexpected(f"Expecting {sign!r}")
        self.skip()

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


def _json_entries(chunks: Iterable[bytes], required: Required) -> Iterator[Entry]:
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
            yield f"item {number}", _record(text.value(), required, text.decoder)
        if is_list and sign == "]":
            text.skip()
        elif is_list:
            yield text.error("Expecting ',' delimiter")
            return
        if text.next_sign():
            yield text.error("Extra data")
    except (ValueError, RecursionError) as error:
        yield text.place(error)


def _members(text: _JsonText) -> Iterator[Member]:
    """Raises ValueError and RecursionError where the text is no object."""
    text.expect("{")
    while text.next_sign() != "}":
        key = text.value()
        if not isinstance(key, str):
            raise text.unexpected("Expecting property name enclosed in double quotes")
        text.expect(":")
        if text.next_sign() == "[":
            yield from _items(text, key)
        else:
            yield _member(text, key, key)
        if text.next_sign() != "}":
            text.expect(",")
    text.skip()
    if text.next_sign():
        raise text.unexpected("Extra data")


def _items(text: _JsonText, key: str) -> Iterator[Member]:
    text.expect("[")
    number = 0
    while text.next_sign() != "]":
        number += 1
        yield _member(text, f"{key}, item {number}", key)
        if text.next_sign() != "]":
            text.expect(",")
    text.skip()


def _member(text: _JsonText, place: str, key: str) -> Member:
    value = text.value()
    return Member(place, key, value, text.decoder.wrong())


def _jsonl_entries(chunks: Iterable[bytes], required: Required) -> Iterator[Entry]:
    decoder = _Decoder()
    for number, line in enumerate(bounded_lines(chunks), 1):
        text, wrong = _text(line)
        if wrong is not None:
            yield f"line {number}", wrong
        elif text.strip().removeprefix("\ufeff"):
            plain = text.removeprefix("\ufeff") if number == 1 else text
            yield f"line {number}", _parse_json(decoder, plain, required)


def _text(line: Line) -> tuple[str, str | None]:
    """Return a line as text, and what is wrong with it."""
    if line.is_cut:
        return "", f"is longer than {LONGEST_LINE} bytes"
    try:
        return line.data.decode() + "\n" * line.ended, None
    except UnicodeDecodeError:
        return "", _NOT_UTF8


def _parse_json(decoder: _Decoder, text: str, required: Required) -> dict[str, Any] | str:
    try:
        return _record(decoder.decode(text), required, decoder)
    except json.JSONDecodeError as error:
        return f"is not JSON: {error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets nested as deep
        return f"is not JSON that can be read: {error}"


def _record(item: object, required: Required, decoder: _Decoder) -> dict[str, Any] | str:
    if (wrong := decoder.wrong()) is not None:
        return wrong
    names = " and ".join(lacking(required, ()))
    return item if isinstance(item, dict) else " with ".join(("is no object", *filter(None, [names])))


READERS: Mapping[str, Callable[[Iterable[bytes], Required], Iterator[Entry]]] = {
    ".csv": _csv_entries,
    ".tsv": _csv_entries,
    ".txt": _csv_entries,
    ".json": _json_entries,
    ".jsonl": _jsonl_entries,
}
