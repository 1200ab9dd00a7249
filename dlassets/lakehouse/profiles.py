"""The kernel that makes the exploration format, `image_profiles`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlassets.images.profile import profile
from dlassets.lakehouse.tables import IMAGE_PROFILES

if TYPE_CHECKING:
    import pyarrow as pa


def profile_images(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Describe images: a kernel from image_id and content to the columns of the table image_profiles.

    Raises ImageError for bytes that do not decode.
    """
    import pyarrow as pa

    pairs = zip(batch.column("image_id"), batch.column("content"), strict=True)
    rows = [{"image_id": image_id.as_py(), **profile(content.as_py())} for image_id, content in pairs]
    return pa.RecordBatch.from_pylist(rows, schema=IMAGE_PROFILES.schema)
