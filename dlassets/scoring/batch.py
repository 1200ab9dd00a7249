"""Predict by one model version, from features: every image, or those alone that have no label that is settled."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dlassets.engines.base import Commit, Engine, Rows, Snapshot, Written, counting
from dlassets.lakehouse.content import USABLE
from dlassets.lakehouse.failures import attempted, note
from dlassets.lakehouse.labels import undecided
from dlassets.lakehouse.tables import IMAGE_FEATURES, PREDICTIONS
from dlassets.learning.features import Embedder
from dlassets.learning.head import Head
from dlassets.registry.models import PREDICTED, ModelVersion
from dlassets.registry.package import ModelPackage, ranked
from dlassets.settings import LabelSettings, ScoringSettings

if TYPE_CHECKING:
    import pyarrow as pa

    from dlassets.engines.base import Advance, Kernel, Progress

_SCORED = PREDICTIONS.columns_named("image_id", "predicted_label", "predicted_name", "confidence", "margin", "top_k")


@dataclass(frozen=True)
class Scorer:
    """A registered model that scores: by `image_features`, or by photos that it embeds where those have none of its."""

    model: ModelVersion
    package: ModelPackage
    settings: ScoringSettings
    embedder: Embedder | None = None

    def map(
        self, engine: Engine, image_features: Snapshot, images: pa.Table, advance: Advance
    ) -> tuple[Rows, Rows | None]:
        """Return what the model makes of each of `images` (path and image_id), and the photos that it failed for."""
        by_features = functools.partial(
            classify, head=self.package.head, feature_version=self.package.feature_version, top_k=self.settings.top_k
        )
        if self.embedder is None:
            image_ids = engine.rows(images.select(["image_id"]))
            return engine.map(image_features, IMAGE_FEATURES.names, image_ids, by_features, _SCORED, advance), None
        kernel = functools.partial(_embed_and_classify, self.embedder.kernel(self.package.backbone), by_features)
        return attempted(self.embedder.photos, engine.rows(images.select(["path"])), kernel, _SCORED, advance)


def score_new(
    engine: Engine,
    tables: Mapping[str, Snapshot],
    predictions: Snapshot,
    scorer: Scorer,
    labels: LabelSettings,
    provenance: Mapping[str, Any],
    progress: Progress | None = None,
) -> Written:
    """Score the paths that have no prediction by this model version, and merge them.

    Without `scoring.labeled` those that have a label are passed over, but for labels that people are asked to decide. A
    path whose bytes changed since it was scored is scored again all the same: what stands in `predictions` is about the
    bytes that are there. `tables` are raw_images, labeled_images and image_features; and deleted_files and
    quarantined_files for a scorer that has to see the photos, which passes over those that have gone and those that a
    step has failed for.
    """
    chosen_from = {name: snapshot for name, snapshot in tables.items() if name != IMAGE_FEATURES.name}
    images = "SELECT path, image_id FROM raw_images" if scorer.embedder is None else USABLE
    passed_over = "FALSE" if scorer.settings.labeled else f"image_id NOT IN ({undecided(labels)})"
    todo = engine.sql(
        f"""
        SELECT images.path, images.image_id FROM ({images}) AS images
        LEFT JOIN (
            SELECT path, image_id FROM labeled_images WHERE {passed_over}
        ) AS labelled ON labelled.path = images.path AND labelled.image_id = images.image_id
        LEFT JOIN ({PREDICTED}) AS done ON done.path = images.path
        WHERE (done.path IS NULL AND labelled.path IS NULL) OR done.image_id <> images.image_id
        """,  # noqa: S608 - constants and a setting
        {**chosen_from, "predictions": predictions, "model": engine.rows(scorer.model.row)},
    ).arrow()
    if not todo.num_rows:
        return Written(predictions.version, changed=False)
    photos = engine.sql(
        "SELECT image_id, MIN(path) AS path FROM todo GROUP BY image_id", {"todo": engine.rows(todo)}
    ).arrow()
    scored, failures = scorer.map(engine, tables["image_features"], photos, counting(progress, photos.num_rows))
    rows = engine.sql(
        """
        SELECT todo.*, scored.predicted_label, scored.predicted_name, scored.confidence, scored.margin, scored.top_k
        FROM todo JOIN scored ON scored.image_id = todo.image_id
        """,
        {"todo": engine.rows(_stamped(todo, scorer)), "scored": scored},
    )
    written = engine.merge(rows, PREDICTIONS, predictions.uri, Commit(provenance))
    if scorer.embedder is None or failures is None:  # what lacks features is scored once there are some
        return written
    failed = note(scorer.embedder.photos, failures, PREDICTIONS.name, Commit(provenance))
    lacking = {*failures.arrow()["image_id"].to_pylist()}
    of_failed = sum(image_id in lacking for image_id in todo["image_id"].to_pylist())
    left_out = todo.num_rows - written.inserted - written.updated - of_failed
    return replace(written, left_out=left_out, failed=tuple(failed))


def _embed_and_classify(embed: Kernel, classify_features: Kernel, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Kernel: photos to what a model on another backbone says of them."""
    return classify_features(embed(batch))


def _stamped(todo: pa.Table, scorer: Scorer) -> pa.Table:
    import pyarrow as pa

    now = dt.datetime.now(dt.UTC)
    for column, value in {**scorer.model.row.to_pylist()[0], "scored_at": now}.items():
        scalar = pa.scalar(value, PREDICTIONS.schema.field(column).type)
        todo = todo.append_column(column, pa.repeat(scalar, todo.num_rows))
    return todo


def classify(batch: pa.RecordBatch, *, head: Head, feature_version: str, top_k: int) -> pa.RecordBatch:
    """Kernel: rows of `image_features` to label, name, confidence, margin and top_k."""
    import pyarrow as pa
    import pyarrow.compute as pc

    batch = batch.filter(pc.equal(batch["feature_version"], feature_version))
    features = np.asarray(batch["features"].flatten(), dtype=np.float32).reshape(batch.num_rows, len(head.mean))
    rows = ranked(head, head.probabilities(features), top_k)
    columns: dict[str, list[Any]] = {
        "image_id": batch["image_id"].to_pylist(),
        "predicted_label": [row["label"] for row in rows],
        "predicted_name": [row["name"] for row in rows],
        "confidence": [row["confidence"] for row in rows],
        "margin": [row["margin"] for row in rows],
        "top_k": [row["top_k"] for row in rows],
    }
    schema = PREDICTIONS.schema
    return pa.RecordBatch.from_pydict(
        {column.name: pa.array(columns[column.name], schema.field(column.name).type) for column in _SCORED}
    )
