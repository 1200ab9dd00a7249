"""A TIFF as its first real picture needs it: one classic directory of the tags that say what pixels mean.

Whatever else a directory holds (texts, EXIF, previews, pages) cannot refuse a photo then, and no reader copies it. What
Pillow would show wrongly is refused by name.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from dlassets.images.exif import TIFF_BEGINNINGS, Entry, directories, entries, order_of

_SUBFILE, _WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIPS, _SAMPLES = 254, 256, 257, 258, 259, 262, 273, 277
_ROWS, _FILL, _PLANAR, _INKS, _EXTRA, _FORMAT, _SUBSAMPLING, _RAW = 278, 266, 284, 332, 338, 339, 530, 50706
_TILES, _TILE_WIDTH, _TILE_LENGTH, _INSIDE = 324, 322, 323, 330
# What decides how pixels look: their layout, colours and packing, which way is up, and the profile.
_NEEDED = frozenset(
    {_SUBFILE, _WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL, _STRIPS, 274, _SAMPLES, _ROWS, 279, _PLANAR}
    | {292, 293, 317, 320, _TILE_WIDTH, _TILE_LENGTH, _TILES, 325, _INKS, _EXTRA, _FORMAT, 347, 512, 513, 514, 515, 517}
    | {518, 519, 520, 521, 529, _SUBSAMPLING, 532, 34675}
)
# Values that are no numbers: tables and the profile.
_BYTES = frozenset({347, 34675})
_MOST_NUMBERS = 1_000_000
_LONGS = {16: "Q", 17: "q", 18: "Q"}  # of a BigTIFF: the classic one has 32 bits
_RAW_PIXELS, _YCBCR, _SEPARATED, _LAB, _RGB, _WHITE_IS_ZERO = 1, 6, 5, 8, 2, 0
_UNSIGNED, _SIGNED = 1, 2
_BYTE = 8
_VERSION = 4  # bytes


class UnreadKindError(ValueError):
    """The file is whole, and of a kind that is not read, or that would be shown wrongly."""


class RawFileError(UnreadKindError):
    """It is a camera's raw file, in which the first picture is a preview."""


class InflatedError(ValueError):
    """The tags that pixels need say that they take more than the whole file."""


@dataclass(frozen=True)
class Plain:
    """A TIFF of one directory, and what Pillow does not tell of its numbers."""

    data: bytes
    bits: int
    white_is_zero: bool
    unsigned: bool
    tile: tuple[int, int]  # width and length of a tile, for all of which a reader makes room; zeros where there is none


def is_tiff(data: bytes) -> bool:
    return data.startswith(TIFF_BEGINNINGS)


def plain(data: bytes) -> Plain:
    """Return the TIFF's picture with the tags that it needs alone.

    Raises UnreadKindError, InflatedError, and ValueError for a directory that is missing or cut short.
    """
    order = order_of(data)
    tags = _picture(data)
    _refuse_inflated(data, tags)
    numbers = {tag: _numbers(data, entry) for tag, entry in tags.items() if tag not in _BYTES}
    samples = numbers.get(_SAMPLES, (1,))[0]
    photometric = numbers.get(_PHOTOMETRIC, (_RGB if samples > 2 else 1,))[0]  # noqa: PLR2004 - three colours
    _refuse_unread({**numbers, _PHOTOMETRIC: (photometric,)}, samples)
    _refuse_missing_parts(numbers, samples)
    values = {tag: (entry.type, entry.count, _raw(data, entry)) for tag, entry in tags.items() if entry.size}
    for tag, entry in tags.items():
        if entry.type in _LONGS and tag in values:
            values[tag] = (4, entry.count, struct.pack(f"{order}{entry.count}I", *numbers[tag]))
    if _PHOTOMETRIC not in values:  # Pillow would take white for zero
        values[_PHOTOMETRIC] = (3, 1, struct.pack(f"{order}H", photometric))
    colours = {_RGB: 3, _YCBCR: 3, _LAB: 3, _SEPARATED: 4}.get(photometric, 1)
    if _EXTRA not in values and samples > colours:  # of no said meaning: Pillow would take it for transparency
        values[_EXTRA] = (3, samples - colours, bytes(2 * (samples - colours)))
    if samples == 1:
        values.pop(_PLANAR, None)  # of one plane it says nothing
    bits, format_ = max(numbers.get(_BITS, (1,))), numbers.get(_FORMAT, (_UNSIGNED,))[0]
    tile = numbers.get(_TILE_WIDTH, (0,))[0], numbers.get(_TILE_LENGTH, (0,))[0]
    return Plain(_written(data, order, values), bits, photometric == _WHITE_IS_ZERO, format_ == _UNSIGNED, tile)


def _picture(data: bytes) -> dict[int, Entry]:
    """Return the needed tags of the first picture that is no preview of another."""
    if data[8:10] == b"CR":
        raise RawFileError("not supported: a camera's raw file")
    found: dict[int, Entry] | None = None
    for directory in directories(data):
        every = {entry.tag: entry for entry in entries(data, directory)}
        is_raw = _RAW in every and every[_RAW].size == _VERSION
        is_preview = _SUBFILE in every and bool(_numbers(data, every[_SUBFILE])[0] & 1)
        if is_raw or (is_preview and _INSIDE in every):
            raise RawFileError("not supported: a camera's raw file")
        if not is_preview and not every.keys().isdisjoint({_WIDTH, _STRIPS, _TILES}):
            found = {tag: entry for tag, entry in sorted(every.items()) if tag in _NEEDED}
            break
        found = found if found is not None else {} if is_preview else None
    if found is None:
        raise ValueError("truncated: it has no directory of a picture")
    if not found:
        raise UnreadKindError("not supported: all its pictures are previews of one that is not there")
    return found


def _refuse_inflated(data: bytes, tags: Mapping[int, Entry]) -> None:
    if sum(entry.size for entry in tags.values()) > len(data) or any(
        entry.count > _MOST_NUMBERS for tag, entry in tags.items() if tag not in _BYTES
    ):
        raise InflatedError("its tags say that they take more than the whole file")


def _refuse_unread(numbers: Mapping[int, tuple[int, ...]], samples: int) -> None:
    """Raise UnreadKindError for what Pillow would take for something else."""

    def value(tag: int, default: int) -> int:
        return numbers.get(tag, (default,))[0]

    bits, is_raw, photometric = (
        numbers.get(_BITS, (1,)),
        value(_COMPRESSION, 1) == _RAW_PIXELS,
        numbers[_PHOTOMETRIC][0],
    )
    kinds = {
        "colours in planes, of other than 8 unsigned bits each": (
            samples > 1
            and value(_PLANAR, 1) == 2  # noqa: PLR2004 - in planes
            and (set(bits) != {_BYTE} or value(_FILL, 1) != 1 or photometric == _YCBCR or 1 in numbers.get(_EXTRA, ()))
        ),
        "signed numbers of 8 bits": value(_FORMAT, _UNSIGNED) == _SIGNED and max(bits) <= _BYTE,
        "inks other than cyan, magenta, yellow and black": photometric == _SEPARATED and value(_INKS, 1) != 1,
        "colour differences of fewer pixels, not packed": (
            photometric == _YCBCR and samples > 1 and is_raw and numbers.get(_SUBSAMPLING, (2, 2)) != (1, 1)
        ),
    }
    for kind, is_so in kinds.items():
        if is_so:
            raise UnreadKindError(f"not supported: {kind}")


def _refuse_missing_parts(numbers: Mapping[int, tuple[int, ...]], samples: int) -> None:
    """Raise ValueError where strips or tiles lack: a reader may leave them black."""
    parts = numbers.get(_TILES, numbers.get(_STRIPS))
    width, height = (numbers.get(tag, (0,))[0] for tag in (_WIDTH, _LENGTH))
    if parts is None or not width or not height:
        return  # Pillow says what is missing
    across = -(-width // (numbers.get(_TILE_WIDTH, (0,))[0] or width)) if _TILES in numbers else 1
    each = numbers.get(_TILE_LENGTH if _TILES in numbers else _ROWS, (height,))[0] or height
    planes = samples if numbers.get(_PLANAR, (1,))[0] == 2 else 1  # noqa: PLR2004 - in planes
    if len(parts) < across * -(-height // each) * planes or not all(parts):
        raise ValueError(f"truncated: it has {len(parts)} strips or tiles, and not all that its pixels take")


def _numbers(data: bytes, entry: Entry) -> tuple[int, ...]:
    kinds = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", **_LONGS}
    size = min(entry.count, _MOST_NUMBERS)
    if entry.type not in kinds or not size:
        return (0,)
    if entry.at + size * struct.calcsize(f"<{kinds[entry.type]}") > len(data):
        raise ValueError(f"truncated: the values of tag {entry.tag} lie behind the end of the file")
    return struct.unpack_from(f"{order_of(data)}{size}{kinds[entry.type]}", data, entry.at)


def _raw(data: bytes, entry: Entry) -> bytes:
    value = data[entry.at : entry.at + entry.size]
    if len(value) < entry.size:
        raise ValueError(f"truncated: the values of tag {entry.tag} lie behind the end of the file")
    return value


def _written(data: bytes, order: str, values: Mapping[int, tuple[int, int, bytes]]) -> bytes:
    """Return the file with these tags (type, count and bytes of each) in a directory behind all else."""
    at = len(data) + len(data) % 2
    directory, beyond = struct.pack(f"{order}H", len(values)), b""
    beyond_at = at + 2 + 12 * len(values) + 4
    for tag, (type_, count, value) in sorted(values.items()):
        place = value.ljust(4, b"\0")
        if len(value) > 4:  # noqa: PLR2004 - what fits within an entry
            place, beyond = struct.pack(f"{order}I", beyond_at + len(beyond)), beyond + value + b"\0" * (len(value) % 2)
        directory += struct.pack(f"{order}HHI", tag, type_, count) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", at)
    return b"".join([head, data[8:], b"\0" * (len(data) % 2), directory, bytes(4), beyond])
