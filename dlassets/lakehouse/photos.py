"""The photos of a lake, as kernels and people see them: their bytes, wherever those are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlassets.engines.base import Advance, Engine, Kernel, Rows, Snapshot
from dlassets.engines.schema import Column, text_column
from dlassets.lakehouse.content import map_images
from dlassets.lakehouse.tables import RAW_IMAGES
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Photos:
    """The photos that one version of `raw_images` has, and who reads them."""

    engine: Engine
    lake: Lake
    raw_images: Snapshot

    def map(self, paths: Rows, kernel: Kernel, returns: Sequence[Column], advance: Advance | None = None) -> Rows:
        """Run `kernel` over path, image_id and content of these paths' photos; see `content.map_images`."""
        return map_images(self.engine, self.lake, self.raw_images, paths, kernel, returns, advance)

    def bytes_of(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Return the bytes of each path that has them still.

        They come to this process: for as many as a page shows, not for a table.
        """
        columns = RAW_IMAGES.columns_named("path", "content")
        found = self.map(self.keys(paths), path_and_content, columns).arrow()
        return dict(zip(found["path"].to_pylist(), found["content"].to_pylist(), strict=True))

    def readable(self, paths: Sequence[str], advance: Advance | None = None) -> set[str]:
        """Return those of the paths whose bytes are to be had, as they were taken in."""
        found = self.map(self.keys(paths), _path_alone, RAW_IMAGES.columns_named("path"), advance)
        return {*found.arrow()["path"].to_pylist()}

    def keys(self, paths: Sequence[str]) -> Rows:
        """Return paths as rows of the engine, to be mapped."""
        return self.engine.rows(text_column("path", paths))


def _path_alone(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Kernel."""
    return batch.select(["path"])


def path_and_content(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Kernel: these two columns as they are."""
    return batch.select(["path", "content"])
