"""What Dagster knows that people are to be told: runs that failed, and checks that fail at ERROR."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from urllib.parse import quote

import dagster as dg
from dagster._core.storage.asset_check_execution_record import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
    AssetCheckExecutionRecord,
)
from dagster_shared.error import SerializableErrorInfo

from dlassets.alerts.outbox import Alert
from dlassets.errors import printed_error
from dlassets.settings import UiSettings

# The check that says whether an asset was made in time: see defs/freshness.py.
IS_FRESH = "is_fresh"
# A run's end is written down a moment after its time: it is looked so far back.
_OVERLAP = dt.timedelta(minutes=5)
_SAID = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}


def failed_runs(instance: dg.DagsterInstance, since: dt.datetime, ui: UiSettings) -> list[Alert]:
    """Return an alert for each run that has failed since then, or some minutes before."""
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since - _OVERLAP)
    return [_of_run(instance, record.dagster_run, ui) for record in instance.get_run_records(failed)]


def failing_checks(
    instance: dg.DagsterInstance, keys: Collection[dg.AssetCheckKey], before: Mapping[str, int], ui: UiSettings
) -> tuple[list[Alert], dict[str, int]]:
    """Return an alert for each check that has come to fail at ERROR, and all that fail so: their evaluations, by name.

    `before` are those that failed at the last look: what goes on failing is no news. What fails and passes again
    between two looks is none either.
    """
    alerts, failing = [], {}
    for key, record in _completed(instance, keys).items():
        evaluation = record.event and record.event.asset_check_evaluation
        if evaluation is None or evaluation.passed or evaluation.severity is not dg.AssetCheckSeverity.ERROR:
            continue
        name = f"{key.asset_key.to_user_string()}/{key.name}"
        failing[name] = before.get(name, record.id)
        if name not in before:
            alerts.append(_of_check(key, evaluation.description, f"{name}/{record.id}", ui))
    return alerts, failing


def _completed(
    instance: dg.DagsterInstance, keys: Collection[dg.AssetCheckKey]
) -> dict[dg.AssetCheckKey, AssetCheckExecutionRecord]:
    """Return the newest evaluation of each check that has one: while a run is under way, the one before."""
    storage = instance.event_log_storage
    latest = dict(storage.get_latest_asset_check_execution_by_key([*keys]))
    done = COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES
    for key in [key for key, record in latest.items() if record.status not in done]:
        latest.update({key: before for before in storage.get_asset_check_execution_history(key, 1, status=done)})
    return latest


def _of_run(instance: dg.DagsterInstance, run: dg.DagsterRun, ui: UiSettings) -> Alert:
    return Alert(
        "run_failed",
        f"Run of {run.job_name} failed",
        _why(instance, run.run_id),
        run.run_id,
        f"{ui.dagster}/runs/{run.run_id}",
    )


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


def _of_check(key: dg.AssetCheckKey, description: str | None, alert_key: str, ui: UiSettings) -> Alert:
    asset = key.asset_key.to_user_string()
    page = f"{ui.dagster}/assets/{quote(asset)}?view=checks&checkDetail={quote(key.name)}"
    said = description or "Dagster's page of it says what was found."
    if key.name == IS_FRESH:
        return Alert("freshness_missed", f"{asset} is not fresh", said, alert_key, page)
    return Alert("check_failed", f"Check {key.name} of {asset} failed", said, alert_key, page)
