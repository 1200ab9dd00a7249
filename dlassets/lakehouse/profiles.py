"""The kernel that makes the exploration format, `image_profiles`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dlassets.images.profile import profile
from dlassets.lakehouse.tables import IMAGE_PROFILES

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger(__name__)


def profile_images(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Describe images: a kernel from image_id and content to the columns of the table image_profiles.

    A photo that this fails for has no row, and the log names it: the others go on.
    """
    import pyarrow as pa

    rows = []
    for image_id, content in zip(batch.column("image_id").to_pylist(), batch.column("content"), strict=True):
        try:
            rows.append({"image_id": image_id, **profile(content.as_py())})
        except Exception as error:  # noqa: BLE001 - of one photo, whatever it is
            _log.warning("The image %s could not be described: %s: %s", image_id, type(error).__name__, error)
    return pa.RecordBatch.from_pylist(rows, schema=IMAGE_PROFILES.schema)
