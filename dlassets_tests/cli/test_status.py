"""`dlassets status` says what is stale, running, failed and waiting for people, and what to do; it changes nothing."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dlassets.resources.dead_runs import PROCESS_TAG
from dlassets.resources.instance import dagster_home
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.programs import invoke
from dlassets_tests.registry.test_moving import everything
from dlassets_tests.stores import give_store
from dlassets_tests.tables import image_id, put


def said(lake: Lake, **environment: str) -> tuple[int, dict[str, list[Any]]]:
    result = invoke("status", "--json", DLASSETS_ROOT=lake.root, **environment)
    return result.exit_code, json.loads(result.output)


def whats(said: dict[str, list[Any]], kind: str) -> list[str]:
    return [each["what"] for each in said[kind]]


@pytest.fixture
def used(lake: Lake) -> Lake:
    """A lake whose tables and Dagster are there, and well."""
    put(lake, "raw_images", {"path": "z/1.jpg", "image_id": image_id("1"), "content": b"1"})
    dagster_home(lake)
    return lake


def opened(lake: Lake) -> dg.DagsterInstance:
    return dg.DagsterInstance.from_config(lake.dagster_home)


@dg.op
def fails() -> None:
    raise RuntimeError("no room is left")


@dg.job
def a_pipeline() -> None:
    fails()


def report(instance: dg.DagsterInstance, asset: str, version: int, **inputs: int) -> None:
    read = {f"dagster/input_data_version/{name}": str(number) for name, number in inputs.items()}
    made = dg.AssetMaterialization(asset, tags={"dagster/data_version": str(version)} | read)
    instance.report_runless_asset_event(made)


@pytest.mark.slow
def test_a_lake_where_nothing_is_wrong_is_told_so_and_nothing_is_written(used) -> None:
    give_store(Settings(root=used.root))
    before = everything(Path(used.root))

    code, found = said(used)

    assert code == 0, found
    assert not any(found.values())
    assert everything(Path(used.root)) == before


def test_each_thing_is_said_with_what_to_do_next(used) -> None:
    put(used, "label_requests", *({"request_id": each, "path": f"z/{each}.jpg", "status": "open"} for each in "ab"))
    put(used, "label_requests", {"request_id": "c", "path": "z/c.jpg", "status": "answered"})
    put(used, "quarantined_files", {"path": "z/x.jpg", "reason": "too_large"}, {"path": "z/y.jpg", "reason": "empty"})
    with opened(used) as instance:
        a_pipeline.execute_in_process(instance=instance, raise_on_error=False)
        going_on = dg.DagsterRun("b_pipeline", status=dg.DagsterRunStatus.STARTED)
        gone = {PROCESS_TAG: f"{socket.gethostname()} {os.getpid()} 1.5"}
        for run in (going_on, dg.DagsterRun("c_pipeline", status=dg.DagsterRunStatus.STARTED, tags=gone)):
            instance.add_run(run)
        report(instance, "raw_images", 1)
        report(instance, "image_profiles", 1, raw_images=0)
        check = dg.AssetCheckEvaluation(dg.AssetKey("raw_images"), "bytes_are_whole", False, description="1 is damaged")
        instance.report_runless_asset_event(check)

    code, found = said(used, DLASSETS_AUTOMATION__FRESH_HOURS="{raw_images: 1, predictions: 2}")

    assert code == 1
    assert [what.partition(" (")[0] for what in whats(found, "running")] == ["b_pipeline"]
    assert going_on.run_id in found["running"][0]["todo"]
    failed = " | ".join(whats(found, "failed"))
    assert "a_pipeline, at " in failed
    assert "no room is left" in failed
    assert "c_pipeline: its process" in failed
    assert "bytes_are_whole of raw_images failed: 1 is damaged" in failed
    assert len(found["failed"]) == 3
    stale = whats(found, "stale")
    assert [what.partition(":")[0] for what in stale if ":" in what][:1] == ["image_profiles"]
    assert "predictions was never made, and is to be made every 2 hours." in stale
    assert not any(what.startswith("raw_images") for what in stale)
    assert whats(found, "waiting") == [
        "2 photos wait for a label (folder)",
        "2 files are quarantined (1 empty, 1 too_large)",
    ]
    assert all(each["todo"] for those in found.values() for each in those)


@pytest.mark.slow
def test_a_job_that_ran_well_since_it_failed_is_no_matter(used) -> None:
    with opened(used) as instance:
        for status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS):
            instance.add_run(dg.DagsterRun("a_pipeline", status=status))

    assert said(used)[0] == 0


@pytest.mark.slow
def test_what_is_away_is_said_and_all_else_is_looked_at(used) -> None:
    Path(used.mlflow).mkdir()
    Path(used.mlflow, "mlflow.db").write_bytes(b"no database" * 99)
    Path(used.dagster_home, "history", "runs.db").write_bytes(b"no database" * 99)
    put(used, "label_requests", {"request_id": "a", "path": "z/a.jpg", "status": "open"})

    code, found = said(used)

    assert code == 1
    assert [what.partition(":")[0] for what in whats(found, "away")] == ["MLflow", "Dagster"]
    assert whats(found, "waiting") == ["1 photos wait for a label (folder)"]
    shown = invoke("status", DLASSETS_ROOT=used.root).output
    assert "cannot be asked: 2" in shown
    assert "answer them: `dlassets label`" in shown


@pytest.mark.slow
def test_what_came_from_outside_stands_in_one_line(used) -> None:
    with opened(used) as instance:
        evaluated = dg.AssetCheckEvaluation(
            dg.AssetKey("raw_images"), "bytes_are_whole", False, description="\x1b[2Ja\nb"
        )
        instance.report_runless_asset_event(evaluated)

    shown = invoke("status", DLASSETS_ROOT=used.root).output

    assert "failed: 1" in shown
    assert "\x1b[2J" not in shown
