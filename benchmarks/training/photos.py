"""The photos that models are judged by: with their true classes, on the sides where the project's hash puts them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.accuracy import rows_of
from benchmarks.bench import Bench
from dlassets.demo.photos import photos_in
from dlassets.engines.base import Snapshot
from dlassets.learning.backbones import BackboneRef
from dlassets.learning.examples import Examples

if TYPE_CHECKING:
    from numpy.typing import NDArray

_AT_ONCE = 16


def labelled(images: Path) -> Examples:
    """Return all photos of NNN.class/ folders, equal bytes once, without features."""
    photos = {photo.image_id: photo for photo in photos_in(images)}
    return rows_of([photos[image_id] for image_id in sorted(photos)])


def embedded(bench: Bench, paths: Sequence[str], ref: BackboneRef) -> tuple[NDArray[np.float32], float]:
    """Return (N, dimensions) features of the files, and how many a second a process of its own made, once warm."""
    from dataclasses import asdict

    place = bench.place("embedded")
    (place / "paths.txt").write_text("\n".join(paths), encoding="utf-8")
    took = bench.task(__name__, "embed", place=str(place), ref=asdict(ref), threads=bench.cores)
    return np.load(place / "features.npy", allow_pickle=False), len(paths) / took["seconds"]


def embed(place: str, ref: dict[str, Any], threads: int) -> dict[str, float]:
    """Embed the files that paths.txt names. A task of benchmarks.worker."""
    from dlassets.learning.embedding import load_backbone

    paths = Path(place, "paths.txt").read_text(encoding="utf-8").splitlines()
    files = [Path(path).read_bytes() for path in paths]
    chunks = [files[start : start + _AT_ONCE] for start in range(0, len(files), _AT_ONCE)]
    backbone = load_backbone(BackboneRef(**ref))
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(backbone.embed_bytes, chunks[:threads]))
        began = time.perf_counter()
        features = np.concatenate(list(pool.map(backbone.embed_bytes, chunks)))
        seconds = time.perf_counter() - began
    np.save(Path(place, "features.npy"), features)
    return {"seconds": seconds}


def training_set(place: Path, rows: Examples, sides: NDArray[np.str_], made_of: str) -> Snapshot:
    """Write the rows as a training set: with their features, or with the photos' bytes where they have none."""
    import pyarrow as pa

    from dlassets.engines.base import Commit
    from dlassets.engines.local import LocalEngine
    from dlassets.lakehouse.snapshots import pin
    from dlassets.lakehouse.tables import TRAINING_SET
    from dlassets.storage.lake import Lake

    on_pixels = not rows.features.shape[1]
    table = pa.Table.from_pydict(
        {
            "path": rows.paths,
            "image_id": rows.image_ids,
            "label": rows.labels,
            "label_name": rows.names,
            "feature_version": [made_of] * len(rows),
            "features": [None] * len(rows) if on_pixels else list(rows.features),
            "split": sides.tolist(),
            "content": [Path(path).read_bytes() if on_pixels else None for path in rows.paths],
        },
        schema=TRAINING_SET.schema,
    )
    engine, empty = LocalEngine(), pin(Lake.at(str(place)), TRAINING_SET.name)
    written = engine.replace(engine.rows(table), TRAINING_SET, empty.uri, Commit({}))
    return Snapshot(empty.name, empty.uri, written.version)
