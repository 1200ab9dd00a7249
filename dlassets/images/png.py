"""A PNG as its pixels need it: without the chunks that only tell of it."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

BEGINNING = b"\x89PNG\r\n\x1a\n"
# Names with a small first letter are of chunks that a picture can be shown without; of these alone pixels depend.
_NEEDED_TOO = frozenset({b"tRNS"})
_MOST_PROFILE = 16 * 2**20  # unpacked: no honest profile is larger
_IS_ANCILLARY = 0x20


class Plain(NamedTuple):
    """A file of the needed chunks alone; its EXIF block and ICC profile, empty where there is none that is whole."""

    data: bytes
    exif: bytes
    profile: bytes


def is_png(data: bytes) -> bool:
    return data.startswith(BEGINNING)


def plain(data: bytes) -> Plain:
    """Return the PNG without what no pixel needs. Raises ValueError where what is needed is cut short or damaged."""
    at, view = len(BEGINNING), memoryview(data)
    kept: list[bytes | memoryview] = [BEGINNING]
    exif, profile = b"", b""
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        is_needed = not kind[0] & _IS_ANCILLARY or kind in _NEEDED_TOO
        if is_needed or kind in {b"eXIf", b"iCCP"}:
            is_whole = (
                end <= len(data) and zlib.crc32(view[at + 4 : end - 4]) == struct.unpack_from(">I", data, end - 4)[0]
            )
            if is_needed and not is_whole:
                raise ValueError(f"truncated or damaged: the chunk {kind!r} is not what its checksum says")
            if is_needed:
                kept.append(view[at:end])
            elif is_whole and kind == b"eXIf":
                exif = data[at + 8 : end - 4]
            elif is_whole:
                profile = _unpacked(data[at + 8 : end - 4])
        if kind == b"IEND":
            return Plain(b"".join(kept), exif, profile)
        at = end
    raise ValueError("truncated: it ends before its last chunk")


def _unpacked(payload: bytes) -> bytes:
    """Return the profile of an iCCP chunk; empty where it is broken or unpacks to more than any has."""
    packed = payload.partition(b"\0")[2][1:]
    unpacking = zlib.decompressobj()
    try:
        profile = unpacking.decompress(packed, _MOST_PROFILE)
    except zlib.error:
        return b""
    return profile if unpacking.eof else b""
