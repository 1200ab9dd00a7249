"""The kernel every arriving file goes through: its hash, and whether it is a usable image."""

from __future__ import annotations

import hashlib
import io
import re
from enum import StrEnum
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from dlassets.images.decode import FORMATS, MAX_PIXELS, is_jpeg
from dlassets.images.folders import folder_label, folder_of

if TYPE_CHECKING:
    import pyarrow as pa

# Pillow calls a JPEG with further pictures behind the first (many phones write them) MPO.
_ALLOWED = frozenset({*FORMATS, "MPO"})
# What begins as a picture and does not decode was cut short or damaged on the way.
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*")


class Reason(StrEnum):
    """Why a file is quarantined. TRUNCATED is a picture cut short or damaged: not all of it decodes."""

    EMPTY = "empty"
    TRUNCATED = "truncated"
    NOT_AN_IMAGE = "not_an_image"
    FORMAT_NOT_ALLOWED = "format_not_allowed"
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"
    BAD_LABEL_FOLDER = "bad_label_folder"


Finding = tuple[Reason, str] | None


def validate_files(
    batch: pa.RecordBatch, *, max_file_bytes: int, max_pixels: int, label_rule: str | None = None
) -> pa.RecordBatch:
    """Hash and check files: a kernel. One bad file is one row that says so, never an error.

    `batch` has path (`<zone>/<path within it>`), modificationTime, length and content (null where the file could not
    be read). The same columns come back with image_id (the hexadecimal SHA-256 of the bytes; null without bytes),
    reason (a Reason, null for a usable image) and detail. With `label_rule`, the parent folder must match it and its
    group `label` be a whole number. `max_pixels` above decode.MAX_PIXELS allows no more than that.
    """
    import pyarrow as pa

    rule = None if label_rule is None else re.compile(label_rule)
    hashes: list[str | None] = []
    findings: list[Finding] = []
    columns = (batch.column(name) for name in ("path", "length", "content"))
    for path, length, content in zip(*columns, strict=True):
        data = content.as_py()
        hashes.append(None if data is None else hashlib.sha256(data).hexdigest())
        finding = _check_file(data, length.as_py(), max_file_bytes, max_pixels)
        findings.append(finding or _check_folder(path.as_py(), rule))
    added = {
        "image_id": hashes,
        "reason": [finding and str(finding[0]) for finding in findings],
        "detail": [finding and finding[1] for finding in findings],
    }
    for name, values in added.items():
        batch = batch.append_column(name, pa.array(values, pa.string()))
    return batch


def check_image(data: bytes, max_pixels: int) -> Finding:
    """Return what is wrong with a picture's bytes, None where all of them decode. Never raises."""
    try:
        return _check_jpeg(data, max_pixels) if is_jpeg(data) else _check_with_pillow(data, max_pixels)
    except Image.DecompressionBombError as error:
        return Reason.TOO_LARGE, str(error)
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise nearly anything, and all of it is recorded
        return _failed(data, error)


def _check_file(data: bytes | None, length: int | None, max_file_bytes: int, max_pixels: int) -> Finding:
    size = max(length or 0, len(data or b""))
    if size > max_file_bytes:
        return Reason.TOO_LARGE, f"{size} bytes, more than {max_file_bytes}"
    if size == 0:
        return Reason.EMPTY, "0 bytes"
    if data is None:
        return Reason.UNREADABLE, "the file could not be read"
    if len(data) < size:
        return Reason.TRUNCATED, f"{len(data)} bytes of {size}"
    return check_image(data, max_pixels)


def _check_folder(path: str, rule: re.Pattern[str] | None) -> Finding:
    if rule is None or folder_label(folder_of(path), rule) is not None:
        return None
    return Reason.BAD_LABEL_FOLDER, f"folder {folder_of(path)!r} gives no label by the rule {rule.pattern}"


def _check_jpeg(data: bytes, max_pixels: int) -> Finding:
    import simplejpeg

    try:
        height, width = simplejpeg.decode_jpeg_header(data, strict=False)[:2]
    except ValueError:
        return _check_with_pillow(data, max_pixels)
    if finding := _check_pixels(width, height, max_pixels):
        return finding
    try:
        # A tiny greyscale picture still takes reading every scan to its end marker, and nothing is cheaper.
        simplejpeg.decode_jpeg(data, colorspace="GRAY", min_height=1, min_width=1, strict=True)
    except ValueError as error:
        said = str(error)
        if "remature end" in said:
            return Reason.TRUNCATED, said
        return _check_with_pillow(data, max_pixels)  # what simplejpeg does not read (CMYK), and harmless warnings
    return None


def _check_with_pillow(data: bytes, max_pixels: int) -> Finding:
    with Image.open(io.BytesIO(data)) as image:
        if image.format not in _ALLOWED:
            return Reason.FORMAT_NOT_ALLOWED, f"{image.format}; allowed: {', '.join(FORMATS)}"
        if finding := _check_pixels(*image.size, max_pixels):
            return finding
        if image.format == "PNG":
            image.verify()  # reads every chunk's checksum, which load() does not
    with Image.open(io.BytesIO(data)) as image:
        image.load()
    return None


def _check_pixels(width: int, height: int, max_pixels: int) -> Finding:
    limit = min(max_pixels, MAX_PIXELS)
    if width * height <= limit:
        return None
    return Reason.TOO_LARGE, f"{width}x{height} pixels, more than {limit}"


def _failed(data: bytes, error: Exception) -> tuple[Reason, str]:
    if data[4:8] == b"ftyp":
        return Reason.FORMAT_NOT_ALLOWED, f"{data[8:12]!r} (HEIC, or a video); allowed: {', '.join(FORMATS)}"
    begins_well = data.startswith(_BEGINNINGS) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
    if isinstance(error, UnidentifiedImageError):  # its text is the address of a buffer
        said = f"begins with {data[:8]!r}"
    else:
        said = f"{type(error).__name__}: {error}"
    return (Reason.TRUNCATED if begins_well else Reason.NOT_AN_IMAGE), said
