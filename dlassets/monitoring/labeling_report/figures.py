"""The figures, each a function of what was counted: nothing is read or written here."""

from __future__ import annotations

import datetime as dt
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dlassets.lakehouse.tables import AUDIT, OPEN, PLANNED, WITHDRAWN
from dlassets.learning.evaluation.evaluate import Z_95, wilson_interval
from dlassets.monitoring.labeling_report import measures
from dlassets.monitoring.labeling_report.measures import Measure, Period
from dlassets.registry.models import ModelVersion

if TYPE_CHECKING:
    import pyarrow as pa

Times = NDArray[np.datetime64]
_HOUR, _PER_100, _POINTS = 3600.0, 100, 100


@dataclass(frozen=True)
class Judged:
    """Photos that people labelled on one day and a version did not learn from; `correct` it had right.

    They were chosen by chance (`by_chance`), for a reason (`for_a_reason`), or once each way.
    """

    model: ModelVersion
    day: dt.date
    by_chance: bool
    for_a_reason: bool
    photos: int
    correct: int


@dataclass(frozen=True)
class Trained:
    """A version, and how many labels of people its training set had of `photos`; None where that cannot be told."""

    model: ModelVersion
    run_id: str
    photos: int | None = None
    human_labels: int | None = None


@dataclass(frozen=True)
class BothTested:
    """Test photos of two training runs, with the same label in both: how many both had right, or one alone."""

    later: str
    earlier: str
    both: int
    only_later: int
    only_earlier: int
    neither: int

    @property
    def photos(self) -> int:
        return self.both + self.only_later + self.only_earlier + self.neither


@dataclass(frozen=True)
class Given:
    """Standing answers of one person in one service; `photos` are those that nobody before in the list labelled.

    Of these, `measured` have an answer of which it is known how long it took.
    """

    service: str | None
    person: str | None
    answers: int
    photos: int
    measured: int


def accuracy(judged: Sequence[Judged]) -> list[Measure]:
    """Return how often each version was right on photos that people labelled, in all and by the week of the label.

    Those that chance chose give an estimate of the accuracy on all photos that had no label then, without bias; those
    that were chosen because a model was unsure say less, and are harder. The interval is Wilson's (1927).
    """
    counts: dict[tuple[ModelVersion, str, Period | None], list[int]] = defaultdict(lambda: [0, 0])
    for each in judged:
        parts = [measures.ALL]
        parts += [measures.RANDOM] if each.by_chance else []
        parts += [measures.CHOSEN] if each.for_a_reason else []
        for part in parts:
            for period in (None, Period.week(each.day)):
                counted = counts[each.model, part, period]
                counted[0] += each.correct
                counted[1] += each.photos
    return [
        _share(measures.ACCURACY, right, photos, slice=part, model=model, period=period)
        for (model, part, period), (right, photos) in counts.items()
    ]


def audit_answered(requests: pa.Table) -> list[Measure]:
    """Return the share of requests of photos that chance chose that were answered: what is missing may be harder."""
    is_random = np.asarray(requests["strategy"].to_numpy() == AUDIT)
    if not is_random.any():
        return []
    answered = ~np.isnat(_times(requests, "answered_at"))
    return [_share(measures.AUDIT_ANSWERED, int((answered & is_random).sum()), int(is_random.sum()))]


def label_efficiency(trained: Sequence[Trained], tested: Sequence[BothTested]) -> list[Measure]:
    """Return of each version how many labels of people it had, its test accuracy, and what the labels were worth.

    A version is compared with the one before it and with the first, on the test photos that both were tested on with
    the same label. The interval of the difference of two paired shares is Wald's with half a photo added to each of
    the four cells (Agresti and Min, Statistics in Medicine 24, 2005); that of the gain per 100 labels is the same,
    divided by as much.
    """
    by_runs = {(each.later, each.earlier): each for each in tested if each.photos}
    found = []
    for each in trained:
        if each.human_labels is not None and each.photos is not None:
            found.append(Measure(measures.HUMAN_LABELS, each.human_labels, each.photos, model=each.model))
        if (own := by_runs.get((each.run_id, each.run_id))) is not None:
            found.append(_share(measures.TEST_ACCURACY, own.both, own.photos, model=each.model))
    for part, earlier, later in compared(trained):
        pair = by_runs.get((later.run_id, earlier.run_id))
        if pair is None:
            continue
        gain = (pair.only_later - pair.only_earlier) / pair.photos
        low, high = paired_interval(pair.only_later, pair.only_earlier, pair.photos)
        found.append(Measure(measures.ACCURACY_GAIN, gain, pair.photos, part, low, high, later.model))
        labels = labels_between(earlier, later)
        if labels:
            per_100 = [_PER_100 * end / labels for end in (gain, low, high)]
            value, low, high = per_100
            found.append(Measure(measures.GAIN_PER_100, value, labels, part, low, high, later.model))
    return found


def compared(trained: Sequence[Trained]) -> Iterator[tuple[str, Trained, Trained]]:
    """Yield each version behind the one before it, and behind the first, with which of the two it is."""
    for place, later in enumerate(trained[1:]):
        yield measures.SINCE_PREVIOUS, trained[place], later
        yield measures.SINCE_FIRST, trained[0], later


def labels_between(earlier: Trained, later: Trained) -> int:
    """Return how many labels of people a training set had more than another; 0 where that cannot be told."""
    if earlier.human_labels is None or later.human_labels is None:
        return 0
    return max(0, later.human_labels - earlier.human_labels)


def paired_interval(only_one: int, only_other: int, photos: int) -> tuple[float, float]:
    """Return the 95% interval of the difference of two shares of the same photos: see `label_efficiency`."""
    added = photos + 2
    difference = (only_one - only_other) / added
    spread = (only_one + only_other + 1) / added - difference**2
    half = Z_95 * math.sqrt(max(0.0, spread) / added)
    return max(-1.0, difference - half), min(1.0, difference + half)


def time_to_answer(requests: pa.Table) -> list[Measure]:
    """Return the seconds from asking to the first standing answer, in all and by the week of the answer.

    An answer that is dated before its request, by another computer's clock, came at once.
    """
    asked, answered = (_times(requests, name) for name in ("requested_at", "answered_at"))
    is_answered = ~np.isnat(answered)
    answered = answered[is_answered]
    seconds = np.maximum(_seconds(answered - asked[is_answered]), 0)
    return [
        Measure(measures.TIME_TO_ANSWER, float(np.quantile(seconds[chosen], share)), int(chosen.sum()), part, period=at)
        for at, chosen in _weeks(answered)
        for part, share in ((measures.MEDIAN, 0.5), (measures.NINETIETH, 0.9))
    ]


def work(done: pa.Table, cost_per_hour: float | None) -> list[Measure]:
    """Return how long people worked, in all and by week, and what that cost; skipped photos are work as well.

    Where nobody measured how long an answer took it is counted as such, and nothing is guessed.
    """
    found, seconds = [], done["seconds"].to_numpy(zero_copy_only=False).astype(float)
    is_known = ~np.isnan(seconds)
    for period, chosen in _weeks(_times(done, "done_at")):
        known = seconds[chosen & is_known]
        unknown = int((chosen & ~is_known).sum())
        found.append(Measure(measures.UNMEASURED, unknown, int(chosen.sum()), period=period))
        if not len(known):
            continue
        total, median = float(known.sum()), float(np.median(known))
        found.append(Measure(measures.SECONDS_OF_WORK, total, len(known), period=period))
        found.append(Measure(measures.SECONDS_PER_ANSWER, median, len(known), measures.MEDIAN, period=period))
        if cost_per_hour is not None:
            found.append(Measure(measures.COST, total / _HOUR * cost_per_hour, len(known), period=period))
    return found


def answers(given: Sequence[Given]) -> list[Measure]:
    """Return how many standing answers there are by service and by person; where nobody said, the slice is empty."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for each in given:
        counts[measures.BY_SERVICE, each.service or ""] += each.answers
        counts[measures.BY_PERSON, each.person or ""] += each.answers
    return [_number(figure, number, part) for (figure, part), number in counts.items()]


def costs(
    worked: Sequence[Measure], given: Sequence[Given], trained: Sequence[Trained], gained: Sequence[Measure]
) -> list[Measure]:
    """Return what a label cost, and what a percentage point of test accuracy did.

    The cost of a label is that of all work that was measured, by the photos that were labelled by measured answers: a
    photo that three people answered costs three answers. A point costs the labels that a version had more, at that
    price, by the points that it gained; nothing is said where it gained none. Its interval is the gain's, as far as
    that is above 0: without an upper end the gain may be none.
    """
    total = next((each for each in worked if each.figure == measures.COST and each.period is None), None)
    labels = sum(each.measured for each in given)
    if total is None or total.value is None or not labels:
        return []
    price = total.value / labels
    found = [Measure(measures.COST_PER_LABEL, price, labels)]
    gains = {(each.slice, each.model): each for each in gained if each.figure == measures.ACCURACY_GAIN}
    for part, earlier, later in compared(trained):
        gain, more = gains.get((part, later.model)), labels_between(earlier, later)
        if not more or gain is None or not gain.value or gain.value < 0:
            continue
        value, low, high = (
            more * price / (_POINTS * end) if end and end > 0 else None for end in (gain.value, gain.high, gain.low)
        )
        found.append(Measure(measures.COST_PER_POINT, value, more, part, low, high, later.model))
    return found


def queue(requests: pa.Table, now: dt.datetime) -> list[Measure]:
    """Return how many requests wait and are planned, and how many seconds ago those that wait were asked."""
    status = requests["status"].to_numpy()
    found = [_number(measures.QUEUE, int((status == each).sum()), each) for each in (OPEN, PLANNED)]
    asked = _times(requests, "requested_at")[status == OPEN]
    if len(asked):
        ages = np.maximum(_seconds(_time(now) - asked), 0)
        for part, age in ((measures.MEDIAN, np.median(ages)), (measures.OLDEST, ages.max())):
            found.append(Measure(measures.QUEUE_AGE, float(age), len(ages), part))
    return found


def flows(requests: pa.Table) -> list[Measure]:
    """Return how many requests were asked, answered and withdrawn, in all and by day.

    Those that were withdrawn and asked or answered after all are no more among the withdrawn ones; of those that were
    before a lake wrote down when, the day is not known.
    """
    is_withdrawn = requests["status"].to_numpy() == WITHDRAWN
    flowing = (
        (measures.ASKED, _times(requests, "requested_at")),
        (measures.ANSWERED, _times(requests, "answered_at")),
        (measures.WITHDRAWN, np.where(is_withdrawn, _times(requests, "closed_at"), np.datetime64("NaT"))),
    )
    found = []
    for part, times in flowing:
        days, numbers = np.unique(times[~np.isnat(times)].astype("datetime64[D]"), return_counts=True)
        in_all = is_withdrawn.sum() if part == measures.WITHDRAWN else numbers.sum()
        found.append(_number(measures.REQUESTS, int(in_all), part))
        for day, number in zip(days.tolist(), numbers.tolist(), strict=True):
            found.append(_number(measures.REQUESTS, number, part, Period.day(day)))
    return found


def _number(figure: str, number: int, part: str, period: Period | None = None) -> Measure:
    return Measure(figure, number, number, part, period=period)


def _share(
    figure: str,
    right: int,
    number: int,
    slice: str = measures.ALL,  # noqa: A002 - as the table calls it
    model: ModelVersion | None = None,
    period: Period | None = None,
) -> Measure:
    return Measure(figure, right / number, number, slice, *wilson_interval(right, number), model, period)


def _times(table: pa.Table, column: str) -> Times:
    """Return UTC times, NaT where there is none."""
    return np.asarray(table[column].to_numpy(zero_copy_only=False), "datetime64[us]")


def _time(moment: dt.datetime) -> np.datetime64:
    return np.datetime64(moment.astimezone(dt.UTC).replace(tzinfo=None), "us")


def _seconds(spans: NDArray[np.timedelta64]) -> NDArray[np.float64]:
    return np.asarray(spans / np.timedelta64(1, "s"))


def _weeks(times: Times) -> Iterator[tuple[Period | None, NDArray[np.bool_]]]:
    """Yield which of the times there are at all, and which are of each week; none at all where there are none."""
    if not len(times):
        return
    yield None, np.ones(len(times), dtype=bool)
    days = times.astype("datetime64[D]")
    mondays = days - (days.astype(int) + 3) % 7  # day 0 was a Thursday
    for monday in np.unique(mondays):
        yield Period.week(monday.item()), mondays == monday
