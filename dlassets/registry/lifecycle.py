"""Runs and versions of a model in MLflow: found, registered, loaded, compared. Every step can be repeated."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dlassets.engines.process_identity import ProcessIdentity
from dlassets.errors import DlassetsError
from dlassets.learning.weights import MODEL
from dlassets.registry.models import ModelVersion
from dlassets.registry.outages import explained_mlflow
from dlassets.registry.package import ModelPackage, digest_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion as RegisteredVersion

T = TypeVar("T")

CHAMPION, CHALLENGER = "champion", "challenger"
TAG_INPUTS = "dlassets.inputs_sha256"
# What these say, `model_events` says since there is one: when a version became champion, and why one was not promoted.
TAG_PROMOTIONS = "dlassets.promotions"
TAG_VERDICT = "dlassets.verdict"
TAG_PACKAGE = "dlassets.package_sha256"
# Of a version: that a step registered it, and nobody by hand.
TAG_STEP, STEP = "dlassets.registered_by", "registered_version"
# Where the package lies among the files of a logged model.
PACKAGE = "artifacts/package"
# What the run is one of.
TAG_ASSET = "dagster_asset"
# MLflow's own, of a logged model.
TAG_VERSIONS = "mlflow.modelVersions"
# The process whose run it is: see `end_dead_runs`.
TAG_PROCESS = "dlassets.process"


def find_run(client: MlflowClient, experiment: str, model_name: str, inputs_sha256: str) -> Run | None:
    """Return the run that learned from exactly these inputs, if one has finished: see `first_of`."""
    found = runs_where(client, experiment, _learned_from(inputs_sha256))
    return first_of(client, model_name, found) if found else None


def first_of(client: MlflowClient, model_name: str, trainings: Sequence[Run]) -> Run:
    """Return which of the finished trainings on the same inputs is everybody's answer: two at once leave two.

    It is the one that is registered first, by the numbers that the store gives; while none is, the first that
    finished, by the clocks of their machines.
    """
    if len(trainings) > 1 and (versions := _versions_of(client, model_name, trainings)):
        return next(run for run in trainings if run.info.run_id == versions[0].run_id)
    return min(trainings, key=lambda run: (run.info.end_time, run.info.run_id))


def _learned_from(inputs_sha256: str) -> str:
    return f"tags.`{TAG_INPUTS}` = '{inputs_sha256}' AND attributes.status = 'FINISHED'"


def runs_where(client: MlflowClient, experiment: str, condition: str) -> list[Run]:
    """Return an experiment's runs of which this holds, the newest first; none where there is no such experiment."""
    found = client.get_experiment_by_name(experiment)
    return [] if found is None else list(client.search_runs([found.experiment_id], condition))


def end_dead_runs(client: MlflowClient, experiment: str) -> list[str]:
    """End the runs whose process was killed, which could not; return their names."""
    ended = []
    for run in runs_where(client, experiment, "attributes.status = 'RUNNING'"):
        process = ProcessIdentity.parse(run.data.tags.get(TAG_PROCESS, ""))
        if process is not None and process.is_gone:
            client.set_terminated(run.info.run_id, "KILLED")
            ended.append(run.info.run_name)
    return ended


def register(client: MlflowClient, model_name: str, run: Run) -> int:
    """Register the run's model as a version; what learned from the same inputs is one version, the first there is."""
    from mlflow.exceptions import MlflowException

    trainings = _same_trainings(client, run)
    if not _versions_of(client, model_name, trainings):
        try:
            client.create_registered_model(model_name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = _model_of(run)
        tags = {name: run.data.tags[name] for name in (TAG_PACKAGE, TAG_INPUTS) if name in run.data.tags}
        model_id = source.removeprefix(MODEL)
        client.create_model_version(model_name, source, run.info.run_id, {**tags, TAG_STEP: STEP}, model_id=model_id)
        trainings = _same_trainings(client, run)  # another may have finished, and been registered, meanwhile
    version = _one_version(client, model_name, trainings)
    registered = next(training for training in trainings if training.info.run_id == version.run_id)
    _link(client, registered, model_name, int(version.version))
    return int(version.version)


def _same_trainings(client: MlflowClient, run: Run) -> list[Run]:
    """Return the finished runs that learned from the inputs of this one, itself among them."""
    if (inputs := run.data.tags.get(TAG_INPUTS)) is None:
        return [run]
    found = client.search_runs([run.info.experiment_id], _learned_from(inputs))
    return [run, *(other for other in found if other.info.run_id != run.info.run_id)]


def _one_version(client: MlflowClient, model_name: str, trainings: Sequence[Run]) -> RegisteredVersion:
    """Return the first version of trainings on the same inputs, once those are withdrawn that a step has made again.

    That happens where two processes register at the same moment, one training or one each, and where an answer of
    MLflow's is lost: its client asks again. Each looks when it has made its own, so that the one with the higher number
    sees the other. What somebody registers by hand is theirs, and so is what has an alias; of another training, what
    does not say its inputs was registered when that made a version of its own.
    """
    first, *again = _versions_of(client, model_name, trainings)
    for version in again:
        is_again = version.run_id == first.run_id or TAG_INPUTS in version.tags
        if is_again and version.tags.get(TAG_STEP) == STEP and not version.aliases:
            if_there(functools.partial(client.delete_model_version, model_name, version.version))
    return first


def registered_as(client: MlflowClient, model_name: str, run: Run) -> int:
    """Return the version that a run's model is registered as. Raises DlassetsError where it is not."""
    if not (versions := _versions_of(client, model_name, [run])):
        raise DlassetsError(
            f"The model of run {run.info.run_id} is not registered. Materialize registered_version first."
        )
    return int(versions[0].version)


def _link(client: MlflowClient, run: Run, model_name: str, version: int) -> None:
    """Have the page of the model that a run logged name its version, as `mlflow.register_model` does."""
    id_ = _model_of(run).removeprefix(MODEL)
    links = json.loads(client.get_logged_model(id_).tags.get(TAG_VERSIONS, "[]"))
    link = {"name": model_name, "version": str(version)}
    if link not in links:
        client.set_logged_model_tags(id_, {TAG_VERSIONS: json.dumps([*links, link])})


def _versions_of(client: MlflowClient, model_name: str, runs: Sequence[Run]) -> list[RegisteredVersion]:
    """Return the versions of runs, the oldest first."""
    ids = ", ".join(f"'{run.info.run_id}'" for run in runs)
    found = client.search_model_versions(f"name = '{model_name}' AND run_id IN ({ids})")
    return sorted(found, key=lambda version: int(version.version))


def version_of(client: MlflowClient, model_name: str, alias: str = CHAMPION) -> int | None:
    """Return the version behind an alias, or None."""
    model = model_of(client, model_name, alias)
    return None if model is None else model.version


def model_of(client: MlflowClient, model_name: str, alias: str = CHAMPION) -> ModelVersion | None:
    """Return the model behind an alias, or None."""
    found = if_there(lambda: client.get_model_version_by_alias(model_name, alias), "INVALID_PARAMETER_VALUE")
    return None if found is None else identified(found)


def challenger_beside(client: MlflowClient, model_name: str, champion: ModelVersion | None) -> ModelVersion | None:
    """Return the challenger, or None where there is none, or it is the champion."""
    challenger = model_of(client, model_name, CHALLENGER)
    return None if challenger == champion else challenger


def if_there(ask: Callable[[], T], *also: str) -> T | None:
    """Return what MLflow is asked for; None where it says that there is no such thing, by a code of `also` too."""
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", *also}:
            return None
        raise


def identified(registered: RegisteredVersion) -> ModelVersion:
    """Return a registered version as what tells it from every other."""
    return ModelVersion(registered.name, int(registered.version), registered.tags.get(TAG_PACKAGE))


def promotions(client: MlflowClient, model_name: str) -> list[dict[str, Any]]:
    """Return every promotion from before there was `model_events`, oldest first.

    `version`, `over` (None for the first), `at` (ISO), `why` and `run_id` (Dagster's).
    """
    history: list[dict[str, Any]] = json.loads(client.get_registered_model(model_name).tags.get(TAG_PROMOTIONS, "[]"))
    return history


def versions_of(client: MlflowClient, model_name: str) -> list[int]:
    """Return every registered version, oldest first."""
    return sorted(int(version.version) for version in registered_versions(client, model_name))


def registered_versions(client: MlflowClient, model_name: str | None = None) -> list[RegisteredVersion]:
    """Return every version that is registered, of one model or of all there are."""
    condition = None if model_name is None else f"name = '{model_name}'"
    found, token = [], None
    while True:
        page = client.search_model_versions(condition, page_token=token)
        found += page
        if not (token := page.token):
            return found


@contextmanager
def version_files(client: MlflowClient, model_name: str, version: int) -> Iterator[Path]:
    """Have the folder of all files of a registered version as MLflow keeps them, see PACKAGE; a copy goes afterwards.

    Nothing of what they say has been looked at. Raises DlassetsError where they are gone.
    """
    source = client.get_model_version(model_name, str(version)).source
    with _scratch() as folder:
        yield _downloaded(client, f"models:/{model_name}/{version}", source, folder)


def load_run(client: MlflowClient, run: Run) -> ModelPackage:
    """Download the package that a run logged, registered or not. Raises DlassetsError as `load_package` does."""
    source = _model_of(run)
    return load_package(client, source, source, {f"the tag {TAG_PACKAGE} of its run": run.data.tags.get(TAG_PACKAGE)})


def run_or_none(client: MlflowClient, run_id: str | None) -> Run | None:
    """Return a run, or None where the store has no such run; a version that came from no run has none either."""
    return if_there(lambda: client.get_run(run_id)) if run_id else None


def load_package(client: MlflowClient, uri: str, source: str, told: Mapping[str, str | None]) -> ModelPackage:
    """Download a package from where its model's `source` says; it is called `uri` in errors.

    `told` are the digests that it is said to have, by who says so; None of those that do not. Raises DlassetsError
    where its files are gone or broken, or have another.
    """
    with _scratch() as folder:
        files = _downloaded(client, uri, source, folder)
        loaded, found = ModelPackage.load(files / PACKAGE), digest_of(files / PACKAGE)
        if files.is_relative_to(folder):
            loaded = loaded.kept()
    named = {place: digest for place, digest in told.items() if digest is not None}
    if others := [place for place, digest in named.items() if digest != found]:
        raise DlassetsError(
            f"The package of {uri} is not the one that was registered: its files have another digest than "
            f"{' and '.join(others)} say. Nothing is done with it. Restore its files (and tags) from a copy; or go "
            "back to the version before with dlassets rollback, or train again."
        )
    return loaded


def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="dlassets-model-")


def _downloaded(client: MlflowClient, uri: str, source: str, folder: str) -> Path:
    """Return the folder of a model's files: where MLflow keeps them on this machine, else a copy within `folder`."""
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.utils.uri import is_local_uri

    try:
        # Asked for a models:/ URI, MLflow looks into the store that this process opened last.
        id_ = source.removeprefix(MODEL)
        place = client.get_logged_model(id_).artifact_location if id_ != source else source
        target = None if is_local_uri(place) else folder
        return Path(
            mlflow.artifacts.download_artifacts(artifact_uri=place, dst_path=target, tracking_uri=client.tracking_uri)
        )
    except (MlflowException, OSError) as error:
        with explained_mlflow(f"the files of {uri} were read"):
            client.search_experiments(max_results=1)  # an MLflow that is away has lost nothing
        raise DlassetsError(
            f"The files of {uri} cannot be read: {error} Restore MLflow's artifacts, or see that they can be reached."
        ) from error


def _model_of(run: Run) -> str:
    """Return the URI of the model that a run logged. Raises DlassetsError where there is none."""
    models = run.outputs.model_outputs if run.outputs else []
    if not models:
        raise DlassetsError(f"MLflow run {run.info.run_id} holds no model. Materialize trained_model again.")
    return f"{MODEL}{models[0].model_id}"
