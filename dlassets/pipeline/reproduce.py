"""Train a model again from what its run wrote down, and say what came out the same and what did not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dlassets.engines.base import Snapshot
from dlassets.errors import DlassetsError
from dlassets.lakehouse.history import table_of, whole_version
from dlassets.lakehouse.snapshots import provenance_of
from dlassets.lakehouse.tables import TRAINING_SET
from dlassets.lakehouse.training_set import FINGERPRINT
from dlassets.learning.backbones import published
from dlassets.learning.training.job import Job
from dlassets.pipeline import steps
from dlassets.pipeline.report import Report
from dlassets.pipeline.session import Session
from dlassets.registry.lifecycle import CHAMPION, TAG_INPUTS, if_there, load_run
from dlassets.registry.lineage import model_version
from dlassets.registry.package import ModelPackage
from dlassets.registry.tracking import ENVIRONMENT, JOB, PACKAGES, TAG_RUN_NAME, TrainingInputs, artifact_of
from dlassets.settings import LabelSettings
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


def find_original(session: Session, model: str) -> Run:
    """Return the run that `model` names: by its id, or by a registered version's number or alias.

    Raises DlassetsError where there is none.
    """
    client, run_id = session.mlflow.client, model
    if model == CHAMPION or model.isdecimal():
        version = model_version(client, session.model_name, model, session.champion())
        run_id = str(client.get_model_version(session.model_name, str(version)).run_id)
    if (run := if_there(lambda: client.get_run(run_id), "INVALID_PARAMETER_VALUE")) is None:
        raise DlassetsError(
            f"MLflow has no run {run_id}. Give a run's id, or a version of {session.model_name}: its number, or "
            "champion."
        )
    return run


def inputs_of(session: Session, run: Run) -> TrainingInputs:
    """Return what the run learned from, as it can be read now: that version of the training set, whole.

    Raises DlassetsError where the run recorded none, or the version's files are gone.
    """
    job = Job.from_json(artifact_of(session.mlflow.client, run.info.run_id, JOB).decode())
    then = _whole(session, session.lake, TRAINING_SET.name, job.training_set.version)
    # Where a model is trained changes nothing of what is learned, and this machine is another.
    training = job.settings.model_copy(update={"compute": session.settings.training.compute})
    return TrainingInputs.of(session.lake, then, published(job.backbone, session.lake), training)


def is_rebuilt(session: Session, training_set: Snapshot) -> bool:
    """Choose the rows of a version anew, from the versions of the tables it was made of: are they the same?

    Raises DlassetsError where it did not record those, or they cannot be had any more.
    """
    recorded = provenance_of(training_set)
    if FINGERPRINT not in recorded or not {"inputs", "parameters"} <= recorded.keys():
        raise DlassetsError(f"Version {training_set.version} of {training_set.name} did not record what it is made of.")
    parameters, elsewhere = dict(recorded["parameters"]), recorded.get("elsewhere", {})
    made_of = parameters.pop("feature_version")
    own = Lake.of_table(training_set.uri, training_set.name)
    at = {
        name: _whole(session, Lake.of_table(elsewhere[name], name) if name in elsewhere else own, name, version)
        for name, version in recorded["inputs"].items()
    }
    settings = session.settings.model_copy(update={"labels": LabelSettings(**parameters)})
    then = session.changed(at=at, settings=settings)
    choice = steps.chosen_rows(then, steps.training_set.hand_out(then), made_of)
    return bool(choice.fingerprint == recorded[FINGERPRINT])


def train_again(session: Session, original: Run, inputs: TrainingInputs, report: Report) -> Run:
    """Train in a run of its own, on what the original learned from.

    Pictures and slices are made of the tables as the training set saw them, where they can still be had; else as they
    are now.
    """
    at = {inputs.job.training_set.name: inputs.job.training_set}
    for name, versions in inputs.lineage.items():
        with suppress(DlassetsError):  # it serves pictures and slices alone, and what is learned is read elsewhere
            at.setdefault(name, _whole(session, session.lake, name, max(versions)))
    then = session.changed(at=at)
    name = f"reproduces {original.info.run_name}"
    run = session.mlflow.run(name, original.info.experiment_id)
    # Not found as a run of these inputs: trained_model goes on from the original.
    own = {TAG_REPRODUCES: original.info.run_id, TAG_INPUTS: f"reproduces {original.info.run_id}", TAG_RUN_NAME: name}
    run_id = steps.train(then, steps.trained_model.hand_out(then), inputs, run, own, report)
    return session.mlflow.client.get_run(run_id)


def _whole(session: Session, lake: Lake, name: str, version: int) -> Snapshot:
    """Return a version of a lake's table. Raises DlassetsError where it cannot be read whole any more."""
    return whole_version(table_of(lake, name), version, session.settings.maintenance.retention_hours)


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
