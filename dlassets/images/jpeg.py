"""The header of a JPEG: what must be known of it before a decoder sees it."""

from __future__ import annotations

import re
from collections.abc import Iterator

# The processes that simplejpeg decodes: Huffman or arithmetic coded, sequential or progressive, by cosine transform.
# A lossless JPEG must never reach it: asked for a smaller picture, it writes the whole one over other memory.
_READ_BY_SIMPLEJPEG = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
# Hierarchical, lossless and arithmetic coded at once, and JPEG-LS.
_READ_BY_NONE = frozenset({0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7})
_SEQUENTIAL = frozenset({0xC0, 0xC1, 0xC9})
_FRAMES = frozenset({*_READ_BY_SIMPLEJPEG, *_READ_BY_NONE, 0xC3})
_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})  # markers without a segment
_ODD = 0
_LEAST_LENGTH = 2
_SCAN, _END, _APP1, _APP2 = 0xDA, 0xD9, 0xE1, 0xE2
_EXIF, _ICC = b"Exif\0\0", b"ICC_PROFILE\0"
# In coded data every byte 0xFF has a zero behind it, or is a restart, which stands alone.
_MARKER = re.compile(rb"\xff+[^\x00\xff]")

# Writers make about ten. Each one goes over every pixel again, so a small file of many would take hours to decode.
MAX_SCANS = 100


def is_jpeg(data: bytes) -> bool:
    return data[:3] == b"\xff\xd8\xff"


def is_for_simplejpeg(data: bytes) -> bool:
    """Whether simplejpeg may be given this JPEG. One with anything unusual before its frame header is Pillow's."""
    return _process(data) in _READ_BY_SIMPLEJPEG


def is_for_nobody(data: bytes) -> bool:
    """Whether this JPEG is of a kind that no decoder here reads."""
    return _process(data) in _READ_BY_NONE


def _process(data: bytes) -> int | None:
    """Return the marker of the frame header, None where anything odd comes first: decoders differ in what they skip."""
    found = next((marker for marker, _ in _segments(data) if marker in _FRAMES or marker == _ODD), _ODD)
    return None if found == _ODD else found


def has_too_many_scans(data: bytes) -> bool:
    """Whether decoders would go over the picture's pixels more than MAX_SCANS times."""
    # Coded data can hold no such pair, other segments and what follows the picture can: those few are walked through.
    if _has_one_scan(data) or data.count(b"\xff\xda") <= MAX_SCANS:
        return False
    scans, at = 0, 2
    while (found := _MARKER.search(data, at)) and (marker := data[found.end() - 1]) != _END:
        scans += marker == _SCAN
        at = found.end() + (0 if marker in _ALONE else int.from_bytes(data[found.end() : found.end() + 2], "big"))
    return scans > MAX_SCANS


def _has_one_scan(data: bytes) -> bool:
    """Whether the first scan has every component as a whole: decoders look for no second one."""
    components = None
    for marker, payload in _segments(data):
        if marker == _ODD:
            return False
        if marker in _SEQUENTIAL and components is None:
            components = payload[5:6]
        if marker == _SCAN:
            return components is not None and payload[:1] == components
    return False


def metadata(data: bytes) -> tuple[bytes, bytes]:
    """Return the EXIF block and the ICC profile, each empty where there is none."""
    exif, profile = b"", []
    for marker, payload in _segments(data):
        if marker == _APP1 and payload.startswith(_EXIF):
            exif += payload[len(_EXIF) :]  # one of more than 64 kB goes on in the next segment
        elif marker == _APP2 and payload.startswith(_ICC):
            profile.append(payload[len(_ICC) :])
    profile.sort(key=lambda part: part[:1])  # each part begins with its number, and how many there are
    return exif, b"".join(part[2:] for part in profile)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and payload up to the first scan's header, and _ODD where the standard has something else."""
    at = 2
    while found := _MARKER.search(data, at):
        marker = data[found.end() - 1]
        length = 0 if marker in _ALONE else int.from_bytes(data[found.end() : found.end() + 2], "big")
        if found.start() > at or length < _LEAST_LENGTH:
            yield _ODD, b""
        if marker not in _ALONE:
            yield marker, data[found.end() + 2 : found.end() + length]
        if marker == _SCAN:
            return
        at = found.end() + length
