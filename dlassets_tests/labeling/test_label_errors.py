"""The table of labels that look wrong: found once, and anew where something has changed."""

from typing import Any

import numpy as np
import pytest

from dlassets.engines.base import Commit, Engine, Written
from dlassets.labeling.label_errors import update_label_errors
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import LABELED_IMAGES
from dlassets.settings import Settings, TrainingSettings
from dlassets.storage.lake import Lake
from dlassets_tests.tables import arrow, get, image_id, labelled, put

ROWS = 120
MISLABELLED = "3"
TRAINING = TrainingSettings()


@pytest.fixture
def photos(lake: Lake) -> None:
    """Two classes that features tell apart, and one image whose label says the other."""
    random = np.random.default_rng(0)
    labels, features = [], []
    for place in range(ROWS):
        name, true = str(place), place % 2
        label = 1 - true if name == MISLABELLED else true
        labels.append(labelled(name, label))
        vector = random.normal(size=16).astype(np.float32) + np.float32(3 * true)
        features.append({"image_id": image_id(name), "feature_version": "v1", "features": vector})
    put(lake, "labeled_images", *labels)
    put(lake, "image_features", *features)


def update(engine: Engine, lake: Lake, training: TrainingSettings = TRAINING) -> tuple[Written, dict[str, Any]]:
    snapshots = {name: pin(lake, name) for name in ("labeled_images", "image_features", "label_errors")}
    return update_label_errors(engine, snapshots, "v1", Settings(training=training), {"asset": "label_errors"})


@pytest.mark.usefixtures("photos")
def test_a_label_that_looks_wrong_is_listed_with_the_one_it_looks_like(engine: Engine, lake: Lake) -> None:
    written, facts = update(engine, lake)

    (found,) = get(engine, lake, "label_errors")
    assert (found["path"], found["label"], found["suggested_label"]) == (f"labeled/{MISLABELLED}.jpg", 0, 1)
    assert found["suggested_name"] == "class 1"
    assert found["quality"] < 0.5 < found["confidence"]
    assert (written.changed, facts["judged"]) == (True, ROWS)


@pytest.mark.usefixtures("photos")
def test_without_its_extra_nothing_is_judged_until_it_is_installed(local_engine: Engine, lake: Lake, lacking) -> None:
    with lacking("label-errors"):
        written, facts = update(local_engine, lake)
    assert (written.changed, facts["judged"]) == (False, 0)
    assert "pip install 'dlassets[label-errors]'" in facts["left_out"]

    assert update(local_engine, lake)[0].changed


@pytest.mark.usefixtures("photos")
def test_nothing_new_is_judged_again(local_engine: Engine, lake: Lake) -> None:
    update(local_engine, lake)

    assert not update(local_engine, lake)[0].changed
    assert update(local_engine, lake, TRAINING.model_copy(update={"l2": 0.1}))[0].changed


@pytest.mark.usefixtures("photos")
def test_a_label_that_was_put_right_is_no_longer_listed(local_engine: Engine, lake: Lake) -> None:
    update(local_engine, lake)
    right = arrow("labeled_images", labelled(MISLABELLED, 1))
    local_engine.merge(local_engine.rows(right), LABELED_IMAGES, pin(lake, "labeled_images").uri, Commit())

    update(local_engine, lake)

    assert get(local_engine, lake, "label_errors") == []


def test_a_lake_without_labels_has_no_errors(local_engine: Engine, lake: Lake) -> None:
    assert not update(local_engine, lake)[0].changed
