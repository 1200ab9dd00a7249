"""From labelled images to a registered model: features, the training set, the model, its version."""

import base64
import functools
from typing import TYPE_CHECKING

import dagster as dg

from dlassets.defs.common import OWNERS, TRAINING, provenance, table_result, table_spec
from dlassets.defs.training.tuning import TUNED_HYPERPARAMETERS
from dlassets.lakehouse.tables import (
    DELETED_FILES,
    IMAGE_FEATURES,
    IMAGE_PROFILES,
    LABEL_ERRORS,
    LABELED_IMAGES,
    RAW_IMAGES,
    TEST,
    TRAINING_SET,
)
from dlassets.resources.lake import LakeResource
from dlassets.resources.mlflow import MlflowResource
from dlassets.resources.progress import LoggedProgress
from dlassets.resources.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow.entities import Run

    from dlassets.engines.base import Snapshot
    from dlassets.lakehouse.provenance import Provenance
    from dlassets.learning.examples import Examples
    from dlassets.learning.features import Photos
    from dlassets.registry.tracking import TrainingInputs
    from dlassets.settings import LabelSettings

TRAINED_MODEL = "trained_model"
REGISTERED_VERSION = "registered_version"
LEARNED = "better_than_guessing"
GATE = "at_least_as_good_as_champion"


@dg.multi_asset(specs=[table_spec(IMAGE_FEATURES, TRAINING, reads=[RAW_IMAGES])])
def image_features(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[LakeResource],
    progress: dg.ResourceParam[LoggedProgress],
) -> dg.MaterializeResult:
    from dlassets.lakehouse.derived import derive
    from dlassets.learning.backbones import feature_version
    from dlassets.learning.embedding import embed_images
    from dlassets.registry.store import backbone_in_use

    (raw,) = lake.pin(RAW_IMAGES.name)
    settings = lake.settings.features
    backbone = backbone_in_use(lake.settings, lake.lake)
    version = feature_version(backbone)
    origin = provenance(context, IMAGE_FEATURES.name, [raw], parameters={"feature_version": version})
    written = derive(
        lake.engine,
        lake.lake,
        raw,
        IMAGE_FEATURES,
        functools.partial(embed_images, backbone=backbone, runtime=settings.runtime),
        origin.as_dict(),
        done_where=f"feature_version = '{version}'",
        progress=progress.of(context, "images embedded"),
    )
    return table_result(lake, IMAGE_FEATURES, written, origin, metadata={"feature_version": version})


@dg.multi_asset(specs=[table_spec(TRAINING_SET, TRAINING, reads=[LABELED_IMAGES, IMAGE_FEATURES, RAW_IMAGES])])
def training_set(context: dg.AssetExecutionContext, lake: dg.ResourceParam[LakeResource]) -> dg.MaterializeResult:
    from dlassets.lakehouse.training_set import PIXELS, build_pixel_training_set, build_training_set
    from dlassets.learning.backbones import feature_version
    from dlassets.registry.store import backbone_in_use

    labeled, current = lake.pin(LABELED_IMAGES.name, TRAINING_SET.name)
    labels = lake.settings.labels
    if lake.settings.training.trainable == "head":
        (features,) = lake.pin(IMAGE_FEATURES.name)
        version = feature_version(backbone_in_use(lake.settings, lake.lake))
        origin = _origin_of_training_set(context, [labeled, features], version, labels)
        written = build_training_set(lake.engine, labeled, features, current, version, labels, origin.as_dict())
    else:
        raw, deleted = lake.pin(RAW_IMAGES.name, DELETED_FILES.name)
        version = PIXELS
        origin = _origin_of_training_set(context, [labeled, raw, deleted], version, labels)
        written = build_pixel_training_set(
            lake.engine, lake.lake, raw, deleted, labeled, current, labels, origin.as_dict()
        )
    return table_result(lake, TRAINING_SET, written, origin, metadata={"feature_version": version})


@dg.multi_asset(specs=[table_spec(LABEL_ERRORS, TRAINING, reads=[LABELED_IMAGES, IMAGE_FEATURES])])
def label_errors(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[LakeResource],
    progress: dg.ResourceParam[LoggedProgress],
) -> dg.MaterializeResult:
    from dlassets.labeling.label_errors import update_label_errors
    from dlassets.learning.backbones import feature_version
    from dlassets.registry.store import backbone_in_use

    tables = (LABELED_IMAGES, IMAGE_FEATURES, LABEL_ERRORS)
    snapshots = {table.name: lake.pin(table.name)[0] for table in tables}
    version = feature_version(backbone_in_use(lake.settings, lake.lake))
    parameters = {"feature_version": version, **lake.settings.labels.model_dump()}
    origin = provenance(context, LABEL_ERRORS.name, [*snapshots.values()][:2], parameters=parameters)
    report = progress.of(context, "folds judged")
    written, found = update_label_errors(lake.engine, snapshots, version, lake.settings, origin.as_dict(), report)
    return table_result(lake, LABEL_ERRORS, written, origin, metadata=found)


@dg.asset(
    deps=[TRAINING_SET.name, TUNED_HYPERPARAMETERS],
    description="An MLflow run with its model, metrics, pictures and inputs.",
    group_name=TRAINING,
    owners=OWNERS,
    kinds={"pytorch", "mlflow"},
    code_version="1",
    check_specs=[
        dg.AssetCheckSpec(
            LEARNED,
            asset=TRAINED_MODEL,
            blocking=True,
            description="On the test rows it is right more often than always saying the most frequent class.",
        )
    ],
)
def trained_model(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[LakeResource],
    mlflow: dg.ResourceParam[MlflowResource],
    trainer: dg.ResourceParam[Trainer],
    progress: dg.ResourceParam[LoggedProgress],
) -> dg.MaterializeResult:
    from dlassets.lakehouse.training_set import attributes_of
    from dlassets.registry.lifecycle import find_run
    from dlassets.registry.tracking import train_and_log

    inputs = _training_inputs(lake, mlflow)
    run = find_run(mlflow.client, mlflow.experiment, inputs.sha256)
    is_new = run is None
    if run is None:
        profiles, labeled = lake.pin(IMAGE_PROFILES.name, LABELED_IMAGES.name)
        with mlflow.run() as tracking:
            train_and_log(
                tracking,
                inputs,
                lambda job, report: trainer.train(job, lake.engine, report),
                _photos(lake),
                attributes_of(lake.engine, inputs.job.training_set, profiles, labeled),
                {
                    "dagster_asset": TRAINED_MODEL,
                    "mlflow.note.content": _link_back(lake, context.run.run_id),
                    **_place(lake),
                },
                progress.of_training(context),
            )
        run = mlflow.run_of(inputs.sha256)
    origin = provenance(context, TRAINED_MODEL, [inputs.job.training_set], parameters={"inputs_sha256": inputs.sha256})
    return dg.MaterializeResult(
        data_version=dg.DataVersion(run.info.run_id),
        metadata={
            "changed": "a new run" if is_new else "nothing new: the run that learned from these inputs stands",
            "mlflow_run_id": run.info.run_id,
            "mlflow_run": dg.MetadataValue.url(mlflow.run_url(run)),
            "test_accuracy": run.data.metrics["test_accuracy"],
            "calibration_error": run.data.metrics["test_calibration_error"],
            "worse_slices": run.data.tags.get("dlassets.worse_slices", "none"),
            "test_accuracy_interval": f"{run.data.metrics['test_accuracy_low']:.3f} to "
            f"{run.data.metrics['test_accuracy_high']:.3f}",
            "training_set_version": inputs.job.training_set.version,
            "confusion_matrix": _picture(mlflow, run.info.run_id),
            "provenance": dg.MetadataValue.json(origin.as_dict()),
        },
        check_results=[_better_than_guessing(run)],
    )


@dg.asset(
    deps=[TRAINED_MODEL],
    description="A version in MLflow's registry, champion where it is at least as good as the champion was.",
    group_name=TRAINING,
    owners=OWNERS,
    kinds={"mlflow"},
    code_version="1",
    check_specs=[
        dg.AssetCheckSpec(
            GATE,
            asset=REGISTERED_VERSION,
            blocking=True,
            description="Promoted only where its accuracy on the same test rows is not below the champion's.",
        )
    ],
)
def registered_version(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[LakeResource],
    mlflow: dg.ResourceParam[MlflowResource],
) -> dg.MaterializeResult:
    from dlassets.learning.features import rows_for
    from dlassets.registry.lifecycle import compare, promote, register
    from dlassets.registry.package import ModelPackage

    settings = lake.settings.registry
    inputs = _training_inputs(lake, mlflow)
    run = mlflow.run_of(inputs.sha256)
    version = register(mlflow.client, settings.model_name, run)
    photos = _photos(lake)

    def test_for(package: ModelPackage) -> "Examples":
        return rows_for(package.backbone, inputs.job.training_set, TEST, photos)

    verdict = compare(mlflow.client, settings.model_name, version, test_for, settings.tolerance)
    if verdict.passed:
        promote(mlflow.client, settings.model_name, version, verdict, context.run.run_id)
    origin = provenance(
        context, REGISTERED_VERSION, [inputs.job.training_set], model=f"{settings.model_name}/{version}"
    )
    return dg.MaterializeResult(
        data_version=dg.DataVersion(str(version)),
        metadata={
            "model": settings.model_name,
            "version": version,
            "verdict": verdict.explanation,
            "mlflow_run": dg.MetadataValue.url(mlflow.run_url(run)),
            "provenance": dg.MetadataValue.json(origin.as_dict()),
        },
        check_results=[
            dg.AssetCheckResult(
                passed=verdict.passed,
                check_name=GATE,
                description=verdict.explanation,
                metadata={
                    "challenger_accuracy": verdict.challenger.accuracy,
                    "champion_accuracy": verdict.champion.accuracy if verdict.champion else None,
                    "test_rows": verdict.challenger.rows,
                },
            )
        ],
    )


def _training_inputs(lake: LakeResource, mlflow: MlflowResource) -> "TrainingInputs":
    from dlassets.lakehouse.snapshots import settled
    from dlassets.learning.backbones import feature_version
    from dlassets.registry.store import backbone_in_use
    from dlassets.registry.tracking import TrainingInputs
    from dlassets.tuning.study import winner

    backbone, training = backbone_in_use(lake.settings, lake.lake), lake.settings.training
    if lake.settings.tuning.use:
        training = winner(mlflow.client, mlflow.experiment, training, feature_version(backbone)) or training
    # What care of the table made of it is nothing new to learn from.
    return TrainingInputs.of(lake.lake, settled(lake.pin(TRAINING_SET.name)[0]), backbone, training)


def _place(lake: LakeResource) -> dict[str, str]:
    """Return which engine and cluster a training runs on, in how many processes."""
    settings = lake.settings
    master = settings.spark.remote or settings.spark.master
    cluster = {"dlassets.spark": master} if settings.engine == "spark" else {}
    processes = str(settings.training.compute.processes)
    return {"dlassets.engine": settings.engine, "dlassets.processes": processes, **cluster}


def _photos(lake: LakeResource) -> "Photos":
    from dlassets.learning.features import Photos

    (raw,) = lake.pin(RAW_IMAGES.name)
    return Photos(lake.engine, lake.lake, raw, lake.settings.features.runtime)


def _origin_of_training_set(
    context: dg.AssetExecutionContext, read: "Sequence[Snapshot]", version: str, labels: "LabelSettings"
) -> "Provenance":
    parameters = {"feature_version": version, **labels.model_dump()}
    return provenance(context, TRAINING_SET.name, read, parameters=parameters)


def _better_than_guessing(run: "Run") -> dg.AssetCheckResult:
    from dlassets.registry.report import GUESSING

    accuracy, guessing = run.data.metrics["test_accuracy"], run.data.metrics[GUESSING]
    return dg.AssetCheckResult(
        passed=accuracy > guessing,
        check_name=LEARNED,
        description=f"accuracy {accuracy:.3f}, and {guessing:.3f} by always saying the most frequent class",
    )


def _link_back(lake: LakeResource, run_id: str) -> str:
    return f"Materialized by Dagster run [{run_id}]({lake.settings.ui.dagster}/runs/{run_id})."


def _picture(mlflow: MlflowResource, run_id: str) -> dg.MarkdownMetadataValue:
    from dlassets.registry.report import CONFUSION_MATRIX
    from dlassets.registry.tracking import picture_of

    encoded = base64.b64encode(picture_of(mlflow.client, run_id, CONFUSION_MATRIX)).decode()
    return dg.MetadataValue.md(f"![confusion matrix](data:image/png;base64,{encoded})")
