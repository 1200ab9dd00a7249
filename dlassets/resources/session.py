"""The session as Dagster's assets are given it: tables, Spark and MLflow through Dagster's own integrations."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from dlassets.pipeline.jobs import OF_A_RUN, settings_of_run
from dlassets.pipeline.session import Session
from dlassets.resources.code_location import give_location
from dlassets.resources.dead_runs import claim, end_dead_runs
from dlassets.resources.instance import other_lake_of
from dlassets.resources.pools import set_pools
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets.storage.stores import on_s3

if TYPE_CHECKING:
    from dagster_deltalake import DeltaTableResource
    from deltalake import DeltaTable
    from pyspark.sql import SparkSession

    from dlassets.resources.mlflow import DagsterMlflowStore

_log = logging.getLogger(__name__)
_CHANGED = dg.Field(
    dict,
    is_required=False,
    description="Settings that this run has otherwise than its lake, by their names, such as training.epochs: of "
    f"{', '.join(OF_A_RUN)}.",
)


@dataclass(eq=False)
class DagsterSession(Session):
    """`tell_of_spark` is told what Spark waits for, in place of the run's log."""

    context: dg.InitResourceContext | None = None
    tell_of_spark: Callable[[str], None] | None = None

    @cached_property
    def mlflow(self) -> DagsterMlflowStore:
        from dlassets.resources.mlflow import DagsterMlflowStore

        return DagsterMlflowStore(self.settings, self.context)

    def _open(self, uri: str) -> DeltaTable:
        return _delta_table(uri).load()

    def _spark(self) -> SparkSession:
        from dlassets.resources.spark import spark_session

        log = (self.context and self.context.log) or _log
        return spark_session(self.settings.spark, self._places, self.tell_of_spark or log.warning)


@functools.cache
def _delta_table(uri: str) -> DeltaTableResource:
    """Return Dagster's resource of a table, made once: checking its own fields takes longer than opening one."""
    from dagster_deltalake import DeltaTableResource, LocalConfig, S3Config

    # Neither says anything: delta-rs finds what a storage takes in the environment.
    return DeltaTableResource(url=uri, storage_options=S3Config() if on_s3(uri) else LocalConfig())


def for_another_process(session: DagsterSession, **fields: Any) -> DagsterSession:
    """Return a session with these fields that can be pickled, and has opened nothing: of the same run of Dagster."""
    context = session.context and dg.InitResourceContext(
        # Nothing else of it is asked for there, and resources cannot be pickled.
        resource_config=None,
        resources=(),  # type: ignore[arg-type]
        resource_def=None,
        all_resource_defs={},
        dagster_run=session.context.run,
    )
    return DagsterSession(
        **{"settings": session.settings, "scope": session.scope, **fields},
        run_id=session.run_id,
        tags=dict(session.tags),
        context=context,
    )


def session_resource(settings: Settings) -> dg.ResourceDefinition:
    """Return the resource `session`: one a run, which names that run in what it writes."""

    def made(context: dg.InitResourceContext) -> DagsterSession:
        run = context.run
        if run and context.instance and context.instance.has_run(run.run_id):
            claim(context.instance, run.run_id)
            if warning := other_lake_of(Path(context.instance.root_directory), Lake.at(settings.root)):
                (context.log or _log).warning(warning)
            give_location(context.instance, run.run_id)
            for said in end_dead_runs(context.instance):
                (context.log or _log).warning(said)
            set_pools(context.instance, settings.compute.pool_limits)
        changed = settings_of_run(settings, context.resource_config.get("settings", {}))
        return DagsterSession(changed, run_id=run.run_id if run else "", tags=run.tags if run else {}, context=context)

    return dg.ResourceDefinition(made, config_schema={"settings": _CHANGED})
