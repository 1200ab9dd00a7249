"""Which versions of the lake's tables registered models were trained from, and which models a store does not know."""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Engine
from dlassets.errors import DlassetsError, some_of
from dlassets.lakehouse.history import lineage
from dlassets.lakehouse.model_versions import KnownModel, record_models, recorded_models, scoring_models
from dlassets.lakehouse.tables import TRAINING_SET
from dlassets.registry.lifecycle import (
    CHAMPION,
    identified,
    registered_versions,
    run_or_none,
    version_of,
    versions_of,
)
from dlassets.registry.models import ModelVersion
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

TAG_TRAINING_SET = "dlassets.training_set_version"
_SHOWN = 5


def model_version(client: MlflowClient, model_name: str, version: str) -> int:
    """Return the registered version that `version` names: a number, or champion. Raises DlassetsError for another."""
    known = versions_of(client, model_name)
    number = version_of(client, model_name) if version == CHAMPION else int(version) if version.isdecimal() else None
    if number in known:
        return number
    if not known:
        raise DlassetsError(f"No version of {model_name} is registered yet. Run training_pipeline first.")
    if version == CHAMPION:
        raise DlassetsError(f"No version of {model_name} is champion. Name one: {_listed(known)}.")
    raise DlassetsError(f"{model_name} has no version {version}. It has {_listed(known)}.")


def trained_from(lake: Lake, client: MlflowClient, model_name: str, version: int) -> dict[str, int]:
    """Return the version of each table that a registered model version was trained from.

    Where one was read at two versions (features were made before the last photos were labelled), that is the newer.
    Raises DlassetsError where the model's run recorded none.
    """
    run = run_or_none(client, client.get_model_version(model_name, str(version)).run_id)
    learned_from = None if run is None else training_set_of(run)
    if learned_from is None:
        raise DlassetsError(
            f"The run that trained version {version} of {model_name} is gone, or did not record which version of "
            f"{TRAINING_SET.name} it read (its tag {TAG_TRAINING_SET}), so what it learned from cannot be told."
        )
    return {name: max(versions) for name, versions in lineage(lake, learned_from).items()}


def record_registered(
    engine: Engine, lake: Lake, client: MlflowClient, model_name: str, provenance: Mapping[str, Any]
) -> None:
    """Write down in the lake what every registered version of the model learned from, where that is this lake.

    A version that is written down already, say by the run that registered it, costs nothing.
    """
    recorded = {model.run_id for model in recorded_models(engine, lake)}
    new = [
        _known(identified(version), run)
        for version in registered_versions(client, model_name)
        if version.run_id not in recorded and (run := run_or_none(client, version.run_id)) and learned_in(run, lake)
    ]
    record_models(engine, lake, new, provenance)


def needed_versions(engine: Engine, lake: Lake, client: MlflowClient) -> dict[str, set[int]]:
    """Return the versions of each table that a registered model, of whatever name, was trained from.

    Raises DlassetsError where the store does not know every model that the lake knows of: it is another one, or made
    anew, or an older copy, and what it does not say may be needed all the same.
    """
    if unknown := unknown_models(engine, lake, client):
        names = [f"{model} (run {model.run_id})" if model.run_id else str(model) for model in unknown]
        raise DlassetsError(
            f"MLflow's store does not know {len(names)} of the models that this lake's tables name: "
            f"{some_of(names, _SHOWN)}. It may be another store, made anew, or an older copy, so nothing was deleted. "
            "Restore the store, or set DLASSETS_MLFLOW__TRACKING_URI to the one that has them. Where they are gone for "
            f"good, let go of what they learned from: dlassets forget '{unknown[0]}' and so on."
        )
    recorded = {model.run_id: model.training_set_version for model in recorded_models(engine, lake)}
    needed: dict[str, set[int]] = defaultdict(set)
    for training_set in {_learned_from(client, version.run_id, recorded) for version in registered_versions(client)}:
        for name, versions in (lineage(lake, training_set) if training_set is not None else {}).items():
            needed[name] |= versions
    return dict(needed)


def unknown_models(engine: Engine, lake: Lake, client: MlflowClient) -> list[KnownModel]:
    """Return the models that the lake knows of and the store does not, but for those that were forgotten.

    A version that was deleted in the store is known there by its run; of one that names no package, any is its own.
    """
    registered, recorded = registered_versions(client), recorded_models(engine, lake)
    runs = {version.run_id for version in registered}
    named = {*map(identified, registered), *map(_identity, recorded)}
    return [
        *(
            model
            for model in recorded
            if model.forgotten_at is None and model.run_id not in runs and not run_or_none(client, model.run_id)
        ),
        *(
            model
            for model in scoring_models(engine, lake)
            if not {_identity(model), _identity(model)._replace(package=None)} & named
        ),
    ]


def _known(model: ModelVersion, run: Run) -> KnownModel:
    return KnownModel(model.name, model.version, run.info.run_id, model.package, training_set_of(run))


def _identity(model: KnownModel) -> ModelVersion:
    return ModelVersion(model.model_name, model.model_version, model.package)


def forget(engine: Engine, lake: Lake, client: MlflowClient, name: str, provenance: Mapping[str, Any]) -> None:
    """Note of a model (name/version) that no store has it any more: what it learned from need not be kept.

    Raises DlassetsError where the lake does not know it, or the store does.
    """
    unknown = unknown_models(engine, lake, client)
    chosen = [replace(model, forgotten_at=dt.datetime.now(dt.UTC)) for model in unknown if str(model) == name]
    if not chosen:
        others = f" It does not know {', '.join(sorted({str(model) for model in unknown}))}." if unknown else ""
        raise DlassetsError(
            f"{name} is no model that the lake names and MLflow's store does not know.{others} To let go of what a "
            "registered version learned from, delete it in MLflow."
        )
    record_models(engine, lake, chosen, provenance)


def _learned_from(client: MlflowClient, run_id: str, recorded: Mapping[str, int | None]) -> int | None:
    """Return the version of `training_set` that a run learned from, by the lake's record or else by the run's own."""
    if (version := recorded.get(run_id)) is not None:
        return version
    run = run_or_none(client, run_id)
    return None if run is None else training_set_of(run)


def training_set_of(run: Run) -> int | None:
    """Return the version of `training_set` that a run recorded, or None."""
    recorded_version = run.data.tags.get(TAG_TRAINING_SET)
    return None if recorded_version is None else int(recorded_version)


def learned_in(run: Run, lake: Lake) -> bool:
    """Whether a run learned from this lake's training set."""
    sources = [json.loads(read.dataset.source) for read in run.inputs.dataset_inputs] if run.inputs else []
    own = lake.table(TRAINING_SET.name).removeprefix("file://")
    return any(str(source.get("path")).removeprefix("file://") == own for source in sources)


def _listed(versions: list[int]) -> str:
    return ", ".join(map(str, versions))
