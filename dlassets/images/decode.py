"""From a file's bytes to pixels: upright RGB, whatever the file's format and colour mode.

JPEG goes through simplejpeg, everything else (and what simplejpeg refuses, such as CMYK) through Pillow.
"""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from dlassets.errors import DlassetsError

if TYPE_CHECKING:
    from collections.abc import Callable

Pixels = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

# A larger picture is refused from its header. It is where Pillow, which decodes the other formats, refuses too.
MAX_PIXELS = 178_956_970

SIDE = 224
# Networks of this family were tested on the middle 224 of a picture whose shorter side is 256.
CROP_SHARE = 224 / 256
SHORTER_SIDE = 256

_ORIENTATION = 0x0112
_EXIF_MARK = b"Exif\0\0"
_SEGMENT = 65_536  # a JPEG segment, and so its EXIF block, is no longer
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


def decode_rgb(data: bytes, at_least: int | None = None) -> Pixels:
    """Return the picture upright, as (height, width, 3) RGB.

    With `at_least`, a large JPEG may come smaller, its shorter side no less than that many pixels: decoding it so is
    several times faster. Transparent parts are shown on white; 16-bit pictures keep their upper 8 bits; of several
    frames the first is read. Raises ImageError for what does not decode and for more than MAX_PIXELS.
    """
    try:
        pixels = _decode_jpeg(data, at_least) if is_jpeg(data) else None
        return _decode_with_pillow(data) if pixels is None else pixels
    except ImageError:
        raise
    except Exception as error:  # bytes from anywhere make Pillow's parsers raise nearly anything
        raise ImageError(f"The bytes do not decode as a picture: {type(error).__name__}: {error}") from error


def resize_center_crop(pixels: Pixels) -> Pixels:
    """Return the middle of (height, width, 3) as (224, 224, 3), resized bicubically with antialiasing.

    It is what "resize the shorter side to 256, crop the middle 224" shows. The crop is taken first, so that only
    what is kept is resized. torch's uint8 resize gives the same to within a rounding; it would save 0.8 ms a photo and
    cost 2 s and 450 MB in every process that embeds.
    """
    height, width = pixels.shape[:2]
    side = max(1, round(min(height, width) * CROP_SHARE))
    top, left = (height - side) // 2, (width - side) // 2
    middle = Image.fromarray(pixels[top : top + side, left : left + side])
    return np.asarray(middle.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def is_jpeg(data: bytes) -> bool:
    return data[:3] == b"\xff\xd8\xff"


def _decode_jpeg(data: bytes, at_least: int | None) -> Pixels | None:
    """Return the upright picture, or None where simplejpeg refuses it and Pillow has to say."""
    import simplejpeg

    try:
        height, width = simplejpeg.decode_jpeg_header(data, strict=False)[:2]
    except ValueError:
        return None
    if height * width > MAX_PIXELS:
        raise ImageError(f"The picture has {width}x{height} pixels, more than {MAX_PIXELS}.")
    try:
        # libjpeg-turbo's vector code knows the whole and the half size, not the steps between: those cost more than
        # the whole, hence min_factor.
        least = at_least or max(height, width)
        pixels = simplejpeg.decode_jpeg(data, min_height=least, min_width=least, min_factor=2, strict=False)
    except ValueError:
        return None
    turn = _UPRIGHT.get(_orientation(data))
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def _orientation(data: bytes) -> int:
    """Return how EXIF says the picture is to be turned, 1 (not at all) where it says nothing readable."""
    at = data.find(_EXIF_MARK, 0, _SEGMENT)
    if at < 0:
        return 1
    exif = Image.Exif()
    try:
        exif.load(data[at : at + _SEGMENT])
        return int(exif.get(_ORIENTATION, 1))
    except (SyntaxError, ValueError, TypeError, struct.error, OSError, KeyError):
        return 1  # a broken EXIF block does not make a picture unusable


def _decode_with_pillow(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        image.load()
        return np.asarray(_as_rgb(ImageOps.exif_transpose(image)))


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # Pillow would clip at 255
        return Image.fromarray((np.asarray(image.convert("I")) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in {"I", "F"}:  # no range of their own: the darkest becomes black, the brightest white
        values = np.asarray(image, dtype=np.float64)
        low, high = float(values.min()), float(values.max())
        return Image.fromarray(((values - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        ground = Image.new("RGBA", seen.size, "white")
        return Image.alpha_composite(ground, seen).convert("RGB")
    return image.convert("RGB")
