"""A lake that an earlier release made goes on being used: nothing is made anew, and what comes is built on it."""

import json
import shutil
from collections.abc import Iterator

import dagster as dg
import pytest

from dlassets.engines.local import LocalEngine
from dlassets.lakehouse.snapshots import pin, provenance_of
from dlassets.registry.lifecycle import versions_of
from dlassets.registry.store import MlflowStore
from dlassets.settings import Settings, TrainingSettings
from dlassets_tests.earlier import unpack
from dlassets_tests.pipelines import Pipelines, failures, materialized, values
from dlassets_tests.programs import invoke
from dlassets_tests.tables import get

JOBS = ("training_pipeline", "scoring_pipeline", "labeling_pipeline")
MODEL = "image_classifier"


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipelines]:
    root = tmp_path_factory.mktemp("earlier") / "lake"
    unpack(root)
    with dg.DagsterInstance.ephemeral() as instance:
        # The penalty was a number then, and models would be trained anew without one.
        yield Pipelines(Settings(root=str(root), training=TrainingSettings(l2=0.05)), instance)


def test_with_nothing_new_no_table_changes_and_no_model_is_trained(earlier: Pipelines) -> None:
    mlflow = MlflowStore(earlier.settings)
    before, champion = earlier.versions(), mlflow.champion()

    results = {job: earlier.run(job) for job in JOBS}

    # Its second model did worse than the first on the few test photos there are: the gate refuses it again.
    refused = failures(results["training_pipeline"])
    assert refused.keys() == {"validated_version"}
    assert "not_worse_than_champion" in refused["validated_version"]
    assert {job: failures(results[job]) for job in JOBS[1:]} == {job: {} for job in JOBS[1:]}
    # It had no such tables: the classes that its folders say, what its champion says of every photo, who answered, and
    # what that bought.
    new = ("classes", "predictions", "predictions_current", "annotators", "labeling_report")
    added = {name: before[name] + 1 for name in new}
    assert earlier.versions() == before | added
    trained = values(materialized(results["training_pipeline"])["trained_model"])
    assert trained["changed"] == "nothing new: the run that learned from these inputs stands"
    assert (versions_of(mlflow.client, MODEL), mlflow.champion()) == ([1, 2], champion)


def test_a_model_that_it_holds_is_reproduced_from_the_versions_of_its_tables(earlier: Pipelines) -> None:
    # The weights are the same; the loss of the last epoch, after the best one, was summed in float32 then.
    result = invoke("reproduce", "1", "--tolerance", "1e-3", DLASSETS_ROOT=earlier.settings.root)

    assert "chosen anew from the versions of the tables it was made of, are the ones it holds" in result.output
    assert result.exit_code == 0, result.output


def test_history_tells_what_a_model_was_trained_from(earlier: Pipelines) -> None:
    result = invoke("history", "--model", "1", "--json", DLASSETS_ROOT=earlier.settings.root)

    tables = {row["table"]: row["readable"] for row in json.loads(result.output)}
    assert tables.keys() >= {"raw_images", "labeled_images", "image_features", "training_set"}
    assert all(tables.values())


def test_a_photo_that_comes_is_built_on_what_is_there(earlier: Pipelines) -> None:
    folder = next(earlier.zone("labeled").iterdir())
    photo = next(folder.iterdir())
    shutil.copyfile(photo, earlier.zone("labeled") / folder.name / "copy.jpg")
    (earlier.zone("unlabeled") / "new.jpg").write_bytes(photo.read_bytes() + b"\0")  # other bytes, the same picture
    before = earlier.versions()

    assert failures(earlier.run("scoring_pipeline")) == {}

    moved = {name for name, version in earlier.versions().items() if version != before[name]}
    assert moved >= {"raw_images", "labeled_images", "image_profiles", "image_features", "predictions"}
    assert "training_set" not in moved
    assert provenance_of(pin(earlier.lake, "image_features"))["inputs"].keys() == {
        "raw_images",
        "deleted_files",
        "quarantined_files",
    }
    scored = get(LocalEngine(), earlier.lake, "predictions", "path, model_version")
    champion = MlflowStore(earlier.settings).champion()
    assert {"path": "unlabeled/new.jpg", "model_version": champion.version} in scored
