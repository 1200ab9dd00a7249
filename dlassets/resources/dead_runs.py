"""Runs of Dagster whose process was killed: it cannot say that they ended, and they would keep their pipeline waiting.

Each run says which process it is of; whoever comes next on that machine ends those whose process is gone.
"""

from __future__ import annotations

import dagster as dg

from dlassets.engines.process_identity import ProcessIdentity
from dlassets.resources.pools import free_pools

PROCESS_TAG = "dlassets/process"
_GOING_ON = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)


def claim(instance: dg.DagsterInstance, run_id: str) -> None:
    """Write down that a run is this process's, before anything of it is done."""
    instance.add_run_tags(run_id, {PROCESS_TAG: str(ProcessIdentity.this())})


def dead_process(run: dg.DagsterRun) -> ProcessIdentity | None:
    """Return a run's process where that is known to be gone."""
    process = ProcessIdentity.parse(run.tags.get(PROCESS_TAG, ""))
    return process if process is not None and process.is_gone else None


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """End the runs whose process is gone, as failed or, where that was asked for, as canceled; return what was said."""
    said = []
    for run in instance.get_runs(dg.RunsFilter(statuses=list(_GOING_ON))):
        if (process := dead_process(run)) is None:
            continue
        message = f"Its process {process.pid} on {process.host} was killed; what it had committed stands. Run it again."
        if run.status is dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, message)
        else:
            instance.report_run_failed(run, message)
        free_pools(instance, run.run_id)
        said.append(f"Run {run.run_id} of {run.job_name} is ended. {message}")
    return said
