from typing import Any

import pytest

from dlassets.labeling.selection import select_requests

from .conftest import CLASSES, NOON, Bench, image_id, prediction, raw_image


def select(bench: Bench, **changes: Any) -> list[str]:
    """The chosen paths, without zone and suffix."""
    asked: dict[str, Any] = {
        "model_name": "image_classifier",
        "model_version": 3,
        "threshold": 0.9,
        "share": 1.0,
        "limit": None,
    }
    names = ("raw_images", "predictions", "labeled_images", "label_requests")
    chosen = select_requests(bench.engine, *(bench.pin(name) for name in names), **{**asked, **changes})
    assert chosen.column_names == ["path", "image_id", "predicted_label", "predicted_name", "confidence"]
    return [path.removeprefix("unlabeled/").removesuffix(".jpg") for path in chosen["path"].to_pylist()]


def test_the_least_sure_come_first_and_the_sure_are_left_out(bench: Bench) -> None:
    bench.add_photos("a", "b", "c", "d")
    bench.score({"a": 0.8, "b": 0.3, "c": 0.95, "d": 0.9})
    assert select(bench) == ["b", "a"]
    assert select(bench, limit=1) == ["b"]
    assert select(bench, threshold=0.1) == []


def test_only_the_asked_model_version_counts(bench: Bench) -> None:
    bench.add_photos("a", "b", "c")
    bench.score({"a": 0.5}, version=2)
    bench.score({"b": 0.5}, version=3)
    bench.score({"c": 0.5}, version=3, model="it's another")
    assert select(bench) == ["b"]
    assert select(bench, model_name="it's another") == ["c"]


def test_images_with_a_label_or_a_request_are_not_asked_about(bench: Bench) -> None:
    bench.add_photos("a", "b", "c")
    bench.score({"a": 0.5, "b": 0.5, "c": 0.5})
    bench.add(
        "labeled_images",
        [
            {
                "path": "labeled/002.hat/same bytes.jpg",
                "image_id": image_id("a"),
                "label": 2,
                "label_name": CLASSES[2],
                "source": "folder",
                "labeled_at": NOON,
                "split": "train",
            }
        ],
    )
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
