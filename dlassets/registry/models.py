"""What MLflow holds of the pipeline, as `lakehouse.tables` is for the lake: each made by a step, and read by others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Model:
    name: str
    description: str


class ModelVersion(NamedTuple):
    """A registered model's name and version."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


TUNED_HYPERPARAMETERS = Model(
    "tuned_hyperparameters",
    "An MLflow run with a child run a trial: the settings of training with the least validation loss.",
)
TRAINED_MODEL = Model("trained_model", "An MLflow run with its model, metrics, pictures and inputs.")
REGISTERED_VERSION = Model(
    "registered_version", "A version in MLflow's registry, champion where it is at least as good as the champion was."
)
