"""A study's trials on this machine: this process asks Optuna and writes the record, processes of their own train.

Each of those tries one trial at a time; one that dies costs its trial alone.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Self, TypeAlias, cast

from dlassets.engines.local import WORKERS
from dlassets.errors import DlassetsError, error_from, record_of
from dlassets.learning.training.job import Job, Metrics
from dlassets.settings import TuningSettings
from dlassets.tuning.record import EpochLog, StudyRecord
from dlassets.tuning.search_space import settings_with, suggest
from dlassets.tuning.trials import ACCURACY, LOSS, Objective, OnTrial, best_of, failure_of, strategy, train_and_validate

if TYPE_CHECKING:
    import optuna

# Where the first so many all fail, it is not their settings.
_HOPELESS = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocalTrials:
    """Runs trials in processes of this machine, `objective` in each.

    `strictly`: none starts that would end after the minutes, if it takes as long as the longest did.
    """

    objective: Objective = train_and_validate
    strictly: bool = False

    def run(self, record: StudyRecord, settings: TuningSettings, report: OnTrial) -> None:
        """Raises DlassetsError where the first trials all fail."""
        import optuna

        first = record.resume()
        trials = record.trials
        study = optuna.create_study(**strategy(settings, record.question.job.settings.seed, len(trials)))
        study.add_trials(trials)
        for values in first:
            study.enqueue_trial(values)
        until = time.monotonic() + settings.minutes * 60
        run = _RunningTrials(record, study, report, settings.trials)
        with Workers(self.objective, settings.processes) as workers:
            while True:
                while workers.has_room and run.has_more and time.monotonic() + self.strictly * run.longest < until:
                    run.start(workers)
                if not workers.busy:
                    return
                for worker, message in workers.messages():
                    run.handle(worker, message)


class _RunningTrials:
    """The trials that run, between Optuna, which asks for them, and the record, which keeps them."""

    def __init__(self, record: StudyRecord, study: optuna.Study, report: OnTrial, trials: int) -> None:
        self.record, self.study, self.report, self.trials = record, study, report, trials
        self.started = self.done = len(record.ended_trials)
        self.longest = 0.0  # seconds that a trial has taken
        self._by_worker: dict[Worker, _RunningTrial] = {}
        self._failures_in_a_row = 0

    @property
    def has_more(self) -> bool:
        return self.started < self.trials

    def start(self, workers: Workers) -> None:
        question = self.record.question
        trial = self.study.ask()
        settings = settings_with(question.job.settings, suggest(trial, question.space))
        run_id = self.record.begin_trial(trial)
        worker = workers.start(replace(question.job, settings=settings))
        self._by_worker[worker] = _RunningTrial(trial, EpochLog(self.record.client, run_id), time.monotonic())
        self.started += 1

    def handle(self, worker: Worker, message: Message) -> None:
        if isinstance(message, Epoch):
            running = self._by_worker[worker]
            epochs, loss = running.epochs, message.metrics[LOSS]
            running.trial.report(loss, epochs.step)
            worker.answer(go_on=not running.trial.should_prune())
            self.record.storage.set_trial_intermediate_value(epochs.run_id, epochs.step, loss)
            epochs.add(message.metrics)
        else:
            self._end(self._by_worker.pop(worker), message)

    def _end(self, running: _RunningTrial, message: Done | Failed) -> None:
        from optuna.trial import TrialState

        metrics = (message.metrics or {}) if isinstance(message, Done) else {}
        failure = message.failure if isinstance(message, Failed) else failure_of(metrics)
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
        best = best_of(self.study.get_trials(deepcopy=False))
        self._failures_in_a_row = self._failures_in_a_row + 1 if failure else 0
        if self._failures_in_a_row >= _HOPELESS and best is None:
            raise DlassetsError(
                f"The first {self._failures_in_a_row} trials all failed, the last one so: {failure} Mend that or "
                "change tuning.space, and run it again."
            ) from failure
        self.report(self.done, self.trials, best)


@dataclass
class _RunningTrial:
    trial: optuna.Trial
    epochs: EpochLog
    started: float


# ---- the processes


class TrialCutShort(Exception):  # noqa: N818 - no error: others did better, and this trial ends
    """Raised in a trial that is not worth going on with."""


@dataclass(frozen=True)
class Epoch:
    """An epoch of a trial is done; the trial waits for `Worker.answer`."""

    metrics: Metrics


@dataclass(frozen=True)
class Done:
    """`metrics` of the kept epoch; None where the trial was cut short."""

    metrics: Metrics | None


@dataclass(frozen=True)
class Failed:
    """`failure` is a DlassetsError, else a ProcessFailedError."""

    failure: Exception


Message: TypeAlias = Epoch | Done | Failed


class Worker:
    """One process and the connection to it. It ends when its parent does, however that ends."""

    def __init__(self, objective: Objective, threads: int) -> None:
        # Spawned: a fork of a process that has torch's, Arrow's or the JVM's threads may hang.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process: SpawnProcess = context.Process(target=_work, args=(theirs, objective, threads), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def start(self, job: Job) -> None:
        self.connection.send(job)

    def answer(self, *, go_on: bool) -> None:
        self.connection.send(go_on)

    def receive(self) -> Message:
        try:
            message: Message = self.connection.recv()
        except (EOFError, OSError):
            self._process.join()
            return Failed(DlassetsError(f"Its process ended in the middle, with exit code {self._process.exitcode}."))
        return message

    def stop(self) -> None:
        # It has nothing to put in order, and where a shell ignores Ctrl-C for it, Dagster has it ignore SIGTERM too.
        self._process.kill()
        self._process.join()
        self.connection.close()


@dataclass
class Workers:
    """At most `processes` workers; `with` ends them all."""

    objective: Objective
    processes: int
    _idle: list[Worker] = field(default_factory=list)
    _busy: dict[Connection, Worker] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in (*self._idle, *self._busy.values()):
            worker.stop()

    @property
    def busy(self) -> int:
        return len(self._busy)

    @property
    def has_room(self) -> bool:
        return self.busy < self.processes

    def start(self, job: Job) -> Worker:
        """Have an idle worker, or a new one, try the job's settings."""
        worker = self._idle.pop() if self._idle else Worker(self.objective, max(1, WORKERS // self.processes))
        self._busy[worker.connection] = worker
        try:
            worker.start(job)
        except OSError:  # it is dead
            self._busy.pop(worker.connection).stop()
            return self.start(job)
        return worker

    def messages(self) -> Iterator[tuple[Worker, Message]]:
        """Wait until a busy worker sends a message, and yield those that have come."""
        for ready in wait(list(self._busy)):
            worker = self._busy[cast("Connection", ready)]
            message = worker.receive()
            if not isinstance(message, Epoch):
                self._idle.append(self._busy.pop(worker.connection))
            yield worker, message


def _work(connection: Connection, objective: Objective, threads: int) -> None:
    """Be a worker: try one job after the other until the parent is gone."""
    # Ctrl-C reaches every process of a terminal, and the parent says what then becomes of this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # torch reads it when it is imported
    on_epoch = functools.partial(_report_epoch, connection)
    with _ending_with_the_parent():
        while True:
            job = connection.recv()
            outcome = _outcome(job, objective, on_epoch)
            connection.send(outcome)


@contextmanager
def _ending_with_the_parent() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError):
        raise SystemExit from None


def _report_epoch(connection: Connection, metrics: Metrics) -> None:
    with _ending_with_the_parent():
        connection.send(Epoch(metrics))
        go_on = connection.recv()
    if not go_on:
        raise TrialCutShort


def _outcome(job: Job, objective: Objective, on_epoch: Callable[[Metrics], None]) -> Done | Failed:
    try:
        return Done(objective(job, on_epoch))
    except TrialCutShort:
        return Done(None)
    except Exception as error:  # noqa: BLE001 - whatever settings lead to, it is written down with their trial
        return Failed(error_from(record_of(error)))  # another's might not be one that can be pickled
