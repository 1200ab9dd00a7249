"""What becomes of photos on their way to a model: out of focus, taken in little light, too dark or bright, compressed.

Each is of the pixels that a network is shown, mild enough that people still see what is on them (after Hendrycks and
Dietterich, 2019), and the same each time for the same photo.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from dlassets.images.decode import Pixels

# A two-hundredth of the side out of focus, noise of a tenth of the range, and a JPEG of a quarter of full quality.
_BLUR, _NOISE, _DARK, _BRIGHT, _QUALITY = 1 / 150, 20.0, 0.6, 1.5, 25


def _blurred(pixels: Pixels, _: str) -> Pixels:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(len(pixels) * _BLUR)))


def _noisy(pixels: Pixels, image_id: str) -> Pixels:
    seed = int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8])
    return _clipped(pixels + np.random.default_rng(seed).normal(0, _NOISE, pixels.shape))


def _darker(pixels: Pixels, _: str) -> Pixels:
    return _clipped(pixels * _DARK)


def _brighter(pixels: Pixels, _: str) -> Pixels:
    return _clipped(pixels * _BRIGHT)


def _compressed(pixels: Pixels, _: str) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY)
    return np.asarray(Image.open(file))


def _clipped(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


# By name: from (side, side, 3) pixels of the photo of this image_id to as many.
CORRUPTIONS: dict[str, Callable[[Pixels, str], Pixels]] = {
    "blur": _blurred,
    "noise": _noisy,
    "darker": _darker,
    "brighter": _brighter,
    f"JPEG quality {_QUALITY}": _compressed,
}
