"""`dlassets reproduce`: the same data, settings and seed give the same model; what is not the same is said."""

import json
import re
from pathlib import Path

import dagster as dg
import pytest
from click.testing import Result

from dlassets.engines.local import LocalEngine
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.snapshots import pin
from dlassets.registry.lifecycle import find_run, versions_of
from dlassets.registry.store import MlflowStore
from dlassets.settings import PixelSettings, TrainingSettings
from dlassets_tests.flipping import flip_a_bit, flip_in_training_set
from dlassets_tests.pipelines import Pipelines, arrive, failures, materialized, new_lake, values
from dlassets_tests.programs import invoke
from dlassets_tests.tables import get

pytestmark = pytest.mark.slow

MODEL = "image_classifier"
ON_PIXELS = TrainingSettings(trainable="last_n", pixels=PixelSettings(epochs=2, batch_size=16))


def reproduce(pipelines: Pipelines, *arguments: str) -> Result:
    return invoke("reproduce", *arguments, DLASSETS_ROOT=pipelines.settings.root)


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    """A lake with a model that was trained once."""
    with dg.DagsterInstance.ephemeral() as instance:
        pipelines = new_lake(tmp_path_factory.mktemp("lake"), instance)
        arrive(photos, pipelines, unlabelled_from=16)
        result = pipelines.run("training_pipeline")
        assert failures(result) == {}
        yield pipelines, values(materialized(result)["trained_model"])["mlflow_run_id"]


@pytest.fixture(scope="module")
def result(trained) -> Result:
    return reproduce(trained[0], "champion")


def test_the_same_inputs_give_the_same_model(trained, result) -> None:
    pipelines, run_id = trained

    assert result.exit_code == 0, result.output
    assert f"run {run_id} learned from version {pin(pipelines.lake, 'training_set').version} of" in result.output
    assert "chosen anew from the versions of the tables it was made of, are the ones it holds" in result.output
    assert "figures, weights included, are the same within 1e-06" in result.output
    assert "code, packages and machine are as they were" in result.output


@pytest.mark.usefixtures("result")
def test_a_reproduction_is_a_run_that_says_so_and_takes_no_one_s_place(trained) -> None:
    pipelines, run_id = trained
    mlflow = MlflowStore(pipelines.settings)

    runs = mlflow.client.search_runs(["1"], f"tags.`dlassets.reproduces` = '{run_id}'")

    original = mlflow.client.get_run(run_id)
    assert runs
    assert all(run.data.metrics["test_accuracy"] == original.data.metrics["test_accuracy"] for run in runs)
    assert versions_of(mlflow.client, MODEL) == [1]
    found = find_run(mlflow.client, mlflow.experiment, MODEL, original.data.tags["dlassets.inputs_sha256"])
    assert found is not None
    assert found.info.run_id == run_id


def test_what_differs_is_listed(trained) -> None:
    pipelines, run_id = trained
    client = MlflowStore(pipelines.settings).client
    artifacts = Path(client.get_run(run_id).info.artifact_uri.removeprefix("file://"))
    said, packages = artifacts / "job.json", artifacts / "environment.txt"
    before = said.read_text(), packages.read_text()
    job = json.loads(before[0])
    job["settings"]["l2"] = 0.1
    said.write_text(json.dumps(job))
    packages.write_text(before[1].replace("numpy==", "numpy==0."))
    try:
        result = reproduce(pipelines, "1")
    finally:
        said.write_text(before[0])
        packages.write_text(before[1])

    assert result.exit_code == 1
    assert "weights of the head" in result.output
    assert "figures differ by more than 1e-06" in result.output
    assert "differs: numpy: 0." in result.output


def test_a_model_is_reproduced_from_the_version_it_learned_from_though_labels_have_come_since(trained) -> None:
    pipelines, run_id = trained
    photo = next(pipelines.zone("unlabeled").iterdir())
    folder = next(folder for folder in pipelines.zone("labeled").iterdir() if folder.name[:3] == photo.name[:3])
    (folder / photo.name).write_bytes(photo.read_bytes())
    assert failures(pipelines.run("training_pipeline")) == {}

    result = reproduce(pipelines, run_id)

    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("no-such-run", f"MLflow has no run no-such-run. Give a run's id, or a version of {MODEL}"),
        ("99", f"{MODEL} has no version 99. It has 1"),
    ],
)
def test_what_does_not_exist_is_said(trained, asked, said) -> None:
    result = reproduce(trained[0], asked)

    assert result.exit_code == 1
    assert said in result.output


def test_rows_that_are_gone_are_said_with_the_remedy(trained) -> None:
    pipelines, run_id = trained
    version = int(MlflowStore(pipelines.settings).client.get_run(run_id).data.tags["dlassets.training_set_version"])
    table = pin(pipelines.lake, "training_set")
    from deltalake import DeltaTable

    gone = Path(DeltaTable(table.uri, version=version).file_uris()[0].removeprefix("file://"))
    kept = gone.read_bytes()
    gone.unlink()
    try:
        result = reproduce(pipelines, run_id)
    finally:
        gone.write_bytes(kept)

    assert result.exit_code == 1
    assert f"Version {version} of training_set cannot be had any more: 1 of its files are gone" in result.output


def test_a_model_on_pixels_is_trained_registered_scores_and_is_reproduced(photos, tmp_path, instance) -> None:
    pipelines = new_lake(tmp_path / "lake", instance, training=ON_PIXELS)
    arrive(photos, pipelines)
    trained = pipelines.run("training_pipeline")
    assert failures(trained) == {}
    scored = pipelines.run("scoring_pipeline")
    assert failures(scored) == {}

    assert values(materialized(trained)["trained_model"])["test_accuracy"] > 0.5
    assert values(materialized(scored)["predictions"])["rows_inserted"] == 80
    evaluated = get(LocalEngine(), pipelines.lake, "evaluated_rows", "path, split, label, predicted_label")
    held_back = get(LocalEngine(), pipelines.lake, "training_set", "path, split")
    assert [row["path"] for row in evaluated] == [row["path"] for row in held_back if row["split"] != "train"]
    right = [row["label"] == row["predicted_label"] for row in evaluated if row["split"] == "test"]
    assert values(materialized(trained)["trained_model"])["test_accuracy"] == sum(right) / len(right)
    assert list(Path(pipelines.lake.training).iterdir()) == []
    again = reproduce(pipelines, "1", "--tolerance", "1e-4")
    assert again.exit_code == 0, again.output
    assert "weights of the backbone" in again.output

    tested = next(row["path"] for row in get(LocalEngine(), pipelines.lake, "training_set") if row["split"] == "test")
    (photo,) = Photos(LocalEngine(), pipelines.lake, pin(pipelines.lake, "raw_images")).bytes_of([tested]).values()
    flipped = flip_in_training_set(pipelines.lake, "train")
    assert flip_a_bit(pipelines.lake, photo) == 1
    differing = reproduce(pipelines, "1", "--tolerance", "1e9")
    assert differing.exit_code == 1
    assert f"Damaged and left out, {len(flipped)} in all of version" in differing.output
    assert f"and not evaluated on, 1 in all, such as {tested}" in differing.output
    assert re.search(r"photos_left_out +nan +1 ", differing.output)
    assert re.search(r"photos_not_evaluated +nan +1 ", differing.output)
