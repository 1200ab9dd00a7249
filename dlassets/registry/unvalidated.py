"""A look at the registry from outside of a run: versions that nobody has validated, and aliases moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlassets.lakehouse.snapshots import newest
from dlassets.lakehouse.tables import MODEL_EVENTS
from dlassets.registry.aliases import notice_outside_moves
from dlassets.registry.events import History
from dlassets.registry.lifecycle import CHALLENGER, identified, registered_versions, run_or_none
from dlassets.registry.lineage import learned_in
from dlassets.registry.model_registry import ModelRegistry
from dlassets.registry.outages import explained_mlflow

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion as RegisteredVersion

# Of a run of MLflow: the run of Dagster that made it.
_TAG_DAGSTER_RUN = "dagster_run_id"


@dataclass(frozen=True)
class Look:
    """`unvalidated` are versions to validate, with what names them for ever; `sentences` say what else was found."""

    unvalidated: Mapping[int, str]
    sentences: Sequence[str]


def look(registry: ModelRegistry, is_going_on: Callable[[str], bool]) -> Look:
    """Return which versions of this lake have no validation, and what was found of others and of the champion.

    `is_going_on` says of a run of Dagster whether it has not ended: what that has registered it validates itself.
    """
    with explained_mlflow("the registry was looked at"):
        versions = registered_versions(registry.client, registry.name)
    if not versions and newest(registry.lake, MODEL_EVENTS.name) is None:
        return Look({}, ())
    sentences = notice_outside_moves(registry)
    history, unvalidated = registry.history(), {}
    for version in sorted(versions, key=lambda version: int(version.version)):
        if not _is_validated(history, version):
            run = run_or_none(registry.client, version.run_id)
            if why := _why_not(registry, version, run, versions, is_going_on):
                sentences.append(f"Version {version.version} {why}")
            else:
                unvalidated[int(version.version)] = f"{registry.name}/{version.version}/{version.run_id}"
    return Look(unvalidated, sentences)


def _is_validated(history: History, version: RegisteredVersion) -> bool:
    return history.state(history.known(identified(version))) not in {None, CHALLENGER}


def _why_not(
    registry: ModelRegistry,
    version: RegisteredVersion,
    run: Run | None,
    versions: Sequence[RegisteredVersion],
    is_going_on: Callable[[str], bool],
) -> str | None:
    """Return why a version is not to be validated now; None where it is."""
    if run is None or not learned_in(run, registry.lake):
        return "did not learn from this lake's training set, so that it is not validated here."
    first = min(int(each.version) for each in versions if each.run_id == version.run_id)
    if first != int(version.version):
        return f"is the model of version {first} again, so that it is not validated by itself."
    if is_going_on(run.data.tags.get(_TAG_DAGSTER_RUN, "")):
        return "is validated by the run that has registered it."
    return None
