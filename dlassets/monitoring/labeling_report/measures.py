"""A figure of what labelling bought: what it is called, of which part, model and time, and between which ends."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from dlassets.registry.models import ModelVersion

# Of predictions, by model version: docs/labeling.md says what each means.
ACCURACY, AUDIT_ANSWERED = "accuracy", "audit_answered"
# Of a version's training: what it had, and what it is worth on its test photos.
HUMAN_LABELS, TEST_ACCURACY = "human_labels", "test_accuracy"
ACCURACY_GAIN, GAIN_PER_100, COST_PER_POINT = "accuracy_gain", "gain_per_100_labels", "cost_per_point"
# Of people's work.
TIME_TO_ANSWER, SECONDS_OF_WORK, SECONDS_PER_ANSWER = "time_to_answer", "seconds_of_work", "seconds_per_answer"
UNMEASURED, BY_SERVICE, BY_PERSON = "answers_unmeasured", "answers_by_service", "answers_by_person"
COST, COST_PER_LABEL = "cost", "cost_per_label"
# Of what waits.
QUEUE, QUEUE_AGE, REQUESTS = "queue", "queue_age", "requests"

# Parts of a figure: photos that chance chose, and those that were chosen for a reason; of all, the slice is empty.
ALL, RANDOM, CHOSEN = "", "audit", "asked"
MEDIAN, NINETIETH, OLDEST = "median", "p90", "oldest"
SINCE_PREVIOUS, SINCE_FIRST = "since_previous", "since_first"
ASKED, ANSWERED, WITHDRAWN = "asked", "answered", "withdrawn"

# Hexadecimal digits of a measure's name.
_DIGITS = 16


class Period(NamedTuple):
    """A day or a week: from its first day to the day after its last."""

    start: dt.date
    end: dt.date

    @classmethod
    def day(cls, day: dt.date) -> Period:
        return cls(day, day + dt.timedelta(days=1))

    @classmethod
    def week(cls, day: dt.date) -> Period:
        """Return the week of a day, which begins on a Monday."""
        monday = day - dt.timedelta(days=day.weekday())
        return cls(monday, monday + dt.timedelta(days=7))


@dataclass(frozen=True)
class Measure:
    """`count` is of how many photos, answers or requests; `low` and `high` are ends at 95%, where there are any.

    Without a `period` it is of all time, and without a `model` about people alone. A `value` of None takes back one
    that there was.
    """

    figure: str
    value: float | None
    count: int
    slice: str = ALL
    low: float | None = None
    high: float | None = None
    model: ModelVersion | None = None
    period: Period | None = None

    @property
    def id(self) -> str:
        period = self.period and [day.isoformat() for day in self.period]
        of = json.dumps([self.figure, self.slice, self.model, period])
        return hashlib.sha256(of.encode()).hexdigest()[:_DIGITS]

    @property
    def interval(self) -> tuple[float, float] | None:
        return None if self.low is None or self.high is None else (self.low, self.high)

    def row(self, now: dt.datetime) -> dict[str, Any]:
        """Return the row of `labeling_report` that says so."""
        model, period = self.model, self.period
        return {
            "measure_id": self.id,
            "figure": self.figure,
            "slice": self.slice,
            "model_name": model and model.name,
            "model_version": model and model.version,
            "package": model and model.package,
            "period_start": period and period.start,
            "period_end": period and period.end,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "count": self.count,
            "reported_on": now.date(),
            "reported_at": now,
        }


def measure_of(row: Mapping[str, Any]) -> Measure:
    """Return what a row of `labeling_report` says."""
    name = row["model_name"]
    return Measure(
        row["figure"],
        row["value"],
        row["count"],
        row["slice"],
        row["low"],
        row["high"],
        None if name is None else ModelVersion(name, row["model_version"], row["package"]),
        None if row["period_start"] is None else Period(row["period_start"], row["period_end"]),
    )
