"""What labelling bought, as `labeling_report` has it by now."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dlassets.lakehouse.tables import LABELING_REPORT, OPEN, PLANNED
from dlassets.monitoring.labeling_report import measures
from dlassets.monitoring.labeling_report.measures import Measure, Period
from dlassets.monitoring.labeling_report.report import standing_measures
from dlassets.monitoring.views.reading import Reading
from dlassets.registry.models import ModelVersion

# Of versions, of weeks and days of one, and of people or services with the most answers.
MOST_VERSIONS, WEEKS, DAYS, MOST_NAMES = 20, 12, 14, 20

_NEWEST = f"""
    SELECT {", ".join(LABELING_REPORT.names)} FROM (
        SELECT labeling_report.*, ROW_NUMBER() OVER (PARTITION BY measure_id ORDER BY reported_on DESC) AS place
        FROM labeling_report) AS placed
    WHERE place = 1 AND value IS NOT NULL
"""  # noqa: S608 - the table's own columns


@dataclass(frozen=True)
class VersionBought:
    """One version: its labels of people, and how right it was, None where that is not known.

    `people` is of all photos that people labelled and it did not learn from, `random` of those that chance chose, and
    `chosen` of those that were asked about for a reason. `gain` is a hundred labels' worth of test accuracy since the
    version before, `gain_since_first` since the first one, and `point` what a percentage point cost since then.
    """

    model: ModelVersion
    labels: Measure | None
    test: Measure | None
    people: Measure | None
    random: Measure | None
    chosen: Measure | None
    gain: Measure | None
    gain_since_first: Measure | None
    point: Measure | None


@dataclass(frozen=True)
class Day:
    day: dt.date
    asked: int
    answered: int
    withdrawn: int


@dataclass(frozen=True)
class Bought:
    """`versions` are the newest first; `weeks` are of the newest one that people's answers tell of, oldest first.

    `in_all` are figures of all time about people alone, by figure and slice. `known` is all of it, as pictures want it.
    """

    reported_at: dt.datetime | None
    versions: Sequence[VersionBought]
    weeks: Sequence[tuple[Period, Measure]]
    days: Sequence[Day]
    in_all: Mapping[tuple[str, str], Measure]
    known: Sequence[Measure]

    @property
    def services(self) -> list[Measure]:
        return self._most(measures.BY_SERVICE)

    @property
    def people(self) -> list[Measure]:
        return self._most(measures.BY_PERSON)

    @property
    def open(self) -> int:
        return self.number(measures.QUEUE, OPEN)

    @property
    def planned(self) -> int:
        return self.number(measures.QUEUE, PLANNED)

    def number(self, figure: str, part: str = measures.ALL) -> int:
        found = self.in_all.get((figure, part))
        return 0 if found is None or found.value is None else int(found.value)

    def value(self, figure: str, part: str = measures.ALL) -> float | None:
        found = self.in_all.get((figure, part))
        return None if found is None else found.value

    def _most(self, figure: str) -> list[Measure]:
        found = [each for (of, _), each in self.in_all.items() if of == figure]
        return sorted(found, key=lambda each: (-each.count, each.slice))[:MOST_NAMES]


def bought(reading: Reading) -> Bought:
    """Return what the report says by now; nothing where there is none."""
    rows = reading.asked(_NEWEST, [LABELING_REPORT])
    known = standing_measures(rows)
    in_all = {(each.figure, each.slice): each for each in known if each.model is None and each.period is None}
    models = sorted(
        {each.model for each in known if each.model}, key=lambda model: (model.version, model.package or "")
    )
    versions = [_version(model, known) for model in models[::-1][:MOST_VERSIONS]]
    return Bought(
        max((row["reported_at"] for row in rows), default=None),
        versions,
        _weeks(known, next((version.model for version in versions if version.people), None)),
        _days(known),
        in_all,
        known,
    )


def _version(model: ModelVersion, known: Sequence[Measure]) -> VersionBought:
    of_it = {(each.figure, each.slice): each for each in known if each.model == model and each.period is None}
    return VersionBought(
        model,
        of_it.get((measures.HUMAN_LABELS, measures.ALL)),
        of_it.get((measures.TEST_ACCURACY, measures.ALL)),
        of_it.get((measures.ACCURACY, measures.ALL)),
        of_it.get((measures.ACCURACY, measures.RANDOM)),
        of_it.get((measures.ACCURACY, measures.CHOSEN)),
        of_it.get((measures.GAIN_PER_100, measures.SINCE_PREVIOUS)),
        of_it.get((measures.GAIN_PER_100, measures.SINCE_FIRST)),
        of_it.get((measures.COST_PER_POINT, measures.SINCE_FIRST)),
    )


def _weeks(known: Sequence[Measure], model: ModelVersion | None) -> list[tuple[Period, Measure]]:
    found = [
        (each.period, each)
        for each in known
        if each.model == model and each.figure == measures.ACCURACY and each.slice == measures.ALL and each.period
    ]
    return sorted(found, key=lambda week: week[0])[-WEEKS:]


def _days(known: Sequence[Measure]) -> list[Day]:
    counts = {
        (each.period.start, each.slice): each.count
        for each in known
        if each.figure == measures.REQUESTS and each.period is not None
    }
    newest = sorted({day for day, _ in counts})[-DAYS:]
    parts = (measures.ASKED, measures.ANSWERED, measures.WITHDRAWN)
    return [Day(day, *(counts.get((day, part), 0) for part in parts)) for day in newest]
