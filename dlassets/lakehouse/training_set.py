"""The exact rows a model learns from: labels joined with features, replaced only where the rows would differ."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Commit, Engine, Rows, Snapshot, Written
from dlassets.engines.delta_log import read_table
from dlassets.engines.schema import Table
from dlassets.lakehouse.content import USABLE
from dlassets.lakehouse.failures import failed_images
from dlassets.lakehouse.labels import labels_in_force
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.refusals import FAILED
from dlassets.lakehouse.snapshots import provenance_of, row_count
from dlassets.lakehouse.tables import (
    DELETED_FILES,
    IMAGE_FEATURES,
    LABELED_IMAGES,
    QUARANTINED_FILES,
    RAW_IMAGES,
    TRAINING_SET,
)
from dlassets.settings import LabelSettings

if TYPE_CHECKING:
    import pyarrow as pa

FINGERPRINT = "rows_sha256"
# Stands for a feature version where a model learns from pixels.
PIXELS = "pixels"
# A write into a partitioned table holds several times its bytes in memory.
PHOTOS_PER_COMMIT = 5000


@dataclass(frozen=True)
class Choice:
    """The images that a training set has, with path, image_id, label, label_name and split in `rows`.

    `made_of` says what is learned from: the feature version, or PIXELS. `quarantined` are the labelled images that it
    lacks since a step failed for them.
    """

    rows: pa.Table
    made_of: str
    quarantined: int = 0

    @property
    def fingerprint(self) -> str:
        """What tells one choice from another: the rows, and what they are made of."""
        digest = hashlib.sha256(self.made_of.encode())
        columns = (self.rows[name].to_pylist() for name in ("image_id", "path", "label", "label_name", "split"))
        for row in zip(*columns, strict=True):
            digest.update(repr(row).encode())
        return digest.hexdigest()


def identity(training_set: Snapshot) -> tuple[str, int, str | None]:
    """Return what tells a version of a training set from every other, wherever its lake lies by now.

    That is the table's id, the version, and the fingerprint of its rows: two copies of a lake go on from the same id.
    """
    table_id = read_table(training_set.uri, training_set.version).metadata().id
    return str(table_id), training_set.version, provenance_of(training_set).get(FINGERPRINT)


def chosen_from(made_of: str) -> tuple[Table, ...]:
    """Return the tables that the images of a training set are chosen from."""
    source = (RAW_IMAGES, DELETED_FILES) if made_of == PIXELS else (IMAGE_FEATURES,)
    return (LABELED_IMAGES, *source, QUARANTINED_FILES)


def choose(engine: Engine, tables: Mapping[str, Snapshot], made_of: str, labels: LabelSettings) -> Choice:
    """Choose the images with a label in force that have features of this version, or bytes where pixels are learned.

    Equal bytes count once; where they carry different labels, `labels` says which is in force, if any. What a step has
    failed for is left out. `tables` are those of `chosen_from`.
    """
    there = (
        f"JOIN ({USABLE}) AS images ON images.path = in_force.path AND images.image_id = in_force.image_id"
        if made_of == PIXELS
        else f"WHERE image_id IN (SELECT image_id FROM image_features WHERE feature_version = '{made_of}') "  # noqa: S608
        f"AND image_id NOT IN ({FAILED})"
    )
    query = f"SELECT in_force.* FROM ({labels_in_force(labels)}) AS in_force {there} ORDER BY in_force.image_id"  # noqa: S608
    quarantined = failed_images(engine, tables, labels_in_force(labels))
    return Choice(engine.sql(query, tables).arrow(), made_of, quarantined)


def build_training_set(
    engine: Engine, choice: Choice, source: Snapshot | Photos, training_set: Snapshot, provenance: Mapping[str, Any]
) -> Written:
    """Replace `training_set` by what was chosen, with its features from `image_features` or the photos' own bytes.

    Left untouched where its rows already are what they would be, whatever versions have moved. An image whose bytes are
    no longer to be had has no row: it is left out, until they are.
    """
    unchanged = Written(training_set.version, changed=False, quarantined=choice.quarantined)
    if not choice.rows.num_rows and not row_count(training_set):  # Delta on Spark writes no commit for that
        return unchanged
    fingerprint = choice.fingerprint
    if provenance_of(training_set).get(FINGERPRINT) == fingerprint:
        left_out = choice.rows.num_rows - row_count(training_set)
        if not (left_out and isinstance(source, Photos) and _have_come_back(choice, source, training_set)):
            return replace(unchanged, left_out=left_out)
    rows_in_all = max(1, choice.rows.num_rows)
    rows_per_commit = PHOTOS_PER_COMMIT if isinstance(source, Photos) else rows_in_all
    written, inserted = unchanged, 0
    for start in range(0, rows_in_all, rows_per_commit):
        # In the last commit alone: a write that was killed between two is done anew.
        last = {FINGERPRINT: fingerprint} if start + rows_per_commit >= rows_in_all else {}
        rows = _rows_of(engine, choice.rows.slice(start, rows_per_commit), choice.made_of, source)
        write = engine.append if start else engine.replace
        written = write(rows, TRAINING_SET, training_set.uri, Commit({**provenance, **last}))
        inserted += written.inserted
    left_out = choice.rows.num_rows - inserted
    return replace(written, inserted=inserted, left_out=left_out, quarantined=choice.quarantined)


def _have_come_back(choice: Choice, photos: Photos, training_set: Snapshot) -> bool:
    """Whether a chosen photo that was left out of the training set is to be had by now."""
    held = photos.engine.sql("SELECT path FROM training_set", {TRAINING_SET.name: training_set}).arrow()
    return bool(photos.readable(sorted({*choice.rows["path"].to_pylist()} - {*held["path"].to_pylist()})))


def _rows_of(engine: Engine, chosen: pa.Table, made_of: str, source: Snapshot | Photos) -> Rows:
    if isinstance(source, Photos):
        places = {path: place for place, path in enumerate(chosen["path"].to_pylist())}
        kernel = functools.partial(_with_labels, chosen=chosen, places=places)
        return source.map(engine.rows(chosen.select(["path"])), kernel, TRAINING_SET.columns)
    import pyarrow as pa

    others = {
        "feature_version": pa.repeat(made_of, chosen.num_rows),
        "content": pa.nulls(chosen.num_rows, TRAINING_SET.schema.field("content").type),
    }
    for name, values in others.items():
        chosen = chosen.append_column(name, values)
    return engine.join(engine.rows(chosen), source, ["image_id", "feature_version"], ["features"])


def attributes_of(
    engine: Engine, training_set: Snapshot, image_profiles: Snapshot, labeled_images: Snapshot
) -> pa.Table:
    """Return image_id, width, height, brightness and source (of the label) of the test images: what to slice by."""
    query = """
        SELECT test.image_id, profiles.width, profiles.height, profiles.brightness, labels.source
        FROM training_set AS test
        LEFT JOIN image_profiles AS profiles ON profiles.image_id = test.image_id
        LEFT JOIN labeled_images AS labels ON labels.path = test.path AND labels.image_id = test.image_id
        WHERE test.split = 'test'
    """
    return engine.sql(query, {table.name: table for table in (training_set, image_profiles, labeled_images)}).arrow()


def _with_labels(batch: pa.RecordBatch, *, chosen: pa.Table, places: Mapping[str, int]) -> pa.RecordBatch:
    """Kernel: path, image_id and content to the columns of `training_set`, without features."""
    import pyarrow as pa

    rows = chosen.take(pa.array([places[path] for path in batch["path"].to_pylist()], pa.int64())).combine_chunks()
    schema, nothing = TRAINING_SET.schema, len(rows)
    made = {
        "feature_version": pa.array([PIXELS] * nothing),
        "features": pa.nulls(nothing, schema.field("features").type),
        "content": batch["content"],
    }
    columns = [made[name] if name in made else rows[name].combine_chunks() for name in schema.names]
    return pa.RecordBatch.from_arrays(
        [column.cast(type_) for column, type_ in zip(columns, schema.types, strict=True)], schema=schema
    )
