"""A study's trials on Spark, through MLflow's study: each executor asks Optuna and writes the record by itself."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dlassets.engines.spark_session import works_here
from dlassets.errors import DlassetsError
from dlassets.learning.training.job import Metrics
from dlassets.settings import TuningSettings
from dlassets.tuning.question import Question
from dlassets.tuning.record import EpochLog, StudyRecord
from dlassets.tuning.search_space import settings_with, suggest
from dlassets.tuning.trials import (
    ACCURACY,
    FAILURE,
    LOSS,
    Objective,
    OnTrial,
    best_of,
    failure_of,
    run_id_of,
    shortened,
    strategy,
    train_and_validate,
)

if TYPE_CHECKING:
    import optuna
    from pyspark.sql import SparkSession

# MLflow's storage reads every trial to answer whether one is worth going on with.
_SECONDS_BETWEEN_QUESTIONS = 5.0
_SECONDS_BETWEEN_REPORTS = 2.0


@dataclass(frozen=True)
class SparkTrials:
    """Spreads trials over Spark's executors, `objective` in each."""

    session: SparkSession
    objective: Objective = train_and_validate

    def run(self, record: StudyRecord, settings: TuningSettings, report: OnTrial) -> None:
        """Raises DlassetsError where executors do not reach MLflow, and where Spark fails."""
        from mlflow.exceptions import MlflowException
        from mlflow.pyspark.optuna.study import MlflowSparkStudy
        from pyspark.errors import PySparkException

        _check_reachable(self.session, record.client.tracking_uri)
        first = record.resume()
        # A sampler and a pruner of this study alone: they are sent to the executors with what they have learned.
        study = MlflowSparkStudy(
            record.name,
            record.storage,
            mlflow_tracking_uri=record.client.tracking_uri,
            **strategy(settings, record.question.job.settings.seed, len(record.trials)),
        )
        for values in first:
            study.enqueue_trial(values)
        left = settings.trials - len(record.ended_trials)
        with _reporting(record, settings.trials, report):
            try:
                study.optimize(
                    _TrialOnExecutor(record.question, self.objective),
                    n_trials=left,
                    timeout=settings.minutes * 60,
                    n_jobs=min(settings.processes, left),
                    catch=(Exception,),
                )
            except (MlflowException, PySparkException) as error:
                raise DlassetsError(
                    f"Spark ended the study {record.name} before its time: {error} Run it again: it goes on from the "
                    f"{len(record.ended_trials)} trials that are done."
                ) from error


@dataclass(frozen=True)
class _TrialOnExecutor:
    """Optuna calls it there, with a trial whose id is that of its run in MLflow."""

    question: Question
    objective: Objective

    def __call__(self, trial: optuna.Trial) -> float:
        from mlflow import MlflowClient

        client, run_id = MlflowClient(), run_id_of(trial)
        client.update_run(run_id, name=f"trial {trial.number}")
        settings = settings_with(self.question.job.settings, suggest(trial, self.question.space))
        epochs = EpochLog(client, run_id)
        asked = time.monotonic()

        def on_epoch(metrics: Metrics) -> None:
            nonlocal asked
            import optuna

            trial.report(metrics[LOSS], epochs.step)
            epochs.add(metrics)
            if time.monotonic() - asked >= _SECONDS_BETWEEN_QUESTIONS:
                if trial.should_prune():
                    raise optuna.TrialPruned
                asked = time.monotonic()

        try:
            metrics = self.objective(replace(self.question.job, settings=settings), on_epoch)
            if failure := failure_of(metrics):
                raise failure
        except DlassetsError as error:
            trial.set_user_attr(FAILURE, shortened(str(error)))
            raise
        finally:
            epochs.write()
        trial.set_user_attr(ACCURACY, metrics[ACCURACY])
        return metrics[LOSS]


def _check_reachable(session: SparkSession, store: str) -> None:
    """Raise DlassetsError where executors on other machines would look for a store that is a file of this one."""
    if not works_here(session) and not store.startswith(
        ("http://", "https://", "databricks", "postgresql", "mysql", "mssql")
    ):
        raise DlassetsError(
            f"Trials on a Spark cluster write to MLflow, and its store {store} is a file of this machine. Start a "
            "tracking server that the executors reach, set DLASSETS_MLFLOW__TRACKING_URI to it, or tune with "
            "DLASSETS_ENGINE=local."
        )


@contextlib.contextmanager
def _reporting(record: StudyRecord, trials: int, report: OnTrial) -> Iterator[None]:
    """Report how far the executors are while this process waits for them."""
    over = threading.Event()

    def report_progress() -> None:
        ended = record.ended_trials
        report(len(ended), trials, best_of(ended))

    def watch() -> None:
        while not over.wait(_SECONDS_BETWEEN_REPORTS):
            report_progress()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    report_progress()
