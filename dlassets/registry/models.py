"""What MLflow holds of the pipeline, as `lakehouse.tables` is for the lake: each made by a step, and read by others."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    name: str
    description: str


TUNED_HYPERPARAMETERS = Model(
    "tuned_hyperparameters",
    "An MLflow run with a child run a trial: the settings of training with the least validation loss.",
)
TRAINED_MODEL = Model("trained_model", "An MLflow run with its model, metrics, pictures and inputs.")
REGISTERED_VERSION = Model(
    "registered_version",
    "A version in MLflow's registry, champion where it is at least as good as the champion was.",
)
