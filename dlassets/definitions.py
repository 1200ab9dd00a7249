"""Dagster's entry: everything put together, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from dlassets.defs import automation, checks, jobs
from dlassets.defs.ingest import assets as ingest_assets
from dlassets.defs.ingest.streaming import keep_streaming, streaming_pipeline
from dlassets.defs.labeling import assets as labeling_assets
from dlassets.defs.operations import assets as operations_assets
from dlassets.defs.scoring import assets as scoring_assets
from dlassets.defs.training import assets as training_assets
from dlassets.defs.training import tuning as tuning_assets
from dlassets.resources.labeling import LabelingResource
from dlassets.resources.lake import LakeResource
from dlassets.resources.mlflow import MlflowResource
from dlassets.resources.progress import LoggedProgress
from dlassets.resources.trainer import Trainer
from dlassets.settings import Settings, load_settings


def build_defs(
    settings: Settings,
    overrides: Mapping[str, Any] | None = None,
    loggers: Mapping[str, dg.LoggerDefinition] | None = None,
) -> dg.Definitions:
    """Return the definitions for these settings; `overrides` swaps resources, `loggers` adds to Dagster's own."""
    resources: dict[str, Any] = {
        "lake": LakeResource(settings),
        "mlflow": dg.ResourceDefinition(lambda context: MlflowResource(settings, context)),
        "trainer": Trainer(),
        "labeling": LabelingResource(settings),
        "progress": LoggedProgress(),
    }
    return dg.Definitions(
        assets=dg.load_assets_from_modules(
            [ingest_assets, labeling_assets, training_assets, tuning_assets, scoring_assets, operations_assets]
        ),
        asset_checks=checks.CHECKS,
        jobs=[*jobs.JOBS, streaming_pipeline],
        sensors=[*automation.sensors(settings), keep_streaming(settings)],
        schedules=automation.schedules(settings),
        resources={**resources, **(overrides or {})},
        # One process a run: one JVM on Spark, and no import of torch or mlflow paid for twice.
        loggers=loggers,
        executor=dg.in_process_executor,
    )


defs = build_defs(load_settings())
