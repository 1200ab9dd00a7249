"""What one trial is, wherever it runs: how it is chosen, what it does, what it leaves, and which one is the best."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Snapshot
from dlassets.errors import DlassetsError
from dlassets.learning.examples import Splits, read_splits
from dlassets.learning.training.job import CALIBRATED_LOSS, Event, Job, Metrics
from dlassets.masking import masked
from dlassets.settings import TuningSettings

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

# Trials done, of how many, and the best so far, where one has come to its end.
OnTrial = Callable[[int, int, "FrozenTrial | None"], None]
# Trains and returns the kept epoch's metrics, validation_loss among them; told of each epoch, it goes on or is cut
# short by what `on_epoch` raises.
Objective = Callable[[Job, Callable[[Metrics], None]], Metrics]
# Of what a trial measures, what decides and what people would rather know.
LOSS, ACCURACY = "validation_loss", "validation_accuracy"
# Attributes of a trial: that nobody ran it to its end, and why it failed.
INTERRUPTED, FAILURE = "interrupted", "why"
# A tag in MLflow holds 8,000 characters in some stores, 5,000 in others.
_LONGEST_TAG = 4000
# Trials whose settings are drawn at random, before the sampler learns from them; and epochs that decide nothing.
_RANDOM_TRIALS, _WARM_UP_EPOCHS = 5, 3


def best_of(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Return the trial with the least loss; None where none has come to its end."""
    from optuna.trial import TrialState

    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return min(complete, key=lambda trial: (trial.value, trial.number)) if complete else None


def failure_of(metrics: Mapping[str, float]) -> DlassetsError | None:
    """Return what is wrong with what a trial measured; nothing where it was cut short and measured nothing."""
    if metrics and not math.isfinite(metrics[LOSS]):
        return DlassetsError(f"Its validation loss is not a number ({metrics[LOSS]}).")
    return None


def shortened(failure: str) -> str:
    """Return the end of a failure's text, as much as a tag holds, without secrets."""
    return masked(failure)[-_LONGEST_TAG:]


def run_id_of(trial: FrozenTrial | Trial) -> str:
    """Return the run of a trial: in MLflow's storage that is its id, which Optuna has no public name for."""
    run_id: str = trial._trial_id  # noqa: SLF001 - as above
    return run_id


def train_and_validate(job: Job, on_epoch: Callable[[Metrics], None]) -> Metrics:
    """Train as the job says, and return the kept epoch's metrics, its loss after its temperature if it has one."""
    from dlassets.learning.training.group import ALONE, Group, device_of
    from dlassets.learning.training.train import train

    def on_event(event: Event) -> None:
        if event.kind == "epoch":
            on_epoch(event.metrics)

    is_head = job.settings.trainable == "head"
    # A head takes moments on a processor, and trials run side by side.
    group = ALONE if is_head else Group(device=device_of(job.settings.compute))
    trained = train(job, group, on_event, _splits(job.training_set, is_head))
    kept = trained.history[trained.best_epoch]
    # Along a path of penalties, heads are as sure as these let them be, until they are calibrated.
    return {**kept, LOSS: kept.get(CALIBRATED_LOSS, kept[LOSS])}


@functools.lru_cache(maxsize=1)
def _splits(training_set: Snapshot, features: bool) -> Splits:
    """Read the training set, once a process."""
    return read_splits(training_set, features=features)


def strategy(settings: TuningSettings, seed: int, trials: int) -> dict[str, Any]:
    """Return Optuna's `sampler` and `pruner` for a study that has so many trials.

    They are a tree-structured Parzen estimator (Bergstra et al., 2011), and the median rule (Golovin et al., 2017).
    """
    from optuna.pruners import MedianPruner, NopPruner
    from optuna.samplers import TPESampler

    median = MedianPruner(n_startup_trials=_RANDOM_TRIALS, n_warmup_steps=_WARM_UP_EPOCHS)
    # A study that goes on must not draw again what it drew when it began.
    sampler = TPESampler(seed=seed + trials, n_startup_trials=_RANDOM_TRIALS)
    return {"sampler": sampler, "pruner": median if settings.pruning else NopPruner()}
