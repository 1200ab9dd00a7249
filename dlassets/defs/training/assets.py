"""From labelled images to a registered model: features, the training set, the model, its version."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from dlassets.defs.common import TRAINING, details, few_photos, model_asset, page, provenance_value, table_asset
from dlassets.lakehouse.tables import CLASSES, EVALUATED_ROWS, RAW_IMAGES
from dlassets.masking import masked
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Made, Reads, Step
from dlassets.registry.edge import bundle as edge
from dlassets.registry.models import (
    EDGE_MODEL,
    REGISTERED_VERSION,
    TRAINED_MODEL,
    TUNED_HYPERPARAMETERS,
    VALIDATED_VERSION,
    ModelVersion,
)
from dlassets.registry.validation.validation import CHECKS, Check

if TYPE_CHECKING:
    from mlflow.entities import Run

LEARNED = "better_than_guessing"
NAMES_PACKAGE = "names_its_package"
COME_TO_AN_END = "trials_come_to_an_end"
MAKES_ONE = "tuning_pipeline makes one, and so does this asset where it is materialized by itself."


def _tuned(session: Session, made: Made) -> dg.MaterializeResult:
    from dlassets.tuning.record import PICTURE

    if "best" not in made.details:
        return _known(session, made)
    best, training_set = made.details["best"], made.details["job"].training_set
    failed, trials = [trial.state.name for trial in best.trials].count("FAIL"), len(best.trials)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(best.run_id),
        metadata={
            "changed": "new trials" if best.is_new else "nothing new: the study of these inputs has its trials",
            "chosen": dg.MetadataValue.json(best.chosen),
            "validation_loss": best.value,
            "validation_accuracy": best.accuracy,
            "trials": trials,
            "minutes": made.details["minutes"],
            "mlflow_run_id": best.run_id,
            "mlflow_run": dg.MetadataValue.url(session.mlflow.run_url(session.mlflow.client.get_run(best.run_id))),
            "training_set_version": training_set.version,
            "engine": session.settings.engine,
            "study": _picture(session, best.run_id, PICTURE, "study"),
            "provenance": provenance_value(made.provenance),
        },
        check_results=[
            dg.AssetCheckResult(
                passed=failed <= trials / 2,
                check_name=COME_TO_AN_END,
                description=f"{failed} of {trials} trials failed; MLflow's runs of them say why",
            )
        ],
    )


def _known(session: Session, made: Made) -> dg.MaterializeResult:
    """Report that no study was made, and which one there is."""
    from dlassets.tuning.record import TAG_BEST

    newest: Run | None = made.details["newest"]
    known = {}
    if newest is not None:
        known = {
            "chosen": dg.MetadataValue.json(json.loads(newest.data.tags[TAG_BEST])),
            "mlflow_run_id": newest.info.run_id,
            "mlflow_run": dg.MetadataValue.url(session.mlflow.run_url(newest)),
        }
    there_is = "the newest study stands" if newest else "there is no study yet, and settings are taken as they are"
    return dg.MaterializeResult(
        data_version=dg.DataVersion(newest.info.run_id if newest else "none"),
        metadata={
            "changed": f"nothing new: {there_is}. {MAKES_ONE}",
            **known,
            "provenance": provenance_value(made.provenance),
        },
        check_results=[dg.AssetCheckResult(passed=True, check_name=COME_TO_AN_END, description="no trial was made")],
    )


def _without_a_study(context: dg.AssetExecutionContext) -> Step | None:
    """A run that begins with the photos does not go into a search of many minutes: it takes what the last one found."""
    is_of_all = dg.AssetKey(RAW_IMAGES.name) in context.job_def.asset_layer.selected_asset_keys
    return steps.known_hyperparameters if is_of_all else None


def _trained(session: Session, made: Made) -> dg.MaterializeResult:
    from dlassets.registry.report import CONFUSION_MATRIX, EVALUATION
    from dlassets.registry.tracking import TAG_REMARKS

    run, training_set = made.details["run"], made.details["inputs"].job.training_set
    metrics = run.data.metrics
    return dg.MaterializeResult(
        data_version=dg.DataVersion(run.info.run_id),
        metadata={
            "changed": "a new run"
            if made.details["is_new"]
            else "nothing new: the run that learned from these inputs stands",
            "mlflow_run_id": run.info.run_id,
            "mlflow_run": dg.MetadataValue.url(session.mlflow.run_url(run)),
            "wrong_photos": page(session, "wrong", run=run.info.run_id),
            "test_accuracy": metrics["test_accuracy"],
            "calibration_error": metrics["test_calibration_error"],
            "worse_slices": run.data.tags.get("dlassets.worse_slices", "none"),
            "remarks": run.data.tags.get(TAG_REMARKS, "none"),
            "test_accuracy_interval": f"{metrics['test_accuracy_low']:.3f} to {metrics['test_accuracy_high']:.3f}",
            "training_set_version": training_set.version,
            "confusion_matrix": _picture(
                session, run.info.run_id, f"{EVALUATION}/{CONFUSION_MATRIX}", "confusion matrix"
            ),
            "provenance": provenance_value(made.provenance),
        },
        check_results=[_better_than_guessing(run)],
    )


def _better_than_guessing(run: "Run") -> dg.AssetCheckResult:
    from dlassets.registry.report import GUESSING

    accuracy, guessing = run.data.metrics["test_accuracy"], run.data.metrics[GUESSING]
    return dg.AssetCheckResult(
        passed=accuracy > guessing,
        check_name=LEARNED,
        description=f"accuracy {accuracy:.3f}, and {guessing:.3f} by always saying the most frequent class",
    )


def _evaluated(session: Session, read: Reads, made: Made) -> dict[str, Any]:
    """Return how many rows the newest run was wrong about, and its surest mistakes on test photos."""
    from dlassets.monitoring.outcomes import mistakes_of

    run_id = made.details["newest"]
    if run_id is None:
        return {}
    mistakes = mistakes_of(session.engine, read.own(EVALUATED_ROWS), session.pin(CLASSES), run_id)
    columns = {"label_name": "true", "predicted_name": "predicted", "confidence": "confidence", "path": "path"}
    return {
        "mlflow_run_id": run_id,
        "mlflow_run": dg.MetadataValue.url(session.mlflow.run_url(session.mlflow.client.get_run(run_id))),
        "wrong_photos": page(session, "wrong", run=run_id),
        **{f"{split}_wrong": f"{mistakes.wrong[split]} of {rows}" for split, rows in mistakes.rows.items()},
        "surest_mistakes": few_photos(session, read, mistakes.surest, columns),
    }


def _registered(session: Session, made: Made) -> dg.MaterializeResult:
    model: ModelVersion = made.details["model"]
    return dg.MaterializeResult(
        data_version=dg.DataVersion(str(model.version)),
        metadata={
            "model": model.name,
            "version": model.version,
            "package": model.package or "its version names none",
            "mlflow_run": dg.MetadataValue.url(session.mlflow.run_url(made.details["run"])),
            "provenance": provenance_value(made.provenance),
        },
        check_results=[
            dg.AssetCheckResult(
                passed=model.package is not None,
                check_name=NAMES_PACKAGE,
                severity=dg.AssetCheckSeverity.WARN,
                description=None if model.package else "An earlier release registered it: changed files go unnoticed.",
            )
        ],
    )


def _validated(session: Session, made: Made) -> dg.MaterializeResult:
    from dlassets.registry.validation.report import PICTURES, markdown

    validation, run = made.details["validation"], made.details["run"]
    run_id, folder = run.info.run_id, validation.folder
    drawn = {file.path for file in session.mlflow.client.list_artifacts(run_id, folder)}
    pictures = {
        Path(name).stem: _picture(session, run_id, f"{folder}/{name}", name)
        for name in PICTURES
        if f"{folder}/{name}" in drawn
    }
    return dg.MaterializeResult(
        data_version=dg.DataVersion(validation.sha256),
        metadata={
            "model": session.model_name,
            "version": validation.version,
            "changed": "a new validation"
            if made.details["is_new"]
            else "nothing new: the validation of this version on these rows stands",
            "verdict": validation.explanation,
            "decision": made.details["decision"].sentence,
            "report": dg.MetadataValue.md(markdown(validation)),
            **pictures,
            "wrong_photos": page(session, "wrong", version=validation.version),
            "mlflow_run": dg.MetadataValue.url(session.mlflow.run_url(run)),
            "validation_sha256": validation.sha256,
            "provenance": provenance_value(made.provenance),
        },
        check_results=[_check_result(check) for check in validation.checks],
    )


def _edge(_: Session, made: Made) -> dg.MaterializeResult:
    bundle, model = made.details["bundle"], made.details["model"]
    figures = {
        f"{precision}_{name}": value
        for precision, said in bundle.precisions.items()
        for name, value in said.items()
        if isinstance(value, float)
    }
    return dg.MaterializeResult(
        data_version=dg.DataVersion(bundle.digest),
        metadata={
            "model": model.name,
            "version": model.version,
            "changed": "a new bundle" if made.details["is_new"] else "nothing new: the bundle of this version stands",
            "dagster/uri": masked(bundle.location),
            "used_by_the_runner": bundle.description["use"],
            **figures,
            "milliseconds_a_photo": {name: said["milliseconds"] for name, said in bundle.precisions.items()},
            "bundle_sha256": bundle.digest,
            "provenance": provenance_value(made.provenance),
        },
        check_results=[_check_result(check) for check in bundle.checks],
    )


def _check_result(check: Check) -> dg.AssetCheckResult:
    numbers = {"value": check.value, f"limit_{check.bound.replace(' ', '_')}": check.limit}
    return dg.AssetCheckResult(
        passed=check.passed,
        check_name=check.name,
        severity=dg.AssetCheckSeverity.ERROR if check.blocks else dg.AssetCheckSeverity.WARN,
        description=check.sentence,
        metadata={name: number for name, number in numbers.items() if number is not None},
    )


def _picture(session: Session, run_id: str, path: str, name: str) -> dg.MarkdownMetadataValue:
    """Return a picture that was logged with a run of MLflow."""
    from dlassets.images.data_uri import data_uri
    from dlassets.registry.tracking import artifact_of

    return dg.MetadataValue.md(f"![{name}]({data_uri(artifact_of(session.mlflow.client, run_id, path))})")


image_features = table_asset(steps.image_features, TRAINING, details)
training_set = table_asset(steps.training_set, TRAINING, details)
label_errors = table_asset(steps.label_errors, TRAINING, details)
tuned_hyperparameters = model_asset(
    steps.tuned_hyperparameters,
    {"optuna", "mlflow"},
    _tuned,
    [
        dg.AssetCheckSpec(
            COME_TO_AN_END,
            asset=TUNED_HYPERPARAMETERS.name,
            description="Most trials came to an end, or were cut short for being worse than others.",
        ),
    ],
    _without_a_study,
)
trained_model = model_asset(
    steps.trained_model,
    {"pytorch", "mlflow"},
    _trained,
    [
        dg.AssetCheckSpec(
            LEARNED,
            asset=TRAINED_MODEL.name,
            blocking=True,
            description="On the test rows it is right more often than always saying the most frequent class.",
        ),
    ],
)
evaluated_rows = table_asset(steps.evaluated_rows, TRAINING, _evaluated)
registered_version = model_asset(
    steps.registered_version,
    {"mlflow"},
    _registered,
    [
        dg.AssetCheckSpec(
            NAMES_PACKAGE,
            asset=REGISTERED_VERSION.name,
            description="The version names its package by its SHA-256: files that were changed since are refused.",
        )
    ],
)
validated_version = model_asset(
    steps.validated_version,
    {"mlflow"},
    _validated,
    # Those that warn stop nothing, by their severity: which do is a setting.
    [
        dg.AssetCheckSpec(name, asset=VALIDATED_VERSION.name, blocking=True, description=description)
        for name, description in CHECKS.items()
    ],
)
edge_model = model_asset(
    steps.edge_model,
    {"onnx", "openvino"},
    _edge,
    [
        dg.AssetCheckSpec(name, asset=EDGE_MODEL.name, description=description)
        for name, description in edge.CHECKS.items()
    ],
)
