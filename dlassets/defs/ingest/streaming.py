"""The pipeline as a stream under Dagster: a job that is up until it is cancelled, and the sensor that keeps it so."""

import datetime as dt
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg

from dlassets.defs.common import PIPELINE_TAG, table_result
from dlassets.engines.base import Written
from dlassets.lakehouse.tables import DELETED_FILES, QUARANTINED_FILES, RAW_IMAGES
from dlassets.resources.lake import LakeResource
from dlassets.resources.mlflow import MlflowResource
from dlassets.settings import Settings

if TYPE_CHECKING:
    from dlassets.pipeline.stream import Batch, Step

NAME = "streaming_pipeline"
ALIVE_TAG = "dlassets/alive"
ALIVE_SECONDS, LOST_SECONDS = 30.0, 180.0
REPORT_SECONDS = 5.0
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dg.op(
    name="stream_photos",
    description="Take photos in, profile, label, embed and score them as they land, until the run is cancelled.",
)
def stream_photos(
    context: dg.OpExecutionContext, lake: dg.ResourceParam[LakeResource], mlflow: dg.ResourceParam[MlflowResource]
) -> None:
    from dlassets.pipeline.stream import Scorer, stream

    scorer = Scorer(lake.engine, lake.lake, lake.settings, lambda: mlflow.client, context.log.warning, context.run_id)
    scorer.warm()
    unreported: list[Batch] = []
    reported = -REPORT_SECONDS
    never = threading.Event()  # a run ends by being cancelled, which Dagster raises here
    batches = stream(
        lake.engine, lake.lake, lake.settings, never, context.log.warning, then=scorer, run_id=context.run_id
    )
    with _said_to_be_alive(context):
        try:
            for batch in batches:
                if batch:
                    context.log.info(str(batch))
                    unreported.append(batch)
                if unreported and time.monotonic() - reported >= REPORT_SECONDS:
                    _report(context, lake, unreported)
                    unreported, reported = [], time.monotonic()
        finally:
            batches.close()
            _report(context, lake, unreported)


@dg.job(
    name=NAME,
    description="The whole way of a photo as a stream: taken in, profiled, labelled, embedded and scored as it lands.",
    # It is meant to stay up: without the second tag, run monitoring would end it after max_runtime_seconds.
    tags={PIPELINE_TAG: NAME, "dagster/max_runtime": "0"},
)
def streaming_pipeline() -> None:
    stream_photos()


def keep_streaming(settings: Settings) -> dg.SensorDefinition:
    """Return the sensor that starts the job whenever no run of it is up."""
    automation = settings.automation

    @dg.sensor(
        name="keep_streaming",
        job=streaming_pipeline,
        minimum_interval_seconds=automation.sensor_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING if automation.streaming else dg.DefaultSensorStatus.STOPPED,
        description=f"Keeps a run of {NAME} up: starts one whenever there is none, or its process is gone.",
    )
    def keep(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        for record in context.instance.get_run_records(dg.RunsFilter(job_name=NAME, statuses=UNFINISHED)):
            run = record.dagster_run
            seen = run.tags.get(ALIVE_TAG)
            silent = dt.datetime.now(dt.UTC) - (dt.datetime.fromisoformat(seen) if seen else record.create_timestamp)
            # A queued run may wait long, and says nothing while it does.
            if run.status == dg.DagsterRunStatus.QUEUED or silent.total_seconds() < LOST_SECONDS:
                return dg.SkipReason(f"Run {run.run_id} is up.")
            context.instance.report_run_failed(run, f"Nothing was heard of this run for {silent}: its process is gone.")
        return dg.RunRequest()

    return keep


@contextmanager
def _said_to_be_alive(context: dg.OpExecutionContext) -> Iterator[None]:
    """Say so in the run's tags every now and then: a process that was killed with its machine says nothing."""
    ended = threading.Event()

    def say() -> None:
        while True:
            context.instance.add_run_tags(context.run_id, {ALIVE_TAG: dt.datetime.now(dt.UTC).isoformat()})
            if ended.wait(ALIVE_SECONDS):
                return

    thread = threading.Thread(target=say, name="alive", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _report(context: dg.OpExecutionContext, lake: LakeResource, batches: "Sequence[Batch]") -> None:
    """Record what the batches wrote as materializations, one a table."""
    from dlassets.pipeline.stream import Step

    steps: dict[str, list[Step]] = {}
    for batch in batches:
        files, origin = batch.files, batch.provenance
        taken_in = (
            Step(RAW_IMAGES, Written(0, files.images, files.replaced), origin),
            Step(QUARANTINED_FILES, Written(0, files.quarantined), origin),
            Step(DELETED_FILES, Written(0, files.deleted, files.returned), origin),
        )
        for step in (*taken_in, *batch.steps):
            if step.written.inserted or step.written.updated:
                steps.setdefault(step.table.name, []).append(step)
    for done in steps.values():
        context.log_event(_materialization(lake, done))


def _materialization(lake: LakeResource, steps: "Sequence[Step]") -> dg.AssetMaterialization:
    inserted = sum(step.written.inserted for step in steps)
    updated = sum(step.written.updated for step in steps)
    last = steps[-1]
    result = table_result(lake, last.table, Written(0, inserted, updated), last.provenance)
    return dg.AssetMaterialization(
        last.table.name,
        metadata={**(result.metadata or {}), "batches": len(steps)},
        tags={"dagster/data_version": result.data_version.value if result.data_version else ""},
    )
