"""Studies: which settings of training give the least validation loss, found by trying them.

A study that was cut short goes on from its record in MLflow, on either engine and from any machine. Here is what is
done with a study as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dlassets.errors import DlassetsError
from dlassets.extras import TUNING, require
from dlassets.learning.examples import read_splits
from dlassets.registry.lifecycle import runs_where
from dlassets.settings import TrainingSettings, TuningSettings
from dlassets.tuning.question import Question
from dlassets.tuning.record import TAG_BEST, TAG_FEATURES, TAG_FINISHED, TAG_TRAINABLE, StudyRecord
from dlassets.tuning.search_space import check_space, settings_with
from dlassets.tuning.trials import ACCURACY, OnTrial, best_of, run_id_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from optuna.trial import FrozenTrial


class TrialRunner(Protocol):
    """Has trials run somewhere: `LocalTrials` here, `SparkTrials` on a cluster."""

    def run(self, record: StudyRecord, settings: TuningSettings, report: OnTrial) -> None:
        """Run trials until `settings.trials` of the record have ended, or the minutes are over."""


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
    runner: TrialRunner,
    report: OnTrial = lambda *_: None,
) -> Best:
    """Try settings until there are `settings.trials` trials in all or the minutes are over, and return the best.

    A study of an equal question goes on where it was; one that has its trials is left as it is. A trial that fails
    costs itself alone. Raises DlassetsError for a space that cannot be, before anything runs, and where no trial comes
    to an end; MissingExtraError without the extra `tuning`.
    """
    require(TUNING, "A study")
    import optuna

    check_space(question.space, question.job.settings)
    read_splits(question.job.training_set, features=False)  # what they lack is said before any process starts
    record = StudyRecord(client, experiment, question)
    has_its_trials = len(record.ended_trials) >= settings.trials
    if has_its_trials and record.has_result:
        return _best(record, is_new=False)
    if not has_its_trials:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # not its line a trial: a study reports them itself
        with record.running():
            runner.run(record, settings, report)
    record.finish()
    return _best(record, is_new=True)


def _best(record: StudyRecord, *, is_new: bool) -> Best:
    trials = record.trials
    best = best_of(trials)
    if best is None:
        raise DlassetsError(
            f"The trials of the study {record.name} have gone from MLflow. Restore its runs, or delete the run "
            f"{record.run_id} to tune again."
        )
    return Best(
        settings=settings_with(record.question.job.settings, best.params),
        chosen=dict(best.params),
        value=best.value,
        accuracy=best.user_attrs[ACCURACY],
        trials=trials,
        run_id=record.run_id,
        trial_run_id=run_id_of(best),
        is_new=is_new,
    )


def newest_study(client: MlflowClient, experiment: str, trainable: str, feature_version: str) -> Run | None:
    """Return the run of the newest study over these features that has ended, or None where there is none."""
    condition = f"tags.`{TAG_FEATURES}` = '{feature_version}' AND tags.`{TAG_TRAINABLE}` = '{trainable}'"
    finished = [run for run in runs_where(client, experiment, condition) if TAG_BEST in run.data.tags]
    return max(finished, key=lambda run: run.data.tags[TAG_FINISHED], default=None)


def winner(
    client: MlflowClient, experiment: str, training: TrainingSettings, feature_version: str
) -> TrainingSettings | None:
    """Return `training` with what the newest study over these features chose, or None where there is none.

    The training set may have grown since: settings that suited it then suit it better than those nobody has tried.
    """
    newest = newest_study(client, experiment, training.trainable, feature_version)
    return None if newest is None else settings_with(training, json.loads(newest.data.tags[TAG_BEST]))
