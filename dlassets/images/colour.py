"""Colours as sRGB: what a photo's embedded ICC profile says its numbers mean."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image, ImageCms

# A profile that changes no colour by more than this is sRGB under one of its many names: nothing is converted.
_SAME = 3
_PROBES = {
    "RGB": np.stack(np.meshgrid(*3 * [np.arange(0, 256, 51)]), axis=-1).reshape(1, -1, 3).astype(np.uint8),
    "L": np.arange(256, dtype=np.uint8)[None],
}


def as_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return a picture of mode L, RGB or CMYK in sRGB (mode RGB), or as it is where its profile asks for no change.

    A profile that is broken or of another colour space than the picture asks for none, as in browsers.
    """
    transform = _to_srgb(profile, image.mode) if profile else None
    return image if transform is None else transform.apply(image)


@functools.lru_cache(maxsize=16)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        transform = ImageCms.ImageCmsTransform(source, srgb, mode, "RGB")
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return None
    if mode not in _PROBES:
        return transform
    probe = Image.fromarray(_PROBES[mode])
    before, after = np.asarray(probe.convert("RGB")).astype(int), np.asarray(transform.apply(probe))
    return transform if np.abs(before - after).max() > _SAME else None
