"""The features that a model reads: cached ones where the training set has them, else of its photos, embedded now."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlassets.engines.base import Engine, Snapshot
from dlassets.engines.schema import Column
from dlassets.lakehouse.content import map_images
from dlassets.lakehouse.photos import photos_of
from dlassets.lakehouse.tables import IMAGE_FEATURES
from dlassets.learning.backbones import BackboneRef, Runtime, feature_version, published
from dlassets.learning.embedding import embed_images
from dlassets.learning.examples import Examples, read_split
from dlassets.learning.loader.petastorm import read_columns
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dlassets.engines.base import Advance, Kernel, Rows


@dataclass(frozen=True)
class Photos:
    """Where the photos of a lake are read, and by which runtime they are embedded."""

    engine: Engine
    lake: Lake
    raw_images: Snapshot
    runtime: Runtime = "auto"

    def map(self, paths: Rows, kernel: Kernel, returns: Sequence[Column], advance: Advance | None = None) -> Rows:
        """Run `kernel` over path, image_id and content of these paths' photos; see `map_images`."""
        return map_images(self.engine, self.lake, self.raw_images, paths, kernel, returns, advance)

    def embedding(self, backbone: BackboneRef) -> Kernel:
        """Return the kernel that embeds photos by this backbone, wherever it runs."""
        return functools.partial(embed_images, backbone=published(backbone, self.lake), runtime=self.runtime)

    def bytes_of(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Return the bytes of each path that has them still: for as many as a page shows."""
        return photos_of(self.engine, self.lake, self.raw_images, paths)

    def features(self, paths: Sequence[str], backbone: BackboneRef) -> dict[str, NDArray[np.float32]]:
        """Return image_id and features of each path whose bytes are to be had."""
        import pyarrow as pa

        keys = self.engine.rows(pa.table({"path": pa.array(paths, pa.string())}))
        found = self.map(keys, self.embedding(backbone), IMAGE_FEATURES.columns).arrow()
        vectors = np.asarray(found["features"].combine_chunks().flatten(), np.float32)
        return dict(zip(found["image_id"].to_pylist(), vectors.reshape(found.num_rows, -1), strict=True))


def rows_for(backbone: BackboneRef, training_set: Snapshot, split: str, photos: Photos) -> Examples:
    """Return the rows of a split with the features that a model on this backbone reads."""
    if cached_version(training_set, split) == feature_version(backbone):
        return read_split(training_set, split)
    rows = read_split(training_set, split, features=False)
    return rows.with_features(photos.features(rows.paths, backbone))


def cached_version(training_set: Snapshot, split: str) -> str | None:
    """Return the feature version of the split's rows; None where there are none."""
    versions = read_columns(training_set.uri, training_set.version, ["feature_version"], [("split", "=", split)])
    found = versions["feature_version"]
    return str(found[0]) if len(found) else None
