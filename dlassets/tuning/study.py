"""Studies: which settings of training give the least validation loss, found by trying them.

A study is a run in MLflow and each trial a child run of it, in the form of MLflow's own storage for Optuna. That record
is all there is: a study that was cut short goes on from it, on either engine and from any machine. On one machine this
process asks Optuna and writes, and processes of their own train; on Spark, MLflow's Spark study spreads the trials.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import hashlib
import json
import logging
import math
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlassets.errors import DlassetsError
from dlassets.learning.examples import read_splits
from dlassets.settings import Span, TrainingSettings, TuningSettings
from dlassets.tuning import pictures as study_pictures
from dlassets.tuning import search_space
from dlassets.tuning.search_space import check_space, settings_with, suggest
from dlassets.tuning.trial_processes import Done, Epoch, Failed, Workers

if TYPE_CHECKING:
    import optuna
    from mlflow import MlflowClient
    from optuna.trial import FrozenTrial
    from pyspark.sql import SparkSession

    from dlassets.engines.base import Snapshot
    from dlassets.learning.examples import Splits
    from dlassets.learning.training.job import Event, Job, Metrics
    from dlassets.tuning.search_space import Space
    from dlassets.tuning.trial_processes import Message, Objective, Worker

    # Trials done, of how many, and the best so far, where one has come to its end.
    OnTrial = Callable[[int, int, FrozenTrial | None], None]

# Raise it when what a trial does changes what it measures: older trials are then not taken for comparable.
STUDY_VERSION = 1
LOSS, ACCURACY = "validation_loss", "validation_accuracy"
PICTURE = "tuning/study.png"
TAG_DIGEST, TAG_BEST, TAG_WINNER = "dlassets.tuning.sha256", "dlassets.tuning.best", "dlassets.tuning.winner"
TAG_FEATURES, TAG_TRAINABLE = "dlassets.tuning.feature_version", "dlassets.tuning.trainable"
TAG_FINISHED, TAG_PROCESS = "dlassets.tuning.finished_at", "dlassets.tuning.process"
INTERRUPTED, WHY = "interrupted", "why"

# Where the first so many all fail, it is not their settings.
_HOPELESS = 3
# MLflow's storage reads every trial to answer whether one is worth going on with.
_SECONDS_BETWEEN_QUESTIONS = 5.0
_SECONDS_BETWEEN_WRITES = 2.0
_SECONDS_BETWEEN_REPORTS = 2.0
# A tag in MLflow holds 8,000 characters in some stores, 5,000 in others.
_MOST_LETTERS = 4000
# Trials whose settings are drawn at random, before the sampler learns from them; and epochs that decide nothing.
_RANDOM_TRIALS, _WARM_UP_EPOCHS = 5, 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """All that decides what a trial of given settings measures. `job.settings` has the settings that are not tuned."""

    job: Job
    feature_version: str
    space: Space

    @property
    def sha256(self) -> str:
        settings = search_space.flat(self.job.settings)
        described = {
            "training_set": [self.job.training_set.uri, self.job.training_set.version],
            "feature_version": self.feature_version,
            "settings": {name: settings[name] for name in settings.keys() - self.space.keys() if not _is_place(name)},
            "space": {name: _plain(tried) for name, tried in self.space.items()},
            "study_version": STUDY_VERSION,
        }
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Best:
    """What a study found: `chosen` by dotted name, within `settings`; `value` is its validation loss.

    `trials` are all there are, cut short and failed ones included. `run_id` is the study's run in MLflow and
    `trial_run_id` the winner's; `is_new` says whether this call tried anything.
    """

    settings: TrainingSettings
    chosen: dict[str, Any]
    value: float
    accuracy: float
    trials: Sequence[FrozenTrial]
    run_id: str
    trial_run_id: str
    is_new: bool


def run_study(
    question: Question,
    settings: TuningSettings,
    client: MlflowClient,
    experiment: str,
    *,
    objective: Objective | None = None,
    spark: SparkSession | None = None,
    strictly: bool = False,
    report: OnTrial = lambda *_: None,
) -> Best:
    """Try settings until there are `settings.trials` trials in all or the minutes are over, and return the best.

    The sampler is a tree-structured Parzen estimator (Bergstra et al., 2011), and trials are cut short by the median
    rule (Golovin et al., 2017). A study of an equal question goes on where it was; one that has its trials is left
    as it is. A trial that fails costs itself alone. `strictly`: on this machine, none starts that would end after the
    minutes, if it takes as long as the longest did. Raises DlassetsError for a space that cannot be, before anything
    runs, and where no trial comes to an end.
    """
    check_space(question.space, question.job.settings)
    read_splits(question.job.training_set, features=False)  # what they lack is said before any process starts
    record = _Record(client, experiment, question)
    left = settings.trials - len(record.counted())
    if left <= 0 and record.is_finished:
        return record.best(is_new=False)
    if left > 0:
        _quiet_optuna()
        with record.open():
            if spark is None:
                _on_this_machine(record, settings, objective or validation_of, report, strictly=strictly)
            else:
                _on_spark(spark, record, settings, objective or validation_of, report)
    record.finish()
    return record.best(is_new=True)


def winner(
    client: MlflowClient, experiment: str, training: TrainingSettings, feature_version: str
) -> TrainingSettings | None:
    """Return `training` with what the newest study over these features chose, or None where there is none.

    The training set may have grown since: settings that suited it then suit it better than those nobody has tried.
    """
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return None
    runs = client.search_runs(
        [found.experiment_id],
        f"tags.`{TAG_FEATURES}` = '{feature_version}' AND tags.`{TAG_TRAINABLE}` = '{training.trainable}'",
    )
    finished = [run for run in runs if TAG_BEST in run.data.tags]
    if not finished:
        return None
    newest = max(finished, key=lambda run: run.data.tags[TAG_FINISHED])
    return settings_with(training, json.loads(newest.data.tags[TAG_BEST]))


def picture_of(client: MlflowClient, best: Best) -> bytes:
    """Return the picture of a study. Raises DlassetsError where MLflow no longer has it."""
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        try:
            return Path(client.download_artifacts(best.run_id, PICTURE, folder)).read_bytes()
        except (MlflowException, OSError) as error:
            raise DlassetsError(
                f"The picture of MLflow run {best.run_id} cannot be read: {error} Restore MLflow's artifacts, or "
                "delete the run in MLflow to tune again."
            ) from error


def validation_of(job: Job, on_epoch: Callable[[Metrics], None]) -> Metrics:
    """Train as the job says, and return the kept epoch's metrics: what a trial does."""
    from dlassets.learning.training.group import ALONE, Group, device_of
    from dlassets.learning.training.train import train

    def on_event(event: Event) -> None:
        if event.kind == "epoch":
            on_epoch(event.metrics)

    is_head = job.settings.trainable == "head"
    # A head takes moments on a processor, and trials run side by side.
    group = ALONE if is_head else Group(device=device_of(job.settings.compute))
    trained = train(job, group, on_event, _splits(job.training_set, is_head))
    return trained.history[trained.best_epoch]


@functools.lru_cache(maxsize=1)
def _splits(training_set: Snapshot, features: bool) -> Splits:
    """Read the training set, once a process."""
    return read_splits(training_set, features=features)


class _Record:
    """A study as MLflow has it: one run, and a child run a trial."""

    def __init__(self, client: MlflowClient, experiment: str, question: Question) -> None:
        import mlflow
        from mlflow.optuna.storage import MlflowStorage
        from optuna.study import StudyDirection

        mlflow.set_tracking_uri(client.tracking_uri)  # MlflowStorage knows the process's own store alone
        self.client, self.question = client, question
        self.name = f"tuning-{question.sha256[:12]}"
        self.storage = MlflowStorage(client.get_experiment_by_name(experiment).experiment_id)
        found = self.storage.get_study_id_by_name_if_exists(self.name)
        self.run_id: str = found or self.storage.create_new_study([StudyDirection.MINIMIZE], self.name)

    @property
    def trials(self) -> list[FrozenTrial]:
        return sorted(self.storage.get_all_trials(self.run_id), key=lambda trial: trial.number)

    def counted(self) -> list[FrozenTrial]:
        """Return the trials that came to an end of their own, a good one or not."""
        return [trial for trial in self.trials if trial.state.is_finished() and INTERRUPTED not in trial.user_attrs]

    @property
    def is_finished(self) -> bool:
        return TAG_BEST in self.client.get_run(self.run_id).data.tags

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Have the study's run say that it runs, and what it asks; where it is cut short, that it was."""
        job = self.question.job
        self._refuse_where_another_runs_it()
        self.client.update_run(self.run_id, status="RUNNING")
        told = {
            "training_set": job.training_set.uri,
            "training_set_version": job.training_set.version,
            "feature_version": self.question.feature_version,
            "trainable": job.settings.trainable,
            **{f"space.{name}": json.dumps(_plain(tried)) for name, tried in self.question.space.items()},
        }
        for name, value in told.items():
            self.client.log_param(self.run_id, name, value)
        self._tag(self.run_id, {TAG_DIGEST: self.question.sha256, TAG_PROCESS: _process_name(os.getpid())})
        try:
            yield
        except BaseException:
            self.client.set_terminated(self.run_id, "KILLED")
            raise

    def _refuse_where_another_runs_it(self) -> None:
        """Raise DlassetsError where a live process of this machine runs the study: both would try, and count, double.

        One of another machine is taken for dead: that cannot be seen from here.
        """
        run = self.client.get_run(self.run_id)
        name = run.data.tags.get(TAG_PROCESS, "")
        host, _, pid = name.rpartition(" ")[0].rpartition(" ")
        is_alive = host == socket.gethostname() and _process_name(int(pid)) == name
        if run.info.status == "RUNNING" and is_alive and int(pid) != os.getpid():
            raise DlassetsError(
                f"The study {self.name} is being run by process {pid} of this machine. Wait for it, or end that "
                "process and run it again: it goes on from the trials that are done."
            )

    def take_over(self) -> list[dict[str, Any]]:
        """End the trials that nobody runs any more, and return what they were trying."""
        from optuna.trial import TrialState

        lost = [trial for trial in self.trials if not trial.state.is_finished()]
        for trial in lost:
            run_id = _run_id(trial)
            self.storage.set_trial_user_attr(run_id, INTERRUPTED, True)
            self.storage.set_trial_state_values(run_id, TrialState.FAIL)
        return [tried for trial in lost if (tried := trial.params or trial.system_attrs.get("fixed_params"))]

    def begin_trial(self, trial: optuna.Trial) -> str:
        """Write a trial down as running, and return its run."""
        from optuna.trial import TrialState, create_trial

        running = create_trial(state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions)
        run_id: str = self.storage.create_new_trial(self.run_id, running)
        self.client.update_run(run_id, name=f"trial {self.storage.get_trial_number_from_id(run_id)}")
        return run_id

    def end_trial(self, run_id: str, state: Any, metrics: Mapping[str, float], why: str) -> None:
        if why:
            self.storage.set_trial_user_attr(run_id, WHY, why[-_MOST_LETTERS:])
        if ACCURACY in metrics:
            self.storage.set_trial_user_attr(run_id, ACCURACY, metrics[ACCURACY])
        values = [metrics[LOSS]] if LOSS in metrics else None
        self.storage.set_trial_state_values(run_id, state, values)

    def finish(self) -> None:
        """Write down who has won. Raises DlassetsError where nobody has."""
        trials = self.trials
        best = _best_of(trials)
        if best is None:
            self.client.set_terminated(self.run_id, "FAILED")
            raise DlassetsError(
                f"None of {len(trials)} trials of the study {self.name} came to its end. The last one that failed: "
                f"{_why(trials)} Mend that or change tuning.space, and run it again."
            )
        self.client.log_metric(self.run_id, LOSS, best.value)
        self.client.log_metric(self.run_id, ACCURACY, best.user_attrs[ACCURACY])
        self.client.log_metric(self.run_id, "trials", len(trials))
        with tempfile.TemporaryDirectory() as folder:
            picture = Path(folder, Path(PICTURE).name)
            picture.write_bytes(study_pictures.study(trials, self.question.space))
            self.client.log_artifact(self.run_id, str(picture), str(Path(PICTURE).parent))
        # Tags, not params: a study that goes on may come to choose others, and a param is said once and for all.
        self._tag(
            self.run_id,
            {
                **{f"best.{name}": value for name, value in best.params.items()},
                TAG_WINNER: _run_id(best),
                TAG_FEATURES: self.question.feature_version,
                TAG_TRAINABLE: self.question.job.settings.trainable,
                TAG_FINISHED: dt.datetime.now(dt.UTC).isoformat(),
                TAG_BEST: json.dumps(best.params),
            },
        )
        self.client.set_terminated(self.run_id)

    def best(self, *, is_new: bool) -> Best:
        trials = self.trials
        best = _best_of(trials)
        if best is None:
            raise DlassetsError(
                f"The trials of the study {self.name} have gone from MLflow. Restore its runs, or delete the run "
                f"{self.run_id} to tune again."
            )
        return Best(
            settings=settings_with(self.question.job.settings, best.params),
            chosen=dict(best.params),
            value=best.value,
            accuracy=best.user_attrs[ACCURACY],
            trials=trials,
            run_id=self.run_id,
            trial_run_id=_run_id(best),
            is_new=is_new,
        )

    def _tag(self, run_id: str, tags: Mapping[str, Any]) -> None:
        for name, value in tags.items():
            self.client.set_tag(run_id, name, value)


def _on_this_machine(
    record: _Record, settings: TuningSettings, objective: Objective, report: OnTrial, *, strictly: bool
) -> None:
    """Ask Optuna here, and train in processes; what each says is written down here as well, by one writer."""
    import optuna

    again = record.take_over()
    before = record.trials
    study = optuna.create_study(sampler=_sampler(record.question, before), pruner=_pruner(settings))
    study.add_trials(before)
    for tried in again or _first(record.question, before):
        study.enqueue_trial(tried)
    until = time.monotonic() + settings.minutes * 60
    run = _LocalRun(record, study, report, settings.trials, started=len(record.counted()))
    with Workers(objective, settings.processes) as workers:
        while True:
            while workers.has_room and run.has_more and time.monotonic() + strictly * run.longest < until:
                run.start(workers)
            if not workers.busy:
                return
            for worker, message in workers.messages():
                run.hear(worker, message)


class _LocalRun:
    """The trials that run, between Optuna, which asks for them, and the record, which keeps them."""

    def __init__(self, record: _Record, study: optuna.Study, report: OnTrial, trials: int, started: int) -> None:
        self.record, self.study, self.report = record, study, report
        self.trials, self.started, self.done = trials, started, started
        self.longest = 0.0  # seconds that a trial has taken
        self._running: dict[Worker, _Running] = {}
        self._failed_in_a_row = 0

    @property
    def has_more(self) -> bool:
        return self.started < self.trials

    def start(self, workers: Workers) -> None:
        question = self.record.question
        trial = self.study.ask()
        settings = settings_with(question.job.settings, suggest(trial, question.space))
        run_id = self.record.begin_trial(trial)
        worker = workers.start(replace(question.job, settings=settings))
        self._running[worker] = _Running(trial, _EpochLog(self.record.client, run_id), time.monotonic())
        self.started += 1

    def hear(self, worker: Worker, message: Message) -> None:
        if isinstance(message, Epoch):
            running = self._running[worker]
            step = running.epochs.step
            running.trial.report(message.metrics[LOSS], step)
            worker.answer(go_on=not running.trial.should_prune())
            self.record.storage.set_trial_intermediate_value(running.epochs.run_id, step, message.metrics[LOSS])
            running.epochs.add(message.metrics)
        else:
            self._end(self._running.pop(worker), message)

    def _end(self, running: _Running, message: Done | Failed) -> None:
        from optuna.trial import TrialState

        metrics = (message.metrics or {}) if isinstance(message, Done) else {}
        failure = message.failure if isinstance(message, Failed) else _fault(metrics)
        state = TrialState.FAIL if failure else TrialState.COMPLETE if metrics else TrialState.PRUNED
        if failure:
            metrics = {}
            _log.warning("A trial failed: %s", failure)
        if ACCURACY in metrics:
            running.trial.set_user_attr(ACCURACY, metrics[ACCURACY])
        self.study.tell(running.trial, metrics.get(LOSS), state)
        self.longest = max(self.longest, time.monotonic() - running.started)
        running.epochs.write()
        self.record.end_trial(running.epochs.run_id, state, metrics, str(failure or ""))
        self.done += 1
        self._give_up_where_all_fail(failure)
        self.report(self.done, self.trials, _best_of(self.study.get_trials(deepcopy=False)))

    def _give_up_where_all_fail(self, failure: Exception | None) -> None:
        self._failed_in_a_row = self._failed_in_a_row + 1 if failure else 0
        if self._failed_in_a_row >= _HOPELESS and _best_of(self.study.get_trials(deepcopy=False)) is None:
            raise DlassetsError(
                f"The first {self._failed_in_a_row} trials all failed, the last one so: {failure} Mend that or change "
                "tuning.space, and run it again."
            ) from failure


@dataclass
class _Running:
    trial: optuna.Trial
    epochs: _EpochLog
    started: float


class _EpochLog:
    """Writes a trial's epochs into its run, some at a time: a write to MLflow takes longer than an epoch of a head."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client, self.run_id, self.step = client, run_id, 0
        self._waiting: list[Any] = []
        self._written = time.monotonic()

    def add(self, metrics: Metrics) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(name, value, now, self.step) for name, value in metrics.items()]
        self.step += 1
        if time.monotonic() - self._written >= _SECONDS_BETWEEN_WRITES:
            self.write()

    def write(self) -> None:
        self.client.log_batch(self.run_id, metrics=self._waiting)
        self._waiting, self._written = [], time.monotonic()


def _on_spark(
    spark: SparkSession, record: _Record, settings: TuningSettings, objective: Objective, report: OnTrial
) -> None:
    """Spread the trials over Spark's executors, each of which asks Optuna and writes by itself."""
    from mlflow.exceptions import MlflowException
    from mlflow.pyspark.optuna.study import MlflowSparkStudy
    from pyspark.errors import PySparkException

    _check_reachable(spark, record.client.tracking_uri)
    again = record.take_over()
    before = record.trials
    # A sampler and a pruner of this study alone: they are sent to the executors with what they have learned.
    study = MlflowSparkStudy(
        record.name,
        record.storage,
        sampler=_sampler(record.question, before),
        pruner=_pruner(settings),
        mlflow_tracking_uri=record.client.tracking_uri,
    )
    for tried in again or _first(record.question, before):
        study.enqueue_trial(tried)
    left = settings.trials - len(record.counted())
    with _reported(record, settings.trials, report):
        try:
            study.optimize(
                _SparkTrial(record.question, objective),
                n_trials=left,
                timeout=settings.minutes * 60,
                n_jobs=min(settings.processes, left),
                catch=(Exception,),
            )
        except (MlflowException, PySparkException) as error:
            raise DlassetsError(
                f"Spark ended the study {record.name} before its time: {error} Run it again: it goes on from the "
                f"{len(record.counted())} trials that are done."
            ) from error


@dataclass(frozen=True)
class _SparkTrial:
    """A trial on an executor: Optuna calls it there, with a trial whose id is that of its run in MLflow."""

    question: Question
    objective: Objective

    def __call__(self, trial: optuna.Trial) -> float:
        from mlflow import MlflowClient

        client, run_id = MlflowClient(), _run_id(trial)
        client.update_run(run_id, name=f"trial {trial.number}")
        settings = settings_with(self.question.job.settings, suggest(trial, self.question.space))
        epochs = _EpochLog(client, run_id)
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
            if fault := _fault(metrics):
                raise fault
        except DlassetsError as error:
            trial.set_user_attr(WHY, str(error)[-_MOST_LETTERS:])
            raise
        finally:
            epochs.write()
        trial.set_user_attr(ACCURACY, metrics[ACCURACY])
        return metrics[LOSS]


def _check_reachable(spark: SparkSession, store: str) -> None:
    """Raise DlassetsError where executors on other machines would look for a store that is a file of this one."""
    from pyspark.sql.utils import is_remote

    here = not is_remote() and str(spark.conf.get("spark.master", "")).startswith("local")
    if not here and not store.startswith(("http://", "https://", "databricks", "postgresql", "mysql", "mssql")):
        raise DlassetsError(
            f"Trials on a Spark cluster write to MLflow, and its store {store} is a file of this machine. Start a "
            "tracking server that the executors reach, set DLASSETS_MLFLOW__TRACKING_URI to it, or tune with "
            "DLASSETS_ENGINE=local."
        )


@contextlib.contextmanager
def _reported(record: _Record, trials: int, report: OnTrial) -> Iterator[None]:
    """Report how far the executors are while this process waits for them."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_SECONDS_BETWEEN_REPORTS):
            tell()

    def tell() -> None:
        done = record.counted()
        report(len(done), trials, _best_of(done))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    tell()


def _sampler(question: Question, before: Sequence[FrozenTrial]) -> optuna.samplers.BaseSampler:
    import optuna

    # A study that goes on must not draw again what it drew when it began.
    seed = question.job.settings.seed + len(before)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=_RANDOM_TRIALS)


def _pruner(settings: TuningSettings) -> optuna.pruners.BasePruner:
    import optuna

    if not settings.pruning:
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=_RANDOM_TRIALS, n_warmup_steps=_WARM_UP_EPOCHS)


def _first(question: Question, before: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    """Return what a new study tries first: the settings as they stand, so that the best is no worse than those."""
    now = search_space.as_it_stands(question.space, question.job.settings)
    return [now] if now is not None and not before else []


def _best_of(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    from optuna.trial import TrialState

    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return min(complete, key=lambda trial: (trial.value, trial.number)) if complete else None


def _fault(metrics: Mapping[str, float]) -> DlassetsError | None:
    """Return what is wrong with what a trial measured; nothing where it was cut short and measured nothing."""
    if metrics and not math.isfinite(metrics[LOSS]):
        return DlassetsError(f"Its validation loss is not a number ({metrics[LOSS]}).")
    return None


def _why(trials: Sequence[FrozenTrial]) -> str:
    said = [trial.user_attrs[WHY] for trial in trials if WHY in trial.user_attrs]
    return said[-1] if said else "(see error_message.txt of its run in MLflow)"


def _run_id(trial: FrozenTrial | optuna.Trial) -> str:
    """Return the run of a trial: in MLflow's storage that is its id, which Optuna has no public name for."""
    run_id: str = trial._trial_id  # noqa: SLF001 - as above
    return run_id


def _process_name(pid: int) -> str:
    """Return host, id and start of a process: what tells it from a later one of the same id. Empty where it is gone."""
    import psutil

    try:
        process = psutil.Process(pid)
        is_dead = process.status() == psutil.STATUS_ZOMBIE  # killed, and nobody has asked how it ended
        return "" if is_dead else f"{socket.gethostname()} {pid} {process.create_time()}"
    except psutil.NoSuchProcess:
        return ""


def _is_place(name: str) -> bool:
    """Whether a setting says where a model is trained, which changes nothing of what it learns."""
    return name.startswith("compute.")


def _plain(tried: Span | tuple[Any, ...]) -> Any:
    return tried.model_dump() if isinstance(tried, Span) else list(tried)


def _quiet_optuna() -> None:
    """Keep Optuna's line a trial out of a run's output: `report` says it."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
