"""What EXIF says of a photo, read tag by tag.

Pillow's own reader copies every value of a directory before one is asked for. Entries that all point at the same bytes
make a file of one megabyte into many gigabytes so; here only what is asked for is looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

Value: TypeAlias = str | tuple[float, ...]

ORIENTATION = 0x0112
_MOST_DIRECTORIES = 1_000
_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 18: "Q"}
_RATIONALS = {5: "II", 10: "ii"}
_TEXT = 2
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_MOST_VALUES = 1024  # of one tag, text included: no tag that is asked for needs more
# Byte order, and whether it is a BigTIFF. Pillow takes the two with their bytes swapped, so they are looked at as well.
_HEADERS = {
    b"II*\0": ("<", False),
    b"II\0*": ("<", False),
    b"MM\0*": (">", False),
    b"MM*\0": (">", False),
    b"II+\0": ("<", True),
    b"MM\0+": (">", True),
}
TIFF_BEGINNINGS = tuple(_HEADERS)


@dataclass(frozen=True)
class Entry:
    """A tag of a directory: where its values lie."""

    tag: int
    type: int
    count: int
    at: int  # where its values begin

    @property
    def size(self) -> int:
        return self.count * _SIZES.get(self.type, 0)


def read_tags(block: bytes, *wanted: int, within: int | None = None) -> dict[int, Value]:
    """Return the `wanted` tags of an EXIF block (or a TIFF file), as text or numbers; a rational over zero is NaN.

    They are looked for in the first directory, or in the one that its tag `within` points to. What is missing, broken
    or of another type is left out. Never raises.
    """
    directory = first_directory(block)
    if within is not None:
        pointer = read_tags(block, within).get(within)
        directory = int(pointer[0]) if isinstance(pointer, tuple) and pointer else None
    found: dict[int, Value] = {}
    for entry in [] if directory is None else entries(block, directory):
        if entry.tag in wanted and entry.tag not in found and (value := _value(block, entry)) is not None:
            found[entry.tag] = value
    return found


def orientation(block: bytes) -> int:
    """Return how a picture is to be turned, 1 to 8; 1 (not at all) where EXIF says nothing that can be."""
    value = read_tags(block, ORIENTATION).get(ORIENTATION)
    turn = int(value[0]) if isinstance(value, tuple) and value and value[0] == value[0] else 1  # NaN is not itself
    return turn if turn in range(1, 9) else 1


def order_of(block: bytes) -> str:
    """Return a TIFF's byte order, as struct writes it."""
    return _HEADERS[block[:4]][0]


def directories(block: bytes) -> Iterator[int]:
    """Yield where the directories of a TIFF begin, first to last."""
    order, big = _HEADERS[block[:4]]
    count_format, step, pointer = ("Q", 20, "Q") if big else ("H", 12, "I")
    seen: set[int] = set()
    at = first_directory(block)
    while at and at not in seen and len(seen) < _MOST_DIRECTORIES:
        seen.add(at)
        yield at
        try:
            (count,) = struct.unpack_from(order + count_format, block, at)
            (at,) = struct.unpack_from(order + pointer, block, at + struct.calcsize(f"<{count_format}") + count * step)
        except struct.error:
            return


def first_directory(block: bytes) -> int | None:
    """Return where a block's first directory begins; None where that is nowhere."""
    order, big = _HEADERS.get(block[:4], ("", False))
    try:
        return int(struct.unpack_from(f"{order}{'Q' if big else 'I'}", block, 8 if big else 4)[0]) if order else None
    except struct.error:
        return None


def entries(block: bytes, at: int) -> Iterator[Entry]:
    """Yield the entries of a directory, as many as are there."""
    order, big = _HEADERS[block[:4]]
    count_format, entry_format, pointer = ("Q", "HHQ", "Q") if big else ("H", "HHI", "I")
    head, room = struct.calcsize(f"<{count_format}"), struct.calcsize(f"<{pointer}")
    step = struct.calcsize(f"<{entry_format}") + room
    if at + head > len(block):
        return
    (count,) = struct.unpack_from(order + count_format, block, at)
    start = at + head
    for place in range(start, min(start + count * step, len(block) - step + 1), step):
        tag, type_, values = struct.unpack_from(order + entry_format, block, place)
        inside = place + step - room
        fits = values * _SIZES.get(type_, 0) <= room
        yield Entry(tag, type_, values, inside if fits else struct.unpack_from(order + pointer, block, inside)[0])


def _value(block: bytes, entry: Entry) -> Value | None:
    order, _ = _HEADERS[block[:4]]
    if not 0 < entry.count <= _MOST_VALUES or entry.at + entry.size > len(block):
        return None
    if entry.type == _TEXT:
        text = block[entry.at : entry.at + entry.size].partition(b"\0")[0]
        return text.decode("utf-8", "replace")
    if entry.type in _NUMBERS:
        return struct.unpack_from(f"{order}{entry.count}{_NUMBERS[entry.type]}", block, entry.at)
    if entry.type in _RATIONALS:
        flat = struct.unpack_from(order + _RATIONALS[entry.type] * entry.count, block, entry.at)
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return tuple(over / under if under else float("nan") for over, under in pairs)
    return None
