"""Train a model again from what its run wrote down, and say what came out the same and what did not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dlassets.engines.base import Engine, Snapshot
from dlassets.errors import DlassetsError
from dlassets.lakehouse.history import table_of, whole_version
from dlassets.lakehouse.snapshots import provenance_of
from dlassets.lakehouse.tables import TRAINING_SET
from dlassets.lakehouse.training_set import (
    FINGERPRINT,
    PIXELS,
    fingerprint_of,
    with_bytes_to_be_had,
    with_cached_features,
)
from dlassets.learning.training.job import Job
from dlassets.registry.lifecycle import CHAMPION, load_run
from dlassets.registry.lineage import model_version
from dlassets.registry.package import ModelPackage
from dlassets.registry.tracking import ENVIRONMENT, JOB, PACKAGES, TrainingInputs, artifact_of
from dlassets.settings import LabelSettings, Settings
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

TAG_REPRODUCES = "dlassets.reproduces"
# Figures of how a run went, and not of what it learned.
_OF_THE_WAY = ("system/", "step/", "training_seconds")
_SHOWN_PACKAGES = 5


@dataclass(frozen=True)
class Figure:
    """A figure of both runs; `difference` is the largest of its numbers."""

    name: str
    before: str
    after: str
    difference: float


@dataclass(frozen=True)
class Reproduction:
    """What came of training again: figures, weights among them, and what was not as it was the first time.

    `changed` names what differs of code, packages and machine, as (what, then, now). `rebuilt` says whether the
    training set's rows, chosen anew from the versions it was made of, are the ones it holds; None where those are gone.
    """

    run_id: str
    new_run_id: str
    rebuilt: bool | None
    figures: list[Figure]
    changed: list[tuple[str, str, str]]

    def differing(self, tolerance: float) -> list[Figure]:
        """Return the figures that differ by more than the tolerance."""
        return [figure for figure in self.figures if not figure.difference <= tolerance]


def find_original(client: MlflowClient, model_name: str, asked: str) -> Run:
    """Return the run that `asked` names: by its id, or by a registered version's number or alias.

    Raises DlassetsError where there is none, or it did not write down what it takes to train again.
    """
    from mlflow.exceptions import MlflowException

    if asked == CHAMPION or asked.isdecimal():
        version = model_version(client, model_name, asked)
        asked = str(client.get_model_version(model_name, str(version)).run_id)
    try:
        return client.get_run(asked)
    except MlflowException as error:
        raise DlassetsError(
            f"MLflow has no run {asked}. Give a run's id, or a version of {model_name}: its number, or champion."
        ) from error


def inputs_of(client: MlflowClient, run: Run, lake: Lake, settings: Settings) -> TrainingInputs:
    """Return what the run learned from, as it can be read now: that version of the training set, whole.

    Raises DlassetsError where the run recorded none, or the version's files are gone.
    """
    job = Job.from_json(artifact_of(client, run.info.run_id, JOB).decode())
    now = table_of(lake, TRAINING_SET.name)
    then = whole_version(now, job.training_set.version, settings.maintenance.retention_hours)
    # Where a model is trained changes nothing of what is learned, and this machine is another.
    training = job.settings.model_copy(update={"compute": settings.training.compute})
    return TrainingInputs.of(lake, then, job.backbone, training)


def is_rebuilt(engine: Engine, lake: Lake, training_set: Snapshot, retention_hours: int) -> bool:
    """Choose the rows of a version anew, from the versions of the tables it was made of: are they the same?

    Raises DlassetsError where it did not record those, or they cannot be had any more.
    """
    said = provenance_of(training_set)
    if FINGERPRINT not in said or not {"inputs", "parameters"} <= said.keys():
        raise DlassetsError(f"Version {training_set.version} of {training_set.name} did not record what it is made of.")
    parameters = dict(said["parameters"])
    made_of, labels = parameters.pop("feature_version"), LabelSettings(**parameters)
    tables = {
        name: whole_version(table_of(lake, name), version, retention_hours) for name, version in said["inputs"].items()
    }
    if made_of == PIXELS:
        chosen = with_bytes_to_be_had(
            engine, tables["labeled_images"], tables["raw_images"], tables["deleted_files"], labels
        )
    else:
        chosen = with_cached_features(engine, tables["labeled_images"], tables["image_features"], made_of, labels)
    return bool(fingerprint_of(chosen, made_of) == said[FINGERPRINT])


def compare_runs(client: MlflowClient, original: Run, again: Run, rebuilt: bool | None) -> Reproduction:
    """Compare what two runs learned, and what they ran with."""
    packages = [load_run(client, run) for run in (original, again)]
    return Reproduction(
        run_id=original.info.run_id,
        new_run_id=again.info.run_id,
        rebuilt=rebuilt,
        figures=[*_weights(*packages), *_metrics(original, again)],
        changed=[*_environments(client, original, again), *_installed(client, original, again)],
    )


def _metrics(original: Run, again: Run) -> Iterator[Figure]:
    before, after = original.data.metrics, again.data.metrics
    for name in sorted(before.keys() | after.keys()):
        if not name.startswith(_OF_THE_WAY):
            one, other = before.get(name, np.nan), after.get(name, np.nan)
            yield Figure(name, f"{one:.6g}", f"{other:.6g}", abs(one - other))


def _weights(before: ModelPackage, after: ModelPackage) -> Iterator[Figure]:
    yield _figure("weights of the head", before.head.weight, after.head.weight)
    yield _figure("biases of the head", before.head.bias, after.head.bias)
    one, other = _backbone_tensors(before), _backbone_tensors(after)
    if one.size or other.size:
        yield _figure("weights of the backbone", one, other)


def _backbone_tensors(package: ModelPackage) -> Any:
    from dlassets.learning.weights import NONE, PACKAGE, tensors

    if package.backbone.weights in {PACKAGE, NONE}:
        return np.empty(0)
    found = tensors(package.backbone.name, package.backbone.weights)
    return np.concatenate([found[name].double().numpy().ravel() for name in sorted(found)])


def _figure(name: str, before: Any, after: Any) -> Figure:
    """Compare arrays by their norms, for people, and by their largest difference."""
    if before.shape != after.shape:
        return Figure(name, str(before.shape), str(after.shape), np.inf)
    difference = float(np.abs(before.astype(np.float64) - after).max()) if before.size else 0.0
    return Figure(name, f"norm {np.linalg.norm(before):.6g}", f"norm {np.linalg.norm(after):.6g}", difference)


def _environments(client: MlflowClient, original: Run, again: Run) -> Iterator[tuple[str, str, str]]:
    before, after = (json.loads(artifact_of(client, run.info.run_id, ENVIRONMENT)) for run in (original, again))
    for name in before:
        if before[name] != after.get(name):
            yield name.replace("_", " "), str(before[name]), str(after.get(name))


def _installed(client: MlflowClient, original: Run, again: Run) -> Iterator[tuple[str, str, str]]:
    before, after = (
        dict(line.split("==", 1) for line in artifact_of(client, run.info.run_id, PACKAGES).decode().split())
        for run in (original, again)
    )
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield name, before.get(name, "not there"), after.get(name, "not there")
