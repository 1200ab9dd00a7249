"""The exact rows a model learns from: labels joined with features, replaced only where the rows would differ."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Commit, Engine, Rows, Snapshot, Written
from dlassets.engines.schema import Table
from dlassets.lakehouse.content import REACHABLE
from dlassets.lakehouse.labels import labels_in_force
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.snapshots import provenance_of, row_count
from dlassets.lakehouse.tables import DELETED_FILES, IMAGE_FEATURES, LABELED_IMAGES, RAW_IMAGES, TRAINING_SET
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

    `made_of` says what is learned from: the feature version, or PIXELS.
    """

    rows: pa.Table
    made_of: str

    @property
    def fingerprint(self) -> str:
        """What tells one choice from another: the rows, and what they are made of."""
        digest = hashlib.sha256(self.made_of.encode())
        columns = (self.rows[name].to_pylist() for name in ("image_id", "path", "label", "label_name", "split"))
        for row in zip(*columns, strict=True):
            digest.update(repr(row).encode())
        return digest.hexdigest()


def chosen_from(made_of: str) -> tuple[Table, ...]:
    """Return the tables that the images of a training set are chosen from."""
    return (LABELED_IMAGES, RAW_IMAGES, DELETED_FILES) if made_of == PIXELS else (LABELED_IMAGES, IMAGE_FEATURES)


def choose(engine: Engine, tables: Mapping[str, Snapshot], made_of: str, labels: LabelSettings) -> Choice:
    """Choose the images with a label in force that have features of this version, or bytes where pixels are learned.

    Equal bytes count once; where they carry different labels, `labels` says which is in force, if any. `tables` are
    those of `chosen_from`.
    """
    there = (
        f"JOIN ({REACHABLE}) AS images ON images.path = in_force.path AND images.image_id = in_force.image_id"
        if made_of == PIXELS
        else f"WHERE image_id IN (SELECT image_id FROM image_features WHERE feature_version = '{made_of}')"  # noqa: S608
    )
    query = f"SELECT in_force.* FROM ({labels_in_force(labels)}) AS in_force {there} ORDER BY in_force.image_id"  # noqa: S608
    return Choice(engine.sql(query, tables).arrow(), made_of)


def build_training_set(
    engine: Engine, choice: Choice, source: Snapshot | Photos, training_set: Snapshot, provenance: Mapping[str, Any]
) -> Written:
    """Replace `training_set` by what was chosen, with its features from `image_features` or the photos' own bytes.

    Left untouched where its rows already are what they would be, whatever versions have moved. An image whose bytes are
    no longer to be had has no row.
    """

    def with_features(rows: pa.Table) -> Rows:
        return engine.sql(
            f"""
            SELECT chosen.*, found.feature_version, found.features, CAST(NULL AS BINARY) AS content FROM chosen
            JOIN image_features AS found
                ON found.image_id = chosen.image_id AND found.feature_version = '{choice.made_of}'
            """,  # noqa: S608 - a feature version is this project's own constant
            {"chosen": engine.rows(rows), "image_features": source},  # type: ignore[dict-item]
        )

    def with_bytes(rows: pa.Table) -> Rows:
        places = {path: place for place, path in enumerate(rows["path"].to_pylist())}
        kernel = functools.partial(_with_labels, chosen=rows, places=places)
        return source.map(engine.rows(rows.select(["path"])), kernel, TRAINING_SET.columns)  # type: ignore[union-attr]

    if isinstance(source, Photos):
        return _replaced(engine, training_set, choice, with_bytes, provenance, PHOTOS_PER_COMMIT)
    return _replaced(engine, training_set, choice, with_features, provenance, max(1, choice.rows.num_rows))


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
    choice: Choice,
    rows_of: Callable[[pa.Table], Rows],
    provenance: Mapping[str, Any],
    rows_per_commit: int,
) -> Written:
    """Put the rows of what was chosen in place of what is there, unless that was made of the very same choice.

    The fingerprint stands in the last commit alone: a write that was killed between two is done anew.
    """
    unchanged = Written(training_set.version, changed=False)
    if not choice.rows.num_rows and not row_count(training_set):  # Delta on Spark writes no commit for that
        return unchanged
    fingerprint = choice.fingerprint
    if provenance_of(training_set).get(FINGERPRINT) == fingerprint:
        return unchanged
    starts = range(0, max(1, choice.rows.num_rows), rows_per_commit)
    parts = [choice.rows.slice(start, rows_per_commit) for start in starts]
    commits = [Commit(provenance) for _ in parts[1:]] + [Commit({**provenance, FINGERPRINT: fingerprint})]
    writes = [engine.replace] + [engine.append for _ in parts[1:]]
    written = [
        write(rows_of(part), TRAINING_SET, training_set.uri, commit)
        for write, part, commit in zip(writes, parts, commits, strict=True)
    ]
    return replace(written[-1], inserted=sum(each.inserted for each in written))
