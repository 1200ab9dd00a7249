"""The kernel that makes the exploration format: what one image looks like, in a few numbers and a thumbnail."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dlassets.images.decode import FORMATS, decode_rgb
from dlassets.lakehouse.tables import IMAGE_PROFILES

if TYPE_CHECKING:
    import pyarrow as pa

THUMBNAIL_SIDE = 96


def profile_images(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Describe images: a kernel from image_id and content to the columns of the table image_profiles.

    Raises ImageError for bytes that do not decode: ingest has quarantined those.
    """
    import pyarrow as pa

    pairs = zip(batch.column("image_id"), batch.column("content"), strict=True)
    rows = [{"image_id": image_id.as_py(), **profile(content.as_py())} for image_id, content in pairs]
    return pa.RecordBatch.from_pylist(rows, schema=IMAGE_PROFILES.schema)


def profile(data: bytes) -> dict[str, Any]:
    """Return one image's row, less its id. Width and height are those of the upright picture."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as stored:
        mode, channels = stored.mode, len(stored.getbands())
    pixels = decode_rgb(data)
    picture = Image.fromarray(pixels)
    luminance = np.asarray(picture.convert("L"))
    return {
        "width": picture.width,
        "height": picture.height,
        "channels": channels,
        "mode": mode,
        "thumbnail": _thumbnail(picture),
        "brightness": float(luminance.mean()),
        "sharpness": sharpness(luminance),
    }


def sharpness(luminance: npt.NDArray[np.uint8]) -> float:
    """Return the variance of the 4-neighbour Laplacian of a (height, width) picture; 0 with a side under 3 pixels."""
    if min(luminance.shape) < 3:  # noqa: PLR2004 (the kernel's side)
        return 0.0
    grey = luminance.astype(np.int16)
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    return float(laplacian.var(dtype=np.float32))


def _thumbnail(picture: Image.Image) -> bytes:
    small = picture.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=85)
    return out.getvalue()
