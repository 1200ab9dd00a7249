"""Photos whose bytes are no longer those that were taken in: found, and put back from where they still are.

A photo's `image_id` is the digest of its bytes, so that a flipped bit shows. Whoever reads photos is given none that is
damaged (`lakehouse.content`). A training set of pixels has bytes of its own, which are compared by whoever learns from
them (`learning.loader`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import REPLACED_AT_ONCE, Advance, Commit, Engine, Snapshot
from dlassets.engines.schema import Column, Table, text_column
from dlassets.images.digest import image_id_of
from dlassets.lakehouse.content import REACHABLE
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.snapshots import at_version, commits, evolve, pin, provenance_of, replanned
from dlassets.lakehouse.tables import DELETED_FILES, RAW_IMAGES, TRAINING_SET, raw_images_with
from dlassets.lakehouse.training_set import PIXELS
from dlassets.settings import Settings
from dlassets.storage.files import read_whole, write_whole
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class PutBack:
    """The paths whose bytes were put back, and those whose bytes are nowhere any more."""

    restored: list[str]
    lost: list[str]


def paths_of(photos: Photos, some: int | None = None) -> list[str]:
    """Return the paths of all photos whose bytes are to be had, in order, or of so many that chance chooses."""
    chosen = "path" if some is None else f"random() LIMIT {some}"
    query = f"SELECT path FROM ({REACHABLE}) AS images ORDER BY {chosen}"  # noqa: S608 - constants and a number
    tables = {RAW_IMAGES.name: photos.raw_images, DELETED_FILES.name: pin(photos.lake, DELETED_FILES.name)}
    return [str(path) for path in photos.engine.sql(query, tables).arrow()["path"].to_pylist()]


def damaged(photos: Photos, paths: Sequence[str], advance: Advance | None = None) -> list[str]:
    """Return those of the paths whose bytes are not what was taken in, in order."""
    return sorted({*paths} - photos.readable(paths, advance))


def paths_to_learn_from(photos: Photos) -> list[str]:
    """Return the paths of the photos that a training set of pixels holds, in order; one of features holds none."""
    query = f"SELECT path FROM training_set WHERE feature_version = '{PIXELS}' ORDER BY path"  # noqa: S608 - constant
    tables = {TRAINING_SET.name: pin(photos.lake, TRAINING_SET.name)}
    return [str(path) for path in photos.engine.sql(query, tables).arrow()["path"].to_pylist()]


def damaged_to_learn_from(photos: Photos, paths: Sequence[str], advance: Advance | None = None) -> list[str]:
    """Return those of the training set's paths whose bytes, as it holds them, are not what was taken in, in order."""
    training_set, columns = pin(photos.lake, TRAINING_SET.name), ["path", "image_id", "content"]
    whole = photos.engine.map(
        training_set, columns, photos.keys(paths), _whole_paths, TRAINING_SET.columns_named("path"), advance
    )
    return sorted({*paths} - {*whole.arrow()["path"].to_pylist()})


def put_back(photos: Photos, settings: Settings, paths: Sequence[str], provenance: Mapping[str, Any]) -> PutBack:
    """Put the bytes of damaged photos back, from their landing zone or from an older version of `raw_images`."""
    rows = _look_up(photos, photos.raw_images, ["path", "image_id"], paths)
    found = _found(photos, settings, rows, _older_versions(photos.raw_images))
    return _written(paths, found, functools.partial(_write, photos, settings, provenance))


def put_back_to_learn_from(
    photos: Photos, settings: Settings, paths: Sequence[str], provenance: Mapping[str, Any]
) -> PutBack:
    """Put the bytes of a training set's damaged rows back, from where `put_back` finds them or from `raw_images`.

    That is a new version, made of what the version before was made of.
    """
    rows = _look_up(photos, pin(photos.lake, TRAINING_SET.name), ["path", "image_id"], paths)
    found = _found(photos, settings, rows, chain([photos.raw_images], _older_versions(photos.raw_images)))
    return _written(paths, found, functools.partial(_write_to_learn_from, photos, provenance))


@dataclass(frozen=True)
class Holder:
    """What holds photos' bytes, in words; which paths it has, those that are damaged there, and how they come back."""

    name: str
    paths: Callable[[Photos], list[str]]
    damaged: Callable[[Photos, Sequence[str], Advance | None], list[str]]
    put_back: Callable[[Photos, Settings, Sequence[str], Mapping[str, Any]], PutBack]


# A training set's come back from the photos: those first.
HOLDERS = (
    Holder("photos", paths_of, damaged, put_back),
    Holder("photos of training_set", paths_to_learn_from, damaged_to_learn_from, put_back_to_learn_from),
)


def _found(
    photos: Photos, settings: Settings, rows: Iterable[Mapping[str, Any]], versions: Iterable[Snapshot]
) -> dict[str, bytes]:
    """Return what there is of these photos' bytes in landing zones and versions of `raw_images`."""
    image_ids = {row["path"]: row["image_id"] for row in rows}
    found = dict(_from_landing_zones(photos.lake, settings, image_ids))
    for version in versions:
        if not (missing := [path for path in image_ids if path not in found]):
            break
        # What is read there was compared already, with the image that the path had then.
        then = replace(photos, raw_images=version).bytes_of(missing)
        found |= {path: data for path, data in then.items() if image_id_of(data) == image_ids[path]}
    return found


def _from_landing_zones(lake: Lake, settings: Settings, image_ids: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    for path, image_id in image_ids.items():
        name, _, within = path.partition("/")
        if name in settings.landing:
            try:
                data = read_whole(f"{lake.zone(settings.landing[name].uri)}/{within}")
            except OSError:  # it is looked for elsewhere
                continue
            if image_id_of(data) == image_id:
                yield path, data


def _older_versions(table: Snapshot) -> Iterator[Snapshot]:
    """Yield the versions before rows were rewritten, newest first: in others, what is damaged now is the same file."""
    for commit in commits(table):
        rewrote = commit.get("operationParameters", {}).get("mode") != "Append" and commit["version"] > 0
        if rewrote and (older := at_version(table, commit["version"] - 1)) is not None:
            yield older


def _written(paths: Sequence[str], found: Mapping[str, bytes], write: Callable[[Mapping[str, bytes]], None]) -> PutBack:
    """Write what was found, as much at once as a write may replace."""
    restored = sorted(found)
    for start in range(0, len(restored), REPLACED_AT_ONCE):
        some = {path: found[path] for path in restored[start : start + REPLACED_AT_ONCE]}
        replanned(functools.partial(write, some))
    return PutBack(restored, sorted({*paths} - {*restored}))


def _write(photos: Photos, settings: Settings, provenance: Mapping[str, Any], found: Mapping[str, bytes]) -> None:
    """Write bytes where each photo's are kept; those that are kept in a landing zone are as they were there."""
    table = raw_images_with(settings.ingest.capture)
    raw = evolve(photos.lake, table)
    in_table: dict[str, bytes] = {}
    for row in _look_up(photos, raw, ["path", "image_id", "location"], list(found)):
        data, location = found[row["path"]], row["location"]
        if image_id_of(data) != row["image_id"]:  # another photo came under this path meanwhile
            continue
        if location is None:
            in_table[row["path"]] = data
        elif location.startswith("files/"):
            write_whole(photos.lake.under(location), data)
    _replace(photos.engine, table, raw, in_table, Commit(provenance))


def _write_to_learn_from(photos: Photos, provenance: Mapping[str, Any], found: Mapping[str, bytes]) -> None:
    training_set = pin(photos.lake, TRAINING_SET.name)
    rows = _look_up(photos, training_set, ["path", "image_id"], list(found))
    same = {row["path"]: data for row in rows if image_id_of(data := found[row["path"]]) == row["image_id"]}
    commit = Commit({**provenance_of(training_set), **provenance})
    _replace(photos.engine, TRAINING_SET, training_set, same, commit)


def _replace(engine: Engine, table: Table, now: Snapshot, contents: Mapping[str, bytes], commit: Commit) -> None:
    """Replace these paths' rows by the same with these bytes."""
    if contents:
        paths = sorted(contents)
        kernel = functools.partial(_with_bytes, found=contents, columns=table.columns)
        rows = engine.map(now, table.names, engine.rows(text_column("path", paths)), kernel, table.columns)
        engine.replace(rows, table, now.uri, commit, {"path": paths})


def _look_up(photos: Photos, table: Snapshot, columns: Sequence[str], paths: Sequence[str]) -> list[dict[str, Any]]:
    """Return these columns, narrow ones, of the paths' rows."""
    query = f"SELECT {', '.join(columns)} FROM held WHERE path IN (SELECT path FROM wanted)"  # noqa: S608 - names
    rows: list[dict[str, Any]] = (
        photos.engine.sql(query, {"held": table, "wanted": photos.keys(paths)}).arrow().to_pylist()
    )
    return rows


def _whole_paths(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Kernel: the paths whose content has the digest image_id."""
    import pyarrow as pa

    rows = zip(batch["image_id"].to_pylist(), batch["content"], strict=True)
    is_whole = [content.is_valid and image_id_of(content.as_buffer()) == image_id for image_id, content in rows]
    return batch.select(["path"]).filter(pa.array(is_whole, pa.bool_()))


def _with_bytes(batch: pa.RecordBatch, *, found: Mapping[str, bytes], columns: Sequence[Column]) -> pa.RecordBatch:
    """Kernel: the rows as they are, with these bytes."""
    import pyarrow as pa

    content = pa.array([found[path] for path in batch["path"].to_pylist()], pa.binary())
    arrays = [content if column.name == "content" else batch[column.name] for column in columns]
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])
