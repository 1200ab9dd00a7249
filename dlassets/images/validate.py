"""The kernel every arriving file goes through: its hash, and whether it is a usable image."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from dlassets.images import heif, kinds
from dlassets.images.decode import (
    REFUSALS,
    BombError,
    load_with_pillow,
    pixels_of,
    refuse_endless,
    refuse_more_pixels,
)
from dlassets.images.digest import image_id_of
from dlassets.images.exif import TIFF_BEGINNINGS
from dlassets.images.folders import LabelRule, folder_of
from dlassets.images.jpeg import Header, intervals, lacks_scans, plain, read_header
from dlassets.images.tiff import RawFileError, UnreadKindError
from dlassets.settings import FORMATS
from dlassets.storage.files import READ_ERROR

if TYPE_CHECKING:
    import pyarrow as pa

# What begins as a picture and does not decode was cut short or damaged on the way.
_BEGINNINGS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    **dict.fromkeys(TIFF_BEGINNINGS, "TIFF"),
}
# What libjpeg says of coded data that is not what was written. Other warnings (a few bytes too many, an unknown
# revision) are about pictures that are whole.
_DAMAGE = re.compile(r"remature end|bad (Huffman|arithmetic) code|instead of RST|Inconsistent progression")
# Bytes left over before a restart: padding of some webcams, or what damaged data left.
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0xd[0-79]")
_BETWEEN_SCANS = re.compile(r"(\d+) extraneous bytes before marker 0x(c4|da|db|dd)")
_AT_THE_END = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_SCAN = b"\xff\xda"
_PADDING = frozenset({0x00, 0xFF})
_ALIGNED = 16  # bytes, of anything, that cameras fill a picture up with
_MOST_INTERVALS, _MOST_PADDED = 20_000, 12
_CMYK = 4
# What decoders say of a picture that is as its format allows, and of a kind that they do not read.
_UNREAD = re.compile(
    r"nsupported|not supported|not implemented|cannot handle|unknown (pixel mode|data organization)|decoder \w+ not",
    re.IGNORECASE,
)
# What they say of a picture that was cut short or damaged.
_CUT = re.compile(
    r"truncated|broken|cut|damaged|corrupt|premature|unexpected end|not enough|unrecognized data|decoder error"
    r"|[Mm]issing|no more|not a (TIFF|BMP|GIF|PNG|JPEG)|EOF|unpack|not identified by|could not create decoder",
    re.IGNORECASE,
)
_BOMB = re.compile(r"too large|MAX_TEXT|exceeds limit|Security limit")
LONGEST_DETAIL = 500


class Reason(StrEnum):
    """Why a file is quarantined. TRUNCATED is a picture cut short or damaged: not all of it decodes.

    UNREADABLE says nothing of the file: storage did not give it, or a decoder failed in a way that is not known. It is
    tried again. FORMAT_OFF is a photo of a format that settings leave out, or whose decoder is not installed: it is
    tried again once that has changed. LINK_OUTSIDE is a link that leads where the landing zone's settings do not allow:
    it is not followed. FAILED is a photo that was taken in, and that a later step fails for.
    """

    EMPTY = "empty"
    TRUNCATED = "truncated"
    NOT_AN_IMAGE = "not_an_image"
    FORMAT_NOT_ALLOWED = "format_not_allowed"
    FORMAT_OFF = "format_off"
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"
    BAD_LABEL_FOLDER = "bad_label_folder"
    LINK_OUTSIDE = "link_outside"
    FAILED = "failed"


Finding = tuple[Reason, str] | None


def validate_files(
    batch: pa.RecordBatch,
    *,
    max_file_bytes: int,
    max_pixels: int | None,
    formats: Sequence[str] = FORMATS,
    label_rule: LabelRule | None = None,
) -> pa.RecordBatch:
    """Hash and check files: a kernel. One bad file is one row that says so, never an error.

    `batch` has path (`<zone>/<path within it>`), modificationTime, length and content (null where the file could not
    be read), and may have read_error, which says why, and leads_to, of a link that may not be followed. All that comes
    back with image_id (the hexadecimal SHA-256 of the bytes; null without bytes), reason (a Reason, null for a usable
    image) and detail. With `label_rule`, the path must say a class by it. Photos of other `formats` are off.
    `max_pixels` above decode.MAX_PIXELS allows no more than that; where it is None, the files are no images, and their
    bytes are of any kind.
    """
    import pyarrow as pa

    hashes: list[str | None] = []
    findings: list[Finding] = []
    paths, lengths = batch.column("path").to_pylist(), batch.column("length").to_pylist()
    columns = paths, lengths, batch.column("content"), _texts(batch, READ_ERROR), _texts(batch, "leads_to")
    for path, length, content, error, target in zip(*columns, strict=True):
        data = content.as_py()  # a file at a time: all of a batch would be a second copy of it
        hashes.append(None if data is None else image_id_of(data))
        if target is not None:
            findings.append((Reason.LINK_OUTSIDE, f"leads to {target}, which landing.<zone>.links does not allow"))
            continue
        finding = _check_size(data, length, max_file_bytes)
        if data is not None and max_pixels is not None and not finding:
            finding = check_image(data, max_pixels, formats) or _check_name(path, data)
        if finding and finding[0] == Reason.UNREADABLE and error:
            finding = Reason.UNREADABLE, f"{finding[1]}: {error}"[:LONGEST_DETAIL]
        findings.append(finding or _check_folder(path, label_rule))
    added = {
        "image_id": hashes,
        "reason": [finding and str(finding[0]) for finding in findings],
        "detail": [finding and finding[1] for finding in findings],
    }
    for name, values in added.items():
        batch = batch.append_column(name, pa.array(values, pa.string()))
    return batch


def check_image(data: bytes, max_pixels: int, formats: Sequence[str] = FORMATS) -> Finding:
    """Return what is wrong with a picture's bytes, None where decode_rgb decodes all of them. Never raises."""
    format_ = _begins_as(data)
    if format_ is not None and (off := kinds.why_off(format_, formats)):
        return Reason.FORMAT_OFF, off
    header = read_header(data)
    try:
        return _check_jpeg(data, header, max_pixels) if header else _check_with_pillow(data, None, max_pixels)
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise nearly anything, and all of it is recorded
        reason, detail = _reason_of(error, data, header)
        return reason, detail[:LONGEST_DETAIL]


def _texts(batch: pa.RecordBatch, name: str) -> list[str | None]:
    """Return a column that a batch may lack."""
    return batch.column(name).to_pylist() if name in batch.schema.names else [None] * batch.num_rows


def _check_size(data: bytes | None, length: int | None, max_file_bytes: int) -> Finding:
    size = max(length or 0, len(data or b""))
    if size > max_file_bytes:
        return Reason.TOO_LARGE, f"{size} bytes, more than {max_file_bytes}"
    if size == 0:
        return Reason.EMPTY, "0 bytes"
    if data is None:
        return Reason.UNREADABLE, "the file could not be read"
    if len(data) < size:
        return Reason.TRUNCATED, f"{len(data)} bytes of {size}"
    return None


def _check_name(path: str, data: bytes) -> Finding:
    """Refuse a camera's raw file that does not say so: it is a TIFF whose picture is a preview."""
    is_raw = data.startswith(TIFF_BEGINNINGS) and kinds.kind_of_name(path) is kinds.RAW
    return (Reason.FORMAT_NOT_ALLOWED, kinds.RAW.message) if is_raw else None


def _check_folder(path: str, label_rule: LabelRule | None) -> Finding:
    if label_rule is None or label_rule.class_of(path):
        return None
    what = "the path" if label_rule.of_path else f"folder {folder_of(path)!r}"
    why = label_rule.why_none(path) or f"gives no label by the rule {label_rule.pattern}"
    return Reason.BAD_LABEL_FOLDER, f"{what} {why}"


def _check_jpeg(data: bytes, header: Header, max_pixels: int) -> Finding:
    refuse_endless(data, header)
    refuse_more_pixels(*header.size, max_pixels)
    given, is_cmyk = data, header.components == _CMYK
    if not header.is_for_simplejpeg:
        given = plain(data)
        of_given = read_header(given)
        if of_given is None or not of_given.is_for_simplejpeg:
            return _check_with_pillow(data, header, max_pixels)
        refuse_more_pixels(*of_given.size, max_pixels)
    warning = _first_warning(given, is_cmyk=is_cmyk)
    if warning and not _DAMAGE.search(warning):
        # libjpeg tells of its first warning alone: what follows shows without what that is of.
        given = plain(data)
        warning = _first_warning(given, is_cmyk=is_cmyk)
        for _ in range(_MOST_PADDED):
            if warning is None or (shorter := _without_padding(given, warning)) is None:
                break
            given, warning = shorter, _first_warning(shorter, is_cmyk=is_cmyk)
        if warning and _BETWEEN_SCANS.search(warning):
            return Reason.TRUNCATED, f"premature end, or bytes lost: {warning}"
        if warning and _LEFT_OVER.search(warning):
            warning = _first_damage(given, warning, is_cmyk=is_cmyk)
    if warning is None and not is_cmyk:
        return None
    if warning and _DAMAGE.search(warning):
        return Reason.TRUNCATED, warning
    # What simplejpeg does not read, and harmless warnings.
    return _check_with_pillow(data, header, max_pixels)


def _first_warning(data: bytes, *, is_cmyk: bool) -> str | None:
    import simplejpeg

    colours = "CMYK" if is_cmyk else "GRAY"
    try:
        # A tiny greyscale picture still takes reading every scan to its end marker, and nothing is cheaper.
        simplejpeg.decode_jpeg(data, colorspace=colours, min_height=1, min_width=1, strict=True)
    except REFUSALS as error:
        return str(error)
    return None


def _without_padding(whole: bytes, warning: str) -> bytes | None:
    """Return the JPEG without the padding between two scans that libjpeg has warned of; None where it is of no such."""
    if (said := _BETWEEN_SCANS.search(warning)) is None:
        return None
    number, marker = int(said[1]), bytes.fromhex(f"ff{said[2]}")
    at = whole.find(marker, whole.find(_SCAN))
    while at > 0:
        if _is_padding(whole[:at], number):
            return whole[: at - number] + whole[at:]
        at = whole.find(marker, at + 1)
    return None


def _is_padding(data: bytes, number: int) -> bool:
    """Whether so many bytes at the end are padding."""
    return {*data[-number:]} <= _PADDING


def _first_damage(whole: bytes, warning: str, *, is_cmyk: bool) -> str | None:
    """Return the first warning that is of damage where some bytes are left over before markers; None where none is.

    Padding is of bits that are all the same. Pieces between restarts are decoded one by one: each tells of itself.
    """
    left_over = _AT_THE_END.search(warning)
    if left_over is not None:  # all that there is was decoded before, padding in the place of lost bytes as well
        if (number := int(left_over[1])) > _ALIGNED and not _is_padding(whole[:-2], number):
            return f"premature end, or bytes lost: {warning}"
        return f"premature end: its last scans are missing; {warning}" if lacks_scans(whole) else None
    try:
        pieces = intervals(whole, _MOST_INTERVALS)
    except ValueError as error:
        return f"premature end, or bytes lost: {error}"
    for piece in [] if pieces is None else pieces:
        said = _first_warning(piece, is_cmyk=is_cmyk)
        left = _LEFT_OVER.search(said) if said else None
        if left is None and said is not None:
            return said
        if left is not None and not _is_padding(piece[:-2], int(left[1])):
            return f"premature end, or bytes lost: {said}"
    return None if pieces is not None else f"premature end, or bytes lost: {warning}"


def _check_with_pillow(data: bytes, header: Header | None, max_pixels: int) -> Finding:
    corner = load_with_pillow(data, header, max_pixels).crop((0, 0, 1, 1))
    pixels_of(corner)  # whether what was loaded can be shown as RGB shows in one pixel, too
    return None


def _begins_as(data: bytes) -> str | None:
    """Return the allowed format that the first bytes announce."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:2] == b"BM" and not any(data[15:18]):  # upper bytes of its header's size: a text can begin with BM, too
        return "BMP"
    if (format_ := heif.format_of(data)) is not None:
        return format_
    return next((format_ for beginning, format_ in _BEGINNINGS.items() if data.startswith(beginning)), None)


def _reason_of(error: Exception, data: bytes, header: Header | None) -> tuple[Reason, str]:
    """Return what a file is quarantined for whose decoding ended in `error`."""
    format_ = _begins_as(data)
    if isinstance(error, BombError | Image.DecompressionBombError | Image.DecompressionBombWarning):
        return Reason.TOO_LARGE, str(error)
    if isinstance(error, MemoryError):
        return Reason.UNREADABLE, "there was not enough memory to decode it"
    if format_ is None:
        return _of_another_format(data)
    if isinstance(error, UnidentifiedImageError):
        error = _why_unidentified(data, format_) or error
    detail = f"{type(error).__name__}: {error}"
    if _BOMB.search(detail):
        return Reason.TOO_LARGE, detail
    is_unread = isinstance(error, UnreadKindError) or isinstance(error.__cause__, KeyError) or _UNREAD.search(detail)
    if is_unread or (header and header.is_for_nobody):
        kind = f"a kind of {format_} that is not read: {detail}"
        return Reason.FORMAT_NOT_ALLOWED, kinds.RAW.message if isinstance(error, RawFileError) else kind
    # What their decoders say of damage has no words of its own, and the same bytes have the same end.
    is_cut = format_ in {heif.HEIC, heif.AVIF} or _CUT.search(detail)
    return Reason.TRUNCATED if is_cut else Reason.UNREADABLE, detail


def _of_another_format(data: bytes) -> tuple[Reason, str]:
    if (kind := kinds.kind_of(data)) is not None:
        return Reason.FORMAT_NOT_ALLOWED if kind.is_picture else Reason.NOT_AN_IMAGE, kind.message
    try:
        with Image.open(io.BytesIO(data)) as image:
            advice = f"convert it to one of {', '.join(FORMATS)}"
            return Reason.FORMAT_NOT_ALLOWED, f"{image.format} is not taken in: {advice}"
    except Exception:  # noqa: BLE001 - as above
        return Reason.NOT_AN_IMAGE, f"no picture that is known: it begins with {data[:8]!r}"


def _why_unidentified(data: bytes, format_: str) -> Exception | None:
    """Return what the format's own reader says, which Image.open keeps to itself."""
    try:
        Image.OPEN[heif.pillow_name(format_)][0](io.BytesIO(data), "")
    except Exception as error:  # noqa: BLE001 - as above
        return error
    return None
