"""Which settings are tried next, and which trials are not worth going on with: Optuna's part of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlassets.settings import TuningSettings

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

# Trials whose settings are drawn at random, before the sampler learns from them; and epochs that decide nothing.
_RANDOM_TRIALS, _WARM_UP_EPOCHS = 5, 3


def new_sampler(seed: int, trials: int) -> BaseSampler:
    """Return a tree-structured Parzen estimator (Bergstra et al., 2011) for a study that has so many trials."""
    from optuna.samplers import TPESampler

    # A study that goes on must not draw again what it drew when it began.
    return TPESampler(seed=seed + trials, n_startup_trials=_RANDOM_TRIALS)


def new_pruner(settings: TuningSettings) -> BasePruner:
    """Return the median rule (Golovin et al., 2017), or what cuts no trial short."""
    from optuna.pruners import MedianPruner, NopPruner

    if not settings.pruning:
        return NopPruner()
    return MedianPruner(n_startup_trials=_RANDOM_TRIALS, n_warmup_steps=_WARM_UP_EPOCHS)


def quiet_optuna() -> None:
    """Keep Optuna's line a trial out of a run's output: a study reports its trials itself."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
