"""The table `labeling_report`: what is known now beside what was known, of which what differs is written."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dlassets.engines.base import Commit, Engine, Snapshot, Transaction, Written
from dlassets.lakehouse.provenance import Provenance
from dlassets.lakehouse.snapshots import provenance_of, row_count, transaction_version
from dlassets.lakehouse.tables import HUMAN_LABELS, LABEL_REQUESTS, LABELING_REPORT
from dlassets.monitoring.labeling_report import counts, figures, measures
from dlassets.monitoring.labeling_report.counts import Version
from dlassets.monitoring.labeling_report.measures import Measure, measure_of
from dlassets.settings import Settings

_APP_ID = f"dlassets/{LABELING_REPORT.name}"

# SQL over `labeling_report`: what stands of each measure.
_KNOWN = f"""
    SELECT {", ".join(LABELING_REPORT.names)} FROM (
        SELECT labeling_report.*, ROW_NUMBER() OVER (PARTITION BY measure_id ORDER BY reported_on DESC) AS place
        FROM labeling_report) AS placed
    WHERE place = 1 ORDER BY measure_id
"""  # noqa: S608 - the table's own columns


@dataclass(frozen=True)
class Counted:
    """All measures as they are at a time, and the versions that were looked at for them."""

    at: dt.datetime
    measures: Sequence[Measure]
    versions: Sequence[Version] = ()


def is_known(report: Snapshot, provenance: Provenance) -> bool:
    """Whether this version of the table was made of these very inputs, by these parameters."""
    before = provenance_of(report)
    return before.get("inputs") == provenance.inputs and before.get("parameters") == provenance.parameters


def count(engine: Engine, tables: Mapping[str, Snapshot], settings: Settings, now: dt.datetime) -> Counted:
    """Return what there is to say now: nothing where nobody was asked, little where nobody has answered.

    `tables` are predictions, labeled_images, human_labels, label_requests, evaluated_rows, training_set, classes and
    model_versions.
    """
    if not row_count(tables[LABEL_REQUESTS.name]):
        return Counted(now, [])
    asked = counts.requests(engine, tables)
    found = [*figures.queue(asked, now), *figures.flows(asked)]
    if not row_count(tables[HUMAN_LABELS.name]):
        return Counted(now, found)
    versions = counts.versions_of(engine, tables, settings.registry.model_name)
    given, trained = counts.given(engine, tables), counts.trained(engine, versions)
    gained = figures.label_efficiency(trained, counts.tested(engine, tables, trained))
    worked = figures.work(counts.work(engine, tables), settings.labeling.cost_per_hour)
    found += [
        *figures.accuracy(counts.judged(engine, tables, versions, settings.labels)),
        *figures.audit_answered(asked),
        *figures.time_to_answer(asked),
        *figures.answers(given),
        *gained,
        *worked,
        *figures.costs(worked, given, trained, gained),
    ]
    return Counted(now, found, versions)


def write(engine: Engine, report: Snapshot, counted: Counted, commit: Commit) -> Written:
    """Write what is otherwise than what stands in this version of the table; nothing, no new version.

    What was known on a day before stays beside it. Raises ConflictError where another run has written since.
    """
    import pyarrow as pa

    known = engine.sql(_KNOWN, {LABELING_REPORT.name: report}).arrow().to_pylist()
    standing = {measure.id: measure for measure in standing_measures(known)}
    now = {measure.id: measure for measure in counted.measures}
    gone = [each for each in standing.values() if each.id not in now and _would_be_counted(each, counted)]
    new = [each for each in now.values() if standing.get(each.id) != each]
    new += [replace(each, value=None, low=None, high=None, count=0) for each in gone]
    if not new:
        return Written(report.version, changed=False)
    rows = pa.Table.from_pylist([each.row(counted.at) for each in new], schema=LABELING_REPORT.schema)
    transaction = Transaction(_APP_ID, transaction_version(report, _APP_ID) + 1)
    return engine.merge(engine.rows(rows), LABELING_REPORT, report.uri, replace(commit, transaction=transaction))


def standing_measures(rows: Sequence[Mapping[str, Any]]) -> list[Measure]:
    """Return what the newest row of each measure says, those that were taken back among them."""
    newest = {row["measure_id"]: row for row in sorted(rows, key=lambda row: row["reported_on"])}
    return [measure_of(row) for row in newest.values()]


def _would_be_counted(measure: Measure, counted: Counted) -> bool:
    """Whether it was to be counted again: of old versions nothing is, nor are withdrawals of which no day is known."""
    if measure.value is None:
        return False
    if measure.model is not None:
        return any(measure.model == version.model for version in counted.versions)
    return measure.slice != measures.WITHDRAWN or measure.period is None or _knows_when_withdrawn(counted)


def _knows_when_withdrawn(counted: Counted) -> bool:
    """Whether the day of each withdrawal is known: before there was `closed_at`, it was told by the days' counts."""
    withdrawn = [e for e in counted.measures if (e.figure, e.slice) == (measures.REQUESTS, measures.WITHDRAWN)]
    of_days, in_all = ([each for each in withdrawn if bool(each.period) is of_day] for of_day in (True, False))
    return sum(each.count for each in of_days) == sum(each.count for each in in_all)
