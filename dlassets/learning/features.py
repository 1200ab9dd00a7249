"""The features that a model reads: cached ones where the training set has them, else of its photos, embedded now."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dlassets.engines.base import Snapshot
from dlassets.lakehouse.failures import FAILURE, attempted
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.tables import IMAGE_FEATURES
from dlassets.learning.backbones import BackboneRef, Runtime, feature_version, published
from dlassets.learning.embedding import embed_images
from dlassets.learning.examples import Examples, read_split
from dlassets.learning.loader.row_groups import read_columns

if TYPE_CHECKING:
    from dlassets.engines.base import Kernel

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedder:
    """Embeds photos of a lake by any backbone, with one runtime."""

    photos: Photos
    runtime: Runtime = "auto"

    def kernel(self, backbone: BackboneRef) -> Kernel:
        """Return the kernel that embeds photos by this backbone, wherever it runs."""
        return functools.partial(embed_images, backbone=published(backbone, self.photos.lake), runtime=self.runtime)

    def features(self, paths: Sequence[str], backbone: BackboneRef) -> dict[str, NDArray[np.float32]]:
        """Return image_id and features of each path whose bytes are to be had, and that can be embedded."""
        rows, failed = attempted(self.photos, self.photos.keys(paths), self.kernel(backbone), IMAGE_FEATURES.columns)
        found = rows.arrow()
        for failure in failed.arrow().to_pylist():
            _log.warning("The image %s is left out: %s", failure["image_id"], failure[FAILURE.name])
        if not found.num_rows:
            return {}
        vectors = np.asarray(found["features"].combine_chunks().flatten(), np.float32)
        return dict(zip(found["image_id"].to_pylist(), vectors.reshape(found.num_rows, -1), strict=True))


def examples_for(backbone: BackboneRef, training_set: Snapshot, split: str, embedder: Embedder) -> Examples:
    """Return the examples of a split with the features that a model on this backbone reads."""
    if cached_version(training_set, split) == feature_version(backbone):
        return read_split(training_set, split)
    examples = read_split(training_set, split, features=False)
    return examples.with_features(embedder.features(examples.paths, backbone))


def cached_version(training_set: Snapshot, split: str) -> str | None:
    """Return the feature version of the split's rows; None where there are none."""
    versions = read_columns(training_set.uri, training_set.version, ["feature_version"], [("split", "=", split)])
    found = versions["feature_version"]
    return str(found[0]) if len(found) else None
