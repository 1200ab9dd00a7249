"""What MLflow holds of the pipeline, as `lakehouse.tables` is for the lake: each made by a step, and read by others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from dlassets.lakehouse.tables import PREDICTIONS_CURRENT

if TYPE_CHECKING:
    import pyarrow as pa


def of_one_model(one: str, other: str) -> str:
    """Return SQL for whether the rows of two tables are of the same model version."""
    return (
        f"{one}.model_name = {other}.model_name AND {one}.model_version = {other}.model_version "
        f"AND {one}.package IS NOT DISTINCT FROM {other}.package"
    )


# Those predictions that the models of the table `model` made: see `ModelVersion.row`.
PREDICTED = f"SELECT p.* FROM predictions AS p JOIN model ON {of_one_model('p', 'model')}"  # noqa: S608 - names of columns

# `predictions_current` as it is to be: SQL over `predictions`, `raw_images`, `deleted_files` and `model`.
CURRENT = f"""
    SELECT {", ".join(f"p.{name}" for name in PREDICTIONS_CURRENT.names)} FROM ({PREDICTED}) AS p
    JOIN raw_images AS images ON images.path = p.path AND images.image_id = p.image_id
    LEFT JOIN deleted_files AS gone ON gone.path = p.path AND gone.returned_at IS NULL
    WHERE gone.path IS NULL
"""  # noqa: S608 - the table's own columns

# What of it is otherwise in `predictions_current`: both rows, as `said` and `old`, or the one that there is.
NOT_CURRENT = f"""
    FROM ({CURRENT}) AS said FULL JOIN predictions_current AS old ON old.path = said.path
    WHERE said.path IS NULL OR old.path IS NULL OR said.image_id <> old.image_id OR said.scored_at <> old.scored_at
        OR said.model_name <> old.model_name OR said.model_version <> old.model_version
        OR said.package IS DISTINCT FROM old.package
"""


@dataclass(frozen=True)
class Model:
    name: str
    description: str


class ModelVersion(NamedTuple):
    """A registered model's name and version, and the SHA-256 of its package.

    Names and versions may be given again, where MLflow's store was lost: the digest tells two models apart. It is None
    for a version that was registered before packages had one.
    """

    name: str
    version: int
    package: str | None = None

    @property
    def row(self) -> pa.Table:
        """The one row of the table `model`, for queries: what MLflow says is no part of their text."""
        import pyarrow as pa

        columns = {"model_name": pa.string(), "model_version": pa.int64(), "package": pa.string()}
        return pa.table({name: pa.array([value], columns[name]) for name, value in zip(columns, self, strict=True)})

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


TUNED_HYPERPARAMETERS = Model(
    "tuned_hyperparameters",
    "An MLflow run with a child run a trial: the settings of training with the least validation loss.",
)
TRAINED_MODEL = Model("trained_model", "An MLflow run with its model, metrics, pictures and inputs.")
REGISTERED_VERSION = Model("registered_version", "A version in MLflow's registry, which waits to be validated.")
# What reads it comes after the promotion of a version that passed: it is handed the champion (see `Step.hand_out`).
VALIDATED_VERSION = Model(
    "validated_version",
    "Whether a registered version may be used, and why: champion unless it is shown to be worse than the champion was.",
)
EDGE_MODEL = Model(
    "edge_model",
    "The champion for devices: a bundle of graphs, ONNX and OpenVINO, f32 and int8, and a program that answers by it.",
)
