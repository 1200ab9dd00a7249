"""What a training leaves in MLflow: enough to say what was learned from what, and to look at its mistakes."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest

import dlassets
from dlassets.engines.base import Snapshot
from dlassets.errors import DlassetsError
from dlassets.lakehouse.provenance import code_version
from dlassets.lakehouse.tables import TEST, TRAIN, VALIDATION
from dlassets.learning.backbones import BackboneRef, feature_version
from dlassets.learning.evaluation import evaluate
from dlassets.learning.head_training import train_head
from dlassets.learning.rows import Rows
from dlassets.registry.lifecycle import TAG_INPUTS, load_version, register
from dlassets.registry.tracking import TrainingInputs, picture_of, train_and_log
from dlassets.settings import Settings, TrainingSettings
from dlassets_tests.registry.conftest import MODEL, Registry

BACKBONE = "efficientnet_lite0"
SETTINGS = TrainingSettings(epochs=4, patience=4, min_improvement=0)
INPUTS = TrainingInputs(Snapshot("training_set", "/lake/tables/training_set", 7), BACKBONE, "features-1", SETTINGS)


@dataclasses.dataclass
class Logged:
    registry: Registry
    splits: dict[str, Rows]
    photos: dict[str, bytes]
    inputs: TrainingInputs
    run_id: str

    @property
    def run(self):
        return self.registry.client.get_run(self.run_id)

    def picture(self, name: str):
        from PIL import Image

        image = Image.open(io.BytesIO(picture_of(self.registry.client, self.run_id, name)))
        image.load()
        return image


def split(paths: list[Path], seed: int) -> Rows:
    """Rows for these photos: the class is the folder's number, the features have a little of it and much noise."""
    labels = np.array([int(path.parent.name.split(".")[0]) for path in paths])
    features = np.random.default_rng(seed).normal(size=(len(paths), 1280)).astype(np.float32)
    features[np.arange(len(paths)), labels] += 12
    return Rows(
        paths=[str(path) for path in paths],
        image_ids=[str(place) for place in range(len(paths))],
        labels=labels,
        names=[path.parent.name.split(".")[1] for path in paths],
        features=features,
    )


@pytest.fixture(scope="module")
def logged(photos, tmp_path_factory):
    """One training on generated photos, logged in a store of its own."""
    import mlflow

    from dlassets.resources.mlflow import MlflowResource
    from dlassets_tests.stores import give_store

    settings = Settings(root=str(tmp_path_factory.mktemp("lake")))
    give_store(settings)
    before = mlflow.get_tracking_uri()
    registry = Registry(MlflowResource(settings))
    files = sorted(photos.glob("*/*"))
    splits = {TRAIN: split(files[::2], 0), VALIDATION: split(files[1::4], 1), TEST: split(files[3::4], 2)}
    inputs = dataclasses.replace(INPUTS, feature_version=feature_version(BackboneRef(BACKBONE)))
    bytes_of = {str(path): path.read_bytes() for path in files}
    experiment = registry.client.get_experiment_by_name(registry.resource.experiment)
    with mlflow.start_run(experiment_id=experiment.experiment_id) as run:
        train_and_log(
            mlflow,
            inputs,
            splits,
            lambda train, validation, on_epoch: train_head(train, validation, SETTINGS, on_epoch),
            lambda paths: {path: bytes_of[path] for path in paths},
            {"dagster_asset": "trained_model"},
            lambda *_: None,
        )
    yield Logged(registry, splits, bytes_of, inputs, run.info.run_id)
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri(before)


def test_each_split_is_an_input_with_the_delta_version_it_was_read_from(logged) -> None:
    inputs = {
        found.tags[0].value: (found.dataset.name, json.loads(found.dataset.source))
        for found in logged.run.inputs.dataset_inputs
    }

    assert set(inputs) == {TRAIN, VALIDATION, TEST}
    for name, (dataset, source) in inputs.items():
        assert dataset == f"training_set.{name}@v7"
        assert (source["path"], source["delta_table_version"]) == ("/lake/tables/training_set", 7)


def test_parameters_and_tags_say_how_it_was_trained(logged) -> None:
    data = logged.run.data

    assert data.params["epochs"] == "4"
    assert data.params["l2"] == str(SETTINGS.l2)
    assert data.params["feature_version"] == logged.inputs.feature_version
    assert [data.params[f"{name}_rows"] for name in (TRAIN, VALIDATION, TEST)] == ["40", "20", "20"]
    assert data.tags[TAG_INPUTS] == logged.inputs.sha256
    assert data.tags["dlassets.training_set_version"] == "7"
    assert data.tags["dlassets.code_version"] == code_version()
    assert data.tags["dagster_asset"] == "trained_model"


def test_every_epoch_has_its_metrics(logged) -> None:
    history = logged.registry.client.get_metric_history
    by_step = {
        name: {metric.step: metric.value for metric in history(logged.run_id, name)}
        for name in ("train_loss", "validation_loss", "validation_accuracy")
    }
    losses = {name: [steps[step] for step in sorted(steps)] for name, steps in by_step.items()}

    assert [sorted(steps) for steps in by_step.values()] == [[0, 1, 2, 3]] * 3
    assert losses["train_loss"] == sorted(losses["train_loss"], reverse=True)
    assert logged.run.data.metrics["best_validation_loss"] == min(losses["validation_loss"])


def test_the_figures_of_the_test_split_are_the_evaluation_s(logged) -> None:
    head = load_version(logged.registry.client, MODEL, register(logged.registry.client, MODEL, logged.run)).head
    expected, metrics = evaluate(head, logged.splits[TEST]), logged.run.data.metrics

    assert metrics["test_accuracy"] == expected.accuracy
    assert (metrics["test_accuracy_low"], metrics["test_accuracy_high"]) == expected.interval
    assert metrics["test_majority_share"] == expected.majority_share
    for name, recall, precision in zip(expected.names, expected.recall, expected.precision, strict=True):
        assert (metrics[f"recall/{name}"], metrics[f"precision/{name}"]) == (recall, precision)


@pytest.mark.parametrize("name", ["confusion_matrix.png", "learning_curve.png", "misclassified.png"])
def test_pictures_are_pngs_that_show_something(logged, name) -> None:
    picture = logged.picture(name)

    assert picture.format == "PNG"
    assert len(picture.convert("RGB").getcolors(2**24)) > 20


def test_a_picture_that_is_gone_is_said_with_its_run(logged) -> None:
    with pytest.raises(DlassetsError, match=f"The files of MLflow run {logged.run_id} cannot be read: .*Restore"):
        picture_of(logged.registry.client, logged.run_id, "none.png")


def test_the_environment_is_written_down(logged, tmp_path) -> None:
    file = logged.registry.client.download_artifacts(logged.run_id, "environment.txt", str(tmp_path))

    assert f"dlassets=={dlassets.__version__}" in Path(file).read_text().splitlines()


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(INPUTS, training_set=dataclasses.replace(INPUTS.training_set, version=8)),
        dataclasses.replace(INPUTS, feature_version="features-2"),
        dataclasses.replace(INPUTS, settings=TrainingSettings(seed=1)),
    ],
)
def test_whatever_decides_what_is_learned_changes_the_digest(other) -> None:
    assert other.sha256 != INPUTS.sha256
    assert dataclasses.replace(INPUTS).sha256 == INPUTS.sha256
