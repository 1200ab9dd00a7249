"""The benchmarks of accuracy and of retraining: what they compute from what was measured, and what they learn from."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from benchmarks.training import accuracy, retrain
from benchmarks.training.photos import labelled, training_set
from dlassets.errors import DlassetsError
from dlassets.lakehouse.training_set import PIXELS
from dlassets.learning.backbones import BackboneRef
from dlassets.learning.examples import read_split
from dlassets.learning.loader.row_groups import read_columns
from dlassets.learning.training.job import Trained
from dlassets.settings import FeatureSettings
from dlassets_tests.learning.examples import examples
from dlassets_tests.test_benchmarks_embedding import shown

SIDES = np.array(["train"] * 60 + ["validation"] * 20 + ["test"] * 20)


def points(count=100):
    random = np.random.default_rng(0)
    labels = np.arange(count) % 2
    features = (np.where(labels, 5, -5)[:, None] + random.normal(0, 1, (count, 4))).astype(np.float32)
    return examples(labels, features, [f"{place:064}" for place in range(count)])


def mask(right, rows=10):
    return np.arange(rows) < right


def test_a_score_is_of_the_own_split_and_of_the_mean_over_the_redrawn_ones():
    probe = accuracy.Judged([mask(5), mask(4), mask(6)], [])
    ours = accuracy.Judged([mask(8), mask(6), mask(7)], [0.5, 0.3, 0.4])

    scored = accuracy.score("ours", ours, probe, 200.0)

    assert (scored.accuracy, scored.minus_probe[0]) == pytest.approx((0.8, 0.3))
    assert (scored.redrawn, *scored.redrawn_minus_probe) == pytest.approx((0.65, 0.15, 0.05))
    assert scored.loss == pytest.approx(0.4)
    text = shown(accuracy.Accuracy(100, 10, 2, [scored]))
    assert "0.800" in text
    assert "+0.150 ± 0.050" in text


def test_validation_chooses_for_each_split_by_itself_and_the_test_rows_have_no_say():
    worse_but_lucky = accuracy.Judged([mask(9), mask(9)], [0.6, 0.6])
    first, second = (accuracy.Judged([mask(5), mask(5)], [0.1, 0.5]), accuracy.Judged([mask(3), mask(3)], [0.5, 0.2]))

    chosen = accuracy.chosen_by_validation([worse_but_lucky, first, second])

    assert chosen.accuracies == [0.5, 0.3]
    assert chosen.loss == [0.1, 0.2]


def test_a_recipe_names_settings_that_there_are():
    for recipe in accuracy.RECIPES.values():
        FeatureSettings.model_validate(recipe)


def test_new_labels_are_drawn_from_the_training_rows_and_the_same_each_time():
    sides = np.array(["train"] * 150 + ["validation"] * 20 + ["test"] * 20)

    new = retrain.newly_labelled(points(190), sides)

    assert new.sum() == retrain.NEW_LABELS
    assert not new[150:].any()
    assert not new[:100].all()
    assert (new == retrain.newly_labelled(points(190), sides)).all()
    with pytest.raises(DlassetsError, match="60 photos to learn from are too few"):
        retrain.newly_labelled(points(), SIDES)


def test_how_many_times_as_fast_is_told_of_the_full_training():
    model = retrain.Model(retrain.FULL, 700, 300.0, 0.8, (0.7, 0.9), (0, 0, 0))
    head = replace(model, what=retrain.HEAD, seconds=1.5)

    text = shown(retrain.Retrained(1000, 150, [model, head], {retrain.FULL: (3, 8)}))

    line = next(line for line in text.splitlines() if retrain.HEAD in line)
    assert [cell.strip() for cell in line.split("│")[2:5]] == ["700", "1.5", "200"]
    assert "epoch 3 of 8" in text


def test_photos_have_the_labels_of_their_folders_and_equal_bytes_count_once(tmp_path):
    for name, content in (("1.hat/a.jpg", b"a"), ("1.hat/again.jpg", b"a"), ("2.shoe/b.jpg", b"b")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)

    rows = labelled(tmp_path)

    assert sorted(zip(rows.labels.tolist(), rows.names, strict=True)) == [(1, "hat"), (2, "shoe")]
    (tmp_path / "shirt").mkdir()
    (tmp_path / "shirt" / "c.jpg").write_bytes(b"c")
    with pytest.raises(DlassetsError, match="'shirt' does not begin with a number"):
        labelled(tmp_path)


def test_a_training_set_holds_features_or_the_photos_bytes(tmp_path):
    (tmp_path / "0.jpg").write_bytes(b"a photo")
    photo = replace(points(1), paths=[str(tmp_path / "0.jpg")], features=np.empty((1, 0), np.float32))

    with_bytes = training_set(tmp_path / "bytes", photo, np.array(["test"]), PIXELS)
    with_features = training_set(tmp_path / "features", points(), SIDES, "made up")

    columns = read_columns(with_bytes.uri, with_bytes.version, ["content"], [("split", "=", "test")])
    assert columns["content"][0] == b"a photo"
    read = read_split(with_features, "test")
    assert read.labels.tolist() == points().labels[80:].tolist()
    assert np.array_equal(read.features, points().features[80:])


def test_a_head_is_trained_and_left_where_it_is_judged(tmp_path):
    table = training_set(tmp_path, points(), SIDES, "made up")
    ref = BackboneRef("efficientnet_lite0", "none")

    took = retrain.train(asdict(table), asdict(ref), "head", str(tmp_path / "head"))

    assert math.isfinite(took["seconds"])
    head = Trained.load(str(tmp_path / "head")).head
    assert (head.predict(points().features) == points().labels).all()
