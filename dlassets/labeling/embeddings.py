"""The cached embeddings of photos, read a part at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dlassets.engines.base import Engine, Snapshot


def embedded(
    engine: Engine, image_ids: Sequence[str], image_features: Snapshot, feature_version: str
) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
    """Yield places of distinct `image_ids` and their embeddings of this version, (places, features), as they are read.

    Those that have none are in no part. Memory is of one part, some thousand photos.
    """
    import pyarrow as pa

    places = {image_id: place for place, image_id in enumerate(image_ids)}
    ids = pa.array(image_ids, pa.string())
    keys = pa.table({"image_id": ids, "feature_version": pa.repeat(feature_version, len(ids))})
    found = engine.join(engine.rows(keys), image_features, keys.column_names, ["features"])
    for batch in found.batches():
        if batch.num_rows:
            vectors = np.asarray(batch["features"].flatten(), np.float32).reshape(batch.num_rows, -1)
            yield [places[image_id] for image_id in batch["image_id"].to_pylist()], vectors


def embeddings_of(
    engine: Engine, image_ids: Sequence[str], image_features: Snapshot, feature_version: str
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the embeddings of those of distinct `image_ids` that have one, in their order, and which these are.

    They are (found, features), and (image_ids,). Memory is of the embeddings and one part.
    """
    vectors, is_there = np.empty((0, 0), np.float32), np.zeros(len(image_ids), np.bool_)
    for places, part in embedded(engine, image_ids, image_features, feature_version):
        if not len(vectors):
            vectors = np.empty((len(image_ids), part.shape[1]), np.float32)
        vectors[places], is_there[places] = part, True
    return vectors if is_there.all() else vectors[is_there[: len(vectors)]], is_there
