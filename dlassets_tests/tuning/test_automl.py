"""A search within a budget: cheap candidates first, none that does not fit, and a script that trains the winner."""

import dataclasses
import runpy
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dlassets.errors import DlassetsError
from dlassets.lakehouse import derived
from dlassets.lakehouse.snapshots import pin, provenance_of, row_count
from dlassets.learning.backbones import BackboneRef, feature_version
from dlassets.learning.examples import read_split
from dlassets.learning.training.job import Job
from dlassets.pipeline.labelled_photos import LabelledPhotos, photos_of_folder, photos_of_lake
from dlassets.pipeline.report import Report
from dlassets.pipeline.reproduce import is_rebuilt
from dlassets.pipeline.session import Session
from dlassets.registry.store import MlflowStore
from dlassets.settings import FeatureSettings, Settings, TrainingSettings
from dlassets.storage.lake import Lake
from dlassets.tuning import automl
from dlassets.tuning.automl_script import script_of
from dlassets_tests.registry.conftest import store_of

BACKBONE = BackboneRef("efficientnet_lite0")
PHOTOS = 32


class Listener(Report):
    """A board that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[automl.Line] = []
        self.messages: list[str] = []

    def show(self, lines: Any) -> None:
        self.lines = list(lines)

    def info(self, message: str) -> None:
        self.messages.append(message)


@pytest.fixture(scope="module")
def few(photos, tmp_path_factory) -> Path:
    """Eight photos of each class, PHOTOS in all."""
    chosen = tmp_path_factory.mktemp("few")
    for folder in photos.iterdir():
        (chosen / folder.name).mkdir()
        for photo in sorted(folder.iterdir())[:8]:
            shutil.copyfile(photo, chosen / folder.name / photo.name)
    return chosen


@pytest.fixture(scope="module")
def taken_in(few, tmp_path_factory) -> tuple[Settings, LabelledPhotos]:
    """The test photos in a lake of their own: embedding them once is enough."""
    settings = Settings(root=str(tmp_path_factory.mktemp("automl")), features=FeatureSettings(runtime="torch"))
    return settings, photos_of_folder(few, settings)


@pytest.fixture(scope="module")
def store(taken_in):
    with store_of(taken_in[0]) as store:
        yield store


def search(taken_in, store: MlflowStore, seconds: float) -> tuple[automl.Winner, Listener]:
    board = Listener()
    until = time.monotonic() + seconds
    found = automl.search(taken_in[1], [BACKBONE], TrainingSettings(), until, store.client, store.experiment, board)
    return found, board


@pytest.mark.slow
def test_blocks_are_trained_on_the_photos_after_heads_where_there_is_time(taken_in, store, monkeypatch) -> None:
    monkeypatch.setattr(automl, "HEAD_TRIALS", 1)
    monkeypatch.setattr(automl, "BLOCK_TRIALS", 1)
    monkeypatch.setattr(automl, "EPOCHS", (1,))

    found, board = search(taken_in, store, seconds=3600)

    assert sorted((line.trainable, line.tried, line.of) for line in board.lines) == [("head", 1, 1), ("last_n", 1, 1)]
    assert [line.loss for line in board.lines] == sorted(line.loss for line in board.lines)
    assert (found.candidates, found.value) == (2, board.lines[0].loss)
    assert found.test.rows == len(read_split(found.job.training_set, "test", features=False))
    run = store.client.get_run(found.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_accuracy"] == found.test.accuracy
    below = store.client.search_runs([run.info.experiment_id], f"tags.mlflow.parentRunId = '{found.run_id}'")
    assert sorted(study.data.params["trainable"] for study in below) == ["head", "last_n"]


@pytest.mark.slow
def test_what_does_not_fit_is_not_begun_and_said(taken_in, store, monkeypatch) -> None:
    monkeypatch.setattr(automl, "HEAD_TRIALS", 1)
    monkeypatch.setattr(automl, "_seconds_a_photo", lambda _: 1e6)

    found, board = search(taken_in, store, seconds=600)

    assert found.job.settings.trainable == "head"
    assert [line.trainable for line in board.lines] == ["head"]
    assert any("training its last blocks" in said and said.endswith("are left: left out") for said in board.messages)


def test_a_budget_too_small_for_anything_says_what_is_needed(taken_in, store, monkeypatch) -> None:
    monkeypatch.setattr(LabelledPhotos, "seconds_to_embed", lambda *_: 115.0)

    with pytest.raises(DlassetsError, match=r"the shortest needs 120 seconds.* Give it more: --minutes 3"):
        search(taken_in, store, seconds=60)

    experiment = store.client.get_experiment_by_name(store.experiment)
    newest = store.client.search_runs([experiment.experiment_id], "attributes.run_name = 'automl'", max_results=1)
    assert newest[0].info.status == "FAILED"


def test_photos_of_a_folder_are_read_and_embedded_once(taken_in, few) -> None:
    settings, first = taken_in
    made = first.training_set(BACKBONE)

    assert row_count(made) == PHOTOS
    assert photos_of_folder(few, settings) == first
    assert first.seconds_to_embed(BACKBONE) == 0
    assert first.training_set(BACKBONE) == made
    assert sum(len(read_split(made, split)) for split in ("train", "validation", "test")) == PHOTOS
    assert row_count(first.training_set(BACKBONE, "all")) == PHOTOS


def test_the_rows_of_a_search_can_be_chosen_anew_from_what_they_recorded(taken_in) -> None:
    made = taken_in[1].training_set(BACKBONE)

    assert provenance_of(made)["parameters"] == {"feature_version": feature_version(BACKBONE), "conflicts": "drop"}
    assert is_rebuilt(Session(Settings(root=taken_in[1].root)), made)


def test_of_two_searches_at_once_neither_doubles_a_row(taken_in, monkeypatch) -> None:
    photos, backbone = taken_in[1], dataclasses.replace(BACKBONE, root=True)
    append = derived._append
    began: list[bool] = []

    def overtaken(*arguments: Any) -> Any:
        if not began:
            began.append(True)
            photos.training_set(backbone)  # another search embeds them all before this one commits
        return append(*arguments)

    monkeypatch.setattr(derived, "_append", overtaken)
    made = photos.training_set(backbone)

    bench = Lake.at(made.uri.removesuffix("/tables/training_set"))
    assert row_count(pin(bench, "image_features")) == PHOTOS
    assert provenance_of(pin(bench, "image_features"))["asset"] == "image_features"
    assert row_count(made) == PHOTOS


def test_the_lake_s_own_tables_stay_as_they_are(taken_in) -> None:
    own = Settings(root=taken_in[1].root)
    before = [pin(Lake.at(own.root), name).version for name in ("training_set", "image_features")]

    found = photos_of_lake(own)
    made = found.training_set(BACKBONE)

    assert dataclasses.replace(found, runtime="torch") == taken_in[1]
    assert made.uri == Lake.at(own.root).under("automl", feature_version(BACKBONE), "tables", "training_set")
    assert [pin(Lake.at(own.root), name).version for name in ("training_set", "image_features")] == before


def test_a_lake_without_labels_is_refused_and_left_without_tables_and_so_is_a_folder(tmp_path, settings) -> None:
    with pytest.raises(DlassetsError, match=r"no labelled photos yet.* --images"):
        photos_of_lake(settings)

    assert not Path(settings.root).exists()
    (tmp_path / "photos").mkdir()
    with pytest.raises(DlassetsError, match="no labelled photos: it must hold folders named by class"):
        photos_of_folder(tmp_path / "photos", settings)


@pytest.mark.parametrize("trainable", ["head", "last_n"])
def test_a_script_spells_out_all_that_decides_what_is_learned(tmp_path, trainable) -> None:
    photos = LabelledPhotos(root='/a "lake"', raw_images=3, deleted_files=0, labeled_images=2, conflicts="first")
    settings = TrainingSettings.model_validate(
        {"trainable": trainable, "l2": 0.123, "seed": 5}
        | ({"last_n": 3, "pixels": {"augmentation": "strong", "epochs": 6}} if trainable == "last_n" else {})
    )
    backbone = BackboneRef("timm/resnet18", "models:/a/1")
    job = Job(None, backbone, settings)  # type: ignore[arg-type]  # a script makes its own training set
    script = tmp_path / "best.py"
    script.write_text(script_of(photos, job, SimpleNamespace(value=0.5, accuracy=0.75), 12))  # type: ignore[arg-type]

    found = runpy.run_path(str(script))

    assert (found["PHOTOS"], found["BACKBONE"], found["SETTINGS"]) == (photos, backbone, settings)
    assert "best of 12 candidates" in found["__doc__"]
    assert ("PixelSettings" in script.read_text()) == (trainable == "last_n")
