"""A lake is copied, and moved, with all that is in it: nothing is made anew for that, and what comes goes on."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.training_set import identity
from dlassets.registry.lifecycle import versions_of
from dlassets.registry.store import MlflowStore
from dlassets.settings import Settings
from dlassets_tests.pipelines import Pipelines, arrive, failures, let_guesses_pass, materialized, new_lake, values
from dlassets_tests.programs import invoke
from dlassets_tests.registry.test_moving import everything
from dlassets_tests.tables import put

JOBS = ("training_pipeline", "scoring_pipeline", "labeling_pipeline")
MODEL = "image_classifier"


@pytest.fixture(scope="module")
def original(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipelines]:
    with dg.DagsterInstance.ephemeral() as instance:
        pipelines = new_lake(tmp_path_factory.mktemp("first") / "lake", instance)
        arrive(photos, pipelines)
        assert {job: failures(pipelines.run(job)) for job in JOBS} == {job: {} for job in JOBS}
        yield pipelines


def nothing_is_made_anew(pipelines: Pipelines) -> None:
    before, models = pipelines.versions(), versions_of(MlflowStore(pipelines.settings).client, MODEL)
    results = {job: pipelines.run(job) for job in JOBS}
    assert {job: failures(result) for job, result in results.items()} == {job: {} for job in JOBS}
    trained = values(materialized(results["training_pipeline"])["trained_model"])
    assert trained["changed"] == "nothing new: the run that learned from these inputs stands"
    assert pipelines.versions() == before
    assert versions_of(MlflowStore(pipelines.settings).client, MODEL) == models


@pytest.mark.slow
def test_a_copy_trains_and_scores_new_photos_and_the_original_does_not_change_by_a_byte(
    original, tmp_path, monkeypatch
) -> None:
    let_guesses_pass(monkeypatch)
    root, before = Path(original.lake.root), everything(Path(original.lake.root))
    shutil.copytree(root, tmp_path / "copy")
    copy = Pipelines(Settings(root=str(tmp_path / "copy")), original.instance)

    nothing_is_made_anew(copy)
    for folder in copy.zone("labeled").iterdir():
        photo = min(folder.iterdir())
        (folder / f"new-{photo.name}").write_bytes(photo.read_bytes() + b"\0")
    results = {job: failures(copy.run(job)) for job in (*JOBS, "maintenance_pipeline")}

    assert results.pop("training_pipeline").keys() <= {"validated_version"}  # where it did no better
    assert not any(results.values())
    assert versions_of(MlflowStore(copy.settings).client, MODEL) == [1, 2]
    assert everything(root) == before
    shutil.rmtree(copy.lake.root)


@pytest.mark.slow
def test_a_moved_lake_goes_on_and_every_command_finds_what_is_in_it(original, tmp_path) -> None:
    shutil.copytree(original.lake.root, tmp_path / "lake")
    (tmp_path / "lake").rename(tmp_path / "moved")
    moved = Pipelines(Settings(root=str(tmp_path / "moved")), original.instance)

    nothing_is_made_anew(moved)

    root = {"DLASSETS_ROOT": moved.settings.root}
    for command in (["doctor"], ["verify"], ["history", "raw_images"], ["reproduce", "champion"]):
        done = invoke(*command, **root)
        assert done.exit_code == 0, (command, done.output)
    history = invoke("history", "--model", "1", "--json", **root)
    assert all(row["readable"] for row in json.loads(history.output))


def test_a_training_set_is_told_by_what_it_is_and_not_by_where_it_lies(lake, tmp_path) -> None:
    put(lake, "training_set", {"path": "a", "image_id": "a" * 64, "label": 1, "label_name": "a", "split": "train"})
    first = pin(lake, "training_set")
    shutil.copytree(lake.root, tmp_path / "copy")
    copy = type(lake).at(str(tmp_path / "copy"))

    assert identity(pin(copy, "training_set")) == identity(first)
    put(copy, "training_set", {"path": "b", "image_id": "b" * 64, "label": 1, "label_name": "a", "split": "train"})
    assert identity(pin(copy, "training_set")) != identity(first)
