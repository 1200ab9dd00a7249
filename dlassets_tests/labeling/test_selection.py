from typing import Any

import pytest

from dlassets.engines.base import Engine
from dlassets.labeling.selection import select_requests
from dlassets.settings import LabelingSettings, LabelSettings

from .conftest import NOON, Bench, Conflicts, image_id, labelled, prediction, raw_image


def select(bench: Bench, **changes: Any) -> list[str]:
    """The chosen paths, without zone and suffix."""
    return [path.removeprefix("unlabeled/").removesuffix(".jpg") for path, _ in chosen(bench, **changes)]


def chosen(
    bench: Bench,
    engine: Engine | None = None,
    conflicts: Conflicts = "drop",
    model: tuple[str, int] = ("image_classifier", 3),
    **changes: Any,
) -> list[tuple[str, str]]:
    """Path and strategy of what is chosen."""
    names = ("raw_images", "deleted_files", "predictions", "labeled_images", "label_requests")
    rows = select_requests(
        engine or bench.engine,
        {name: bench.pin(name) for name in names},
        model_name=model[0],
        model_version=model[1],
        settings=LabelingSettings(**{"threshold": 0.9, **changes}),
        labels=LabelSettings(conflicts=conflicts),
    )
    assert rows.column_names == ["path", "image_id", "predicted_label", "predicted_name", "confidence", "strategy"]
    return list(zip(rows["path"].to_pylist(), rows["strategy"].to_pylist(), strict=True))


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
    bench.add(
        "label_requests",
        [
            {
                "request_id": "0" * 16,
                "batch_id": "v1-00000000",
                "path": "unlabeled/b.jpg",
                "image_id": image_id("b"),
                "predicted_label": 2,
                "confidence": 0.5,
                "strategy": "least_confidence",
                "requested_at": NOON,
                "status": "answered",
                "service": "folder",
            }
        ],
    )
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


def test_a_conflict_of_labels_goes_first_however_sure_the_model_is(conflict: Bench, engine: Engine) -> None:
    both = [("labeled/002.hat/c.jpg", "label_conflict"), ("unlabeled/a.jpg", "least_confidence")]
    assert chosen(conflict, engine, "ask") == both
    assert chosen(conflict, engine, "ask", batch_limit=1) == both[:1]
    assert chosen(conflict, engine, "ask", threshold=0.0) == both[:1]
    assert chosen(conflict, engine, "ask", share=1e-9) == both[:1]
    assert chosen(conflict, engine, "drop") == chosen(conflict, engine, "first") == both[1:]


def test_a_conflict_that_was_asked_about_is_not_asked_about_again(conflict: Bench) -> None:
    request = {"request_id": "0" * 16, "batch_id": "v1-00000000", "strategy": "least_confidence", "status": "open"}
    conflict.add("label_requests", [{**prediction("c", 0.9), **request, "requested_at": NOON, "service": "folder"}])
    assert chosen(conflict, conflicts="ask") == [("unlabeled/a.jpg", "least_confidence")]


def test_bytes_that_are_kept_in_the_landing_zone_and_gone_from_it_are_left_out(bench: Bench) -> None:
    bench.add("raw_images", [{**raw_image("a"), "location": "landing/unlabeled/a.jpg"}, raw_image("b")])
    bench.score({"a": 0.5, "b": 0.5})
    gone = [{"path": f"unlabeled/{name}.jpg", "landing": "unlabeled", "deleted_at": NOON} for name in "ab"]
    assert select(bench) == ["a", "b"]
    bench.add("deleted_files", gone)
    assert select(bench) == ["b"]


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
