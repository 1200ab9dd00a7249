"""What Dagster knows that people are to be told: runs that failed, and checks that fail at ERROR."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from urllib.parse import quote

import dagster as dg
from dagster._core.storage.asset_check_execution_record import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
    AssetCheckExecutionRecord,
)
from dagster_shared.error import SerializableErrorInfo

from dlassets.alerts.outbox import Alert
from dlassets.errors import printed_error, some_of
from dlassets.pipeline.jobs import RunAlert
from dlassets.settings import UiSettings

# The check that says whether an asset was made in time: see defs/freshness.py.
IS_FRESH = "is_fresh"
_NAMED = 3
# Of a pipeline's run, what people are told of it.
ALERTS_TAG, _NOTHING = "dlassets/alerts", "nothing"
_SAID = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}


def failed_runs(instance: dg.DagsterInstance, since: dt.datetime, ui: UiSettings) -> list[Alert]:
    """Return an alert for each run that has failed since then."""
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since)
    runs = (record.dagster_run for record in instance.get_run_records(failed))
    return [failed_run(instance, run, ui) for run in runs if _is_told_of(run, "run_failed")]


def alerts_tag(kinds: Sequence[RunAlert]) -> str:
    """Return what the tag of a run says: what people are told of it."""
    return " ".join(kinds) or _NOTHING


def _is_told_of(run: dg.DagsterRun | None, kind: RunAlert) -> bool:
    """Whether people are to be told so of a run: of one that is of no pipeline they are told all."""
    return run is None or kind in run.tags.get(ALERTS_TAG, kind).split()


def evaluations(instance: dg.DagsterInstance, since: dt.datetime, after: int) -> list[dg.EventLogRecord]:
    """Return every evaluation of a check since then, but for those that the event log has had up to the one of this id.

    By the time alone every evaluation there ever was would be gone through.
    """
    kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    wanted = dg.EventRecordsFilter(kind, after_cursor=after or None, after_timestamp=since.timestamp())
    return [*instance.event_log_storage.get_event_records(wanted)]


def failing_checks(
    instance: dg.DagsterInstance,
    keys: Collection[dg.AssetCheckKey],
    evaluated: Sequence[dg.EventLogRecord],
    before: Collection[str],
    ui: UiSettings,
    *,
    whoever_is_told: bool = False,
) -> tuple[list[Alert], list[str]]:
    """Return an alert for each check that has come to fail at ERROR, and the names of all that fail so now.

    `before` are those that failed at the last look: what goes on failing is no news. What has failed and passed again
    since then is: `evaluated` has every evaluation since, and may have some of before. A run of which people are not to
    be told of checks leaves the news to the next that fails, unless it is `whoever_is_told`.
    """
    newest = [record.event for record in _completed(instance, keys).values() if record.event]
    entries = [*(record.event_log_entry for record in evaluated), *newest]
    alerts, failing = [], {_name_of(key) for key in keys} & {*before}
    for entry in sorted(entries, key=lambda entry: entry.timestamp):
        evaluation = entry.asset_check_evaluation
        if evaluation is None or evaluation.asset_check_key not in keys:
            continue
        name = _name_of(evaluation.asset_check_key)
        if evaluation.passed or evaluation.severity is not dg.AssetCheckSeverity.ERROR:
            failing.discard(name)
        elif name not in failing and (
            whoever_is_told or _is_told_of(instance.get_run_by_id(entry.run_id), "check_failed")
        ):
            failing.add(name)
            alerts.append(_of_check(evaluation, f"{name}/{entry.run_id}/{entry.timestamp}", ui))
    return alerts, sorted(failing)


def _name_of(key: dg.AssetCheckKey) -> str:
    return f"{key.asset_key.to_user_string()}/{key.name}"


def _completed(
    instance: dg.DagsterInstance, keys: Collection[dg.AssetCheckKey]
) -> dict[dg.AssetCheckKey, AssetCheckExecutionRecord]:
    """Return the newest evaluation of each check that has one: while a run is under way, the one before."""
    storage = instance.event_log_storage
    latest = dict(storage.get_latest_asset_check_execution_by_key([*keys]))
    done = COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES
    for key, record in latest.items():
        if record.status not in done and (before := storage.get_asset_check_execution_history(key, 1, status=done)):
            latest[key] = before[0]
    return latest


def failed_run(instance: dg.DagsterInstance, run: dg.DagsterRun, ui: UiSettings) -> Alert:
    """Return the alert for a run that has failed."""
    return Alert(
        "run_failed",
        f"Run of {name_of(run)} failed",
        _why(instance, run.run_id),
        run.run_id,
        f"{ui.dagster}/runs/{run.run_id}",
    )


def name_of(run: dg.DagsterRun) -> str:
    """Return what a run is of: its job, or the assets that were chosen where that is none of ours."""
    assets = sorted(key.to_user_string() for key in run.asset_selection or ())
    return some_of(assets, _NAMED) if assets and run.job_name.startswith("__") else run.job_name


def _why(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return what a run failed of: of its first step that did, else what Dagster says of the run."""
    records = instance.get_records_for_run(run_id, of_type=_SAID, limit=1).records
    event = records[0].event_log_entry.dagster_event if records else None
    error = getattr(event and event.event_specific_data, "error", None)
    message = _message(error) if error else (event and event.message) or "Its log says why."
    step = f"{event.step_key}: " if event and event.step_key else ""
    return f"{step}{message}"


def _message(error: SerializableErrorInfo) -> str:
    """Return what says what to do, else the first error of all that led to this one."""
    while (ours := printed_error(error.message)) is None and error.cause is not None:
        error = error.cause
    return str(ours or error.message).strip()


def _of_check(evaluation: dg.AssetCheckEvaluation, alert_key: str, ui: UiSettings) -> Alert:
    asset, name = evaluation.asset_key.to_user_string(), evaluation.check_name
    page = f"{ui.dagster}/assets/{quote(asset)}?view=checks&checkDetail={quote(name)}"
    said = evaluation.description or "Dagster's page of it says what was found."
    if name == IS_FRESH:
        return Alert("freshness_missed", f"{asset} is not fresh", said, alert_key, page)
    return Alert("check_failed", f"Check {name} of {asset} failed", said, alert_key, page)
