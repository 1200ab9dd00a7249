"""Dagster's entry: everything put together, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from dlassets.defs import alerting, automation, checks, compute, freshness, heartbeat, jobs, streaming
from dlassets.defs.operations import assets as operations_assets
from dlassets.pipeline.jobs import Job
from dlassets.resources.error_texts import write_readable_errors
from dlassets.resources.forked_runs import fork_runs
from dlassets.resources.progress import LoggedProgress
from dlassets.resources.session import session_resource
from dlassets.settings import Settings, load_settings


def build_defs(
    settings: Settings,
    overrides: Mapping[str, Any] | None = None,
    loggers: Mapping[str, dg.LoggerDefinition] | None = None,
    more_jobs: Sequence[Job] = (),
) -> dg.Definitions:
    """Return the definitions for these settings; `overrides` swaps resources, `loggers` adds to Dagster's own.

    `more_jobs` are pipelines beside those of dlassets and of the lake, or in place of one that is called the same.
    """
    compute.check(settings)
    assets = all_assets(settings)
    pipelines = jobs.pipelines_of(settings, assets, more_jobs)
    sensors = [
        *automation.sensors(settings),
        streaming.silence_sensor(settings),
        freshness.freshness_sensor(settings),
        alerting.alerts_sensor(settings),
    ]
    names = [sensor.name for sensor in sensors]
    resources = {"session": session_resource(settings), "progress": LoggedProgress()}
    return dg.Definitions(
        assets=assets,
        asset_checks=[
            *checks.CHECKS,
            *automation.CHECKS,
            *freshness.checks(settings, assets),
            streaming.is_up,
            heartbeat.check(settings, names),
        ],
        jobs=jobs.jobs(pipelines, settings),
        sensors=[*sensors, heartbeat.heartbeat_sensor(settings, names)],
        schedules=jobs.schedules(pipelines),
        resources={**resources, **(overrides or {})},
        # One process a run: one JVM on Spark, and no import of torch or mlflow paid for twice.
        loggers=loggers,
        executor=dg.in_process_executor,
    )


def all_assets(settings: Settings) -> list[Any]:
    """Return all assets, each as these settings have its step run."""
    return [
        *compute.assets(settings),
        *dg.load_assets_from_modules([operations_assets]),
        streaming.PHOTO_STREAM,
        heartbeat.AUTOMATION,
    ]


write_readable_errors()
fork_runs()
defs = build_defs(load_settings())
