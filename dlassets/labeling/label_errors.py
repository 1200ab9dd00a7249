"""The table `label_errors`: labels that look wrong, found anew where a label, a feature or a setting has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dlassets import extras
from dlassets.engines.base import Commit, Engine, Progress, Snapshot, Written
from dlassets.labeling.embeddings import embeddings_of
from dlassets.lakehouse.labels import labels_in_force
from dlassets.lakehouse.snapshots import provenance_of, row_count
from dlassets.lakehouse.tables import LABEL_ERRORS
from dlassets.learning.evaluation.label_errors import find_label_errors
from dlassets.learning.examples import Examples
from dlassets.settings import Settings, TrainingSettings

if TYPE_CHECKING:
    import pyarrow as pa

# What the table's log says of the labels, features and settings that its rows were found by.
_DIGEST = "judged_sha256"


def update_label_errors(
    engine: Engine,
    snapshots: Mapping[str, Snapshot],
    feature_version: str,
    settings: Settings,
    provenance: Mapping[str, Any],
    progress: Progress | None = None,
) -> tuple[Written, dict[str, Any]]:
    """Replace `label_errors` by what looks wrong now; return with it how many were judged, and too small classes.

    Every image with a label in force and cached features is judged, whatever its split. `snapshots` holds
    labeled_images, image_features and label_errors; `progress` is called with the folds that are done, and of how many.
    Without the extra `label-errors` nothing is judged, the table stays as it is, and `left_out` says so.
    """
    current = snapshots["label_errors"]
    query = f"""
        SELECT in_force.path, in_force.image_id, in_force.label, in_force.label_name
        FROM ({labels_in_force(settings.labels)}) AS in_force
        JOIN image_features AS found
            ON found.image_id = in_force.image_id AND found.feature_version = '{feature_version}'
        ORDER BY in_force.image_id
    """  # noqa: S608 - feature_version is this project's own constant
    labelled = engine.sql(query, {name: snapshots[name] for name in ("labeled_images", "image_features")}).arrow()
    digest = _digest(labelled, feature_version, settings.training)
    unchanged = Written(current.version, changed=False)
    had_rows = row_count(current) > 0
    if provenance_of(current).get(_DIGEST) == digest or not (labelled.num_rows or had_rows):
        return unchanged, {"judged": labelled.num_rows}
    if (left_out := extras.missing(extras.LABEL_ERRORS, "Judging labels")) is not None:
        return unchanged, {"judged": 0, "left_out": left_out}
    examples = _examples(engine, labelled, snapshots["image_features"], feature_version)
    result = find_label_errors(examples, settings.training, on_fold=progress)
    facts = {"judged": result.checked, "too_few_to_judge": json.dumps(result.small_classes, ensure_ascii=False)}
    if not result.errors.num_rows and not had_rows:  # Delta on Spark writes no commit for that
        return unchanged, facts
    commit = Commit({**provenance, _DIGEST: digest})
    return engine.replace(engine.rows(result.errors), LABEL_ERRORS, current.uri, commit), facts


def _examples(engine: Engine, labelled: pa.Table, image_features: Snapshot, feature_version: str) -> Examples:
    """Return the labelled images with their features, each put where it stays as it is read."""
    image_ids = labelled["image_id"].to_pylist()
    features, _ = embeddings_of(engine, image_ids, image_features, feature_version)
    return Examples(
        paths=labelled["path"].to_pylist(),
        image_ids=image_ids,
        labels=np.asarray(labelled["label"], np.int64),
        names=labelled["label_name"].to_pylist(),
        features=features,
    )


def _digest(labelled: pa.Table, feature_version: str, training: TrainingSettings) -> str:
    decisive = training.model_dump(mode="json", exclude={"compute", "pixels", "trainable", "last_n"})
    digest = hashlib.sha256(json.dumps([feature_version, decisive], sort_keys=True).encode())
    for image_id, label in zip(labelled["image_id"].to_pylist(), labelled["label"].to_pylist(), strict=True):
        digest.update(f"{image_id} {label}\n".encode())
    return digest.hexdigest()
