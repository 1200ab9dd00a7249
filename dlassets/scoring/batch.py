"""Predict from features, by the champion and by challengers beside it: what is new, or what was scored before again."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dlassets.engines.base import Commit, Engine, Rows, Snapshot, Written, counting
from dlassets.engines.schema import schema_of
from dlassets.errors import SettingsError
from dlassets.lakehouse.content import USABLE
from dlassets.lakehouse.failures import attempted, note
from dlassets.lakehouse.labels import undecided
from dlassets.lakehouse.tables import IMAGE_FEATURES, PREDICTIONS
from dlassets.learning.features import Embedder
from dlassets.learning.head import Head
from dlassets.registry.models import PREDICTED, ModelVersion, of_one_model
from dlassets.registry.package import ModelPackage
from dlassets.settings import LabelSettings, ScoringSettings

if TYPE_CHECKING:
    import pyarrow as pa

    from dlassets.engines.base import Advance, Kernel, Progress

_SAID = PREDICTIONS.columns_named("predicted_label", "predicted_name", "confidence", "margin", "top_k")
_OF_IMAGE = PREDICTIONS.columns_named("image_id")
_SCORED = (*_OF_IMAGE, *PREDICTIONS.columns_named("model_name", "model_version", "package"), *_SAID)
# What two answers to a photo may differ by and be the same: sums differ by which photos are added up together.
_SAME = 1e-6


@dataclass(frozen=True)
class Scope:
    """Which photos are scored again; those that have no prediction by the model are scored whatever it is.

    `again` are those that were taken in `since` a day and `until` one (UTC: `raw_images.load_date`), where it says any.
    """

    again: bool = False
    since: dt.date | None = None
    until: dt.date | None = None

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Read `new`, `all`, `since 2026-11-01` or `on 2026-11-01`. Raises SettingsError for anything else."""
        if text in {"new", "all"}:
            return cls(again=text == "all")
        word, _, day = text.partition(" ")
        try:
            since = dt.date.fromisoformat(day.strip())
        except ValueError:
            since = None
        if since is None or word not in {"since", "on"}:
            raise SettingsError(
                f"Predictions have no scope {text!r}: write new, all, or since or on a day that photos were taken in "
                "(since 2026-11-01)."
            )
        return cls(again=True, since=since, until=since if word == "on" else None)

    def __str__(self) -> str:
        if self.since is None:
            return "all" if self.again else "new"
        return f"{'on' if self.until else 'since'} {self.since}"

    @property
    def condition(self) -> str:
        """SQL for whether a row of `raw_images` is scored again."""
        days = ((">=", self.since), ("<=", self.until))
        within = [f"load_date {sign} DATE '{day.isoformat()}'" for sign, day in days if day is not None]
        return " AND ".join(within) or ("TRUE" if self.again else "FALSE")


@dataclass(frozen=True)
class Scorer:
    """A registered model that scores: by `image_features`, or by photos that it embeds where those have none of its.

    `challengers` read the same features, and answer beside it.
    """

    model: ModelVersion
    package: ModelPackage
    settings: ScoringSettings
    embedder: Embedder | None = None
    challengers: Mapping[ModelVersion, ModelPackage] = field(default_factory=dict)
    scope: Scope = Scope()

    @property
    def models(self) -> dict[ModelVersion, ModelPackage]:
        return {self.model: self.package, **self.challengers}

    def map(
        self, engine: Engine, image_features: Snapshot, images: pa.Table, advance: Advance
    ) -> tuple[Rows, Rows | None]:
        """Return what each model makes of each of `images` (path and image_id), and the photos that it failed for."""
        by_features = functools.partial(
            _classify_by_each,
            heads={model: package.head for model, package in self.models.items()},
            feature_version=self.package.feature_version,
            top_k=self.settings.top_k,
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
    """Score the paths that have no prediction by the scorer's models, and those of its scope again, and merge them.

    Without `scoring.labeled` those that have a label are passed over, but for labels that people are asked to decide. A
    path whose bytes changed since it was scored is scored again all the same: what stands in `predictions` is about the
    bytes that are there. Of what is scored again only what differs is written. `tables` are raw_images, labeled_images
    and image_features; and deleted_files and quarantined_files for a scorer that has to see the photos, which passes
    over those that have gone and those that a step has failed for.
    """
    import pyarrow as pa

    chosen_from = {name: snapshot for name, snapshot in tables.items() if name != IMAGE_FEATURES.name}
    usable = "" if scorer.embedder is None else f"WHERE path IN (SELECT path FROM ({USABLE}) AS usable)"  # noqa: S608
    passed_over = "FALSE" if scorer.settings.labeled else f"image_id NOT IN ({undecided(labels)})"
    models = engine.rows(pa.concat_tables([model.row for model in scorer.models]))
    todo = engine.sql(
        f"""
        SELECT images.path, images.image_id, model.model_name, model.model_version, model.package
        FROM (SELECT path, image_id, {scorer.scope.condition} AS again FROM raw_images {usable}) AS images
        CROSS JOIN model
        LEFT JOIN (
            SELECT path, image_id FROM labeled_images WHERE {passed_over}
        ) AS labelled ON labelled.path = images.path AND labelled.image_id = images.image_id
        LEFT JOIN ({PREDICTED}) AS done ON done.path = images.path AND {of_one_model("done", "model")}
        WHERE (done.path IS NULL AND labelled.path IS NULL) OR done.image_id <> images.image_id
            OR (done.path IS NOT NULL AND images.again)
        """,  # noqa: S608 - constants, days and a setting
        {**chosen_from, "predictions": predictions, "model": models},
    ).arrow()
    if not todo.num_rows:
        return Written(predictions.version, changed=False)
    photos = engine.sql(
        "SELECT image_id, MIN(path) AS path FROM todo GROUP BY image_id", {"todo": engine.rows(todo)}
    ).arrow()
    scored, failures = scorer.map(engine, tables["image_features"], photos, counting(progress, photos.num_rows))
    rows = engine.sql(
        f"""
        SELECT todo.*, {", ".join(f"scored.{column.name}" for column in _SAID)}
        FROM todo JOIN scored ON scored.image_id = todo.image_id AND {of_one_model("scored", "todo")}
        """,  # noqa: S608 - constants
        {"todo": engine.rows(_stamped(todo)), "scored": scored},
    )
    made = todo.num_rows if failures is None else rows.count()
    if scorer.scope.again:
        rows = _that_differ(engine, rows, predictions)
    written = engine.merge(rows, PREDICTIONS, predictions.uri, Commit(provenance))
    if scorer.embedder is None or failures is None:  # what lacks features is scored once there are some
        return written
    failed = note(scorer.embedder.photos, failures, PREDICTIONS.name, Commit(provenance))
    lacking = {*failures.arrow()["image_id"].to_pylist()}
    of_failed = sum(image_id in lacking for image_id in todo["image_id"].to_pylist())
    return replace(written, left_out=todo.num_rows - made - of_failed, failed=tuple(failed))


def _that_differ(engine: Engine, rows: Rows, predictions: Snapshot) -> Rows:
    """Return those of the rows that say something else than `predictions` does, or what it says nothing of."""
    beside = engine.sql(
        f"""
        SELECT made.*, done.predicted_label AS old_label, done.confidence AS old_confidence,
            done.margin AS old_margin, done.top_k AS old_top_k
        FROM made LEFT JOIN predictions AS done ON done.path = made.path AND done.image_id = made.image_id
            AND {of_one_model("done", "made")}
        """,  # noqa: S608 - constants
        {"made": rows, PREDICTIONS.name: predictions},
    )
    return beside.map(_differing, PREDICTIONS.columns)


def _differing(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Kernel: predictions beside what stood there before, to those that are not the same."""
    import pyarrow.compute as pc

    same = pc.equal(batch["predicted_label"], batch["old_label"])
    for name in ("confidence", "margin"):
        change = pc.abs(pc.subtract(batch[name], batch[f"old_{name}"]))
        same = pc.and_(same, pc.less(change, _SAME))
    lengths = (pc.list_value_length(batch[name]) for name in ("top_k", "old_top_k"))
    same = pc.and_(same, pc.equal(*lengths))
    return batch.filter(pc.invert(pc.fill_null(same, False))).select(PREDICTIONS.names)


def _embed_and_classify(embed: Kernel, classify_features: Kernel, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Kernel: photos to what a model on another backbone says of them."""
    return classify_features(embed(batch))


def _stamped(todo: pa.Table) -> pa.Table:
    import pyarrow as pa

    now = pa.scalar(dt.datetime.now(dt.UTC), PREDICTIONS.schema.field("scored_at").type)
    return todo.append_column("scored_at", pa.repeat(now, todo.num_rows))


def _classify_by_each(
    batch: pa.RecordBatch, *, heads: Mapping[ModelVersion, Head], feature_version: str, top_k: int
) -> pa.RecordBatch:
    """Kernel: rows of `image_features` to what each of the models says of them."""
    import pyarrow as pa

    schema, parts = schema_of(_SCORED), []
    for model, head in heads.items():
        said = classify(batch, head=head, feature_version=feature_version, top_k=top_k)
        of_model = {name: [value] * said.num_rows for name, value in model.row.to_pylist()[0].items()}
        columns: dict[str, Any] = {**of_model, **{name: said[name] for name in said.schema.names}}
        parts.append(pa.RecordBatch.from_pydict(columns, schema))
    return pa.concat_batches(parts)


def classify(batch: pa.RecordBatch, *, head: Head, feature_version: str, top_k: int) -> pa.RecordBatch:
    """Kernel: rows of `image_features` to image_id, label, name, confidence, margin and top_k.

    These are what `package.ranked` says, a column each: for many photos that takes a tenth of the time.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    batch = batch.filter(pc.equal(batch["feature_version"], feature_version))
    features = np.asarray(batch["features"].flatten(), dtype=np.float32).reshape(batch.num_rows, len(head.mean))
    probabilities = head.probabilities(features)
    rows = len(probabilities)
    places = np.argsort(-probabilities, axis=1, kind="stable")[:, : max(top_k, 2)]
    sure = np.take_along_axis(probabilities, places, axis=1)
    labels, names = pa.array(head.labels, pa.int64()), pa.array(head.names, pa.string())
    best, listed = pa.array(places[:, 0]), places[:, :top_k]
    of_listed = pa.array(listed.ravel())
    entries = {
        "label": labels.take(of_listed),
        "name": names.take(of_listed),
        "confidence": pa.array(sure[:, :top_k].ravel()),
    }
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * listed.shape[1])
    columns: dict[str, Any] = {
        "image_id": batch["image_id"],
        "predicted_label": labels.take(best),
        "predicted_name": names.take(best),
        "confidence": pa.array(sure[:, 0]),
        "margin": pa.array(sure[:, 0] - sure[:, 1]),
        "top_k": pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays([*entries.values()], [*entries])),
    }
    return pa.RecordBatch.from_pydict(columns, schema_of([*_OF_IMAGE, *_SAID]))
