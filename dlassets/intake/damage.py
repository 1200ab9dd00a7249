"""Photos whose bytes are no longer those that were taken in: found, and put back from where they still are.

A photo's `image_id` is the digest of its bytes, so that a flipped bit shows. Whoever reads photos is given none that is
damaged (`lakehouse.content`).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import REPLACED_AT_ONCE, Advance, Commit, Engine, Snapshot
from dlassets.engines.schema import Column
from dlassets.lakehouse.content import REACHABLE
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.snapshots import at_version, commits, evolve, pin, replanned
from dlassets.lakehouse.tables import DELETED_FILES, RAW_IMAGES, raw_images_with
from dlassets.settings import Settings
from dlassets.storage.files import read_whole, write_whole
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa

_PATH = RAW_IMAGES.columns_named("path")


@dataclass(frozen=True)
class PutBack:
    """The paths whose bytes were put back, and those whose bytes are nowhere any more."""

    restored: list[str]
    lost: list[str]


def photos_of(engine: Engine, lake: Lake) -> Photos:
    return Photos(engine, lake, pin(lake, RAW_IMAGES.name))


def all_paths(photos: Photos) -> list[str]:
    """Return the paths of all photos whose bytes are to be had, in order."""
    query = f"SELECT path FROM ({REACHABLE}) AS images ORDER BY path"  # noqa: S608 - constant
    tables = {RAW_IMAGES.name: photos.raw_images, DELETED_FILES.name: pin(photos.lake, DELETED_FILES.name)}
    return [str(path) for path in photos.engine.sql(query, tables).arrow()["path"].to_pylist()]


def damaged(photos: Photos, paths: Sequence[str], advance: Advance | None = None) -> list[str]:
    """Return those of the paths whose bytes are not what was taken in, in order."""
    whole = photos.map(photos.keys(paths), _paths_alone, _PATH, advance).arrow()["path"].to_pylist()
    return sorted({*paths} - {*whole})


def put_back(photos: Photos, settings: Settings, paths: Sequence[str], provenance: Mapping[str, Any]) -> PutBack:
    """Put the bytes of damaged photos back, from their landing zone or from an older version of `raw_images`."""
    image_ids = _image_ids(photos, paths)
    found = dict(_from_landing_zones(photos.lake, settings, image_ids))
    for older in _older_versions(photos.raw_images):
        if not (missing := [path for path in paths if path not in found]):
            break
        # What is read there was compared already, with the image that the path had then.
        before = Photos(photos.engine, photos.lake, older).bytes_of(missing)
        found |= {path: data for path, data in before.items() if _digest(data) == image_ids.get(path)}
    restored = sorted(found)
    for start in range(0, len(restored), REPLACED_AT_ONCE):
        some = {path: found[path] for path in restored[start : start + REPLACED_AT_ONCE]}
        replanned(functools.partial(_write, photos, settings, some, provenance))
    return PutBack(restored, sorted({*paths} - {*restored}))


def _from_landing_zones(lake: Lake, settings: Settings, image_ids: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    for path, image_id in image_ids.items():
        name, _, within = path.partition("/")
        if name in settings.landing:
            try:
                data = read_whole(f"{lake.zone(settings.landing[name].uri)}/{within}")
            except OSError:  # it is looked for elsewhere
                continue
            if _digest(data) == image_id:
                yield path, data


def _older_versions(table: Snapshot) -> Iterator[Snapshot]:
    """Yield the versions before rows were rewritten, newest first: in others, what is damaged now is the same file."""
    for commit in commits(table):
        rewrote = commit.get("operationParameters", {}).get("mode") != "Append" and commit["version"] > 0
        if rewrote and (older := at_version(table, commit["version"] - 1)) is not None:
            yield older


def _write(photos: Photos, settings: Settings, found: Mapping[str, bytes], provenance: Mapping[str, Any]) -> None:
    """Write bytes where each photo's are kept; those that are kept in a landing zone are as they were there."""
    table = raw_images_with(settings.ingest.capture)
    raw = evolve(photos.lake, table)
    keys = photos.keys(list(found))
    locations = photos.engine.map(raw, ["path", "location"], keys, _same, RAW_IMAGES.columns_named("path", "location"))
    kept = dict(zip(*(locations.arrow()[name].to_pylist() for name in ("path", "location")), strict=True))
    for path, location in kept.items():
        if location is not None and location.startswith("files/"):
            write_whole(photos.lake.under(location), found[path])
    if in_table := [path for path, location in kept.items() if location is None]:
        kernel = functools.partial(_with_bytes, found=found, columns=table.columns)
        rows = photos.engine.map(raw, table.names, photos.keys(in_table), kernel, table.columns)
        photos.engine.replace(rows, table, raw.uri, Commit(provenance), {"path": in_table})


def _image_ids(photos: Photos, paths: Sequence[str]) -> dict[str, str]:
    columns = RAW_IMAGES.columns_named("path", "image_id")
    keys = photos.keys(paths)
    rows = photos.engine.map(photos.raw_images, ["path", "image_id"], keys, _same, columns).arrow()
    return dict(zip(rows["path"].to_pylist(), rows["image_id"].to_pylist(), strict=True))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _paths_alone(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Kernel."""
    return batch.select(["path"])


def _same(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Kernel."""
    return batch


def _with_bytes(batch: pa.RecordBatch, *, found: Mapping[str, bytes], columns: Sequence[Column]) -> pa.RecordBatch:
    """Kernel: the rows as they are, with these bytes."""
    import pyarrow as pa

    content = pa.array([found[path] for path in batch["path"].to_pylist()], pa.binary())
    arrays = [content if column.name == "content" else batch[column.name] for column in columns]
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])
