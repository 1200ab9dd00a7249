"""A picture of a study: how it got better, and how each setting bears on what is measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dlassets.learning.evaluation.pictures import new_figure
from dlassets.settings import Span
from dlassets.tuning.search_space import Candidates, Space

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from optuna.trial import FrozenTrial

# The worst trials are far off, and would press all others into one line.
_SHOWN_SHARE = 0.9


def picture_of_study(trials: Sequence[FrozenTrial], space: Space) -> Figure:
    """Draw the validation loss by trial with the best so far, then by the values of each setting."""
    from optuna.trial import TrialState

    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    numbers, values = [trial.number for trial in done], np.array([trial.value for trial in done])
    figure = new_figure(3.6 * (len(space) + 1), 3.4)
    history, *others = figure.subplots(1, len(space) + 1, squeeze=False)[0]
    history.scatter(numbers, values, s=14, alpha=0.7, label="a trial")
    history.step(numbers, np.minimum.accumulate(values), where="post", color="black", linewidth=1, label="best so far")
    for trial in trials:
        if trial.state == TrialState.PRUNED:
            history.axvline(trial.number, color="lightgrey", linewidth=1, zorder=0)
    history.xaxis.get_major_locator().set_params(integer=True)
    history.set_xlabel("trial (grey: cut short)")
    history.set_ylabel("validation loss")
    history.legend(fontsize=8)
    for axes, (name, candidates) in zip(others, space.items(), strict=True):
        _draw_setting(axes, name, candidates, [trial.params[name] for trial in done], values)
    low, high = values.min(), np.quantile(values, _SHOWN_SHARE)
    margin = 0.05 * (high - low) or 0.05
    for axes in (history, *others):
        axes.set_ylim(low - margin, high + margin)
    return figure


def _draw_setting(
    axes: Axes, name: str, candidates: Candidates, chosen: list[Any], values: NDArray[np.float64]
) -> None:
    if isinstance(candidates, Span):
        axes.scatter(chosen, values, s=14, alpha=0.7)
        axes.set_xscale("log" if candidates.log else "linear")
    else:
        axes.scatter([candidates.index(value) for value in chosen], values, s=14, alpha=0.7)
        axes.set_xticks(
            range(len(candidates)), [str(value) for value in candidates], rotation=30, ha="right", fontsize=8
        )
        axes.set_xlim(-0.5, len(candidates) - 0.5)
    axes.set_xlabel(name)
    axes.set_yticklabels([])
