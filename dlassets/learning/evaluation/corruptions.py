"""What becomes of photos on their way to a model: out of focus, taken in little light, too dark or bright, compressed.

Each is of the pixels that a network is shown, mild enough that people still see what is on them (after Hendrycks and
Dietterich, 2019), and the same each time for the same photo.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from dlassets.images.decode import Pixels

# A pixel and a half of 224 out of focus, noise of 20 of 255, and a JPEG of a quarter of the best quality.
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


def _clipped(values: NDArray[np.floating[Any]]) -> Pixels:
    clipped: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return clipped


# By name: from (side, side, 3) pixels of the photo of this image_id to as many.
CORRUPTIONS: dict[str, Callable[[Pixels, str], Pixels]] = {
    "blur": _blurred,
    "noise": _noisy,
    "darker": _darker,
    "brighter": _brighter,
    f"JPEG quality {_QUALITY}": _compressed,
}
