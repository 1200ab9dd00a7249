import datetime as dt
from typing import Any, get_args

import pytest

from dlassets.engines.base import Engine
from dlassets.labeling.selection.choice import CHOSEN, select_requests
from dlassets.labeling.selection.sources import EXPIRED
from dlassets.registry.models import ModelVersion
from dlassets.settings import LabelingSettings, LabelSettings, Settings, StrategyName
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


NOW = dt.datetime.now(dt.UTC)


def at(days_ago: float) -> dt.datetime:
    return NOW - dt.timedelta(days=days_ago)


def asked_before(bench: Bench, name: str, status: str, days_ago: float = 0, **more: Any) -> None:
    row = {"image_id": image_id(name), "status": status, "requested_at": at(days_ago), "request_id": name}
    bench.add("label_requests", [row | more])


def looks(bench: Bench, hashes: dict[str, int]) -> None:
    bench.add("image_profiles", [{"image_id": image_id(name), "perceptual_hash": h} for name, h in hashes.items()])


@pytest.mark.parametrize("strategy", get_args(StrategyName))
def test_every_strategy_is_about_photos_that_the_model_is_not_sure_of(bench: Bench, strategy: str) -> None:
    names = [f"p{number}" for number in range(30)]
    bench.add_photos(*names)
    bench.score({name: number / 30 for number, name in enumerate(names)})
    unsure = {f"unlabeled/{name}.jpg" for name in names[:18]}
    assert {*chosen(bench, threshold=0.6, strategy=strategy)} == {(path, strategy) for path in unsure}
    assert len({*chosen(bench, threshold=0.6, strategy=strategy, batch_limit=7)}) == 7


def test_the_setting_says_which_of_the_unsure_are_asked_about_first(bench: Bench, engine: Engine) -> None:
    said = {"a": (0.5, 0.45, 0.05), "b": (0.45, 0.2, 0.19), "c": (0.8, 0.2, 0.0)}
    bench.add_photos(*said)
    for name, (first, second, third) in said.items():
        top = [{"label": n, "name": str(n), "confidence": p} for n, p in enumerate((first, second, third))]
        bench.add("predictions", [prediction(name, first) | {"margin": first - second, "top_k": top}])
    orders = {name: select(bench, engine=engine, strategy=name) for name in ("threshold", "margin", "entropy")}
    assert orders == {"threshold": ["b", "a", "c"], "margin": ["a", "b", "c"], "entropy": ["b", "a", "c"]}


def test_hybrid_and_diversity_see_the_cached_embeddings(bench: Bench, engine: Engine) -> None:
    """Of the unsure `a` and `b` look alike to the model; what has a label looks like neither them nor `c`."""
    vectors = {"a": (1.0, 0.0), "b": (1.0, 0.01), "c": (0.0, 1.0), "known": (0.9, 0.1)}
    rows = [
        {"image_id": image_id(name), "feature_version": version, "features": [*vector]}
        for name, vector in vectors.items()
        for version in ("v1", "v2")
        if (name, version) != ("c", "v2")
    ]
    bench.add("image_features", rows)
    bench.add("labeled_images", [labelled("known", 2, "labeled/002.hat/there.jpg")])
    bench.add_photos("a", "b", "c")
    bench.score({"a": 0.3, "b": 0.31, "c": 0.32})
    assert select(bench, engine=engine, strategy="margin", batch_limit=2) == ["a", "b"]
    assert "c" in select(bench, engine=engine, strategy="hybrid", batch_limit=2)
    assert select(bench, engine=engine, strategy="diversity", batch_limit=1) == ["c"]


def test_a_share_of_all_photos_without_a_label_is_audited_however_sure_the_model_is(bench, engine) -> None:
    names = [f"p{number}" for number in range(400)]
    bench.add_photos(*names)
    bench.score({name: 0.99 if number % 4 else 0.2 for number, name in enumerate(names)})
    bench.add("labeled_images", [labelled(name, 2, f"labeled/002.hat/{name}.jpg") for name in names[:40]])
    found = selected(bench, engine=engine, audit_share=0.25)
    audited = {row["path"] for row in found if row["strategy"] == "audit"}
    assert len(audited) / 360 == pytest.approx(0.25, abs=0.07)
    sure = [path for path in audited if int(path[11:-4]) % 4]
    assert len(sure) / len(audited) == pytest.approx(0.75, abs=0.12)
    assert {row["path"] for row in found} - audited == {
        f"unlabeled/{name}.jpg" for number, name in enumerate(names) if number >= 40 and not number % 4
    } - audited, "and the others that the model is unsure of as without it"

    first = selected(bench, engine=engine, audit_share=0.25, batch_limit=20)
    assert {row["strategy"] for row in first} == {"audit"}, "before all others"
    assert {row["path"] for row in first} < audited
    assert audited < {row["path"] for row in selected(bench, audit_share=0.5) if row["strategy"] == "audit"}


def test_a_run_and_a_day_have_their_budget(bench: Bench, engine: Engine) -> None:
    bench.add_photos(*"abcdef")
    bench.score(dict.fromkeys("abcdef", 0.5))
    midnight = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    for name, status, when in [
        ("a", "answered", midnight),
        ("b", "withdrawn", midnight + dt.timedelta(milliseconds=1)),
        ("c", "open", midnight - dt.timedelta(milliseconds=1)),
    ]:
        asked_before(bench, name, status, requested_at=when)
    assert len(select(bench, engine=engine)) == 4
    assert len(select(bench, engine=engine, run_limit=3)) == 3
    assert len(select(bench, engine=engine, day_limit=3)) == 1
    assert select(bench, engine=engine, day_limit=2) == []
    assert len(select(bench, engine=engine, batch_limit=4, run_limit=9, day_limit=9)) == 3


def test_what_nobody_answered_is_asked_about_again_after_a_rest(bench: Bench, engine: Engine) -> None:
    bench.add_photos("a", "b", "c")
    bench.score(dict.fromkeys("abc", 0.5))
    asked_before(bench, "a", "withdrawn", days_ago=5, reason=EXPIRED)
    asked_before(bench, "b", "withdrawn", days_ago=7, reason=EXPIRED)
    asked_before(bench, "c", "withdrawn", days_ago=1, reason="the model is sure by now")
    assert set(select(bench, engine=engine, expire_days=3)) == {"b", "c"}
    assert set(select(bench, engine=engine)) == {"a", "b", "c"}


def test_photos_of_a_zone_that_matters_more_go_first(bench: Bench, engine: Engine) -> None:
    paths = {"labeled/x.jpg": ("a", 0.5), "unlabeled/y.jpg": ("b", 0.3), "unlabeled/z.jpg": ("c", 0.4)}
    for path, (name, confidence) in paths.items():
        bench.add("raw_images", [raw_image(name, path)])
        bench.add("predictions", [prediction(name, confidence) | {"path": path}])
    found = selected(bench, engine=engine, priorities={"labeled": 5, "unlabeled": -1})
    assert [(row["path"], row["priority"]) for row in found] == [
        ("labeled/x.jpg", 5),
        ("unlabeled/y.jpg", -1),
        ("unlabeled/z.jpg", -1),
    ]
    assert select(bench, priorities={"labeled": 5}, batch_limit=1) == ["labeled/x"]
    assert {row["priority"] for row in selected(bench)} == {None}


def test_of_photos_that_look_alike_one_is_asked_about_the_least_sure(bench: Bench, engine: Engine) -> None:
    bench.add_photos(*"abcd")
    bench.score({"a": 0.5, "b": 0.3, "c": 0.4, "d": 0.6})
    looks(bench, {"a": 0x0F0F_1234_5678_9ABC, "b": 0x0F0F_1234_5678_9ABD, "c": 0x7654_3210_0123_4567, "d": 0})
    assert select(bench, engine=engine) == ["b", "c", "d"]


@pytest.mark.parametrize(("status", "asked"), [("open", []), ("answered", []), ("withdrawn", ["a"])])
def test_a_photo_like_one_that_was_asked_about_waits_for_its_answer_and_is_not_asked_about_then(
    bench, status, asked
) -> None:
    bench.add_photos("a", "b")
    bench.score({"a": 0.5, "b": 0.99})
    looks(bench, {"a": 0x0F0F_1234_5678_9ABC, "b": 0x0F0F_1234_5678_9ABD})
    asked_before(bench, "b", status)
    assert select(bench) == asked


@pytest.mark.parametrize(("status", "asked"), [("open", []), ("answered", ["a"])])
def test_an_audited_photo_waits_while_one_like_it_is_open_and_is_asked_about_then(bench, status, asked) -> None:
    bench.add_photos("a", "b")
    bench.score({"a": 0.5, "b": 0.99})
    looks(bench, {"a": 0x0F0F_1234_5678_9ABC, "b": 0x0F0F_1234_5678_9ABD})
    asked_before(bench, "b", status)
    assert select(bench, audit_share=1.0) == asked
