"""The asset `edge_model`, in Dagster, of a champion that was trained: what it makes, reports and logs, and when."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dlassets.extras import EDGE
from dlassets.registry.edge.bundle import CHECKS, TAG_EDGE
from dlassets.registry.edge.run_edge import Bundle
from dlassets.registry.store import MlflowStore
from dlassets_tests.pipelines import Pipelines, arrive, failures, materialized, new_lake, values
from dlassets_tests.tables import get


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory) -> Any:
    """A lake with a champion."""
    with dg.DagsterInstance.ephemeral() as instance:
        pipelines = new_lake(tmp_path_factory.mktemp("edge") / "lake", instance)
        arrive(photos, pipelines, unlabelled_from=20)
        assert pipelines.run("training_pipeline").success
        yield pipelines


def make(pipelines: Pipelines) -> dg.ExecuteInProcessResult:
    return pipelines.run_only(dg.AssetSelection.assets("edge_model"))


def state(folder: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in sorted(folder.rglob("*"))}


@pytest.mark.slow
def test_the_champion_gets_a_bundle_once_and_again_where_it_is_damaged(trained) -> None:
    folder = Path(trained.lake.under("edge", "image_classifier-1"))
    first = make(trained)
    assert first.success
    made = state(folder)

    second = make(trained)

    assert state(folder.parent) == {str(folder): folder.stat().st_mtime_ns} | made, "nothing is made again, or left"
    before, after = (values(materialized(result)["edge_model"]) for result in (first, second))
    assert before["changed"] == "a new bundle"
    assert after["changed"] == "nothing new: the bundle of this version stands"
    assert before["bundle_sha256"] == after["bundle_sha256"]
    assert {event.check_name for event in first.get_asset_check_evaluations()} == {*CHECKS}
    said = {event.check_name: event for event in second.get_asset_check_evaluations()}
    assert said["f32_is_the_package"].passed
    assert said["f32_is_the_package"].metadata["value"].value == pytest.approx(0, abs=1e-3)

    (folder / "model-int8.onnx").write_bytes(b"")
    third = make(trained)

    assert values(materialized(third)["edge_model"])["changed"] == "a new bundle"
    assert [file.name for file in folder.parent.iterdir()] == [folder.name]
    assert (
        {*Bundle(folder).description["tables"]} == {*before["provenance"]["inputs"]} == {"training_set", "raw_images"}
    )


@pytest.mark.slow
def test_the_bundle_lies_among_the_version_s_files_too_and_holds_photos_of_the_test_split(trained, tmp_path) -> None:
    assert make(trained).success
    client = MlflowStore(trained.settings).client
    version = client.get_model_version("image_classifier", "1")

    logged = Path(client.download_artifacts(version.run_id, "edge/image_classifier-1", str(tmp_path)))

    bundle = Bundle(logged)
    assert json.loads((logged / "bundle.json").read_text())["digest"] == version.tags[TAG_EDGE]
    rows = get(trained_engine(trained), trained.lake, "training_set", "image_id, split")
    test = {row["image_id"] for row in rows if row["split"] == "test"}
    assert {golden["image_id"] for golden in bundle.description["golden"]} <= test
    assert bundle.description["model"]["package"] == version.tags["dlassets.package_sha256"]


def trained_engine(pipelines: Pipelines) -> Any:
    from dlassets.pipeline.session import Session

    return Session(pipelines.settings).engine


@pytest.mark.slow
def test_a_run_that_was_killed_while_it_made_one_leaves_none_and_the_next_makes_it(trained, monkeypatch) -> None:
    folder = Path(trained.lake.under("edge", "image_classifier-1"))
    shutil.rmtree(folder, ignore_errors=True)

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dlassets.registry.edge.make.write_description", dies)
        with pytest.raises(KeyboardInterrupt):
            trained.defs.resolve_job_def("__ASSET_JOB").execute_in_process(
                instance=trained.instance, asset_selection=[dg.AssetKey("edge_model")]
            )
    assert not folder.exists()
    (folder.parent / ".writing-killed").mkdir()  # as SIGKILL leaves it
    os.utime(folder.parent / ".writing-killed", (1, 1))

    assert make(trained).success
    assert Bundle(folder).description["model"]["version"] == 1
    assert [file.name for file in folder.parent.iterdir()] == [folder.name]


def test_without_the_extra_it_says_what_to_install(empty, lacking) -> None:
    with lacking(EDGE):
        said = failures(make(empty))

    assert "pip install 'dlassets[edge]'" in said["edge_model"]


def test_without_a_champion_it_says_what_to_run(empty) -> None:
    assert "No version of image_classifier is champion yet" in failures(make(empty))["edge_model"]
