from typing import Any

import pytest

from dlassets.engines.base import Engine
from dlassets.labeling.selection.choice import CHOSEN, select_requests
from dlassets.registry.models import ModelVersion
from dlassets.settings import LabelingSettings, LabelSettings, Settings
from dlassets_tests.tables import NOON

from .conftest import MODEL, READ, Bench, Conflicts, doubted, failed, image_id, labelled, prediction, raw_image

CONFLICTING, UNSURE = ("labeled/002.hat/c.jpg", "label_conflict"), ("unlabeled/a.jpg", "threshold")
WORST, NEXT = (("labeled/006.shirt/w1.jpg", "label_error"), ("labeled/006.shirt/w2.jpg", "label_error"))


def select(bench: Bench, **changes: Any) -> list[str]:
    """The chosen paths, without zone and suffix."""
    return [path.removeprefix("unlabeled/").removesuffix(".jpg") for path, _ in chosen(bench, **changes)]


def chosen(bench: Bench, *how: Any, **changes: Any) -> list[tuple[str, str]]:
    """Path and strategy of what is chosen."""
    return [(row["path"], row["strategy"]) for row in selected(bench, *how, **changes)]


def selected(
    bench: Bench,
    conflicts: Conflicts = "drop",
    engine: Engine | None = None,
    model: tuple[str, int] = (MODEL, 3),
    **changes: Any,
) -> list[dict[str, Any]]:
    snapshots = {name: bench.pin(name) for name in (*READ, "label_requests") if name != "human_labels"}
    chosen, _ = select_requests(engine or bench.engine, snapshots, ModelVersion(*model), settings(conflicts, changes))
    assert tuple(chosen.column_names) == CHOSEN
    return chosen.to_pylist()


def settings(conflicts: Conflicts, changes: dict[str, Any]) -> Settings:
    labeling = {"threshold": 0.9, "strategy": "threshold", **changes}
    return Settings(labeling=LabelingSettings(**labeling), labels=LabelSettings(conflicts=conflicts))


def test_the_least_sure_come_first_and_the_sure_are_left_out(bench: Bench) -> None:
    bench.add_photos("a", "b", "c", "d")
    bench.score({"a": 0.8, "b": 0.3, "c": 0.95, "d": 0.9})
    assert select(bench) == ["b", "a"]
    assert select(bench, batch_limit=1) == ["b"]
    assert select(bench, threshold=0.1) == []


def test_only_the_asked_model_version_counts(bench: Bench) -> None:
    bench.add_photos("a", "b", "c")
    bench.score({"a": 0.5}, version=2)
    bench.score({"b": 0.5}, version=3)
    bench.score({"c": 0.5}, version=3, model="it's another")
    assert select(bench) == ["b"]
    assert select(bench, model=("it's another", 3)) == ["c"]


def test_images_with_a_label_or_a_request_are_not_asked_about(bench: Bench) -> None:
    bench.add_photos("a", "b", "c")
    bench.score({"a": 0.5, "b": 0.5, "c": 0.5})
    bench.add("labeled_images", [labelled("a", 2, "labeled/002.hat/same bytes.jpg")])
    bench.add("label_requests", [{"image_id": image_id("b"), "status": "answered"}])
    assert select(bench) == ["c"]


def test_equal_bytes_under_two_paths_are_asked_about_once(bench: Bench) -> None:
    bench.add("raw_images", [raw_image("a", "unlabeled/z.jpg"), raw_image("a", "unlabeled/y.jpg")])
    bench.add("predictions", [{**prediction("a", 0.5), "path": f"unlabeled/{name}.jpg"} for name in ("z", "y")])
    assert select(bench) == ["y"]


def test_a_photo_replaced_since_it_was_scored_is_left_out(bench: Bench) -> None:
    bench.add("raw_images", [raw_image("new", "unlabeled/a.jpg")])
    bench.score({"a": 0.5})
    assert select(bench) == []


@pytest.fixture
def conflict(bench: Bench) -> Bench:
    """`c` lies in two class folders, and the model is sure of it; `a` has no label, and the model is not."""
    copies = ("labeled/002.hat/c.jpg", "labeled/006.shirt/c.jpg")
    bench.add("raw_images", [raw_image("a"), *(raw_image("c", path) for path in copies)])
    bench.add("labeled_images", [labelled("c", label, path) for label, path in zip((2, 6), copies, strict=True)])
    bench.score({"a": 0.1})
    bench.add("predictions", [{**prediction("c", 0.99), "path": path} for path in copies])
    return bench


def test_a_conflict_of_labels_goes_first_however_sure_the_model_is(conflict: Bench) -> None:
    assert chosen(conflict, "ask") == [CONFLICTING, UNSURE]
    assert chosen(conflict, "ask", batch_limit=1) == [CONFLICTING]
    assert chosen(conflict, "ask", threshold=0.0) == [CONFLICTING]
    assert chosen(conflict, "ask", share=1e-9) == [CONFLICTING]
    assert chosen(conflict) == chosen(conflict, "first") == [UNSURE]


def test_a_conflict_that_was_asked_about_is_not_asked_about_again(conflict: Bench) -> None:
    conflict.add("label_requests", [{"image_id": image_id("c"), "status": "open"}])
    assert chosen(conflict, "ask") == [UNSURE]


def test_bytes_that_are_kept_in_the_landing_zone_and_gone_from_it_are_left_out(bench: Bench) -> None:
    bench.add("raw_images", [{**raw_image("a"), "location": "landing/unlabeled/a.jpg"}, raw_image("b")])
    bench.score({"a": 0.5, "b": 0.5})
    gone = [{"path": f"unlabeled/{name}.jpg", "landing": "unlabeled", "deleted_at": NOON} for name in "ab"]
    assert select(bench) == ["a", "b"]
    bench.add("deleted_files", gone)
    assert select(bench) == ["b"]


def test_nobody_is_asked_about_a_photo_that_a_step_has_failed_for(bench: Bench) -> None:
    bench.add_photos("a", "b")
    bench.score({"a": 0.5, "b": 0.5})
    bench.add("quarantined_files", [failed("a")])

    assert select(bench) == ["b"]
    written = bench.send()
    assert (written.inserted, written.quarantined, written.left_out) == (1, 1, 0)


@pytest.mark.parametrize("share", [0.25, 0.6])
def test_a_share_is_the_same_images_each_time_and_a_larger_one_holds_it(bench: Bench, share: float) -> None:
    names = [f"p{number}" for number in range(400)]
    bench.add_photos(*names)
    bench.score(dict.fromkeys(names, 0.5))
    chosen = select(bench, share=share)
    assert chosen == select(bench, share=share)
    assert set(chosen) < set(select(bench, share=share + 0.2))
    assert len(chosen) / 400 == pytest.approx(share, abs=0.08)
    # The digits that decide the split are others: the chosen are not all from its low end.
    assert any(image_id(name)[0] > "c" for name in chosen)


@pytest.fixture
def doubtful(conflict: Bench) -> Bench:
    """Beside the conflict and the unsure one: four labels that look wrong, `w1` the most, and `right`, which does not.

    Of `w2` there is a copy, `w3` has been relabelled since, and `w4` lies in two class folders.
    """
    places = {
        "labeled/006.shirt/w1.jpg": ("w1", 6),
        "labeled/006.shirt/w2.jpg": ("w2", 6),
        "unlabeled/w2 copy.jpg": ("w2", 6),
        "labeled/006.shirt/w3.jpg": ("w3", 2),
        "labeled/006.shirt/w4.jpg": ("w4", 6),
        "labeled/010.t-shirt/w4.jpg": ("w4", 10),
        "labeled/006.shirt/right.jpg": ("right", 6),
    }
    conflict.add("raw_images", [raw_image(name, path) for path, (name, _) in places.items()])
    conflict.add("labeled_images", [labelled(name, label, path) for path, (name, label) in places.items()])
    qualities = {"w2": 0.02, "w1": 0.01, "w3": 0.001, "w4": 0.002}
    conflict.add("label_errors", [doubted(name, 6, quality) for name, quality in qualities.items()])
    return conflict


def test_labels_that_look_wrong_come_after_conflicts_the_worst_first(doubtful: Bench, engine: Engine) -> None:
    fourth = ("labeled/006.shirt/w4.jpg", "label_conflict")
    doubtful.add("predictions", [{**prediction("w4", 0.995), "path": "labeled/006.shirt/w4.jpg"}])
    assert chosen(doubtful, "ask", engine, relabel_limit=9) == [CONFLICTING, fourth, WORST, NEXT, UNSURE]


def test_no_more_wrong_labels_than_wanted_are_asked_about_and_no_more_in_all(doubtful: Bench) -> None:
    assert chosen(doubtful, relabel_limit=1) == [WORST, UNSURE]
    assert chosen(doubtful, relabel_limit=9, batch_limit=2) == [WORST, NEXT]


def test_labels_that_look_wrong_are_not_asked_about_unless_that_is_wanted(doubtful: Bench) -> None:
    assert chosen(doubtful) == chosen(doubtful, relabel_limit=0) == [UNSURE]


def test_where_the_oldest_label_counts_it_can_look_wrong_too(doubtful: Bench) -> None:
    asked = [path for path, _ in chosen(doubtful, "first", relabel_limit=9)]
    assert asked == ["labeled/006.shirt/w4.jpg", WORST[0], NEXT[0], UNSURE[0]]


def test_a_wrong_label_is_asked_about_with_the_label_that_it_looks_like(doubtful: Bench) -> None:
    worst, *_ = selected(doubtful, relabel_limit=1)
    assert (worst["path"], worst["strategy"]) == WORST
    assert (worst["image_id"], worst["confidence"]) == (image_id("w1"), 0.75)
    assert (worst["predicted_label"], worst["predicted_name"]) == (10, "t-shirt")


def test_a_wrong_label_that_was_asked_about_is_not_asked_about_again(doubtful: Bench) -> None:
    doubtful.add("label_requests", [{"image_id": image_id("w1"), "status": "answered"}])
    assert chosen(doubtful, relabel_limit=1) == [NEXT, UNSURE]


def test_a_wrong_label_is_asked_about_under_a_path_whose_bytes_are_to_be_had(doubtful: Bench) -> None:
    doubtful.replace_photo(raw_image("other bytes", "labeled/006.shirt/w1.jpg"))
    doubtful.replace_photo(raw_image("other bytes", "labeled/006.shirt/w2.jpg"))
    assert chosen(doubtful, relabel_limit=9) == [("unlabeled/w2 copy.jpg", "label_error"), UNSURE]
