"""The exact rows a model learns from: labels joined with features, replaced only where the rows would differ."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Commit, Engine, Rows, Snapshot, Written
from dlassets.lakehouse.content import REACHABLE, map_images
from dlassets.lakehouse.labels import labels_in_force
from dlassets.lakehouse.snapshots import provenance_of, row_count
from dlassets.lakehouse.tables import TRAINING_SET
from dlassets.settings import LabelSettings
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa

FINGERPRINT = "rows_sha256"
# Stands for a feature version where a model learns from pixels.
PIXELS = "pixels"
# A write into a partitioned table holds several times its bytes in memory.
PHOTOS_PER_COMMIT = 5000


def build_training_set(
    engine: Engine,
    labeled_images: Snapshot,
    image_features: Snapshot,
    training_set: Snapshot,
    feature_version: str,
    labels: LabelSettings,
    provenance: Mapping[str, Any],
) -> Written:
    """Replace `training_set` by the images with a label in force that have features of `feature_version`.

    Equal bytes count once; where they carry different labels, `labels` says which is in force, if any. Left untouched
    where its rows already are what they would be, whatever versions have moved.
    """
    chosen = with_cached_features(engine, labeled_images, image_features, feature_version, labels)

    def with_features(chosen: pa.Table) -> Rows:
        return engine.sql(
            f"""
            SELECT chosen.*, found.feature_version, found.features, CAST(NULL AS BINARY) AS content FROM chosen
            JOIN image_features AS found
                ON found.image_id = chosen.image_id AND found.feature_version = '{feature_version}'
            """,  # noqa: S608 - feature_version is this project's own constant
            {"chosen": engine.rows(chosen), "image_features": image_features},
        )

    return _replaced(engine, training_set, chosen, feature_version, with_features, provenance)


def build_pixel_training_set(
    engine: Engine,
    lake: Lake,
    raw_images: Snapshot,
    deleted_files: Snapshot,
    labeled_images: Snapshot,
    training_set: Snapshot,
    labels: LabelSettings,
    provenance: Mapping[str, Any],
) -> Written:
    """Replace `training_set` by the images with a label in force, and their bytes, for a model that learns from pixels.

    Else as `build_training_set`. An image whose bytes are no longer to be had has no row.
    """
    chosen = with_bytes_to_be_had(engine, labeled_images, raw_images, deleted_files, labels)

    def with_bytes(chosen: pa.Table) -> Rows:
        places = {path: place for place, path in enumerate(chosen["path"].to_pylist())}
        kernel = functools.partial(_with_labels, chosen=chosen, places=places)
        paths = engine.rows(chosen.select(["path"]))
        return map_images(engine, lake, raw_images, paths, kernel, TRAINING_SET.columns)

    return _replaced(engine, training_set, chosen, PIXELS, with_bytes, provenance, PHOTOS_PER_COMMIT)


def with_cached_features(
    engine: Engine, labeled_images: Snapshot, image_features: Snapshot, feature_version: str, labels: LabelSettings
) -> pa.Table:
    """Return the images with a label in force that have features of `feature_version`: what a head learns from."""
    return engine.sql(
        f"""
        SELECT * FROM ({labels_in_force(labels)}) AS in_force WHERE image_id IN (
            SELECT image_id FROM image_features WHERE feature_version = '{feature_version}')
        ORDER BY image_id
        """,  # noqa: S608 - feature_version is this project's own constant
        {"labeled_images": labeled_images, "image_features": image_features},
    ).arrow()


def with_bytes_to_be_had(
    engine: Engine, labeled_images: Snapshot, raw_images: Snapshot, deleted_files: Snapshot, labels: LabelSettings
) -> pa.Table:
    """Return the images with a label in force whose bytes are to be had: what is learned from on pixels."""
    return engine.sql(
        f"""
        SELECT in_force.* FROM ({labels_in_force(labels)}) AS in_force
        JOIN ({REACHABLE}) AS images ON images.path = in_force.path AND images.image_id = in_force.image_id
        ORDER BY in_force.image_id
        """,  # noqa: S608 - constants
        {"labeled_images": labeled_images, "raw_images": raw_images, "deleted_files": deleted_files},
    ).arrow()


def fingerprint_of(rows: pa.Table, made_of: str) -> str:
    """Return what tells one choice of rows from another: the rows, and what was made of them."""
    digest = hashlib.sha256(made_of.encode())
    for row in zip(
        *(rows[name].to_pylist() for name in ("image_id", "path", "label", "label_name", "split")), strict=True
    ):
        digest.update(repr(row).encode())
    return digest.hexdigest()


def attributes_of(
    engine: Engine, training_set: Snapshot, image_profiles: Snapshot, labeled_images: Snapshot
) -> pa.Table:
    """Return image_id, width, height, brightness and source (of the label) of the test images: what to slice by."""
    return engine.sql(
        """
        SELECT test.image_id, profiles.width, profiles.height, profiles.brightness, labels.source
        FROM training_set AS test
        LEFT JOIN image_profiles AS profiles ON profiles.image_id = test.image_id
        LEFT JOIN labeled_images AS labels ON labels.path = test.path AND labels.image_id = test.image_id
        WHERE test.split = 'test'
        """,
        {"training_set": training_set, "image_profiles": image_profiles, "labeled_images": labeled_images},
    ).arrow()


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


def _replaced(
    engine: Engine,
    training_set: Snapshot,
    chosen: pa.Table,
    made_of: str,
    rows_of: Callable[[pa.Table], Rows],
    provenance: Mapping[str, Any],
    rows_per_commit: int | None = None,
) -> Written:
    """Put the rows of what was chosen in place of what is there, unless that was made of the very same choice.

    The fingerprint stands in the last commit alone: a write that was killed between two is done anew.
    """
    if not chosen.num_rows and not row_count(training_set):  # Delta on Spark writes no commit for that
        return Written(training_set.version, changed=False)
    fingerprint = fingerprint_of(chosen, made_of)
    if provenance_of(training_set).get(FINGERPRINT) == fingerprint:
        return Written(training_set.version, changed=False)
    step = rows_per_commit or max(1, chosen.num_rows)
    parts = [chosen.slice(start, step) for start in range(0, max(1, chosen.num_rows), step)]
    commits = [Commit(provenance) for _ in parts[1:]] + [Commit({**provenance, FINGERPRINT: fingerprint})]
    writes = [engine.replace] + [engine.append for _ in parts[1:]]
    written = [
        write(rows_of(part), TRAINING_SET, training_set.uri, commit)
        for write, part, commit in zip(writes, parts, commits, strict=True)
    ]
    return replace(written[-1], inserted=sum(each.inserted for each in written))
