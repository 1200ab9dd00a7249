"""What a run shows of how good its model is: figures, pictures, and the slices where it is worse."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.tables import TEST, VALIDATION
from dlassets.learning.evaluation import pictures
from dlassets.learning.evaluation.evaluate import Evaluation
from dlassets.learning.evaluation.rows import as_parquet, evaluated_rows, mistakes_as_csv
from dlassets.learning.evaluation.slices import CLASS, Slice, significantly_worse, slices
from dlassets.learning.examples import Examples
from dlassets.learning.training.job import Trained
from dlassets.registry.package import ModelPackage

if TYPE_CHECKING:
    import pyarrow as pa

GUESSING = "test_majority_share"
EVALUATION, CONFUSION_MATRIX, SLICES = "evaluation", "confusion_matrix.png", "slices.json"
ROWS, MISTAKES = "evaluated_rows.parquet", "mistakes.csv"
# Of a run that has logged its ROWS: how many.
TAG_ROWS = "dlassets.evaluated_rows"
TAG_WORSE = "dlassets.worse_slices"
MISCLASSIFIED, CALIBRATION = "misclassified.png", "calibration.png"
_WORST, _EXPLAINED = 24, 8
# Letters of a class's name in a caption.
_NAME = 30
# Test photos of which one is the example of what the model takes.
_EXAMPLES = 10


@dataclass(frozen=True)
class Judged:
    """A model on rows it has not learned from, before its confidence was calibrated and after."""

    package: ModelPackage
    rows: Examples
    validation_rows: Examples
    before: Evaluation
    after: Evaluation
    validation_before: Evaluation
    validation_after: Evaluation


def log_report(
    mlflow: Any, trained: Trained, judged: Judged, photos: Photos, attributes: pa.Table | None
) -> bytes | None:
    """Log the evaluation in the active run; return one photo as an example of what the model takes, if there is one."""
    found = slices(judged.after, attributes)
    _log_metrics(mlflow, trained, judged, found)
    wrong = np.flatnonzero(~judged.after.right)
    worst = wrong[np.argsort(-judged.after.confidence[wrong], kind="stable")].tolist()[:_WORST]  # the surest first
    shown = photos.bytes_of([judged.rows.paths[row] for row in {*worst, *range(min(_EXAMPLES, len(judged.rows)))}])
    files = {
        CONFUSION_MATRIX: pictures.confusion_matrix(judged.after),
        "learning_curve.png": pictures.learning_curve(trained.history, trained.best_epoch),
        "per_class.png": pictures.per_class(judged.after),
        CALIBRATION: pictures.calibration_plot(judged.before, judged.after),
        "slices.png": pictures.slices_chart(found, judged.after),
        MISCLASSIFIED: misclassified(judged.after, judged.rows, worst, shown),
        SLICES: json.dumps([_plain(each) for each in found], indent=2).encode() + b"\n",
    }
    _log_files(mlflow, files)
    _log_rows(mlflow, judged)
    _log_saliency(mlflow, judged, worst, shown)
    return next((shown[path] for path in judged.rows.paths[:_EXAMPLES] if path in shown), None)


def misclassified(evaluation: Evaluation, test: Examples, worst: Sequence[int], photos: Mapping[str, bytes]) -> bytes:
    """Return a picture of the mistakes, the surest first."""
    # Where photos stay in the landing zone, they may have gone from there.
    shown = [(photos[path], _caption(evaluation, row, path)) for row in worst if (path := test.paths[row]) in photos]
    wrong = int((~evaluation.right).sum())
    return pictures.gallery(shown, f"{wrong} of {len(test)} test photos misclassified")


def _caption(evaluation: Evaluation, row: int, path: str) -> str:
    """Return the photo's file name and, below it, its class, what it was taken for, and how sure the model was."""
    shown = (pictures.shortened(name, _NAME) for name in evaluation.names)
    names = dict(zip(evaluation.labels, shown, strict=True))
    true, predicted = names[int(evaluation.truth[row])], names[int(evaluation.predicted[row])]
    taken = "" if true == predicted else f", taken for {predicted}"
    return f"{pictures.shortened(PurePosixPath(path).name)}\n{true}{taken} ({evaluation.confidence[row]:.2f})"


def _log_metrics(mlflow: Any, trained: Trained, judged: Judged, tested: Sequence[Slice]) -> None:
    test = judged.after
    mlflow.log_metrics(
        {
            "test_accuracy": test.accuracy,
            "test_accuracy_low": test.interval[0],
            "test_accuracy_high": test.interval[1],
            "test_macro_f1": test.macro_f1.value,
            "test_macro_f1_low": test.macro_f1.interval[0],
            "test_macro_f1_high": test.macro_f1.interval[1],
            "test_balanced_accuracy": test.balanced_accuracy.value,
            "test_log_loss": test.log_loss,
            GUESSING: test.majority_share,
            "temperature": judged.package.head.temperature,
            "test_calibration_error_before": judged.before.reliability.error,
            "test_calibration_error": test.reliability.error,
            "validation_calibration_error_before": judged.validation_before.reliability.error,
            "validation_calibration_error": judged.validation_after.reliability.error,
            "best_epoch": trained.best_epoch,
            "best_validation_loss": trained.history[trained.best_epoch]["validation_loss"],
        }
    )
    for name, recall, precision in zip(test.names, test.recall, test.precision, strict=True):
        mlflow.log_metrics({f"recall/{_plain_name(name)}": recall, f"precision/{_plain_name(name)}": precision})
    mlflow.log_metrics(
        {
            f"accuracy/{_plain_name(each.dimension)}/{_plain_name(each.value)}": each.accuracy
            for each in tested
            if each.dimension != CLASS  # a class's accuracy is its recall
        }
    )
    said = {
        TAG_WORSE: ", ".join(f"{each.dimension}: {each.value}" for each in significantly_worse(tested)),
        "dlassets.untested_classes": ", ".join(test.untested),
        "dlassets.unknown_classes": ", ".join(test.unknown),
    }
    mlflow.set_tags({name: value for name, value in said.items() if value})


def _log_rows(mlflow: Any, judged: Judged) -> None:
    """Log what the model said of each row, as the table `evaluated_rows` has it, and its mistakes for people."""
    splits = {VALIDATION: (judged.validation_rows, judged.validation_after), TEST: (judged.rows, judged.after)}
    rows = evaluated_rows(mlflow.active_run().info.run_id, splits)
    _log_files(mlflow, {ROWS: as_parquet(rows), MISTAKES: mistakes_as_csv(rows)})
    mlflow.set_tag(TAG_ROWS, rows.num_rows)


def _log_saliency(mlflow: Any, judged: Judged, worst: Sequence[int], photos: Mapping[str, bytes]) -> None:
    """Log where the model looked in a few photos: its surest mistakes, and some that it got right."""
    from dlassets.learning.evaluation.saliency import NoFeatureMapError, explain

    right = np.flatnonzero(judged.after.right).tolist()
    rows = [row for row in [*worst[: _EXPLAINED // 2], *right] if judged.rows.paths[row] in photos][:_EXPLAINED]
    if not rows:
        return
    paths = judged.rows.paths
    shown = [(photos[paths[row]], _caption(judged.after, row, paths[row])) for row in rows]
    try:
        _log_files(mlflow, {"saliency.png": explain(judged.package.backbone, judged.package.head, shown)})
    except NoFeatureMapError as error:  # it has none to show, and is no worse for it
        mlflow.set_tag("dlassets.no_saliency", str(error))


def _log_files(mlflow: Any, files: Mapping[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        mlflow.log_artifacts(folder, EVALUATION)


def _plain(each: Slice) -> dict[str, Any]:
    return {
        "dimension": each.dimension,
        "value": each.value,
        "rows": each.rows,
        "accuracy": each.accuracy,
        "low": each.interval[0],
        "high": each.interval[1],
        "few_rows": each.has_few,
        "p_value": each.p_value,
    }


def _plain_name(name: str) -> str:
    """A name with what MLflow does not allow in a metric's name replaced."""
    return "".join(letter if letter.isalnum() or letter in "_-. " else "_" for letter in name)
