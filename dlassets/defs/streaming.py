"""`dlassets stream` in Dagster: a process that reports what it makes without a run, and must not fall silent."""

import datetime as dt
import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Self

import dagster as dg

from dlassets.defs.common import OWNERS, table_result
from dlassets.defs.operations.assets import OPERATIONS
from dlassets.errors import DlassetsError
from dlassets.lakehouse.tables import TABLES
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Made
from dlassets.pipeline.stream import Batch
from dlassets.pipeline.zones import Log
from dlassets.settings import Settings

PHOTO_STREAM = dg.AssetSpec(
    "photo_stream",
    description="The process `dlassets stream`, which takes photos in, profiles, labels, embeds and scores them as "
    "they land. It shows here that it is up, and at the tables themselves what it makes.",
    group_name=OPERATIONS,
    owners=OWNERS,
    kinds={"python"},
    code_version="1",
)
IS_UP = "is_up"
HEARTBEAT_SECONDS, LOST_SECONDS = 30.0, 180.0


class StreamReporter:
    """Tells Dagster of a stream, without a run: that it is up, every now and then, and what each of its batches wrote.

    What cannot be reported now (a locked or full store) is logged once and reported with a later batch: the stream
    itself goes on.
    """

    def __init__(self, instance: dg.DagsterInstance, session: Session, log: Log) -> None:
        self._instance = instance
        self._session = session
        self._log = log
        self._unreported: list[Batch] = []
        self._last_failure: str | None = None
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._heart.join()
        self._try(self._report_all)
        self._try(lambda: self._report_state("stopped"))

    def report(self, batch: Batch) -> None:
        """Record what a batch wrote as materializations of its tables."""
        self._unreported.append(batch)
        self._try(self._report_all)

    def _beat(self) -> None:
        while not self._ended.is_set():
            self._try(lambda: self._report_state("up"))
            self._ended.wait(HEARTBEAT_SECONDS)

    def _report_state(self, state: str) -> None:
        observation = dg.AssetObservation(
            PHOTO_STREAM.key, metadata={"state": state, "host": socket.gethostname(), "process": os.getpid()}
        )
        self._instance.report_runless_asset_event(observation)

    def _report_all(self) -> None:
        by_table: dict[str, list[Made]] = {}
        for batch in self._unreported:
            for made in batch.made:
                for name, written in made.written.items():
                    if written.changed:
                        by_table.setdefault(name, []).append(made)
        for name, all_made in by_table.items():
            self._instance.report_runless_asset_event(_materialization(self._session, name, all_made))
        self._unreported.clear()

    def _try(self, report: Callable[[], None]) -> None:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            report()
        except (SQLAlchemyError, OSError, DlassetsError, dg.DagsterError) as error:
            if (failure := str(error)) != self._last_failure:
                self._log(f"Dagster could not be told of the stream, which goes on: {failure}")
            self._last_failure = failure
        else:
            self._last_failure = None


def _materialization(session: Session, name: str, made: Sequence[Made]) -> dg.AssetMaterialization:
    written = [each.written[name] for each in made]
    inserted, updated = sum(each.inserted for each in written), sum(each.updated for each in written)
    failed = [path for each in written for path in each.failed]
    counted = replace(written[-1], inserted=inserted, updated=updated, failed=failed)
    result = table_result(session, TABLES[name], Made(made[-1].provenance, {name: counted}), {"batches": len(made)})
    version = result.data_version.value if result.data_version else ""
    return dg.AssetMaterialization(name, metadata=result.metadata, tags={"dagster/data_version": version})


@dg.asset_check(
    asset=PHOTO_STREAM.key,
    name=IS_UP,
    description=f"The stream was heard of within {LOST_SECONDS:.0f} seconds, and was not stopped.",
)
def is_up(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    passed, message = _liveness(context.instance)
    return dg.AssetCheckResult(passed=passed, description=message)


def silence_sensor(settings: Settings) -> dg.SensorDefinition:
    """Return the sensor that notices when the stream falls silent, and when it is back."""
    automation = settings.automation

    @dg.sensor(
        name="stream_silence",
        minimum_interval_seconds=automation.sensor_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING if automation.streaming else dg.DefaultSensorStatus.STOPPED,
        description="Marks photo_stream as failing when nothing is heard of `dlassets stream`, until it is back.",
    )
    def notice(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        passed, message = _liveness(context.instance)
        state = "up" if passed else "silent"
        if context.cursor == state:
            return dg.SkipReason(message)
        check = dg.AssetCheckEvaluation(PHOTO_STREAM.key, IS_UP, passed, description=message)
        return dg.SensorResult(asset_events=[check], cursor=state)

    return notice


def _liveness(instance: dg.DagsterInstance) -> tuple[bool, str]:
    """Return whether the stream is up, as far as was heard of it, and in words."""
    records = instance.fetch_observations(PHOTO_STREAM.key, limit=1).records
    if not records:
        return False, "Nothing was ever heard of the stream: start `dlassets stream`."
    (record,) = records
    at = dt.datetime.fromtimestamp(record.timestamp, dt.UTC)
    observation = record.asset_observation
    told = {name: value.value for name, value in (observation.metadata if observation else {}).items()}
    where = f"process {told.get('process')} on {told.get('host')}"
    seconds = (dt.datetime.now(dt.UTC) - at).total_seconds()
    if told.get("state") == "stopped":
        return False, f"The stream ({where}) was stopped at {at:%Y-%m-%d %H:%M:%S} UTC: start `dlassets stream`."
    if seconds > LOST_SECONDS:
        return False, (
            f"Nothing was heard of the stream ({where}) for {seconds:.0f} seconds, since {at:%Y-%m-%d %H:%M:%S} UTC: "
            "see whether it is there, and start `dlassets stream`."
        )
    return True, f"The stream ({where}) was heard of {seconds:.0f} seconds ago."
