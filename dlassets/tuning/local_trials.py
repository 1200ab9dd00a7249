"""A study's trials on this machine: this process asks Optuna and writes the record, processes of their own train."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dlassets.errors import DlassetsError
from dlassets.settings import TuningSettings
from dlassets.tuning.objective import train_and_validate
from dlassets.tuning.record import EpochLog, StudyRecord
from dlassets.tuning.sampling import new_pruner, new_sampler
from dlassets.tuning.search_space import settings_with, suggest
from dlassets.tuning.trial_processes import Done, Epoch, Failed, Message, Objective, Worker, Workers
from dlassets.tuning.trials import ACCURACY, LOSS, best_of, failure_of

if TYPE_CHECKING:
    import optuna

    from dlassets.tuning.trials import OnTrial

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
        sampler = new_sampler(record.question.job.settings.seed, len(trials))
        study = optuna.create_study(sampler=sampler, pruner=new_pruner(settings))
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
        self._failures_in_a_row = 0  # in a row

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
