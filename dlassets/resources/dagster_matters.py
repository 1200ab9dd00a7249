"""What Dagster's instance knows that matters to who looks after a lake: runs that go on or failed, what is stale."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.definitions.data_version import (
    INPUT_DATA_VERSION_TAG_PREFIX,
    CachingStaleStatusResolver,
    StaleStatus,
)
from dagster._core.loader import LoadingContext

from dlassets.errors import some_of
from dlassets.monitoring.matters import Matter
from dlassets.resources.dagster_alerts import failed_run, failing_checks, name_of
from dlassets.resources.dead_runs import dead_process
from dlassets.resources.instance import DATABASES, has_own_databases, home_of
from dlassets.settings import UiSettings
from dlassets.storage.lake import Lake

_GOING_ON = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
_ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE)
_CAUSES = 3
# The newest of each job is looked for among so many runs: more ended since then than anybody would come back to.
_LOOKED_AT = 500


class _Asking(LoadingContext):
    """What Dagster keeps of one look."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._loaders: dict[type, Any] = {}

    @property
    def instance(self) -> dg.DagsterInstance:
        return self._instance

    @property
    def loaders(self) -> dict[type, Any]:
        return self._loaders


@contextmanager
def existing_instance(lake: Lake) -> Iterator[dg.DagsterInstance | None]:
    """Give Dagster's instance of a lake as it stands, None where there is none yet. Nothing is made."""
    home = home_of(lake)
    config = home / "dagster.yaml"
    if not config.exists() or (has_own_databases(config) and not all((home / name).exists() for name in DATABASES)):
        yield None
        return
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


def runs(instance: dg.DagsterInstance, ui: UiSettings) -> Iterator[Matter]:
    """Yield the runs that go on, and each job whose newest run failed."""
    for record in instance.get_run_records(dg.RunsFilter(statuses=list(_GOING_ON))):
        yield _going_on(record, ui)
    newest: dict[str, dg.RunRecord] = {}
    for record in instance.get_run_records(dg.RunsFilter(statuses=list(_ENDED)), limit=_LOOKED_AT):
        newest.setdefault(name_of(record.dagster_run), record)
    for name, record in newest.items():
        if record.dagster_run.status is dg.DagsterRunStatus.FAILURE:
            told = failed_run(instance, record.dagster_run, ui)
            why = told.body.strip().splitlines()[0] if told.body.strip() else "its log says why"
            yield Matter("failed", f"{name}, at {_time(record.end_time)}: {why}", f"mend it and run again; {told.link}")


def checks(instance: dg.DagsterInstance, graph: BaseAssetGraph[Any], ui: UiSettings) -> Iterator[Matter]:
    """Yield the checks that fail at severity ERROR."""
    failing, _ = failing_checks(instance, graph.asset_check_keys, [], (), ui, whoever_is_told=True)
    for alert in failing:
        yield Matter("failed", f"{alert.subject}: {' '.join(alert.body.split())}", f"see {alert.link}")


def stale(instance: dg.DagsterInstance, graph: BaseAssetGraph[Any]) -> Iterator[Matter]:
    """Yield the assets that something they are made of, or their code, has moved on from since they were made."""
    known = CachingStaleStatusResolver(instance, graph, _Asking(instance))
    for key in sorted(graph.materializable_asset_keys):
        if known.get_status(key) is StaleStatus.STALE and _says_of_what(instance, key):
            causes = sorted({_cause(cause) for cause in known.get_stale_causes(key)})
            name = key.to_user_string()
            yield Matter(
                "stale",
                f"{name}: {some_of(causes, _CAUSES)}",
                f"run its pipeline, or `dagster asset materialize -m dlassets.definitions --select {name}`",
            )


def _says_of_what(instance: dg.DagsterInstance, key: dg.AssetKey) -> bool:
    """Whether an asset's newest materialization says what it was made of: only one by a run does."""
    event = instance.get_latest_materialization_event(key)
    tags = event.asset_materialization.tags if event and event.asset_materialization else None
    return any(tag.startswith(INPUT_DATA_VERSION_TAG_PREFIX) for tag in tags or ())


def _cause(cause: Any) -> str:
    return f"{cause.reason} ({cause.dependency.asset_key.to_user_string()})" if cause.dependency else str(cause.reason)


def _going_on(record: dg.RunRecord, ui: UiSettings) -> Matter:
    run = record.dagster_run
    if (process := dead_process(run)) is not None:
        what = f"{name_of(run)}: its process {process.pid} on {process.host} was killed, and Dagster has not been told"
        return Matter("failed", what, "run it again: who runs anything next ends it, and so does Dagster's daemon")
    since = _time(record.start_time or record.create_timestamp.timestamp())
    todo = {
        dg.DagsterRunStatus.QUEUED: "it starts when its pipeline's turn comes, where Dagster's daemon runs",
        dg.DagsterRunStatus.CANCELING: "it is being ended",
    }.get(run.status, "wait for it")
    page = f"{ui.dagster}/runs/{run.run_id}"
    return Matter("running", f"{name_of(run)} ({run.status.value.lower()} since {since})", f"{todo}; {page}")


def _time(seconds: float | None) -> str:
    return "?" if seconds is None else f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M} UTC"
