"""The table `label_errors`: labels that look wrong, judged anew where a label, a feature or a setting has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dlassets.engines.base import Commit, Engine, Snapshot, Written
from dlassets.lakehouse.labels import labels_in_force
from dlassets.lakehouse.snapshots import provenance_of, row_count
from dlassets.lakehouse.tables import LABEL_ERRORS
from dlassets.learning.evaluation.label_errors import find_label_errors
from dlassets.learning.examples import Examples
from dlassets.settings import LabelSettings, TrainingSettings

if TYPE_CHECKING:
    import pyarrow as pa

JUDGED = "judged_sha256"


def judge_labels(
    engine: Engine,
    labeled_images: Snapshot,
    image_features: Snapshot,
    label_errors: Snapshot,
    feature_version: str,
    training: TrainingSettings,
    labels: LabelSettings,
    provenance: Mapping[str, Any],
    on_fold: Callable[[int, int], None] | None = None,
) -> tuple[Written, dict[str, Any]]:
    """Replace `label_errors` by what looks wrong now; return with it how many were judged, and too small classes.

    Every image with a label in force and cached features is judged, whatever its split.
    """
    found = engine.sql(
        f"""
        SELECT in_force.path, in_force.image_id, in_force.label, in_force.label_name, found.features
        FROM ({labels_in_force(labels)}) AS in_force
        JOIN image_features AS found
            ON found.image_id = in_force.image_id AND found.feature_version = '{feature_version}'
        ORDER BY in_force.image_id
        """,  # noqa: S608 - feature_version is this project's own constant
        {"labeled_images": labeled_images, "image_features": image_features},
    ).arrow()
    judged = _digest(found, feature_version, training)
    said = provenance_of(label_errors)
    if said.get(JUDGED) == judged or not (found.num_rows or row_count(label_errors)):
        return Written(label_errors.version, changed=False), {"judged": found.num_rows}
    result = find_label_errors(_rows(found), training, on_fold=on_fold)
    facts = {"judged": result.checked, "too_few_to_judge": json.dumps(result.small_classes, ensure_ascii=False)}
    if not result.errors.num_rows and not row_count(label_errors):  # Delta on Spark writes no commit for that
        return Written(label_errors.version, changed=False), facts
    commit = Commit({**provenance, JUDGED: judged})
    return engine.replace(engine.rows(result.errors), LABEL_ERRORS, label_errors.uri, commit), facts


def _rows(found: pa.Table) -> Examples:
    features = np.asarray(found["features"].combine_chunks().flatten(), np.float32)
    return Examples(
        paths=found["path"].to_pylist(),
        image_ids=found["image_id"].to_pylist(),
        labels=np.asarray(found["label"], np.int64),
        names=found["label_name"].to_pylist(),
        features=features.reshape(found.num_rows, -1),
    )


def _digest(found: pa.Table, feature_version: str, training: TrainingSettings) -> str:
    decided = training.model_dump(mode="json", exclude={"compute", "pixels", "trainable", "last_n"})
    digest = hashlib.sha256(json.dumps([feature_version, decided], sort_keys=True).encode())
    for image_id, label in zip(found["image_id"].to_pylist(), found["label"].to_pylist(), strict=True):
        digest.update(f"{image_id} {label}\n".encode())
    return digest.hexdigest()
