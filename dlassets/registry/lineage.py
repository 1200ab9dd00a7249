"""Which versions of the lake's tables a registered model was trained from."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from dlassets.errors import DlassetsError
from dlassets.lakehouse.history import lineage
from dlassets.lakehouse.tables import TRAINING_SET
from dlassets.registry.lifecycle import CHAMPION, version_of, versions_of
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    from mlflow import MlflowClient

TAG_TRAINING_SET = "dlassets.training_set_version"


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
    learned_from = _training_set_of(client, model_name, version)
    if learned_from is None:
        raise DlassetsError(
            f"The run that trained version {version} of {model_name} is gone, or did not record which version of "
            f"{TRAINING_SET.name} it read (its tag {TAG_TRAINING_SET}), so what it learned from cannot be told."
        )
    return {name: max(versions) for name, versions in lineage(lake, learned_from).items()}


def needed_versions(lake: Lake, client: MlflowClient, model_name: str) -> dict[str, set[int]]:
    """Return the versions of each table that any registered version of the model was trained from."""
    needed: dict[str, set[int]] = defaultdict(set)
    learned_from = {_training_set_of(client, model_name, version) for version in versions_of(client, model_name)}
    for training_set in learned_from:
        for name, versions in (lineage(lake, training_set) if training_set is not None else {}).items():
            needed[name] |= versions
    return dict(needed)


def _training_set_of(client: MlflowClient, model_name: str, version: int) -> int | None:
    """Return the version of `training_set` that a registered version's run recorded, or None."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(client.get_model_version(model_name, str(version)).run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    recorded_version = run.data.tags.get(TAG_TRAINING_SET)
    return None if recorded_version is None else int(recorded_version)


def _listed(versions: list[int]) -> str:
    return ", ".join(map(str, versions))
