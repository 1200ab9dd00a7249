"""Runs of Dagster that nobody asks about any more: each takes half a megabyte of its databases and logs."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import dagster as dg

_ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def delete_old_runs(instance: dg.DagsterInstance, days: int) -> int:
    """Delete ended runs of more than so many days ago, with their events and logs; return how many.

    A run that holds the newest materialization of an asset stays, and with it what Dagster shows of that asset.
    """
    newest = instance.get_latest_materialization_events(instance.all_asset_keys()).values()
    kept = {event.run_id for event in newest if event is not None}
    before = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
    ended = dg.RunsFilter(statuses=list(_ENDED), updated_before=before)
    old = [run.run_id for run in instance.get_runs(ended) if run.run_id not in kept]
    for run_id in old:
        _delete(instance, run_id)
    return len(old)


def _delete(instance: dg.DagsterInstance, run_id: str) -> None:
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    instance.delete_run(run_id)
    # Emptied by now, and Dagster leaves the file itself, where it keeps events in sqlite.
    for file in Path(instance.root_directory, "history", "runs").glob(f"{run_id}.db*"):
        file.unlink()
