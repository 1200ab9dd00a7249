"""HEIC and AVIF, both of ISO's boxes (ISO/IEC 14496-12, 23008-12): told apart, and as their pixels need them.

Which way is up is said by boxes of their own (irot, imir), which decoders follow: what EXIF says of it is of no matter,
and a photo that is turned by both is turned twice.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator

from PIL import features

from dlassets.extras import HEIF, missing, require
from dlassets.images.png import Plain

HEIC, AVIF = "HEIC", "AVIF"
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
_MOST_BRANDS, _MOST_ITEMS = 64, 10_000
_EXIF, _NO_ITEM = b"Exif", b"none"
_WIDE = 2  # the first version of a box whose item numbers have 32 bits


def format_of(data: bytes) -> str | None:
    """Return HEIC or AVIF by the brands that a file's first box names; None for any other file, videos included."""
    if data[4:8] != b"ftyp":
        return None
    length = min(int.from_bytes(data[:4], "big"), 16 + 4 * _MOST_BRANDS)
    major, others = data[8:12], {data[at : at + 4] for at in range(16, min(length, len(data)) - 3, 4)}
    if major in _AVIF_BRANDS or (major in {b"mif1", b"msf1"} and others & _AVIF_BRANDS):
        return AVIF
    return HEIC if major in _HEIC_BRANDS else None


def lacks_decoder(format_: str) -> str | None:
    """Return what to do about a photo of a format whose decoder is not installed; None where it is there."""
    if format_ == HEIC:
        return missing(HEIF, "reading it")
    if format_ == AVIF and not features.check("avif"):
        return "reading it needs a Pillow that has AVIF: pip install --upgrade pillow brings it."
    return None


def pillow_name(format_: str) -> str:
    """Return what Pillow calls a format, which it opens from now on. Raises MissingExtraError without the extra."""
    if format_ != HEIC:
        return format_
    require(HEIF, "reading HEIC")
    _register()
    return "HEIF"


@functools.cache
def _register() -> None:
    import pillow_heif

    # One thread a photo: whoever opens many has threads of its own.
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


def sizes(data: bytes) -> list[tuple[int, int]]:
    """Return width and height of each picture in a file, as its boxes say before anything is decoded."""
    properties = _inside(data).get(b"iprp", range(0))
    containers = [box for kind, box in _boxes(data, properties.start, properties.stop) if kind == b"ipco"]
    return [
        struct.unpack_from(">II", data, box.start + 4)
        for container in containers
        for kind, box in _boxes(data, container.start, container.stop)
        if kind == b"ispe" and len(box) >= 12  # noqa: PLR2004 - version, flags and the two
    ]


def plain(data: bytes) -> Plain:
    """Return the file without its EXIF item, and that block; what colours mean stays with the pixels. Never raises.

    No decoder then reads a block that may be hostile, and turns a photo by what it says.
    """
    inside = _inside(data)
    items = [at for at in _item_types(data, inside.get(b"iinf")) if data[at : at + 4] == _EXIF]
    if not items:
        return Plain(data, b"", b"")
    without = bytearray(data)
    for at in items:
        without[at : at + 4] = _NO_ITEM
    try:
        block = _content(data, inside, _number_before(data, items[0]))
    except (struct.error, IndexError):
        block = b""
    # Before the block stands how many bytes come before its header.
    start = 4 + int.from_bytes(block[:4], "big")
    return Plain(bytes(without), block[start:].removeprefix(b"Exif\0\0"), b"")


def _inside(data: bytes) -> dict[bytes, range]:
    """Return where the content of each box lies that tells of the pictures; empty where there is none."""
    meta = next((box for kind, box in _boxes(data, 0, len(data)) if kind == b"meta"), range(0))
    return dict(_boxes(data, meta.start + 4, meta.stop))


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, range]]:
    """Yield the kind of each box from `at` on, and where what is in it lies; stops at one that makes no sense."""
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1 and at + 16 <= end:
            head, size = 16, int.from_bytes(data[at + 8 : at + 16], "big")
        size = end - at if size == 0 else size
        if size < head or at + size > end:
            return
        yield kind, range(at + head, at + size)
        at += size


def _item_types(data: bytes, iinf: range | None) -> Iterator[int]:
    """Yield where the type of each item stands."""
    if iinf is None or not len(iinf):
        return
    first = iinf.start + (8 if data[iinf.start] else 6)
    for number, (kind, box) in enumerate(_boxes(data, first, iinf.stop)):
        if number >= _MOST_ITEMS:
            return
        if kind == b"infe" and len(box) >= 12:  # noqa: PLR2004 - version, flags, two numbers and the type
            version = data[box.start]
            if version >= _WIDE:
                yield box.start + (10 if version > _WIDE else 8)


def _number_before(data: bytes, at: int) -> int:
    """Return the number of the item whose type stands at `at`: 16 bits, or the lower half of 32."""
    return int.from_bytes(data[at - 4 : at - 2], "big")


def _content(data: bytes, inside: dict[bytes, range], item: int) -> bytes:
    """Return an item's bytes as the box iloc says where they lie. Raises struct.error or IndexError for nonsense."""
    iloc = inside.get(b"iloc", range(0))
    version, sizes, base_sizes = data[iloc.start], data[iloc.start + 4], data[iloc.start + 5]
    of_offset, of_length = sizes >> 4, sizes & 15
    of_base, of_index = base_sizes >> 4, (base_sizes & 15) if version else 0
    of_number = 4 if version >= _WIDE else 2
    at = iloc.start + 6

    def number(size: int) -> int:
        nonlocal at
        if at + size > iloc.stop:
            raise IndexError
        at += size
        return int.from_bytes(data[at - size : at], "big")

    for _ in range(min(number(of_number), _MOST_ITEMS)):
        named, method = number(of_number), number(2) & 15 if version else 0
        number(2)
        base, found = number(of_base), b""
        start = inside[b"idat"].start if method == 1 and b"idat" in inside else 0
        for _ in range(min(number(2), _MOST_ITEMS)):
            number(of_index)
            offset, length = start + base + number(of_offset), number(of_length)
            if named == item:
                found += data[offset : offset + length]
                if len(found) > len(data):  # parts of a hostile file may all be the same bytes
                    raise IndexError
        if named == item:
            return found
    return b""
