"""The exact rows a model learns from: labels joined with features, replaced only where the rows would differ."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Commit, Engine, Snapshot, Written
from dlassets.lakehouse.labels import labels_in_force
from dlassets.lakehouse.snapshots import provenance_of, row_count
from dlassets.lakehouse.tables import TRAINING_SET
from dlassets.settings import LabelSettings

if TYPE_CHECKING:
    import pyarrow as pa

FINGERPRINT = "rows_sha256"


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
    rows = engine.sql(
        f"""
        SELECT * FROM ({labels_in_force(labels)}) AS in_force WHERE image_id IN (
            SELECT image_id FROM image_features WHERE feature_version = '{feature_version}')
        ORDER BY image_id
        """,  # noqa: S608 - feature_version is this project's own constant
        {"labeled_images": labeled_images, "image_features": image_features},
    ).arrow()
    if not rows.num_rows and not row_count(training_set):  # Delta on Spark writes no commit for that
        return Written(training_set.version, changed=False)
    fingerprint = _fingerprint(rows, feature_version)
    if provenance_of(training_set).get(FINGERPRINT) == fingerprint:
        return Written(training_set.version, changed=False)
    with_features = engine.sql(
        f"""
        SELECT chosen.*, found.feature_version, found.features FROM chosen
        JOIN image_features AS found
            ON found.image_id = chosen.image_id AND found.feature_version = '{feature_version}'
        """,  # noqa: S608 - as above
        {"chosen": engine.rows(rows), "image_features": image_features},
    )
    commit = Commit({**provenance, FINGERPRINT: fingerprint})
    return engine.replace(with_features, TRAINING_SET, training_set.uri, commit)


def _fingerprint(rows: pa.Table, feature_version: str) -> str:
    digest = hashlib.sha256(feature_version.encode())
    for row in zip(
        *(rows[name].to_pylist() for name in ("image_id", "path", "label", "label_name", "split")), strict=True
    ):
        digest.update(repr(row).encode())
    return digest.hexdigest()
