"""The header of a JPEG: what must be known of it before a decoder sees it."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

# The processes that simplejpeg decodes: Huffman or arithmetic coded, sequential or progressive, by cosine transform.
# A lossless JPEG must never reach it: asked for a smaller picture, it writes the whole one over other memory.
_READ_BY_SIMPLEJPEG = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
# Hierarchical, lossless and arithmetic coded at once, and JPEG-LS.
_READ_BY_NONE = frozenset({0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7})
_SEQUENTIAL, _PROGRESSIVE = frozenset({0xC0, 0xC1, 0xC9}), 0xC2
_FRAMES = frozenset({*_READ_BY_SIMPLEJPEG, *_READ_BY_NONE, 0xC3})
# Numbers of bytes: what a scan's header ends with, and the least that these segments hold where they say something.
_SCAN_REST, _FRAME_HEAD, _JFIF, _ADOBE = 3, 6, 14, 12
_APP0, _APP14, _COMMENT, _RESTART_INTERVAL = 0xE0, 0xEE, 0xFE, 0xDD
_TOLD = frozenset(range(0xE0, 0xF0))
_RESTARTS = frozenset(range(0xD0, 0xD8))
_RESTART = re.compile(rb"\xff+[\xd0-\xd7]")
MAX_SIDE = 65_500  # libjpeg's own limit
_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})  # markers without a segment
_NO_MARKERS = frozenset({0x00, 0xFF})  # behind a byte 0xFF: coded data, and a filling
# Segments that say nothing of what a Header holds: tables, restarts, comments, APP0 and APP3 to APP15.
_OF_NO_INTEREST = frozenset({0xC4, 0xCC, 0xDB, 0xDD, 0xE0, *range(0xE3, 0xF0), 0xFE})
_BEGINNING = struct.Struct(">BBH")  # of a segment: the byte 0xFF, its marker, its length
_ODD = 0
_LEAST_LENGTH = 2
_SCAN, _END, _APP1, _APP2 = 0xDA, 0xD9, 0xE1, 0xE2
_EXIF, _ICC = b"Exif\0\0", b"ICC_PROFILE\0"
# In coded data every byte 0xFF has a zero behind it, or is a restart, which stands alone.
_MARKER = re.compile(rb"\xff+[^\x00\xff]")

# Writers make about ten. Each one goes over every pixel again, so a small file of many would take hours to decode.
MAX_SCANS = 100


class Header(NamedTuple):
    """What stands before a JPEG's first scan; the EXIF block and the ICC profile are empty where there is none."""

    process: int | None  # marker of the frame header; None where anything odd is before it: decoders skip differently
    has_one_scan: bool  # the first scan has every component as a whole: decoders look for no second one
    size: tuple[int, int]  # width and height, as stored
    components: int
    exif: bytes
    profile: bytes

    @property
    def is_for_simplejpeg(self) -> bool:
        """Whether simplejpeg may be given this JPEG. One with anything unusual before its frame header is Pillow's."""
        return self.process in _READ_BY_SIMPLEJPEG

    @property
    def is_for_nobody(self) -> bool:
        """Whether this JPEG is of a kind that no decoder here reads."""
        return self.process in _READ_BY_NONE


def is_jpeg(data: bytes) -> bool:
    return data[:3] == b"\xff\xd8\xff"


def read_header(data: bytes) -> Header | None:
    """Return a JPEG's header, None for another format. Never raises."""
    if not is_jpeg(data):
        return None
    process, components, is_odd, has_one_scan = None, None, False, False
    frame = b""
    exif, profile = b"", []
    for marker, start, end in _segments(data):
        if marker in _FRAMES and not frame:
            frame = data[start : min(end, start + 6)]
        if marker == _ODD:
            is_odd = True
        elif marker in _FRAMES and process is None and not is_odd:
            process, components = marker, data[start:end][5:6] if marker in _SEQUENTIAL else None
        elif marker == _SCAN:
            has_one_scan = not is_odd and data[start:end][:1] == components
        elif marker == _APP1 and data.startswith(_EXIF, start, end):
            exif += data[start + len(_EXIF) : end]  # one of more than 64 kB goes on in the next segment
        elif marker == _APP2 and data.startswith(_ICC, start, end):
            profile.append(data[start + len(_ICC) : end])
    profile.sort(key=lambda part: part[:1])  # each part begins with its number, and how many there are
    _, height, width, number = struct.unpack(">BHHB", frame.ljust(6, b"\0"))
    return Header(process, has_one_scan, (width, height), number, exif, b"".join(part[2:] for part in profile))


def plain(data: bytes) -> bytes:
    """Return a JPEG without what no pixel needs: other segments than tables and frames, and bytes between segments.

    The first warning of a decoder is of the picture's data then, and not of an oddity before it. Raises ValueError
    where it ends before its first scan.
    """
    kept, at = [data[:2]], 2
    sequential = False
    while found := _MARKER.search(data, at):
        marker, after = data[found.end() - 1], found.end()
        if marker == _END:
            kept.append(b"\xff\xd9")
            break
        if marker in _ALONE:
            at = after
            continue
        at = max(after + 2, after + int.from_bytes(data[after : after + 2], "big"))
        payload = data[after + 2 : at]
        sequential = marker in _SEQUENTIAL if marker in _FRAMES else sequential
        if marker == _SCAN:
            if sequential and len(payload) > _SCAN_REST:  # some phones write other numbers there, which nobody reads
                payload = payload[:-_SCAN_REST] + b"\0\x3f\0"
            end = next((m.start() for m in _MARKER.finditer(data, at) if m[0][-1] not in _RESTARTS), len(data))
            payload, at = payload + data[at:end], end
            kept.append(b"\xff\xda" + data[after : after + 2] + payload)
        elif is_needed := _needed(marker, payload):
            kept.append(bytes((0xFF, marker)) + struct.pack(">H", len(is_needed) + 2) + is_needed)
    if not any(part.startswith(b"\xff\xda") for part in kept):
        raise ValueError("truncated: it ends before its first scan")
    return b"".join(kept)


def _needed(marker: int, payload: bytes) -> bytes:
    """Return what pixels need of a segment: how colours are stored is all that they need of APP0 and APP14."""
    if marker == _APP0:
        return b"JFIF\0\1\1" + bytes(7) if payload.startswith(b"JFIF\0") and len(payload) >= _JFIF else b""
    if marker == _APP14:
        return payload if payload.startswith(b"Adobe") and len(payload) >= _ADOBE else b""
    return b"" if marker in _TOLD or marker == _COMMENT else payload


def intervals(plain_data: bytes, most: int) -> list[bytes] | None:
    """Return the pieces between restart markers, each as a JPEG of its own, of a `plain` one.

    None where that cannot be: several scans, no restarts or more than `most` pieces. Raises ValueError where markers
    lack or are not in order.
    """
    layout = _restarting(plain_data)
    if layout is None:
        return None
    frame_at, scan_at, each = layout
    height, width, number = struct.unpack_from(">HHB", plain_data, frame_at + 5)
    factors = [divmod(plain_data[frame_at + 11 + 3 * part], 16) for part in range(number)] if number > 1 else [(1, 1)]
    across, down = (8 * max(factor[side] for factor in factors) for side in (0, 1))
    columns, rows = -(-width // across), -(-height // down)
    total = -(-columns * rows // each)
    head = bytearray(plain_data[:scan_at])
    shape = (each // columns * down, width) if each % columns == 0 else (down, each * across)
    if total > most or max(shape) > MAX_SIDE:
        return None
    pieces, markers, start = [], [], scan_at
    for found in _RESTART.finditer(plain_data, scan_at):
        pieces.append(plain_data[start : found.start()])
        markers.append(found[0][-1] & 7)
        start = found.end()
    pieces.append(plain_data[start:].removesuffix(b"\xff\xd9"))
    if markers != [place % 8 for place in range(total - 1)]:
        raise ValueError(f"{len(markers)} restart markers, not all of {total - 1} and in order")
    made = []
    for place, piece in enumerate(pieces):
        left = columns * rows - place * each
        height, width = shape if left >= each else (down, left * across)
        if left < each and left % columns == 0:
            height, width = left // columns * down, columns * across
        struct.pack_into(">HH", head, frame_at + 5, height, width)
        made.append(bytes(head) + piece + b"\xff\xd9")
    return made


def _restarting(data: bytes) -> tuple[int, int, int] | None:
    """Return where the frame's marker and the scan's data of a `plain` JPEG begin, and the units between restarts."""
    frame_at, each, at = None, 0, 2
    while at + 4 <= len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _FRAMES:
            if marker not in _SEQUENTIAL:
                return None
            frame_at = at
        elif marker == _RESTART_INTERVAL:
            each = int.from_bytes(data[at + 4 : at + 6], "big")
        elif marker == _SCAN:
            has_all = frame_at is not None and data[at + 4] == data[frame_at + 9]
            if frame_at is None or not each or not has_all or data.count(b"\xff\xda") > 1:
                return None
            return frame_at, at + 2 + length, each
        at += 2 + length
    return None


def lacks_scans(plain_data: bytes) -> bool:
    """Whether the scans of a `plain` JPEG, not arithmetic coded, leave out some of its frame or of its precision."""
    lacking: set[tuple[int, int]] = set()  # component and number of a coefficient
    for marker, start, end in _markers(plain_data):
        payload = plain_data[start:end]
        if marker in _SEQUENTIAL | {_PROGRESSIVE} and len(payload) > _FRAME_HEAD:
            last = 63 if marker == _PROGRESSIVE else 0
            lacking = {(part, number) for part in payload[_FRAME_HEAD::3] for number in range(last + 1)}
        elif marker == _SCAN and len(payload) > _SCAN_REST + 1:
            first, last, precision = payload[-_SCAN_REST:]
            if not precision & 0xF:
                parts = payload[1 : 1 + 2 * payload[0] : 2]
                lacking -= {(part, number) for part in parts for number in range(first, last + 1)}
    return bool(lacking)


def _markers(plain_data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the markers of a `plain` JPEG that have a segment, with where its payload begins and ends."""
    at = 2
    while found := _MARKER.search(plain_data, at):
        marker, at = plain_data[found.end() - 1], found.end()
        if marker not in _ALONE:
            start, at = at + 2, at + int.from_bytes(plain_data[at : at + 2], "big")
            yield marker, start, at


def has_too_many_scans(data: bytes, header: Header) -> bool:
    """Whether decoders would go over the picture's pixels more than MAX_SCANS times."""
    # Coded data can hold no such pair, other segments and what follows the picture can: those few are walked through.
    if header.has_one_scan or data.count(b"\xff\xda") <= MAX_SCANS:
        return False
    scans, at = 0, 2
    while (found := _MARKER.search(data, at)) and (marker := data[found.end() - 1]) != _END:
        scans += marker == _SCAN
        at = found.end() + (0 if marker in _ALONE else int.from_bytes(data[found.end() : found.end() + 2], "big"))
    return scans > MAX_SCANS


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield markers up to the first scan's with where their payload begins and ends; _ODD where something else is.

    Of those _OF_NO_INTEREST only what is odd. Threads that check files wait for each other here, since it is Python
    that works: hence no search for a marker that is where it should be, no copy of a payload that nobody asks for, and
    the shortest way past most segments.
    """
    at, last = 2, len(data) - 4
    while True:
        while at <= last:
            first, marker, length = _BEGINNING.unpack_from(data, at)
            if first != 0xFF or marker not in _OF_NO_INTEREST or length < _LEAST_LENGTH:  # noqa: PLR2004
                break
            at += 2 + length
        if at <= last and data[at] == 0xFF and data[at + 1] not in _NO_MARKERS:  # noqa: PLR2004 - begins a marker
            start = at
            after = at + 2
        elif match := _MARKER.search(data, at):
            start, after = match.span()
        else:
            return
        marker = data[after - 1]
        length = 0 if marker in _ALONE else int.from_bytes(data[after : after + 2], "big")
        if start > at or length < _LEAST_LENGTH:
            yield _ODD, after, after
        if marker not in _ALONE:
            yield marker, after + 2, after + length
        if marker == _SCAN:
            return
        at = after + length
