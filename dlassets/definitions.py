"""Dagster's entry: everything put together, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from dlassets.defs import alerting, automation, checks, freshness, heartbeat, jobs, streaming
from dlassets.defs.ingest import assets as ingest_assets
from dlassets.defs.labeling import assets as labeling_assets
from dlassets.defs.operations import assets as operations_assets
from dlassets.defs.scoring import assets as scoring_assets
from dlassets.defs.training import assets as training_assets
from dlassets.resources.error_texts import write_readable_errors
from dlassets.resources.forked_runs import fork_runs
from dlassets.resources.progress import LoggedProgress
from dlassets.resources.session import session_resource
from dlassets.settings import Settings, load_settings


def build_defs(
    settings: Settings,
    overrides: Mapping[str, Any] | None = None,
    loggers: Mapping[str, dg.LoggerDefinition] | None = None,
) -> dg.Definitions:
    """Return the definitions for these settings; `overrides` swaps resources, `loggers` adds to Dagster's own."""
    assets = [
        *dg.load_assets_from_modules(
            [ingest_assets, labeling_assets, training_assets, scoring_assets, operations_assets]
        ),
        streaming.PHOTO_STREAM,
        heartbeat.AUTOMATION,
    ]
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
        jobs=jobs.JOBS,
        sensors=[*sensors, heartbeat.heartbeat_sensor(settings, names)],
        schedules=automation.schedules(settings),
        resources={**resources, **(overrides or {})},
        # One process a run: one JVM on Spark, and no import of torch or mlflow paid for twice.
        loggers=loggers,
        executor=dg.in_process_executor,
    )


write_readable_errors()
fork_runs()
defs = build_defs(load_settings())
