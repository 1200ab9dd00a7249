"""What the camera wrote down of a photo: when, with what and where it was taken."""

from __future__ import annotations

import datetime as dt
import math
import re
import struct
from typing import Any

from dlassets.images import heif
from dlassets.images.exif import TIFF_BEGINNINGS, Value, read_tags
from dlassets.images.jpeg import read_header

_MAKER, _MODEL = 0x010F, 0x0110
_PHOTO, _TAKEN, _OFFSET = 0x8769, 0x9003, 0x9011
_PLACE, _NORTH_OR_SOUTH, _LATITUDE, _EAST_OR_WEST, _LONGITUDE = 0x8825, 1, 2, 3, 4
_TIME = re.compile(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)")
_ZONE = re.compile(r"([+-])(\d\d):([0-5]\d)")
_PNG = b"\x89PNG\r\n\x1a\n"
_PARTS = 3  # degrees, minutes, seconds


def capture(data: bytes) -> dict[str, Any]:
    """Return taken_at (UTC), camera, latitude and longitude (degrees) by a photo's EXIF, None for what it does not say.

    taken_at is the camera's own clock taken as UTC where it noted no zone. No pixel is decoded. What
    is broken, out of range or in no format with EXIF is None; never raises.
    """
    block = _exif(data)
    photo = read_tags(block, _TAKEN, _OFFSET, within=_PHOTO)
    place = read_tags(block, _NORTH_OR_SOUTH, _LATITUDE, _EAST_OR_WEST, _LONGITUDE, within=_PLACE)
    device = read_tags(block, _MAKER, _MODEL)
    return {
        "taken_at": _time(_text(photo.get(_TAKEN)), _text(photo.get(_OFFSET))),
        "camera": _camera(_text(device.get(_MAKER)), _text(device.get(_MODEL))),
        "latitude": _degrees(place.get(_LATITUDE), _text(place.get(_NORTH_OR_SOUTH)), "NS", 90),
        "longitude": _degrees(place.get(_LONGITUDE), _text(place.get(_EAST_OR_WEST)), "EW", 180),
    }


def _exif(data: bytes) -> bytes:
    if header := read_header(data):
        return header.exif
    if data.startswith(_PNG):
        return _chunk(data, len(_PNG), ">I4s", b"eXIf", 4)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _chunk(data, 12, "<4sI", b"EXIF", 0).removeprefix(b"Exif\0\0")
    if heif.format_of(data):
        return heif.plain(data).exif
    return data if data.startswith(TIFF_BEGINNINGS) else b""


def _chunk(data: bytes, at: int, head: str, wanted: bytes, checksum: int) -> bytes:
    """Return the first chunk of a name; `head` is how its name and length stand, in either order."""
    while at + 8 <= len(data):
        kind, length = sorted(struct.unpack_from(head, data, at), key=lambda part: isinstance(part, int))
        if kind == wanted:
            return data[at + 8 : at + 8 + length]
        at += 8 + length + (checksum or length % 2)  # RIFF fills up to an even length
    return b""


def _text(value: Value | None) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


def _time(taken: str, offset: str) -> dt.datetime | None:
    found, zone = _TIME.fullmatch(taken), _ZONE.fullmatch(offset)
    if found is None:
        return None
    ahead = dt.timedelta()
    if zone is not None:
        ahead = dt.timedelta(hours=int(zone[2]), minutes=int(zone[3])) * (-1 if zone[1] == "-" else 1)
    year, month, day, hour, minute, second = map(int, found.groups())
    try:
        return dt.datetime(year, month, day, hour, minute, second, tzinfo=dt.UTC) - ahead
    except (ValueError, OverflowError):  # no such day, or before the year 1
        return None


def _camera(maker: str, model: str) -> str | None:
    """Return maker and model; the model alone where it names the maker, as in NIKON CORPORATION, NIKON D90."""
    named = maker and model.casefold().startswith(maker.split(maxsplit=1)[0].casefold())
    return (model if named else f"{maker} {model}".strip()) or None


def _degrees(value: Value | None, side: str, sides: str, most: float) -> float | None:
    if not isinstance(value, tuple) or len(value) != _PARTS or side.upper() not in set(sides):
        return None
    degrees, minutes, seconds = value
    angle = degrees + minutes / 60 + seconds / 3600
    if min(value) < 0 or not math.isfinite(angle) or angle > most:
        return None
    return -angle if side.upper() == sides[1] else angle
