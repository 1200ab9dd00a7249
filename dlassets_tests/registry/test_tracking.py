"""What a training leaves in MLflow: enough to say what was learned from what, and to look at its mistakes."""

import dataclasses
import hashlib
import io
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import dlassets
from dlassets.engines.base import Snapshot, Written
from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.provenance import code_version
from dlassets.lakehouse.snapshots import pin, provenance_of
from dlassets.lakehouse.tables import TEST, TRAIN, VALIDATION
from dlassets.learning import examples
from dlassets.learning.backbones import BackboneRef, feature_version
from dlassets.learning.evaluation.evaluate import evaluate
from dlassets.learning.examples import Examples, read_splits
from dlassets.learning.features import Embedder
from dlassets.learning.loader.row_groups import read_columns
from dlassets.learning.training.job import Event, Job
from dlassets.learning.training.launch import Place, launch
from dlassets.registry.evaluated import Gathered, evaluated_runs, gather, lacking_rows
from dlassets.registry.lifecycle import TAG_ASSET, TAG_INPUTS, load_run, register
from dlassets.registry.model_registry import load_version
from dlassets.registry.report import EVALUATION, MISTAKES, ROWS, TAG_ROWS, misclassified
from dlassets.registry.tracking import TrainingInputs, artifact_of, run_name, train_and_log
from dlassets.settings import ComputeSettings, PixelSettings, Settings, TrainingSettings
from dlassets.storage.lake import Lake
from dlassets_tests.registry.conftest import MODEL, Registry, points, store_of
from dlassets_tests.registry.conftest import head as registry_head
from dlassets_tests.tables import put

BACKBONE = BackboneRef("efficientnet_lite0")
SETTINGS = TrainingSettings(epochs=4, patience=4, min_improvement=0)
INPUTS = TrainingInputs(Job(Snapshot("training_set", "/lake/tables/training_set", 7), BACKBONE, SETTINGS), "features-1")
LINEAGE = {"training_set": {1}, "labeled_images": {3, 5}}


@dataclasses.dataclass
class Logged:
    registry: Registry
    splits: dict[str, Examples]
    inputs: TrainingInputs
    told: list[Event]
    read: list[str]
    run_id: str

    @property
    def run(self):
        return self.registry.client.get_run(self.run_id)

    def picture(self, name: str):
        from PIL import Image

        image = Image.open(io.BytesIO(artifact_of(self.registry.client, self.run_id, f"{EVALUATION}/{name}")))
        image.load()
        return image

    def text(self, name: str) -> str:
        return artifact_of(self.registry.client, self.run_id, name).decode()


def arrive(lake: Lake, files: list[Path]) -> None:
    """Photos whose class is the folder's number, and whose features have a little of it and much noise."""
    images, rows = [], []
    random = np.random.default_rng(0)
    for place, file in enumerate(files):
        content, path = file.read_bytes(), f"labeled/{file.parent.name}/{file.name}"
        label, name = file.parent.name.split(".")
        features = random.normal(size=1280).astype(np.float32)
        features[int(label)] += 12
        row: dict[str, Any] = {"path": path, "image_id": hashlib.sha256(content).hexdigest()}
        images.append({**row, "content": content})
        split = TRAIN if place % 2 == 0 else VALIDATION if place % 4 == 1 else TEST
        row |= {"label": int(label), "label_name": name, "split": split}
        rows.append({**row, "feature_version": feature_version(BACKBONE), "features": features})
    put(lake, "raw_images", *images)
    put(lake, "training_set", *rows)


@pytest.fixture(scope="module")
def logged(photos, tmp_path_factory):
    """One training on generated photos, logged in a store of its own."""
    import mlflow

    settings = Settings(root=str(tmp_path_factory.mktemp("lake")))
    lake = Lake.at(settings.root)
    arrive(lake, sorted(photos.glob("*/*")))
    found = TrainingInputs.of(lake, pin(lake, "training_set"), BACKBONE, SETTINGS)
    inputs = dataclasses.replace(found, lineage=LINEAGE)
    told: list[Event] = []
    read: list[str] = []

    def watched(uri, version, columns, filters, **how):
        read.append(filters[0][2])
        return read_columns(uri, version, columns, filters, **how)

    def fit(job, report, splits):
        return launch(job, Place(), report, splits=splits)

    embedder = Embedder(Photos(LocalEngine(), lake, pin(lake, "raw_images")))
    with store_of(settings) as store:
        experiment = store.client.get_experiment_by_name(store.experiment)
        with pytest.MonkeyPatch.context() as patched, mlflow.start_run(experiment_id=experiment.experiment_id) as run:
            patched.setattr(examples, "read_columns", watched)
            train_and_log(mlflow, inputs, fit, embedder, None, {"dagster_asset": "trained_model"}, told.append)
        yield Logged(Registry(store), read_splits(inputs.job.training_set), inputs, told, read, run.info.run_id)


def test_each_split_is_read_once_and_is_an_input_with_the_delta_version_it_was_read_from(logged) -> None:
    inputs = {found.tags[0].value: found.dataset for found in logged.run.inputs.dataset_inputs}

    assert sorted(logged.read) == sorted(inputs) == sorted([TRAIN, VALIDATION, TEST])
    for name, dataset in inputs.items():
        source = json.loads(dataset.source)
        assert dataset.name == f"training_set.{name}@v1"
        assert (source["path"], source["delta_table_version"]) == (logged.inputs.job.training_set.uri, 1)


def test_parameters_and_tags_say_how_it_was_trained(logged) -> None:
    data = logged.run.data

    assert logged.run.info.run_name == "head on efficientnet_lite0, 80 photos, training_set v1"
    assert data.params["epochs"] == "4"
    assert data.params["l2"] == str(SETTINGS.l2)
    assert data.params["feature_version"] == logged.inputs.feature_version
    assert [data.params[f"{name}_rows"] for name in (TRAIN, VALIDATION, TEST)] == ["40", "20", "20"]
    assert data.tags[TAG_INPUTS] == logged.inputs.sha256
    assert data.tags["dlassets.training_set_version"] == "1"
    assert data.tags["dlassets.input.labeled_images"] == "3, 5"
    assert data.tags["dlassets.lock_sha256"] == hashlib.sha256(Path("requirements.lock").read_bytes()).hexdigest()
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
    head = load_version(logged.registry.by(), register(logged.registry.client, MODEL, logged.run)).head
    expected, metrics = evaluate(head, logged.splits[TEST]), logged.run.data.metrics

    assert metrics["test_accuracy"] == expected.accuracy
    assert (metrics["test_accuracy_low"], metrics["test_accuracy_high"]) == expected.interval
    assert metrics["test_majority_share"] == expected.majority_share
    for name, recall, precision in zip(expected.names, expected.recall, expected.precision, strict=True):
        assert (metrics[f"recall/{name}"], metrics[f"precision/{name}"]) == (recall, precision)


@pytest.mark.parametrize(
    "name", ["calibration", "confusion_matrix", "learning_curve", "misclassified", "per_class", "saliency", "slices"]
)
def test_pictures_are_pngs_that_show_something(logged, name) -> None:
    picture = logged.picture(f"{name}.png")

    assert picture.format == "PNG"
    assert len(picture.convert("RGB").getcolors(2**24)) > 20


def test_what_the_model_said_of_each_row_is_logged_and_its_mistakes_are_for_people_too(logged) -> None:
    import pyarrow.parquet as pq

    head, wrong = load_run(logged.registry.client, logged.run).head, []
    rows = pq.read_table(io.BytesIO(artifact_of(logged.registry.client, logged.run_id, f"evaluation/{ROWS}")))
    by_path = {row["path"]: row for row in rows.to_pylist()}

    assert len(by_path) == rows.num_rows == 40
    for split in (VALIDATION, TEST):
        found = evaluate(head, logged.splits[split])
        names = dict(zip(found.labels, found.names, strict=True))
        for place, path in enumerate(logged.splits[split].paths):
            row = by_path[path]
            expected = (logged.run_id, split, found.truth[place], found.predicted[place])
            assert (row["run_id"], row["split"], row["label"], row["predicted_label"]) == expected
            assert (row["label_name"], row["predicted_name"]) == (names[row["label"]], names[row["predicted_label"]])
            assert (row["image_id"], row["confidence"]) == (found.image_ids[place], found.confidence[place])
            wrong += [path] if row["label"] != row["predicted_label"] else []
    lines = logged.text(f"evaluation/{MISTAKES}").splitlines()
    assert lines[0] == '"path","split","label","label_name","predicted_label","predicted_name","confidence"'
    assert [line.split('"')[1] for line in lines[1:]] == sorted(wrong, key=lambda path: -by_path[path]["confidence"])
    assert logged.run.data.tags[TAG_ROWS] == "40"


def test_the_rows_of_runs_that_the_table_lacks_are_gathered_once(engine, logged) -> None:
    lake = Lake.at(logged.registry.resource.settings.root)
    (run,) = evaluated_runs(logged.registry.resource, lake)
    table = Lake.at(str(Path(lake.root, engine.name)))  # where the engine's own table is
    lost = SimpleNamespace(info=SimpleNamespace(run_id="0" * 32), data=run.data)

    def gathered(*runs: Any) -> Gathered:
        return gather(engine, pin(table, "evaluated_rows"), runs, logged.registry.client, {"asset": "evaluated_rows"})

    assert lacking_rows(engine, pin(table, "evaluated_rows"), [run]) == [f"run {logged.run_id} has 0 of 40 rows"]
    first, again = gathered(run, lost), gathered(run)

    assert (first.written.inserted, first.runs) == (40, [logged.run_id])
    assert [problem.startswith(f"The files of MLflow run {'0' * 32} cannot") for problem in first.problems] == [True]
    assert again == Gathered(Written(first.written.version, changed=False))
    assert lacking_rows(engine, pin(table, "evaluated_rows"), [run]) == []
    assert provenance_of(pin(table, "evaluated_rows")) == {"asset": "evaluated_rows", "runs": [logged.run_id]}


def test_neither_trials_nor_reproductions_nor_a_second_run_on_the_same_inputs_are_evaluated_runs(logged) -> None:
    store, client = logged.registry.resource, logged.registry.client
    experiment = client.get_experiment_by_name(store.experiment).experiment_id
    same = {TAG_INPUTS: logged.inputs.sha256, TAG_ROWS: "40", TAG_ASSET: "trained_model"}
    for tags in ({TAG_ROWS: "40"}, {TAG_ASSET: "trained_model"}, same):
        client.set_terminated(client.create_run(experiment, tags=tags).info.run_id)
    running = client.create_run(experiment, tags={TAG_ROWS: "40", TAG_ASSET: "trained_model"})

    found = [run.info.run_id for run in evaluated_runs(store, Lake.at(store.settings.root))]
    client.set_terminated(running.info.run_id, "KILLED")

    assert found == [logged.run_id]


def test_a_mistake_is_shown_with_its_file_its_class_what_it_was_taken_for_and_how_sure_that_was(monkeypatch) -> None:
    test = dataclasses.replace(
        points(-1, 1, labels=(12, 12)), paths=["labeled/012.dog/of a very long name 0001.jpg", "b"]
    )
    shown: list[Any] = []

    def gallery(*what: Any) -> bytes:
        shown.append(what)
        return b""

    monkeypatch.setattr("dlassets.learning.evaluation.pictures.gallery", gallery)

    misclassified(evaluate(registry_head(3, 12), test), test, [0], dict.fromkeys(test.paths, b""))

    ((((_, caption),), title),) = shown
    assert title == "1 of 2 test photos misclassified"
    assert caption == "of a very lo…me 0001.jpg\nclass 12, taken for class 3 (0.88)"


def test_a_picture_that_is_gone_is_said_with_its_run(logged) -> None:
    with pytest.raises(DlassetsError, match=f"The files of MLflow run {logged.run_id} cannot be read: .*Restore"):
        artifact_of(logged.registry.client, logged.run_id, f"{EVALUATION}/none.png")


def test_the_environment_and_what_it_takes_to_train_again_are_written_down(logged) -> None:
    assert Job.from_json(logged.text("job.json")) == logged.inputs.job
    assert f"dlassets=={dlassets.__version__}" in logged.text("environment.txt").splitlines()
    found = json.loads(logged.text("environment.json"))
    assert found["code_version"] == code_version()
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert found["memory_gib"] > 0


def test_whoever_watches_is_told_of_every_epoch_while_it_runs(logged) -> None:
    assert [(event.kind, event.number, event.of) for event in logged.told] == [("epoch", n, 4) for n in (1, 2, 3, 4)]


def test_what_the_machine_did_is_measured(logged) -> None:
    measured = {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"}
    assert measured <= logged.run.data.metrics.keys()


def test_a_model_is_calibrated_on_the_validation_rows(logged) -> None:
    metrics, validation = logged.run.data.metrics, logged.splits[VALIDATION]
    head = load_run(logged.registry.client, logged.run).head

    assert head.temperature == metrics["temperature"] != 1
    assert metrics["validation_calibration_error"] == evaluate(head, validation).reliability.error
    uncalibrated = dataclasses.replace(head, temperature=1.0)
    assert metrics["test_calibration_error_before"] == evaluate(uncalibrated, logged.splits[TEST]).reliability.error


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (TrainingSettings(), "head on efficientnet_lite0, 1,420 photos, training_set v7"),
        (
            TrainingSettings(trainable="last_n", last_n=2),
            "head and last 2 blocks of efficientnet_lite0, 1,420 photos, training_set v7",
        ),
        (TrainingSettings(trainable="all"), "all of efficientnet_lite0, 1,420 photos, training_set v7"),
    ],
)
def test_a_run_is_called_after_what_it_trains_on_what(settings, name) -> None:
    assert run_name(dataclasses.replace(INPUTS.job, settings=settings), 1420) == name


def inputs(**changes: Any) -> TrainingInputs:
    return dataclasses.replace(INPUTS, job=dataclasses.replace(INPUTS.job, **changes))


@pytest.mark.parametrize(
    "other",
    [
        inputs(training_set=dataclasses.replace(INPUTS.job.training_set, version=8)),
        dataclasses.replace(INPUTS, feature_version="features-2"),
        inputs(settings=TrainingSettings(seed=1)),
        inputs(settings=TrainingSettings(trainable="all")),
    ],
)
def test_whatever_decides_what_is_learned_changes_the_digest(other) -> None:
    assert other.sha256 != INPUTS.sha256
    assert dataclasses.replace(INPUTS).sha256 == INPUTS.sha256


@pytest.mark.parametrize(
    "settings", [{"compute": ComputeSettings(processes=2)}, {"pixels": PixelSettings(learning_rate=0.5)}, {"last_n": 7}]
)
def test_what_has_no_say_for_a_head_leaves_the_digest(settings) -> None:
    assert inputs(settings=SETTINGS.model_copy(update=settings)).sha256 == INPUTS.sha256


def test_on_pixels_their_settings_change_the_digest_and_what_only_takes_time_does_not() -> None:
    def digest(**pixels: Any) -> str:
        return inputs(settings=TrainingSettings(trainable="all", pixels=PixelSettings(**pixels))).sha256

    assert digest(learning_rate=0.5) != digest()
    assert digest(checkpoint_steps=1, workers=7) == digest()
