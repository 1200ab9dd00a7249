"""The dead-man's switch: a service is called while all goes on, and no longer once anything is silent or fails."""

import datetime as dt
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import RemoteInstigatorOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._daemon.types import DaemonHeartbeat
from dagster_shared.error import SerializableErrorInfo

from dlassets.errors import DlassetsError
from dlassets.resources.silence import silent
from dlassets_tests.pipelines import Pipelines, new_lake

SECRET = "0f3c9a1e-77aa-4c1d-9a55-1a2b3c4d5e6f"
NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """One that has ticks and heartbeats, which what lies in memory alone has not."""
    home = tmp_path / "dagster"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        yield instance


@pytest.fixture
def called() -> Iterator[tuple[str, list[str]]]:
    """The address of a service, and what it was asked for."""
    asked: list[str] = []

    class Service(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/{SECRET}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def daemon_was_there(instance: dg.DagsterInstance, at: dt.datetime = NOW) -> None:
    for kind in ("SENSOR", "SCHEDULER"):
        instance.add_daemon_heartbeat(DaemonHeartbeat(at.timestamp(), kind, "one"))


def looked(
    instance: dg.DagsterInstance, name: str, at: dt.datetime = NOW, error: str = "", *, is_on: bool = True
) -> None:
    """Have a sensor be one that the daemon has looked at."""
    origin = RemoteInstigatorOrigin(_repository(), name)
    status = InstigatorStatus.RUNNING if is_on else InstigatorStatus.STOPPED
    state = InstigatorState(origin, InstigatorType.SENSOR, status, SensorInstigatorData(min_interval=30))
    if instance.get_instigator_state(state.instigator_origin_id, state.selector_id) is None:
        instance.add_instigator_state(state)
    problem = SerializableErrorInfo(error, [], None) if error else None
    ended = TickStatus.FAILURE if error else TickStatus.SKIPPED
    instance.create_tick(
        TickData(
            state.instigator_origin_id,
            name,
            InstigatorType.SENSOR,
            ended,
            at.timestamp(),
            error=problem,
            selector_id=state.selector_id,
        )
    )


def _repository() -> Any:
    from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteRepositoryOrigin
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

    place = LoadableTargetOrigin(executable_path="python", module_name="dlassets.definitions")
    return RemoteRepositoryOrigin(InProcessCodeLocationOrigin(place, location_name="dlassets"), "__repository__")


def said(instance: dg.DagsterInstance, later: dt.timedelta = dt.timedelta()) -> list[str]:
    return [*silent(instance, {"new_answers", "alerts"}, 10, NOW + later)]


@pytest.mark.slow
def test_a_daemon_that_was_never_heard_of_or_no_longer_is_is_told(instance) -> None:
    assert ["never heard of" in each for each in said(instance)] == [True, True]
    daemon_was_there(instance)

    assert said(instance) == []
    assert said(instance, dt.timedelta(minutes=9)) == []
    late = said(instance, dt.timedelta(minutes=11))
    assert [f"last heard of at {NOW:%Y-%m-%d %H:%M:%S} UTC" in each for each in late] == [True, True]


def test_a_sensor_that_is_silent_or_fails_is_told_and_one_that_is_off_or_gone_is_not(instance) -> None:
    long_ago = NOW - dt.timedelta(minutes=30)
    daemon_was_there(instance)
    looked(instance, "new_answers", long_ago)
    looked(instance, "alerts", error="DlassetsError: no answer\nof mail.example.com")
    looked(instance, "of_an_earlier_release", long_ago)

    assert sorted(said(instance)) == [
        "The sensor alerts fails: DlassetsError: no answer of mail.example.com",
        f"The sensor new_answers has not looked since {long_ago:%Y-%m-%d %H:%M:%S} UTC: see Dagster's daemon's log.",
    ]
    for name in ("alerts", "new_answers"):
        looked(instance, name, NOW + dt.timedelta(seconds=1))
    assert said(instance) == []


@pytest.mark.slow
def test_a_sensor_that_was_switched_off_is_not_missed(instance) -> None:
    daemon_was_there(instance)
    looked(instance, "alerts", NOW - dt.timedelta(minutes=30), is_on=False)

    assert said(instance) == []


@pytest.mark.slow
def test_the_service_is_called_while_all_is_heard_and_the_check_fails_once_not(tmp_path, instance, called) -> None:
    url, asked = called
    pipelines = new_lake(tmp_path / "lake", instance, automation={"heartbeat_url": url, "sensors": True})
    daemon_was_there(instance)

    first = pipelines.tick("heartbeat")
    assert asked == [f"/{SECRET}"]
    assert [event.passed for event in first.asset_events] == [True]
    second = pipelines.tick("heartbeat", first.cursor)
    assert (len(asked), second.asset_events) == (2, [])

    looked(instance, "alerts", error="no answer")
    wrong = pipelines.tick("heartbeat", second.cursor)
    assert len(asked) == 2, "who is not called alarms"
    assert [(event.passed, event.description) for event in wrong.asset_events] == [
        (False, "The sensor alerts fails: no answer")
    ]
    assert pipelines.tick("heartbeat", wrong.cursor).asset_events == []


@pytest.mark.slow
def test_a_service_that_is_away_is_said_without_its_secret(tmp_path, instance) -> None:
    url = f"http://127.0.0.1:1/{SECRET}"
    pipelines = new_lake(tmp_path / "lake", instance, automation={"heartbeat_url": url})
    daemon_was_there(instance)

    with pytest.raises(DlassetsError, match="did not take a heartbeat") as caught:
        pipelines.tick("heartbeat")

    assert SECRET not in str(caught.value)
    assert SECRET not in repr(pipelines.settings)
    assert caught.value.__cause__ is None


@pytest.mark.slow
def test_the_check_can_be_asked_by_hand(empty: Pipelines) -> None:
    key = dg.AssetCheckKey(dg.AssetKey("automation"), "is_heard")
    chosen = dg.AssetSelection.checks(key)
    found = dg.define_asset_job("only_the_check", chosen).resolve(asset_graph=empty.defs.resolve_asset_graph())
    result = found.execute_in_process(instance=empty.instance, resources=empty.defs.resources)

    (evaluation,) = result.get_asset_check_evaluations()
    assert not evaluation.passed
    assert "never heard of" in str(evaluation.description)
