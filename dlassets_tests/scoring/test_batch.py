"""Batch scoring: every image without a label, once a model version, on either engine."""

import datetime as dt
import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pytest

from dlassets.engines.base import Engine, Written
from dlassets.engines.local import LocalEngine
from dlassets.errors import SettingsError
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.snapshots import pin, provenance_of
from dlassets.learning.backbones import BackboneRef, feature_version
from dlassets.learning.embedding import load_backbone
from dlassets.learning.features import Embedder
from dlassets.registry.models import ModelVersion
from dlassets.registry.package import ModelPackage
from dlassets.scoring.batch import Scope, Scorer, score_new
from dlassets.settings import LabelSettings, ScoringSettings
from dlassets.storage.lake import Lake
from dlassets_tests.learning.examples import head
from dlassets_tests.tables import get, image_id, pins, put

INPUTS = ("raw_images", "labeled_images", "image_features")
ENGINE = LocalEngine()  # writes and reads the tables around the scoring, whichever engine scores
FEATURES = {"a": [2.0, 0.0], "b": [0.0, 2.0], "c": [1.0, 1.0], "d": [-3.0, 0.0]}
OLD = {"path": "unlabeled/a.jpg", "image_id": image_id("old"), "model_name": "m", "model_version": 1}


def package(*labels: int) -> ModelPackage:
    """A model that takes an image for the class whose feature is larger."""
    return ModelPackage(head(labels, np.eye(len(labels), 2)), BackboneRef("any"), "features-1")


def arrive(lake: Lake, *names: str, feature_version: str = "features-1") -> None:
    put(lake, "raw_images", *(raw(name, f"unlabeled/{name}.jpg") for name in names))
    embed(lake, *names, feature_version=feature_version)


def raw(name: str, path: str) -> dict[str, Any]:
    return {"path": path, "image_id": image_id(name), "length": 1}


def embed(lake: Lake, *names: str, feature_version: str = "features-1") -> None:
    version = {"feature_version": feature_version}
    put(lake, "image_features", *({"image_id": image_id(n), "features": FEATURES[n], **version} for n in names))


def score(
    engine: Engine,
    lake: Lake,
    version: int = 1,
    model: ModelPackage | None = None,
    top_k: int = 5,
    conflicts: Literal["drop", "first", "ask"] = "drop",
    digest: str | None = None,
    *,
    labeled: bool = False,
    scope: str = "new",
    challengers: Mapping[ModelVersion, ModelPackage] | None = None,
) -> Written:
    settings = ScoringSettings(top_k=top_k, labeled=labeled)
    model_version, again = ModelVersion("m", version, digest), Scope.parse(scope)
    scorer = Scorer(model_version, model or package(3, 40), settings, challengers=challengers or {}, scope=again)
    labels, predictions = LabelSettings(conflicts=conflicts), pin(lake, "predictions")
    return score_new(engine, pins(lake, *INPUTS), predictions, scorer, labels, {"asset": "predictions"})


def scored(lake: Lake) -> dict[tuple[str, int], int]:
    return {(row["path"], row["model_version"]): row["predicted_label"] for row in get(ENGINE, lake, "predictions")}


def test_every_image_without_a_label_is_scored_by_its_features(engine, lake) -> None:
    arrive(lake, "a", "b")

    written = score(engine, lake)

    rows = get(ENGINE, lake, "predictions")
    assert (written.inserted, written.updated, written.changed) == (2, 0, True)
    assert [(row["path"], row["image_id"], row["predicted_label"], row["predicted_name"]) for row in rows] == [
        ("unlabeled/a.jpg", image_id("a"), 3, "class 3"),
        ("unlabeled/b.jpg", image_id("b"), 40, "class 40"),
    ]
    sure = np.exp(2) / (np.exp(2) + 1)
    for row in rows:
        assert (row["model_name"], row["model_version"]) == ("m", 1)
        assert row["confidence"] == pytest.approx(sure)
        assert row["margin"] == pytest.approx(2 * sure - 1)
        assert [best["label"] for best in row["top_k"]] == ([3, 40] if row["predicted_label"] == 3 else [40, 3])
        assert row["top_k"][0]["confidence"] == row["confidence"]
        assert row["scored_at"].tzinfo is not None


def test_the_commit_says_what_made_it(local_engine, lake) -> None:
    arrive(lake, "a")
    score(local_engine, lake)

    assert provenance_of(pin(lake, "predictions")) == {"asset": "predictions"}


def test_an_image_with_a_label_is_scored_where_the_setting_says_so(engine, lake) -> None:
    arrive(lake, "a", "b")
    put(lake, "labeled_images", {"path": "unlabeled/a.jpg", "image_id": image_id("a"), "label": 3})

    score(engine, lake)
    assert scored(lake) == {("unlabeled/b.jpg", 1): 40}

    assert score(engine, lake, labeled=True).inserted == 1
    assert scored(lake) == {("unlabeled/a.jpg", 1): 3, ("unlabeled/b.jpg", 1): 40}
    assert not score(engine, lake, labeled=True).changed


def test_a_label_of_other_bytes_under_the_same_path_does_not_count(local_engine, lake) -> None:
    arrive(lake, "a")
    put(lake, "labeled_images", {"path": "unlabeled/a.jpg", "image_id": image_id("old"), "label": 3})

    score(local_engine, lake)

    assert scored(lake) == {("unlabeled/a.jpg", 1): 3}


def test_nothing_new_makes_no_new_version(local_engine, lake) -> None:
    arrive(lake, "a")
    first = score(local_engine, lake)

    assert score(local_engine, lake) == Written(first.version, changed=False)
    assert pin(lake, "predictions").version == first.version


def test_an_empty_lake_makes_no_new_version(local_engine, lake) -> None:
    assert not score(local_engine, lake).changed


def test_only_what_came_since_is_scored(local_engine, lake) -> None:
    arrive(lake, "a")
    score(local_engine, lake)
    arrive(lake, "b")

    assert score(local_engine, lake).inserted == 1
    assert scored(lake) == {("unlabeled/a.jpg", 1): 3, ("unlabeled/b.jpg", 1): 40}


def test_another_version_scores_again_beside_the_first(local_engine, lake) -> None:
    arrive(lake, "a")
    score(local_engine, lake)

    score(local_engine, lake, version=2, model=package(40, 3))

    assert scored(lake) == {("unlabeled/a.jpg", 1): 3, ("unlabeled/a.jpg", 2): 40}


def test_another_package_of_the_same_name_and_version_scores_for_itself(engine, lake) -> None:
    """As after a loss of MLflow's store, whose next model is version 1 again."""
    arrive(lake, "a")
    score(engine, lake, digest="first")

    written = score(engine, lake, digest="second", model=package(40, 3))
    again = score(engine, lake, digest="second", model=package(40, 3))

    assert (written.inserted, written.updated, again.changed) == (1, 0, False)
    said = {row["package"]: row["predicted_label"] for row in get(ENGINE, lake, "predictions")}
    assert said == {"first": 3, "second": 40}


def test_a_path_whose_bytes_changed_is_scored_again(engine, lake) -> None:
    arrive(lake, "a", "b")
    put(lake, "predictions", OLD)

    written = score(engine, lake)

    assert (written.inserted, written.updated) == (1, 1)
    assert scored(lake) == {("unlabeled/a.jpg", 1): 3, ("unlabeled/b.jpg", 1): 40}


def test_a_scored_path_that_has_other_bytes_now_is_scored_again_though_these_have_a_label(local_engine, lake) -> None:
    arrive(lake, "a")
    put(lake, "predictions", OLD, {**OLD, "model_version": 0})
    put(lake, "labeled_images", {"path": "unlabeled/a.jpg", "image_id": image_id("a"), "label": 3})

    score(local_engine, lake)

    said = {row["model_version"]: row["image_id"] for row in get(ENGINE, lake, "predictions")}
    assert said == {0: image_id("old"), 1: image_id("a")}


def test_images_in_conflict_are_scored_where_people_are_to_decide(engine, lake) -> None:
    arrive(lake, "a", "b")
    put(lake, "raw_images", raw("a", "labeled/a.jpg"))
    said = {"image_id": image_id("a"), "label": 3}
    put(lake, "labeled_images", {**said, "path": "unlabeled/a.jpg"})
    put(lake, "labeled_images", {**said, "path": "labeled/a.jpg", "label": 40})

    assert score(engine, lake).inserted == 1
    assert score(engine, lake, conflicts="first").inserted == 0
    assert score(engine, lake, conflicts="ask").inserted == 2
    assert set(scored(lake)) == {("unlabeled/a.jpg", 1), ("labeled/a.jpg", 1), ("unlabeled/b.jpg", 1)}


def test_features_of_another_version_are_not_read(local_engine, lake) -> None:
    arrive(lake, "a", feature_version="features-0")
    assert score(local_engine, lake).inserted == 0
    embed(lake, "a")

    assert score(local_engine, lake).inserted == 1


def test_equal_bytes_under_two_paths_are_both_scored(engine, lake) -> None:
    arrive(lake, "a")
    put(lake, "raw_images", raw("a", "unlabeled/copy.jpg"))

    score(engine, lake)

    assert scored(lake) == {("unlabeled/a.jpg", 1): 3, ("unlabeled/copy.jpg", 1): 3}


def test_top_k_is_as_long_as_asked(local_engine, lake) -> None:
    arrive(lake, "a")
    score(local_engine, lake, top_k=1)

    (row,) = get(ENGINE, lake, "predictions")
    assert [best["label"] for best in row["top_k"]] == [3]


def test_all_are_scored_again_and_what_differs_is_written(engine, lake) -> None:
    arrive(lake, "a", "b")
    score(engine, lake)
    before = get(ENGINE, lake, "predictions")
    turned = package(40, 3)  # as if the rows had been made by a bug: the same version says the opposite now

    again = score(engine, lake, scope="all")
    changed = score(engine, lake, model=turned, scope="all")

    assert (again.changed, again.version) == (False, before_version(lake) - 1)
    assert (changed.inserted, changed.updated) == (0, 2)
    after = get(ENGINE, lake, "predictions")
    assert [row["predicted_label"] for row in (*before, *after)] == [3, 40, 40, 3]
    assert all(new["scored_at"] > old["scored_at"] for old, new in zip(before, after, strict=True))


def before_version(lake: Lake) -> int:
    return pin(lake, "predictions").version


@pytest.mark.parametrize(
    ("scope", "again"),
    [("new", ""), ("since 2026-11-02", "bc"), ("on 2026-11-02", "b"), ("since 2027-01-01", ""), ("all", "abc")],
)
def test_a_scope_is_by_the_day_that_photos_were_taken_in(local_engine, lake, scope, again) -> None:
    for day, name in enumerate("abc", 1):
        put(lake, "raw_images", {**raw(name, f"unlabeled/{name}.jpg"), "load_date": dt.date(2026, 11, day)})
    embed(lake, *"abc")
    score(local_engine, lake, model=package(3, 40))
    turned = package(30, 4)  # other labels, so that what is scored again is seen to be
    arrive(lake, "d")

    score(local_engine, lake, model=turned, scope=scope)

    of_turned = {path for (path, _), label in scored(lake).items() if label in {30, 4}}
    assert of_turned == {f"unlabeled/{name}.jpg" for name in (*again, "d")}


@pytest.mark.parametrize("text", ["", "old", "since", "since yesterday", "from 2026-11-01", "on 2026-13-01"])
def test_a_scope_that_says_nothing_is_refused(text) -> None:
    with pytest.raises(SettingsError, match="have no scope"):
        Scope.parse(text)


@pytest.mark.parametrize("text", ["new", "all", "since 2026-11-01", "on 2026-11-01"])
def test_a_scope_is_written_as_it_is_read(text) -> None:
    assert str(Scope.parse(text)) == text


def test_a_shorter_list_of_classes_is_a_difference(local_engine, lake) -> None:
    arrive(lake, "a")
    score(local_engine, lake)

    assert score(local_engine, lake, top_k=1, scope="all").updated == 1


def test_challengers_answer_beside_the_champion_by_one_look_at_the_features(engine, lake, monkeypatch) -> None:
    arrive(lake, "a", "b")
    score(engine, lake, version=2)  # the challenger has been here alone before
    arrive(lake, "c")
    challengers = {ModelVersion("m", 2): package(3, 40), ModelVersion("m", 3, "digest"): package(40, 3)}
    passes = []
    look = type(engine).map
    monkeypatch.setattr(type(engine), "map", lambda *given: passes.append(given) or look(*given))

    written = score(engine, lake, challengers=challengers)

    assert (written.inserted, len(passes)) == (3 + 1 + 3, 1)
    assert scored(lake) == {
        **{
            (f"unlabeled/{name}.jpg", version): label
            for version in (1, 2)
            for name, label in zip("abc", (3, 40, 3), strict=True)
        },
        **{(f"unlabeled/{name}.jpg", 3): label for name, label in zip("abc", (40, 3, 40), strict=True)},
    }
    assert not score(engine, lake, challengers=challengers).changed


def test_a_model_on_a_backbone_of_its_own_is_shown_the_photos(engine, lake, photos) -> None:
    contents = [file.read_bytes() for file in sorted(photos.glob("*/*"))[:3]]
    rows = [
        {"path": f"unlabeled/{name}.jpg", "image_id": hashlib.sha256(content).hexdigest(), "content": content}
        for name, content in zip("abc", contents, strict=True)
    ]
    bad = {"path": "unlabeled/bad.jpg", "image_id": hashlib.sha256(b"no photo").hexdigest(), "content": b"no photo"}
    put(lake, "raw_images", *rows, bad, {**bad, "path": "unlabeled/bad copy.jpg"})
    put(lake, "labeled_images", {"path": "unlabeled/c.jpg", "image_id": rows[2]["image_id"], "label": 3})
    small = BackboneRef("torchvision/squeezenet1_1", "none")
    features = load_backbone(small, "torch").embed_bytes(contents)
    # It is as sure of the first photo as of the second: processes that have seen many photos resize otherwise.
    apart = features[0] - features[1]
    weight = np.stack([apart, -apart]) * (4 / np.square(apart).sum())
    middle = (features[0] + features[1]) / 2
    model = ModelPackage(head((3, 40), weight, mean=middle), small, feature_version(small))
    inputs = pins(lake, *INPUTS, "deleted_files", "quarantined_files")

    embedder = Embedder(Photos(engine, lake, inputs["raw_images"]), "torch")
    scorer = Scorer(ModelVersion("m", 1), model, ScoringSettings(top_k=2, labeled=False), embedder)
    written = score_new(engine, inputs, pin(lake, "predictions"), scorer, LabelSettings(), {})

    assert (written.inserted, written.failed, written.left_out) == (2, ("unlabeled/bad copy.jpg",), 0)
    assert [row["stage"] for row in get(ENGINE, lake, "quarantined_files")] == ["predictions"] * 2
    found = [(row["path"], row["predicted_label"], row["confidence"]) for row in get(ENGINE, lake, "predictions")]
    sure = pytest.approx(1 / (1 + np.exp(-4)), abs=0.01)
    assert found == [("unlabeled/a.jpg", 3, sure), ("unlabeled/b.jpg", 40, sure)]
