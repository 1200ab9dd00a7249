"""The stream as Dagster runs and keeps it, and the sensors of zones with events."""

import datetime as dt
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from dlassets.defs.ingest import streaming
from dlassets.defs.ingest.streaming import ALIVE_TAG, NAME
from dlassets.engines.local import LocalEngine
from dlassets.intake.events import Manifest
from dlassets.intake.ingest import ingest
from dlassets.storage.lake import Lake
from dlassets_tests.pipelines import Pipelines, new_lake, values
from dlassets_tests.tables import get

EVENTS = {"unlabeled": {"uri": "unlabeled", "labelled": False, "discovery": "events"}}


@pytest.fixture
def pipelines(tmp_path: Path, instance: dg.DagsterInstance) -> Pipelines:
    return new_lake(tmp_path / "lake", instance, stream={"batch_seconds": 0.02}, landing=EVENTS)


def in_the_meantime(act: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_the_job_streams_until_it_is_cancelled_and_reports_what_landed(
    pipelines: Pipelines, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "ALIVE_SECONDS", 0.1)
    photo = next(photos.glob("*/*.jpg"))

    def land_and_cancel() -> None:
        shutil.copyfile(photo, pipelines.zone("unlabeled") / "a.jpg")
        end = time.monotonic() + 60
        key = dg.AssetKey("image_features")
        while time.monotonic() < end and not pipelines.instance.get_latest_materialization_event(key):
            time.sleep(0.05)
        (run,) = pipelines.instance.get_runs()
        pipelines.instance.report_run_canceling(run)
        os.kill(os.getpid(), signal.SIGINT)

    thread = in_the_meantime(land_and_cancel)
    pipelines.run(NAME)
    thread.join()

    (record,) = pipelines.instance.get_run_records()
    run = record.dagster_run
    assert run.status == dg.DagsterRunStatus.CANCELED
    assert (run.tags["dagster/max_runtime"], ALIVE_TAG in run.tags) == ("0", True)
    events = [log.dagster_event for log in pipelines.instance.all_logs(run.run_id) if log.is_dagster_event]
    said = {
        event.asset_key.to_user_string(): event.step_materialization_data.materialization
        for event in events
        if event.is_step_materialization
    }
    assert said.keys() >= {"raw_images", "image_profiles", "image_features"}
    raw = values(said["raw_images"])
    assert (raw["rows_inserted"], raw["batches"], raw["provenance"]["run_id"]) == (1, 1, run.run_id)
    assert said["raw_images"].tags["dagster/data_version"] == "1"
    assert [row["path"] for row in get(LocalEngine(), pipelines.lake, "raw_images", "path")] == ["unlabeled/a.jpg"]


def a_run(pipelines: Pipelines, status: dg.DagsterRunStatus, heard: dt.timedelta) -> str:
    alive = (dt.datetime.now(dt.UTC) - heard).isoformat()
    job = pipelines.defs.resolve_job_def(NAME)
    return pipelines.instance.create_run_for_job(job, status=status, tags={ALIVE_TAG: alive}).run_id


def test_the_sensor_starts_the_stream_where_none_is_up(pipelines: Pipelines) -> None:
    (request,) = pipelines.tick("keep_streaming").run_requests
    assert request.run_key is None


@pytest.mark.parametrize(
    ("status", "heard", "is_up"),
    [
        (dg.DagsterRunStatus.STARTED, dt.timedelta(seconds=20), True),
        (dg.DagsterRunStatus.STARTED, dt.timedelta(minutes=10), False),
        (dg.DagsterRunStatus.FAILURE, dt.timedelta(seconds=1), False),
    ],
)
def test_the_sensor_leaves_a_run_that_is_up_and_replaces_one_whose_process_is_gone(
    pipelines: Pipelines, status: dg.DagsterRunStatus, heard: dt.timedelta, is_up: bool
) -> None:
    run = a_run(pipelines, status, heard)
    assert len(pipelines.tick("keep_streaming").run_requests) == (0 if is_up else 1)
    expected = status if is_up else dg.DagsterRunStatus.FAILURE
    assert pipelines.instance.get_run_by_id(run).status == expected


@pytest.mark.parametrize("wanted", [False, True])
def test_a_setting_says_whether_the_stream_is_kept_up(
    tmp_path: Path, instance: dg.DagsterInstance, wanted: bool
) -> None:
    made = new_lake(tmp_path / "lake", instance, automation={"streaming": wanted})
    status = made.defs.resolve_sensor_def("keep_streaming").default_status
    assert status == (dg.DefaultSensorStatus.RUNNING if wanted else dg.DefaultSensorStatus.STOPPED)


def test_a_zone_with_events_is_not_listed_by_its_sensor(
    pipelines: Pipelines, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake: Lake = pipelines.lake
    zone = pipelines.settings.landing["unlabeled"]
    manifest = Manifest.of(lake, "unlabeled", zone)
    first = pipelines.tick("new_files_in_unlabeled").run_requests
    assert [request.tags["dlassets/waiting_files"] for request in first] == ["all are to be listed"]
    assert pipelines.tick("new_files_in_unlabeled").run_requests[0].run_key == first[0].run_key
    ingest(LocalEngine(), lake, pipelines.settings, {})

    monkeypatch.setattr("dlassets.intake.listing.list_local", None)
    assert not pipelines.tick("new_files_in_unlabeled").run_requests
    shutil.copyfile(next(photos.glob("*/*.jpg")), pipelines.zone("unlabeled") / "a.jpg")
    assert not pipelines.tick("new_files_in_unlabeled").run_requests
    keys = []
    for name in ("a.jpg", "b.jpg"):
        manifest.record([(name, "created")])
        (request,) = pipelines.tick("new_files_in_unlabeled").run_requests
        keys.append((request.run_key, request.tags["dlassets/waiting_files"]))
    assert [files for _, files in keys] == ["1", "2"]
    assert keys[0][0] != keys[1][0]
    ingest(LocalEngine(), lake, pipelines.settings, {})
    assert not pipelines.tick("new_files_in_unlabeled").run_requests
    assert [row["path"] for row in get(LocalEngine(), lake, "raw_images", "path")] == ["unlabeled/a.jpg"]
