"""The figures as pictures: small PNGs of nothing but numbers, for Dagster's pages and MLflow's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlassets.learning.evaluation.pictures import as_png, new_figure
from dlassets.monitoring.labeling_report import measures
from dlassets.monitoring.labeling_report.measures import Measure
from dlassets.registry.models import ModelVersion

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = (8, 3.2)
# What a picture has room for: lines of versions, the newest days and weeks, and names of such.
_VERSIONS, _DAYS, _WEEKS, _DATES = 3, 30, 26, 6
_NAMES = {
    measures.ALL: "labelled by people",
    measures.RANDOM: "of these, chosen by chance",
    measures.CHOSEN: "of these, chosen for a reason",
}
_HOUR = 3600.0


def accuracy_and_labels(known: Sequence[Measure]) -> bytes:
    """Return a PNG of test accuracy by labels of people learned from, and of accuracy on their photos by week."""
    figure = new_figure(*_SIZE)
    by_labels, by_week = figure.subplots(1, 2)
    labels = {each.model: each.value for each in known if each.figure == measures.HUMAN_LABELS}
    tested = [each for each in known if each.figure == measures.TEST_ACCURACY]
    for each in tested:
        if (place := labels.get(each.model)) is not None and each.value is not None and each.model is not None:
            _point(by_labels, place, each.value, each)
            name = str(each.model.version)
            by_labels.annotate(name, (place, each.value), xytext=(5, 2), textcoords="offset points", fontsize=7)
    by_labels.set(xlabel="labels of people in the training set", ylabel="test accuracy")
    _title(by_labels, "What labels were worth", bool(tested))
    weeks = [each for each in known if each.figure == measures.ACCURACY and each.slice == measures.ALL and each.period]
    models = sorted({each.model for each in weeks if each.model}, key=lambda model: model.version)[-_VERSIONS:]
    for model in models:
        _line(by_week, [each for each in weeks if each.model == model], f"version {model.version}")
    _dates(by_week, [each for each in weeks if each.model in models])
    _title(by_week, "Right on photos that people labelled, by week", bool(models))
    return as_png(figure)


def asking_and_answering(known: Sequence[Measure]) -> bytes:
    """Return a PNG of requests asked, answered and withdrawn by day, and of how long an answer took by week."""
    figure = new_figure(*_SIZE)
    by_day, by_week = figure.subplots(1, 2)
    days = _newest([each for each in known if each.figure == measures.REQUESTS and each.period], _DAYS)
    for part in (measures.ASKED, measures.ANSWERED, measures.WITHDRAWN):
        _line(by_day, [each for each in days if each.slice == part], part)
    _dates(by_day, days)
    by_day.set_ylim(bottom=0)
    _title(by_day, "Requests by day", bool(days))
    taken = _newest([each for each in known if each.figure == measures.TIME_TO_ANSWER and each.period], _WEEKS)
    for part, name in ((measures.MEDIAN, "half of them"), (measures.NINETIETH, "nine of ten")):
        _line(by_week, [each for each in taken if each.slice == part], name, lambda seconds: seconds / _HOUR)
    _dates(by_week, taken)
    by_week.set_ylim(bottom=0)
    _title(by_week, "Hours until they were answered, by week", bool(taken))
    return as_png(figure)


def of_version(known: Sequence[Measure], model: ModelVersion) -> bytes:
    """Return a PNG of how often one version was right on photos that people labelled, in all and by week."""
    figure = new_figure(*_SIZE)
    in_all, by_week = figure.subplots(1, 2)
    of_model = [each for each in known if each.model == model and each.value is not None]
    found = [
        (name, each)
        for part, name in _NAMES.items()
        for each in of_model
        if each.figure == measures.ACCURACY and each.slice == part and each.period is None
    ]
    found += [("test photos", each) for each in of_model if each.figure == measures.TEST_ACCURACY]
    for place, (_, each) in enumerate(found):
        if each.value is not None and each.interval is not None:
            in_all.hlines(place, *each.interval, color="lightsteelblue", linewidth=9)
            in_all.plot(each.value, place, marker="o", color="black", markersize=4, clip_on=False)
    in_all.set_yticks(range(len(found)), [f"{name} ({each.count:,})" for name, each in found], fontsize=7)
    in_all.set_ylim(max(1, len(found)) - 0.5, -0.5)
    in_all.set_xlim(-0.01, 1.01)
    _title(in_all, f"Version {model.version}: share that was right", named=False)
    weeks = [each for each in of_model if each.figure == measures.ACCURACY and each.period]
    for part, name in _NAMES.items():
        _line(by_week, [each for each in weeks if each.slice == part], name)
    _dates(by_week, weeks)
    _title(by_week, "By the week of the label", bool(weeks))
    return as_png(figure)


def _newest(known: Sequence[Measure], most: int) -> list[Measure]:
    starts = sorted({each.period.start for each in known if each.period})[-most:]
    return [each for each in known if each.period and each.period.start in starts]


def _line(
    axes: Axes, known: Sequence[Measure], name: str, shown: Callable[[float], float] = lambda value: value
) -> None:
    """Draw what measures are by their period, each within its interval where it has one."""
    values = {each.period.start: each.value for each in known if each.period and each.value is not None}
    if not values:
        return
    starts = np.array(sorted(values), "datetime64[D]")
    (drawn,) = axes.plot(starts, [shown(values[start]) for start in sorted(values)], marker=".", label=name)
    for each in known:
        if each.period is not None and each.interval is not None:
            place = np.array([each.period.start], "datetime64[D]")
            axes.vlines(place, *each.interval, color=drawn.get_color(), alpha=0.35, linewidth=3)


def _point(axes: Axes, place: float, value: float, each: Measure) -> None:
    if each.interval is not None:
        axes.vlines(place, *each.interval, color="lightsteelblue", linewidth=5)
    axes.plot(place, value, marker="o", color="black", markersize=4)


def _dates(axes: Axes, known: Sequence[Measure]) -> None:
    """Name a few of the days at which something was drawn."""
    starts = sorted({each.period.start for each in known if each.period is not None and each.value is not None})
    named = starts[:: max(1, -(-len(starts) // _DATES))]
    axes.set_xticks(np.array(named, "datetime64[D]"), [f"{day:%d %b}" for day in named])


def _title(axes: Axes, title: str, named: bool) -> None:
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=7)
    axes.xaxis.label.set_fontsize(8)
    axes.yaxis.label.set_fontsize(8)
    if named and axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7)
