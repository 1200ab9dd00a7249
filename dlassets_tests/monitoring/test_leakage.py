"""Test photos that look, by their features, like one that is learned from."""

import math

import pytest

from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.training_set import PIXELS
from dlassets.monitoring import leakage
from dlassets.monitoring.leakage import Leaked, leaked
from dlassets.storage.lake import Lake
from dlassets_tests.tables import labelled, put


def row(name: str, split: str, degrees: float, version: str = "v") -> dict:
    features = [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]
    return {**labelled(name, 1, split=split), "feature_version": version, "features": features}


def test_a_test_photo_whose_features_are_those_of_one_learned_from_is_named(lake: Lake) -> None:
    learned = [row("a", "train", 0), row("b", "train", 60), row("c", "validation", 120)]
    put(lake, "training_set", *learned, row("d", "test", 30), row("e", "test", 62), row("f", "test", 90))
    put(lake, "training_set", row("g", "test", 121))

    found = leaked(pin(lake, "training_set"))

    assert (found.compared, found.photos) == (4, 2)
    assert sorted(found.examples) == [
        "labeled/e.jpg and labeled/b.jpg (0.999)",
        "labeled/g.jpg and labeled/c.jpg (1.000)",
    ]


def test_of_many_photos_all_are_compared_part_by_part(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    put(lake, "training_set", *(row(f"{n}", "train", 8 * n) for n in range(20)), row("t", "test", 104))
    monkeypatch.setattr(leakage, "PART_NUMBERS", 3)

    assert leaked(pin(lake, "training_set")) == Leaked(1, 1, ["labeled/t.jpg and labeled/13.jpg (1.000)"])


def test_a_training_set_of_pixels_or_of_nothing_has_none_to_compare(lake: Lake) -> None:
    assert leaked(pin(lake, "training_set")) == Leaked(0, 0, [])
    put(lake, "training_set", row("a", "train", 0, PIXELS) | {"features": None})
    put(lake, "training_set", row("b", "test", 0, PIXELS) | {"features": None})

    assert leaked(pin(lake, "training_set")) == Leaked(0, 0, [])
