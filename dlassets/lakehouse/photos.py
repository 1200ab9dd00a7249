"""The bytes of a few photos, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlassets.engines.base import Engine, Snapshot
from dlassets.lakehouse.content import map_images
from dlassets.lakehouse.tables import RAW_IMAGES
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa


def photos_of(engine: Engine, lake: Lake, raw_images: Snapshot, paths: Sequence[str]) -> dict[str, bytes]:
    """Return the bytes of each path that has them still.

    They come to this process: for as many as a page shows, not for a table.
    """
    import pyarrow as pa

    keys = engine.rows(pa.table({"path": pa.array(paths, pa.string())}))
    columns = RAW_IMAGES.columns_named("path", "content")
    found = map_images(engine, lake, raw_images, keys, path_and_content, columns).arrow()
    return dict(zip(found["path"].to_pylist(), found["content"].to_pylist(), strict=True))


def path_and_content(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Kernel: these two columns as they are."""
    return batch.select(["path", "content"])
