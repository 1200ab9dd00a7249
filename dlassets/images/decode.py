"""From a file's bytes to pixels: upright RGB, whatever the file's format and colour mode.

JPEG goes through simplejpeg, everything else (and what simplejpeg refuses, such as CMYK) through Pillow.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dlassets.errors import DlassetsError
from dlassets.images import heif, jpeg, png, resampling, tiff, webp
from dlassets.images.colour import as_srgb
from dlassets.images.exif import orientation
from dlassets.images.jpeg import MAX_SCANS, MAX_SIDE, Header, has_too_many_scans, read_header

Pixels = npt.NDArray[np.uint8]
Resize = Callable[[Pixels, int], Pixels]

# The formats that Pillow reads by itself, as it calls them.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

# A larger picture is refused from its header. It is where Pillow, which decodes the other formats, refuses too.
MAX_PIXELS = 178_956_970

SIDE = 224
# Networks of this family were tested on the middle 224 of a picture whose shorter side is 256.
CROP_SHARE = 224 / 256


@dataclass(frozen=True)
class View:
    """What a network is shown of a photo: the middle square, `crop` of the shorter side, as `side` by `side` pixels."""

    side: int = SIDE
    crop: float = CROP_SHARE

    @property
    def at_least(self) -> int:
        """What the shorter side of a photo must be decoded at, so that nothing need be enlarged."""
        return round(self.side / self.crop)


USUAL_VIEW = View()

_JPEG_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
# What simplejpeg raises for what it does not read; a KeyError for a subsampling that has no name.
REFUSALS = (ValueError, KeyError)
# How Pillow names a file that has no name.
_NAMELESS = re.compile(r" <_io\.BytesIO object at 0x\w+>")
_ROWS = 256
# Of a large picture so many are worked on at a time: what comes in between takes several times their memory.
PIXELS_AT_ONCE = 1_000_000
_UPRIGHT: dict[int, Callable[[Any], Any]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).transpose(1, 0, 2),
    8: np.rot90,
}


class ImageError(DlassetsError):
    """The bytes are no picture that can be decoded."""


class BombError(ImageError):
    """Decoding would take memory or time out of all proportion: refused from the header."""


@dataclass(frozen=True)
class Photo:
    """A photo: upright RGB pixels, (height, width, 3), and how it is stored: mode in Pillow's names, and channels."""

    pixels: Pixels
    mode: str
    channels: int


def open_photo(data: bytes, at_least: int | None = None, max_pixels: int = MAX_PIXELS) -> Photo:
    """Open a photo, in the one way that there is: what `validate.check_image` finds nothing wrong with opens here.

    With `at_least`, a large JPEG may come smaller, its shorter side no less than that many pixels: decoding it so is
    several times faster. Colours are turned into sRGB where an embedded profile says that they are others. Transparent
    parts are shown on white, and a picture of which all is transparent as if nothing were; 16-bit pictures keep their
    upper 8 bits; of several frames or pages the first is read. Raises ImageError for what does not decode and for more
    than `max_pixels` (MAX_PIXELS at most), and MemoryError.
    """
    header = read_header(data)
    try:
        pixels = _decode_jpeg(data, header, at_least, max_pixels) if header else None
        if header is not None and pixels is not None:
            return Photo(pixels, _JPEG_MODES.get(header.components, "RGB"), header.components)
        image = load_with_pillow(data, header, max_pixels)
        return Photo(pixels_of(image), image.mode, len(image.getbands()))
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # bytes from anywhere make Pillow's parsers raise nearly anything
        message = _NAMELESS.sub("", str(error))
        raise ImageError(f"The bytes do not decode as a picture: {type(error).__name__}: {message}") from error


def decode_rgb(data: bytes, at_least: int | None = None) -> Pixels:
    """Return a photo's pixels upright, as (height, width, 3) RGB; see `open_photo`. Raises ImageError."""
    return open_photo(data, at_least).pixels


def viewable(data: bytes) -> bytes:
    """Return a photo as people's programs and browsers show it: HEIC and AVIF as JPEG, all else as it is.

    Raises ImageError.
    """
    return data if heif.format_of(data) is None else as_jpeg(data)


def as_jpeg(data: bytes) -> bytes:
    """Return a photo of any format as a JPEG. Raises ImageError."""
    jpeg_ = io.BytesIO()
    Image.fromarray(decode_rgb(data)).save(jpeg_, "JPEG", quality=90)
    return jpeg_.getvalue()


def load_with_pillow(data: bytes, header: Header | None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return the first picture of a file as it is stored, decoded; `header` is a JPEG's.

    Pillow is given what pixels need alone. Raises BombError, and nearly anything else.
    """
    told: dict[Any, Any] = {}
    formats: tuple[str, ...] = _FORMATS
    if header is not None:
        data, told = jpeg.plain(data), {"icc_profile": header.profile, "exif": header.exif}
    elif png.is_png(data) or webp.is_webp(data):
        data, exif, profile = (png if png.is_png(data) else webp).plain(data)
        told = {"icc_profile": profile, "exif": exif}
    elif tiff.is_tiff(data):
        data, told, tile = _plain_tiff(data)
        refuse_more_pixels(*tile, max_pixels)
    elif format_ := heif.format_of(data):
        for size in heif.sizes(data):
            refuse_more_pixels(*size, max_pixels)
        data, formats = heif.plain(data).data, (heif.pillow_name(format_),)
    with Image.open(io.BytesIO(data), formats=formats) as image:
        refuse_more_pixels(*image.size, max_pixels)
        image.load()
    image.info |= told
    image.info["unused_alpha"] = _is_unused(image)
    return image


def _plain_tiff(data: bytes) -> tuple[bytes, dict[Any, Any], tuple[int, int]]:
    """Return the TIFF that Pillow is given, what its tags say of its numbers, and the size of its tiles."""
    try:
        plain = tiff.plain(data)
    except tiff.InflatedError as error:
        raise BombError(str(error)) from error
    numbers = {"bits": plain.bits, "white_is_zero": plain.white_is_zero, "unsigned": plain.unsigned}
    return plain.data, numbers, plain.tile


def _is_unused(image: Image.Image) -> bool:
    """Whether the picture's alpha is nothing everywhere, as programs write it that know of none.

    One colour that nobody sees is an empty picture, in formats that have alpha from the beginning.
    """
    if image.mode not in {"RGBA", "LA", "PA"} or image.getchannel("A").getextrema() != (0, 0):
        return False
    colours = (image.getchannel(band).getextrema() for band in image.getbands()[:-1])
    return image.format in {"BMP", "TIFF"} or any(low != high for low, high in colours)


def pixels_of(image: Image.Image) -> Pixels:
    """Return what decode_rgb does, of a picture that Pillow has loaded."""
    profile: bytes | None = image.info.get("icc_profile")
    exif: bytes = image.info.get("exif") or b""
    if image.mode in {"I", "F"}:  # all of the picture says what is black
        image = _flattened(image)
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, PIXELS_AT_ONCE // max(1, width))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        part = image if rows >= height else image.crop((0, top, width, bottom))
        pixels[top:bottom] = np.asarray(as_srgb(_flattened(part), profile).convert("RGB"))
    # A TIFF and a HEIC come upright from Pillow, and without a block; of an AVIF the block says what its boxes do.
    return _upright(pixels, orientation(exif.removeprefix(b"Exif\0\0")))


def refuse_more_pixels(width: int, height: int, most: int = MAX_PIXELS) -> None:
    """Raise BombError for a larger picture than `most` pixels, and than MAX_PIXELS in any case."""
    if width * height > MAX_PIXELS:
        raise BombError(f"{width}x{height} pixels, more than the {MAX_PIXELS} that are ever decoded")
    if width * height > most:
        raise BombError(f"{width}x{height} pixels, more than {most}")


def refuse_endless(data: bytes, header: Header) -> None:
    """Raise BombError for a JPEG that goes over its pixels again and again, or is longer than libjpeg takes."""
    if max(header.size) > MAX_SIDE:
        width, height = header.size
        raise BombError(f"{width}x{height} pixels, and a JPEG is decoded up to {MAX_SIDE} a side")
    if has_too_many_scans(data, header):
        raise BombError(f"it goes over its pixels more than {MAX_SCANS} times")


def as_seen(
    data: bytes, view: View = USUAL_VIEW, *, resize: Resize = resampling.resize, max_pixels: int = MAX_PIXELS
) -> Pixels:
    """Return what a network sees of an image file, (side, side, 3).

    Raises ImageError for what does not decode, and for more pixels than that.
    """
    return resize_center_crop(open_photo(data, view.at_least, max_pixels).pixels, view, resize)


def resize_center_crop(pixels: Pixels, view: View = USUAL_VIEW, resize: Resize = resampling.resize) -> Pixels:
    """Return the middle of (height, width, 3) as (side, side, 3), resized bicubically with antialiasing.

    The usual view is what "resize the shorter side to 256, crop the middle 224" shows. The crop is taken first, so that
    only what is kept is resized. Pillow's resizing differs by a rounding, so that all look at a photo by `resampling`.
    """
    return resize(_middle(pixels, view.crop), view.side)


def _middle(pixels: Pixels, share: float) -> Pixels:
    height, width = pixels.shape[:2]
    side = max(1, round(min(height, width) * share))
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def _decode_jpeg(data: bytes, header: Header, at_least: int | None, max_pixels: int) -> Pixels | None:
    """Return the upright picture, or None where simplejpeg refuses it or must not have it, and Pillow has to say."""
    import simplejpeg

    refuse_endless(data, header)
    if not header.is_for_simplejpeg:
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except REFUSALS:
        return None
    if space in {"CMYK", "YCCK"}:  # simplejpeg would turn it into RGB whatever its profile says
        return None
    refuse_more_pixels(width, height, max_pixels)
    try:
        # libjpeg-turbo's vector code knows the whole and the half size, not the steps between: those cost more than
        # the whole, hence min_factor.
        least = at_least or max(height, width)
        pixels = simplejpeg.decode_jpeg(data, min_height=least, min_width=least, min_factor=2, strict=False)
    except REFUSALS:
        return None
    if header.profile:
        image = Image.fromarray(pixels)
        pixels = np.asarray(as_srgb(image.convert("L") if space == "Gray" else image, header.profile).convert("RGB"))
    return _upright(pixels, orientation(header.exif))


def _upright(pixels: Pixels, turn: int) -> Pixels:
    return pixels if turn == 1 else np.ascontiguousarray(_UPRIGHT[turn](pixels))


def _flattened(image: Image.Image) -> Image.Image:
    """Return the picture without transparency and with 8 bits a channel: L, RGB or CMYK."""
    if image.mode.startswith("I;16"):  # Pillow would clip at 255
        shown = (np.asarray(image) >> image.info.get("bits", 16) - 8).astype(np.uint8)
        return Image.fromarray(~shown if image.info.get("white_is_zero") else shown)
    if image.mode in {"I", "F"}:
        values = np.asarray(image)
        is_unsigned = image.mode == "I" and image.info.get("unsigned") and image.info["bits"] == 32  # noqa: PLR2004
        shown = _stretched(values.view(np.uint32) if is_unsigned else values)
        return Image.fromarray(~shown if image.info.get("white_is_zero") else shown)
    if image.info.get("unused_alpha"):
        return image.convert("RGBA").convert("RGB")
    base = Image.getmodebase(image.mode)
    if image.has_transparency_data:
        seen = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        ground = Image.new("RGBA", seen.size, "white")
        return Image.alpha_composite(ground, seen).convert(base)
    return image if image.mode in {base, "CMYK"} else image.convert(base)


def _stretched(values: npt.NDArray[Any]) -> Pixels:
    """Show numbers that have no range of their own: the least becomes black, the greatest white, holes black."""
    rows = [values[start : start + _ROWS] for start in range(0, len(values), _ROWS)]  # memory for a few at a time
    ends = [(float(finite.min()), float(finite.max())) for part in rows if (finite := part[np.isfinite(part)]).size]
    low, high = min((low for low, _ in ends), default=0.0), max((high for _, high in ends), default=0.0)
    scale = 255 / (high - low) if high > low else 0.0
    shown = np.empty(values.shape, np.uint8)
    for part, out in zip(rows, np.array_split(shown, range(_ROWS, len(values), _ROWS)), strict=True):
        known = np.nan_to_num(part.astype(np.float64), nan=low, posinf=high, neginf=low)
        out[...] = (known - low) * scale
    return shown
