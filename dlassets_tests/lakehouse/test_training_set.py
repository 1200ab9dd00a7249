"""The training set: labels with features, replaced only where its rows would differ."""

import datetime as dt
from typing import Any, Literal

import pytest

from dlassets.engines.base import Engine, Snapshot, Written
from dlassets.lakehouse import training_set
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.training_set import PIXELS, build_training_set, choose, chosen_from
from dlassets.settings import LabelSettings
from dlassets.storage.lake import Lake
from dlassets_tests.killing import killed_at
from dlassets_tests.tables import NOON, get, image_id, labelled, pins, put


def embedded(name: str, *features: float, version: str = "v1") -> dict[str, Any]:
    return {"image_id": image_id(name), "feature_version": version, "features": features}


def build(engine: Engine, lake: Lake, conflicts: Literal["drop", "first", "ask"] = "drop") -> Written:
    choice = choose(engine, chosen(lake, "v1"), "v1", LabelSettings(conflicts=conflicts))
    features, current = pin(lake, "image_features"), pin(lake, "training_set")
    return build_training_set(engine, choice, features, current, {"asset": "training_set"})


def chosen(lake: Lake, made_of: str) -> dict[str, Snapshot]:
    return pins(lake, *(table.name for table in chosen_from(made_of)))


@pytest.fixture
def inputs(lake: Lake) -> None:
    put(lake, "labeled_images", labelled("a", 1), labelled("b", 12, split="test"), labelled("no features", 1))
    put(lake, "image_features", embedded("a", 1, 2), embedded("b", 3, 4), embedded("a", 9, 9, version="v0"))


@pytest.mark.usefixtures("inputs")
def test_it_holds_what_is_labelled_and_has_features_of_the_version(engine, lake) -> None:
    build(engine, lake)

    rows = get(engine, lake, "training_set", "path, label, label_name, feature_version, features, split")
    assert [tuple(row.values()) for row in rows] == [
        ("labeled/a.jpg", 1, "class 1", "v1", [1.0, 2.0], "train"),
        ("labeled/b.jpg", 12, "class 12", "v1", [3.0, 4.0], "test"),
    ]


@pytest.mark.usefixtures("inputs")
def test_it_is_left_as_it_is_where_only_versions_moved(local_engine, lake) -> None:
    first = build(local_engine, lake)
    put(lake, "image_features", embedded("somebody else's", 7, 7))

    assert build(local_engine, lake) == Written(first.version, changed=False)


@pytest.mark.usefixtures("inputs")
def test_it_is_replaced_where_a_row_is_new(local_engine, lake) -> None:
    first = build(local_engine, lake)
    put(lake, "image_features", embedded("no features", 5, 6))

    assert build(local_engine, lake).version == first.version + 1
    assert len(get(local_engine, lake, "training_set", "path")) == 3


@pytest.mark.usefixtures("inputs")
def test_equal_bytes_count_once_and_not_at_all_where_their_labels_differ(local_engine, lake) -> None:
    put(lake, "labeled_images", labelled("a", 1, path="labeled/z.jpg"), labelled("b", 1, path="labeled/y.jpg"))

    build(local_engine, lake)

    assert get(local_engine, lake, "training_set", "path") == [{"path": "labeled/a.jpg"}]


@pytest.mark.usefixtures("inputs")
def test_of_different_labels_the_oldest_counts_where_the_setting_says_so(engine, lake) -> None:
    times = {"a": ("older", NOON - dt.timedelta(minutes=1)), "b": ("newer", NOON + dt.timedelta(minutes=1))}
    for name, (path, time) in times.items():
        put(lake, "labeled_images", labelled(name, 7, path=f"labeled/{path}.jpg", labeled_at=time))
    build(engine, lake, "ask")
    assert get(engine, lake, "training_set", "path") == []

    build(engine, lake, "first")

    assert [tuple(row.values()) for row in get(engine, lake, "training_set", "path, label, label_name")] == [
        ("labeled/b.jpg", 12, "class 12"),
        ("labeled/older.jpg", 7, "class 7"),
    ]


def test_nothing_to_learn_from_is_not_written(engine, lake) -> None:
    assert build(engine, lake) == Written(0, changed=False)


def build_of_pixels(engine: Engine, lake: Lake) -> Written:
    choice = choose(engine, chosen(lake, PIXELS), PIXELS, LabelSettings())
    photos = Photos(engine, lake, pin(lake, "raw_images"))
    return build_training_set(engine, choice, photos, pin(lake, "training_set"), {"asset": "training_set"})


def raw(name: str) -> dict[str, Any]:
    return {"path": f"labeled/{name}.jpg", "image_id": image_id(name), "content": name.encode()}


@pytest.fixture
def photographed(lake: Lake) -> None:
    put(lake, "raw_images", *(raw(name) for name in ("a", "b", "c", "unlabelled")))
    put(lake, "labeled_images", *(labelled(name, 1) for name in ("a", "c", "gone")), labelled("b", 12, split="test"))


@pytest.mark.usefixtures("photographed")
def test_for_pixels_it_holds_the_bytes_of_what_is_labelled(engine, lake) -> None:
    build_of_pixels(engine, lake)

    rows = get(engine, lake, "training_set", "path, label, feature_version, features, split, content")
    assert [tuple(row.values()) for row in rows] == [
        ("labeled/a.jpg", 1, "pixels", None, "train", b"a"),
        ("labeled/b.jpg", 12, "pixels", None, "test", b"b"),
        ("labeled/c.jpg", 1, "pixels", None, "train", b"c"),
    ]


@pytest.mark.usefixtures("photographed")
def test_one_that_was_killed_between_two_commits_is_made_anew(local_engine, lake, monkeypatch) -> None:
    monkeypatch.setattr(training_set, "PHOTOS_PER_COMMIT", 1)
    with killed_at(local_engine, "append"):
        build_of_pixels(local_engine, lake)
    assert len(get(local_engine, lake, "training_set", "path")) == 1

    written = build_of_pixels(local_engine, lake)

    assert (written.inserted, written.changed) == (3, True)
    assert len(get(local_engine, lake, "training_set", "path")) == 3
    assert not build_of_pixels(local_engine, lake).changed


@pytest.mark.usefixtures("inputs", "photographed")
def test_going_from_features_to_pixels_makes_it_anew(local_engine, lake) -> None:
    build(local_engine, lake)

    assert build_of_pixels(local_engine, lake).changed
    assert build(local_engine, lake).changed
