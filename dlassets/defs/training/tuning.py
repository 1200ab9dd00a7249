"""Settings of training that were found by trying: what trained_model takes where `tuning.use` says so."""

import time
from typing import TYPE_CHECKING

import dagster as dg

from dlassets.defs.common import OWNERS, TRAINING, provenance
from dlassets.lakehouse.tables import TRAINING_SET
from dlassets.resources.lake import LakeResource
from dlassets.resources.mlflow import MlflowResource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.trial import FrozenTrial

TUNED_HYPERPARAMETERS = "tuned_hyperparameters"
COME_TO_AN_END = "trials_come_to_an_end"


@dg.asset(
    deps=[TRAINING_SET.name],
    description="An MLflow run with a child run a trial: the settings of training with the least validation loss.",
    group_name=TRAINING,
    owners=OWNERS,
    kinds={"optuna", "mlflow"},
    code_version="1",
    check_specs=[
        dg.AssetCheckSpec(
            COME_TO_AN_END,
            asset=TUNED_HYPERPARAMETERS,
            description="Most trials came to an end, or were cut short for being worse than others.",
        )
    ],
)
def tuned_hyperparameters(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[LakeResource],
    mlflow: dg.ResourceParam[MlflowResource],
) -> dg.MaterializeResult:
    from dlassets.engines.spark import SparkEngine
    from dlassets.images.data_uri import data_uri
    from dlassets.lakehouse.snapshots import settled
    from dlassets.learning.backbones import feature_version
    from dlassets.learning.training.job import Job
    from dlassets.registry.store import backbone_in_use
    from dlassets.registry.tracking import artifact_of
    from dlassets.tuning.local_trials import LocalTrials
    from dlassets.tuning.question import Question
    from dlassets.tuning.record import PICTURE
    from dlassets.tuning.spark_trials import SparkTrials
    from dlassets.tuning.study import run_study

    (current,) = lake.pin(TRAINING_SET.name)
    # What care of the table made of it is nothing new to learn from.
    job = Job(settled(current), backbone_in_use(lake.settings, lake.lake), lake.settings.training)
    question = Question(job, feature_version(job.backbone), lake.settings.tuning.space)
    started = time.monotonic()

    def report(done: int, trials: int, best: "FrozenTrial | None") -> None:
        so_far = "none has come to its end" if best is None else f"the least validation loss is {best.value:.4f}"
        context.log.info(f"{done} of {trials} trials done, {so_far}")

    best = run_study(
        question,
        lake.settings.tuning,
        mlflow.client,
        mlflow.experiment,
        SparkTrials(lake.engine.session) if isinstance(lake.engine, SparkEngine) else LocalTrials(),
        report,
    )
    origin = provenance(context, TUNED_HYPERPARAMETERS, [job.training_set], parameters={"question": question.sha256})
    picture = data_uri(artifact_of(mlflow.client, best.run_id, PICTURE))
    return dg.MaterializeResult(
        data_version=dg.DataVersion(best.run_id),
        metadata={
            "changed": "new trials" if best.is_new else "nothing new: the study of these inputs has its trials",
            "chosen": dg.MetadataValue.json(best.chosen),
            "validation_loss": best.value,
            "validation_accuracy": best.accuracy,
            "trials": len(best.trials),
            "minutes": (time.monotonic() - started) / 60,
            "mlflow_run_id": best.run_id,
            "mlflow_run": dg.MetadataValue.url(mlflow.run_url(mlflow.client.get_run(best.run_id))),
            "training_set_version": job.training_set.version,
            "engine": lake.settings.engine,
            "study": dg.MetadataValue.md(f"![study]({picture})"),
            "provenance": dg.MetadataValue.json(origin.as_dict()),
        },
        check_results=[_come_to_an_end([trial.state.name for trial in best.trials])],
    )


def _come_to_an_end(states: "Sequence[str]") -> dg.AssetCheckResult:
    failed = states.count("FAIL")
    return dg.AssetCheckResult(
        passed=failed <= len(states) / 2,
        check_name=COME_TO_AN_END,
        description=f"{failed} of {len(states)} trials failed; MLflow's runs of them say why",
    )
