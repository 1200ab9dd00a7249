"""What one trial is, wherever it runs: the names of what it leaves, whether it failed, and which one is the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from dlassets.errors import DlassetsError

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

    # Trials done, of how many, and the best so far, where one has come to its end.
    OnTrial = Callable[[int, int, FrozenTrial | None], None]

# Of what a trial measures, what decides and what people would rather know.
LOSS, ACCURACY = "validation_loss", "validation_accuracy"
# Attributes of a trial: that nobody ran it to its end, and why it failed.
INTERRUPTED, FAILURE = "interrupted", "why"
# A tag in MLflow holds 8,000 characters in some stores, 5,000 in others.
_LONGEST_TAG = 4000


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


def last_failure(trials: Sequence[FrozenTrial]) -> str:
    failures = [trial.user_attrs[FAILURE] for trial in trials if FAILURE in trial.user_attrs]
    return failures[-1] if failures else "(see error_message.txt of its run in MLflow)"


def shortened(failure: str) -> str:
    """Return the end of a failure's text, as much as a tag holds."""
    return failure[-_LONGEST_TAG:]


def run_id_of(trial: FrozenTrial | Trial) -> str:
    """Return the run of a trial: in MLflow's storage that is its id, which Optuna has no public name for."""
    run_id: str = trial._trial_id  # noqa: SLF001 - as above
    return run_id
