"""A study as MLflow has it, in the form of MLflow's own storage for Optuna: a run, and a child run a trial.

That record is all there is of a study, and all that is written in MLflow is written here. It knows nothing of where
trials run.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dlassets.engines.process_identity import ProcessIdentity
from dlassets.errors import DlassetsError
from dlassets.learning.training.job import Metrics
from dlassets.registry.lifecycle import TAG_PROCESS
from dlassets.tuning.pictures import picture_of_study
from dlassets.tuning.question import Question
from dlassets.tuning.search_space import as_json, current_values
from dlassets.tuning.trials import ACCURACY, FAILURE, INTERRUPTED, LOSS, best_of, run_id_of, shortened

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from optuna.trial import FrozenTrial, Trial, TrialState

PICTURE = "tuning/study.png"
TAG_DIGEST, TAG_BEST, TAG_WINNER = "dlassets.tuning.sha256", "dlassets.tuning.best", "dlassets.tuning.winner"
TAG_FEATURES, TAG_TRAINABLE = "dlassets.tuning.feature_version", "dlassets.tuning.trainable"
TAG_FINISHED = "dlassets.tuning.finished_at"

# Whose value a process changes as long as it runs the study.
TAG_BEAT = "dlassets.tuning.beat"

SECONDS_BETWEEN_BEATS, PATIENCE_SECONDS = 10.0, 60.0
SECONDS_BETWEEN_LOOKS = 2.0
_SECONDS_BETWEEN_WRITES = 2.0


class StudyRecord:
    """The record of a question's study, begun where there is none. `storage` is what Optuna keeps its trials in."""

    def __init__(self, client: MlflowClient, experiment: str, question: Question) -> None:
        import mlflow
        from mlflow.optuna.storage import MlflowStorage
        from optuna.study import StudyDirection

        mlflow.set_tracking_uri(client.tracking_uri)  # MlflowStorage knows the process's own store alone
        self.client, self.question = client, question
        self.storage = MlflowStorage(client.get_experiment_by_name(experiment).experiment_id)
        names = [f"tuning-{digest[:12]}" for digest in (question.sha256, question.earlier_sha256)]
        studies = {name: self.storage.get_study_id_by_name_if_exists(name) for name in names}
        self.name = next((name for name, existing in studies.items() if existing), names[0])
        existing = studies[self.name]
        self.run_id: str = existing or self.storage.create_new_study([StudyDirection.MINIMIZE], self.name)

    @property
    def trials(self) -> list[FrozenTrial]:
        return sorted(self.storage.get_all_trials(self.run_id), key=lambda trial: trial.number)

    @property
    def ended_trials(self) -> list[FrozenTrial]:
        """The trials that came to an end of their own, a good one or not."""
        return [trial for trial in self.trials if trial.state.is_finished() and INTERRUPTED not in trial.user_attrs]

    @property
    def has_result(self) -> bool:
        return TAG_BEST in self.client.get_run(self.run_id).data.tags

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Have the study's run say that it runs, and what it asks; where it is cut short, that it was."""
        job = self.question.job
        self._refuse_where_another_runs_it()
        self.client.update_run(self.run_id, status="RUNNING")
        parameters = {
            "training_set_version": job.training_set.version,
            "feature_version": self.question.feature_version,
            "trainable": job.settings.trainable,
            **{f"space.{name}": json.dumps(values) for name, values in as_json(self.question.space).items()},
        }
        for name, value in parameters.items():
            self.client.log_param(self.run_id, name, value)
        beat = uuid.uuid4().hex
        self._tag({TAG_DIGEST: self.question.sha256, TAG_BEAT: beat, TAG_PROCESS: str(ProcessIdentity.this())})
        try:
            with self._beating():
                yield
        except BaseException:
            self.client.set_terminated(self.run_id, "KILLED")
            raise

    def _refuse_where_another_runs_it(self) -> None:
        """Raise DlassetsError where a live process runs the study: both would try, and count, double.

        One of another machine is watched, for nothing else of it can be seen from here, and clocks differ: it is dead
        where it does not say for PATIENCE_SECONDS that it goes on.
        """
        run = self.client.get_run(self.run_id)
        process = ProcessIdentity.parse(run.data.tags.get(TAG_PROCESS, ""))
        if run.info.status != "RUNNING" or process is None:
            return
        is_here = process.is_alive
        goes_on = process.pid != os.getpid() if is_here else not process.is_gone and self._goes_on(run)
        if goes_on:
            where = "this machine" if is_here else process.host
            raise DlassetsError(
                f"The study {self.name} is being run by process {process.pid} of {where}. Wait for it, or end "
                "that process and run it again: it goes on from the trials that are done."
            )

    def _goes_on(self, run: Run) -> bool:
        """Whether a process of another machine says, while this one waits, that it runs the study."""
        beat, until = run.data.tags.get(TAG_BEAT), time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            run = self.client.get_run(self.run_id)
            if run.info.status != "RUNNING":
                return False
            if run.data.tags.get(TAG_BEAT) != beat:
                return True
        return False

    @contextlib.contextmanager
    def _beating(self) -> Iterator[None]:
        """Say every so often that the study goes on, to who cannot see this process."""
        over = threading.Event()

        def beat() -> None:
            from mlflow.exceptions import MlflowException

            while not over.wait(SECONDS_BETWEEN_BEATS):
                with contextlib.suppress(MlflowException):  # the trials themselves will say that it is away
                    self._tag({TAG_BEAT: uuid.uuid4().hex})

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def resume(self) -> list[dict[str, Any]]:
        """End the trials that nobody runs any more, and return what is tried before the sampler is asked.

        That is what those were trying; in a new study the settings as they stand, so that the best is no worse.
        """
        from optuna.trial import TrialState

        trials = self.trials
        interrupted = [trial for trial in trials if not trial.state.is_finished()]
        for trial in interrupted:
            self.storage.set_trial_user_attr(run_id_of(trial), INTERRUPTED, True)
            self.storage.set_trial_state_values(run_id_of(trial), TrialState.FAIL)
        again = [trial.params or trial.system_attrs.get("fixed_params") for trial in interrupted]
        if not trials:
            again = [current_values(self.question.space, self.question.job.settings)]
        return [values for values in again if values]

    def begin_trial(self, trial: Trial) -> str:
        """Write a trial down as running, and return its run."""
        from optuna.trial import TrialState, create_trial

        running = create_trial(state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions)
        run_id: str = self.storage.create_new_trial(self.run_id, running)
        self.client.update_run(run_id, name=f"trial {self.storage.get_trial_number_from_id(run_id)} of {self.name}")
        return run_id

    def end_trial(self, run_id: str, state: TrialState, metrics: Mapping[str, float], failure: str) -> None:
        if failure:
            self.storage.set_trial_user_attr(run_id, FAILURE, shortened(failure))
        if ACCURACY in metrics:
            self.storage.set_trial_user_attr(run_id, ACCURACY, metrics[ACCURACY])
        values = [metrics[LOSS]] if LOSS in metrics else None
        self.storage.set_trial_state_values(run_id, state, values)

    def finish(self) -> None:
        """Write down who has won. Raises DlassetsError where nobody has."""
        trials = self.trials
        best = best_of(trials)
        if best is None:
            failures = [trial.user_attrs[FAILURE] for trial in trials if FAILURE in trial.user_attrs]
            failure = failures[-1] if failures else "(see error_message.txt of its run in MLflow)"
            self.client.set_terminated(self.run_id, "FAILED")
            raise DlassetsError(
                f"None of {len(trials)} trials of the study {self.name} came to its end. The last one that failed: "
                f"{failure} Mend that or change tuning.space, and run it again."
            )
        self.client.log_metric(self.run_id, LOSS, best.value)
        self.client.log_metric(self.run_id, ACCURACY, best.user_attrs[ACCURACY])
        self.client.log_metric(self.run_id, "trials", len(trials))
        self.client.log_figure(self.run_id, picture_of_study(trials, self.question.space), PICTURE)
        # Tags, not params: a study that goes on may come to choose others, and a param is said once and for all.
        self._tag(
            {
                **{f"best.{name}": value for name, value in best.params.items()},
                TAG_WINNER: run_id_of(best),
                TAG_FEATURES: self.question.feature_version,
                TAG_TRAINABLE: self.question.job.settings.trainable,
                TAG_FINISHED: dt.datetime.now(dt.UTC).isoformat(),
                TAG_BEST: json.dumps(best.params),
            }
        )
        self.client.set_terminated(self.run_id)

    def _tag(self, tags: Mapping[str, Any]) -> None:
        for name, value in tags.items():
            self.client.set_tag(self.run_id, name, value)


class EpochLog:
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
