"""A WebP as its pixels need it: without the chunks that only tell of it, and of several frames the first."""

from __future__ import annotations

import struct

from dlassets.images.png import Plain

_HEAD = 12  # RIFF, the length, WEBP
_PIXELS = frozenset({b"ANIM", b"ALPH", b"VP8 ", b"VP8L"})
_FRAME, _EXTENDED = b"ANMF", b"VP8X"
_NO_METADATA = 0xFF & ~(0x20 | 0x08 | 0x04)  # the flags that profile, EXIF and XMP are there


def is_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def plain(data: bytes) -> Plain:
    """Return the WebP without what no pixel needs; what is cut short stays so. Never raises."""
    at, kept, told, has_frame = _HEAD, [], {b"EXIF": b"", b"ICCP": b""}, False
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        payload = data[at + 8 : at + 8 + length]
        if kind in told and len(payload) == length:
            told[kind] = payload
        if kind == _EXTENDED and payload:
            kept.append(data[at : at + 8] + bytes([payload[0] & _NO_METADATA]) + payload[1:])
        elif kind in _PIXELS or (kind == _FRAME and not has_frame):
            kept.append(data[at : at + 8] + payload + b"\0" * (len(payload) == length and length % 2))
            has_frame = has_frame or kind == _FRAME
        at += 8 + length + length % 2
    body = b"WEBP" + b"".join(kept)
    return Plain(b"RIFF" + struct.pack("<I", len(body)) + body, told[b"EXIF"], told[b"ICCP"])
