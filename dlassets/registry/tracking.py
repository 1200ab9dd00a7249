"""Write a training down in MLflow: what it learned from, how, how good it got, and the model itself."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Snapshot
from dlassets.errors import DlassetsError
from dlassets.lakehouse.history import lineage
from dlassets.lakehouse.tables import TEST, VALIDATION
from dlassets.lakehouse.training_set import identity
from dlassets.learning.backbones import BackboneRef, feature_version
from dlassets.learning.calibration import calibrated
from dlassets.learning.evaluation.evaluate import evaluate
from dlassets.learning.examples import Examples, Splits, read_splits
from dlassets.learning.features import Embedder
from dlassets.learning.training.checkpoints import clear
from dlassets.learning.training.job import Event, Job, OnEvent, Trained
from dlassets.registry.environment import environment, installed
from dlassets.registry.lifecycle import TAG_INPUTS, run_or_none
from dlassets.registry.lineage import TAG_TRAINING_SET
from dlassets.registry.model_log import log_model
from dlassets.registry.outages import explained_mlflow
from dlassets.registry.package import ModelPackage
from dlassets.registry.report import Judged, log_report
from dlassets.settings import TrainingSettings
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa
    from mlflow import MlflowClient
    from mlflow.data.meta_dataset import MetaDataset

# The splits are the training set's, whose rows have features where a head is to be trained on them.
Fit = Callable[[Job, OnEvent, Splits], Trained]

# Raise it when the way of training changes what is learned: runs of the older way are then not taken for the same.
TRAINING_VERSION = 2
JOB, ENVIRONMENT, PACKAGES = "job.json", "environment.json", "environment.txt"
TAG_INPUT, TAG_REMARKS = "dlassets.input.", "dlassets.remarks"
NOT_EVALUATED = "photos_not_evaluated"
# MLflow's own.
TAG_RUN_NAME = "mlflow.runName"
# What of the settings changes how long a training takes, and not what is learned; and what only pixels take.
_OF_NO_MATTER = {"compute": True, "pixels": {"checkpoint_steps", "workers"}}
_OF_PIXELS = {"compute", "pixels", "last_n"}
# A head is trained in seconds, a network over hours.
_SYSTEM_SECONDS = {"head": 1.0, "last_n": 10.0, "all": 10.0}
_FLUSH_SECONDS = 2.0
# MLflow keeps no longer one of a dataset.
_DATASET_DIGEST = 8


@dataclass(frozen=True)
class TrainingInputs:
    """All that decides what is learned: two trainings with the same digest give the same weights.

    `lineage` has the versions of every table that the training set was made from, its own included. `identity` is the
    training set's (see `lakehouse.training_set.identity`); without one it is told by where it lies, as it once was.
    """

    job: Job
    feature_version: str
    lineage: Mapping[str, set[int]] = field(default_factory=dict)
    identity: tuple[Any, ...] = ()

    @classmethod
    def of(
        cls, lake: Lake, training_set: Snapshot, backbone: BackboneRef, settings: TrainingSettings
    ) -> TrainingInputs:
        """Return the inputs of a training; what its processes hand to each other on a cluster lies in the lake."""
        job, versions = Job(training_set, backbone, settings), lineage(lake, training_set.version)
        inputs = cls(job, feature_version(backbone), versions, identity(training_set))
        return replace(inputs, job=replace(job, folder=f"{lake.training}/{inputs.sha256[:16]}"))

    @property
    def description(self) -> str:
        """What decides, as JSON."""
        described = {
            "training_set": self.identity or (self.job.training_set.uri, self.job.training_set.version),
            "feature_version": self.feature_version,
            "settings": deciding(self.job.settings),
            "training_version": TRAINING_VERSION,
        }
        return json.dumps(described, sort_keys=True)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.description.encode()).hexdigest()

    @property
    def digests(self) -> tuple[str, str]:
        """`sha256`, and what it was while a training set was told by where it lies: runs of then have that."""
        return self.sha256, replace(self, identity=()).sha256


def deciding(settings: TrainingSettings) -> dict[str, Any]:
    """Return the settings that decide what is learned."""
    exclude: Any = _OF_PIXELS if settings.trainable == "head" else _OF_NO_MATTER
    return settings.model_dump(mode="json", exclude=exclude)


def train_and_log(
    mlflow: Any,
    inputs: TrainingInputs,
    fit: Fit,
    embedder: Embedder,
    attributes: pa.Table | None,
    tags: Mapping[str, str],
    report: OnEvent,
) -> list[str]:
    """Train, and write everything down in the active run while it goes on; return what a person should know of it.

    `attributes` says of images what an evaluation is sliced by (see `learning.evaluation.slices`); `report` is told of
    each step and epoch.
    """
    job = inputs.job
    with _system_metrics(mlflow, _SYSTEM_SECONDS[job.settings.trainable]):
        splits = read_splits(job.training_set, features=job.settings.trainable == "head")
        _log_inputs(mlflow, inputs, splits, tags)
        trained = _trained(mlflow, job, splits, fit, report)
        with _backbone_of(job, trained) as backbone:
            validation, test = splits[VALIDATION], splits[TEST]
            if trained.weights is not None:  # the head reads the features of what the backbone has become
                validation, test = (
                    rows.with_features(embedder.features(rows.paths, backbone)) for rows in (validation, test)
                )
            remarks = [*trained.remarks, *_not_evaluated(mlflow, splits, [*validation.paths, *test.paths])]
            if remarks:
                mlflow.set_tag(TAG_REMARKS, " ".join(remarks))
            head = calibrated(trained.head, validation)
            package = ModelPackage(head, backbone, feature_version(backbone))
            judged = Judged(
                package=package,
                rows=test,
                validation_rows=validation,
                before=evaluate(trained.head, test),
                after=evaluate(head, test),
                validation_before=evaluate(trained.head, validation),
                validation_after=evaluate(head, validation),
            )
            log_model(mlflow, package, example=log_report(mlflow, trained, judged, embedder.photos, attributes))
    return remarks


def artifact_of(client: MlflowClient, run_id: str, path: str) -> bytes:
    """Return a file that was logged with a run. Raises DlassetsError where it is gone."""
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        try:
            return Path(client.download_artifacts(run_id, path, folder)).read_bytes()
        except (MlflowException, OSError) as error:
            with explained_mlflow(f"the files of its run {run_id} were read"):
                run_or_none(client, run_id)  # an MLflow that is away has lost nothing
            raise DlassetsError(
                f"The files of MLflow run {run_id} cannot be read: {error} Restore MLflow's artifacts, or delete the "
                "run in MLflow to train again."
            ) from error


def _log_inputs(mlflow: Any, inputs: TrainingInputs, splits: Splits, tags: Mapping[str, str]) -> None:
    job, found = inputs.job, environment()
    mlflow.log_params({**_flat(deciding(job.settings)), "feature_version": inputs.feature_version})
    mlflow.log_params({f"{split}_rows": len(rows) for split, rows in splits.items()})
    mlflow.set_tags(
        {
            TAG_RUN_NAME: run_name(job, sum(map(len, splits.values()))),
            TAG_INPUTS: inputs.sha256,
            TAG_TRAINING_SET: job.training_set.version,
            "dlassets.code_version": found["code_version"],
            "dlassets.lock_sha256": found["lock_sha256"],
            **{f"{TAG_INPUT}{name}": ", ".join(map(str, sorted(read))) for name, read in inputs.lineage.items()},
            **tags,
        }
    )
    for split, rows in splits.items():
        mlflow.log_input(_dataset(job.training_set, split, rows), context=split)
    mlflow.log_text(job.to_json(), JOB)
    mlflow.log_text(json.dumps(found, indent=2), ENVIRONMENT)
    mlflow.log_text("\n".join(installed()) + "\n", PACKAGES)


def run_name(job: Job, photos: int) -> str:
    """Return what a training's run is called: what is trained, and on what."""
    settings = job.settings
    blocks = "1 block" if settings.last_n == 1 else f"{settings.last_n} blocks"
    trained = {
        "head": f"head on {job.backbone.name}",
        "last_n": f"head and last {blocks} of {job.backbone.name}",
        "all": f"all of {job.backbone.name}",
    }[settings.trainable]
    return f"{trained}, {photos:,} photos, {job.training_set.name} v{job.training_set.version}"


def _trained(mlflow: Any, job: Job, splits: Splits, fit: Fit, report: OnEvent) -> Trained:
    """Train, with what is measured logged as it comes."""
    with _live_metrics(mlflow, report) as live:
        began = time.monotonic()
        trained = fit(job, live, splits)
        mlflow.log_metric("training_seconds", time.monotonic() - began)
    if job.folder is not None:  # its checkpoints are no longer needed
        clear(job.folder)
    return trained


def _not_evaluated(mlflow: Any, splits: Splits, evaluated: Sequence[str]) -> list[str]:
    """Say, and log, how many photos of validation and test could not be had to be evaluated on."""
    missing = sorted({*splits[VALIDATION].paths, *splits[TEST].paths} - {*evaluated})
    if not missing:
        return []
    mlflow.log_metric(NOT_EVALUATED, len(missing))
    said = f"Gone from raw_images or damaged, and not evaluated on, {len(missing)} in all, such as {missing[0]}."
    return [f"{said} `dlassets verify --restore` puts damaged ones back; then train again."]


@contextmanager
def _live_metrics(mlflow: Any, report: OnEvent) -> Iterator[OnEvent]:
    """Give a function that logs each step's and epoch's metrics: at once, or a moment later with its neighbours."""
    from mlflow.entities import Metric

    client, run_id = mlflow.MlflowClient(), mlflow.active_run().info.run_id
    waiting: list[Metric] = []
    flushed = time.monotonic()

    def flush() -> None:
        nonlocal flushed
        client.log_batch(run_id, metrics=waiting)
        waiting.clear()
        flushed = time.monotonic()

    def live(event: Event) -> None:
        prefix = "step/" if event.kind == "step" else ""
        now = int(time.time() * 1000)
        waiting.extend(Metric(prefix + name, value, now, event.number - 1) for name, value in event.metrics.items())
        if event.kind == "epoch" or time.monotonic() - flushed > _FLUSH_SECONDS:
            flush()
        report(event)

    try:
        yield live
    finally:
        flush()


@contextmanager
def _system_metrics(mlflow: Any, seconds: float) -> Iterator[None]:
    """Log what of processor, memory, disk, network and GPU is in use, every so many seconds."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(mlflow.active_run().info.run_id, sampling_interval=seconds, samples_before_logging=1)
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


@contextmanager
def _backbone_of(job: Job, trained: Trained) -> Iterator[BackboneRef]:
    """Give the backbone whose features the head reads: the job's, or what training has made of it."""
    if trained.weights is None:
        yield job.backbone
        return
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "backbone.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in trained.weights.items()}, file)
        yield replace(job.backbone, weights=str(file))


def _dataset(snapshot: Snapshot, split: str, rows: Examples) -> MetaDataset:
    """Return what MLflow is told of a split: mlflow.data.load_delta would start Spark, its pandas one look at all."""
    from mlflow.data.delta_dataset_source import DeltaDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.types.schema import ColSpec, Schema

    digest = hashlib.sha256()
    for row in zip(rows.image_ids, rows.paths, rows.labels.tolist(), strict=True):
        digest.update(repr(row).encode())
    return MetaDataset(
        DeltaDatasetSource(path=snapshot.uri, delta_table_version=snapshot.version),
        f"{snapshot.name}.{split}@v{snapshot.version}",
        digest.hexdigest()[:_DATASET_DIGEST],
        Schema([ColSpec("string", "path"), ColSpec("string", "image_id"), ColSpec("long", "label")]),
    )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
