"""One class is merged into another: what folders, lists and people said, and what models say, is of that other."""

from __future__ import annotations

import datetime as dt
import re

import numpy as np
import pytest

from dlassets.engines.base import Engine
from dlassets.errors import DlassetsError
from dlassets.lakehouse.classes import Class, classes_of, known_classes, merge_classes, name_class
from dlassets.lakehouse.snapshots import pin
from dlassets.monitoring.outcomes import judged_answers, mistakes_of
from dlassets.monitoring.views.comparison import compare
from dlassets.monitoring.views.contradictions import contradictions
from dlassets.monitoring.views.mistakes import Chosen, mistakes
from dlassets.monitoring.views.photos import photo as photo_view
from dlassets.monitoring.views.reading import Reading
from dlassets.monitoring.views.waiting import waiting
from dlassets.settings import LabelSettings, Settings
from dlassets_tests import tables
from dlassets_tests.programs import invoke
from dlassets_tests.tables import NOON, local_alone

from .conftest import A, B, Bench, doubted, image_id, labelled, prediction, put, raw_image
from .people import request
from .test_answers import label_of_a
from .test_requests import take_labels


def merge(bench: Bench, label: int, into: int, by: str = "ada") -> Class:
    return merge_classes(bench.engine, bench.pin("classes"), label, into, by)


@pytest.fixture
def merged(asked: Bench) -> Bench:
    """Shirts are hats, since after somebody called photo a a shirt, and its folder photo f."""
    folder = {"landing": "labeled", "folder": "006.shirt"}
    asked.add("raw_images", [{**raw_image("f", "labeled/006.shirt/f.jpg"), **folder}])
    put(asked, "a.csv", f"request_id,label,annotator\n{A},6,Ada\n")
    asked.collect()
    assert label_of_a(asked) == 6
    merge(asked, 6, 2)
    return asked


@local_alone
def test_labels_of_folders_and_people_follow(merged, engine: Engine) -> None:
    labels = take_labels(merged)

    assert labels["unlabeled/a.jpg"] == (2, "hat", "human")
    assert labels["labeled/006.shirt/f.jpg"] == (2, "hat", "folder")
    (row,) = merged.rows("human_labels")
    assert (row["label"], row["answer"]) == (6, "6")  # what was said stays as it was written
    version = merged.pin("labeled_images").version
    take_labels(merged)
    assert merged.pin("labeled_images").version == version


def test_an_answer_that_comes_after_it_means_the_other_by_whatever_name(merged) -> None:
    names = ("6", "shirt", "006.shirt", "002.shirt", "6.hat", "hat")
    put(merged, "b.csv", "request_id,label,annotator\n" + "".join(f"{B},{name},{name}\n" for name in names), 60)
    put(merged, "c.csv", f"request_id,label,annotator\n{A},hat,Bo\n", 120)
    _, refusals = merged.collect_as_it_is()

    assert refusals == []
    later = {(row["request_id"], row["annotator"]): row for row in merged.rows("human_labels")}
    assert {later[B, name]["label"] for name in names} == {2}
    assert later[A, "Bo"]["reason"] == "changes nothing: the answer in force says the same"


def test_no_number_goes_to_another_class_and_a_folder_of_its_own_name_is_none(merged) -> None:
    assert name_class(merged.engine, merged.pin("classes"), "scarf", "ada").label == 11
    with pytest.raises(DlassetsError, match="Class 6 was merged into 2: rename that"):
        name_class(merged.engine, merged.pin("classes"), "blouse", "ada", 6)
    with pytest.raises(DlassetsError, match="shirt is class 2 already"):
        name_class(merged.engine, merged.pin("classes"), "shirt", "ada")
    name_class(merged.engine, merged.pin("classes"), "shirt", "ada", 2)

    assert take_labels(merged)["labeled/006.shirt/f.jpg"] == (2, "shirt", "folder")
    assert known_classes(merged.engine, merged.pin("classes")) == {2: "shirt", 10: "t-shirt", 11: "scarf"}


def test_what_was_merged_into_it_before_goes_with_it_and_nothing_goes_in_a_circle(merged) -> None:
    for label, into, message in (
        (2, 2, "cannot be merged into itself"),
        (6, 10, "Class 6 was merged into 2 already, by ada"),
        (2, 6, "merged into 2, so that would go in a circle"),
        (10, 6, "was merged into 2: merge into 2"),
        (10, 99, "99 is no class"),
        (99, 10, "99 is no class"),
    ):
        with pytest.raises(DlassetsError, match=message):
            merge(merged, label, into)
    merge(merged, 2, 10, "bo")

    known = classes_of(merged.engine, merged.pin("classes"))
    assert {label: (each.merged_into, each.merged_by) for label, each in known.items()} == {
        2: (10, "bo"),
        6: (10, "ada"),
        10: (None, None),
    }
    assert take_labels(merged)["labeled/006.shirt/f.jpg"] == (10, "t-shirt", "folder")
    assert label_of_a(merged) == 10


def test_what_a_zone_said_that_is_taken_out_of_the_settings_follows_too(asked) -> None:
    folder = {"landing": "labeled", "folder": "006.shirt"}
    asked.add("raw_images", [{**raw_image("f", "labeled/006.shirt/f.jpg"), **folder}])
    assert take_labels(asked)["labeled/006.shirt/f.jpg"] == (6, "shirt", "folder")
    merge(asked, 6, 2)
    tables.take_labels(asked.engine, asked.lake, Settings().model_copy(update={"landing": {}}))

    (row,) = (row for row in asked.rows("labeled_images") if row["path"] == "labeled/006.shirt/f.jpg")
    assert (row["label"], row["label_name"], row["source"]) == (2, "hat", "folder")


def test_what_a_model_said_of_the_old_class_is_right_where_the_photo_is_of_the_other(merged) -> None:
    shirt = {"predicted_label": 6, "predicted_name": "shirt"}
    merged.add("predictions", [{**prediction("a", 0.9, 4), **shirt}])
    at = {"received_at": NOON - dt.timedelta(days=9), "role": "champion", "model_name": "image_classifier"}
    merged.add("served_requests", [{**at, **shirt, "request_id": "q", "image_id": image_id("a"), "model_version": 4}])
    of_run = {"run_id": "r", "split": "test", "confidence": 0.9}
    hat, wrong = {"label": 2, "label_name": "hat"}, {"predicted_label": 10, "predicted_name": "t-shirt"}
    rows = [
        {**of_run, **hat, **shirt, "path": "1"},
        {**of_run, **wrong, "path": "2", "label": 6, "label_name": "shirt"},
    ]
    merged.add("evaluated_rows", rows)
    take_labels(merged)
    classes, reading = merged.pin("classes"), Reading(Settings(root=merged.lake.root))

    judged = judged_answers(
        merged.engine, merged.pin("served_requests"), merged.pin("labeled_images"), classes, LabelSettings()
    )
    assert [(row["judged"], row["correct"]) for row in judged] == [(1, 1)]
    found = mistakes_of(merged.engine, merged.pin("evaluated_rows"), classes, "r")
    assert (found.wrong, [row["label_name"] for row in found.surest]) == ({"test": 1}, ["hat"])
    shown = mistakes(reading, "r", Chosen())
    assert shown.photos == {(2, 2): 1, (2, 10): 1}
    both = compare(reading, 3, 4)
    assert (both.photos, both.agree, both.people.right_a, both.people.right_b) == (1, 1, 1, 1)
    known = photo_view(reading, "unlabeled/a.jpg")
    assert known is not None
    assert {word.predicted_name for word in known.words} == {"hat"}
    assert get_predicted(merged) == {"shirt", "hat"}  # as they were said


def get_predicted(bench: Bench) -> set[str]:
    return {row["predicted_name"] for row in bench.rows("predictions")}


def test_people_are_shown_the_class_in_force(merged) -> None:
    shirt = {"predicted_label": 6, "predicted_name": "shirt"}
    merged.add_photos("c")
    merged.add("predictions", [{**prediction("c", 0.1), **shirt}])
    assert merged.send().inserted == 1
    merged.close()
    merged.show()
    (batch,) = merged.requests.glob("v3-*")
    row = next(line for line in (batch / "requests.csv").read_text().splitlines() if "unlabeled/c.jpg" in line)

    assert row.split(",")[2:4] == ["2", "hat"]
    assert "answered <b>002.hat</b> by Ada" in (batch / "index.html").read_text()
    shown = [each for found in waiting(Reading(Settings(root=merged.lake.root))).batches for each in found.shown]
    assert {each.predicted_name for each in shown} == {"hat"}
    assert (batch / "README.txt").read_text().split("The classes:")[1].split() == ["002.hat", "010.t-shirt"]


def test_where_a_person_contradicts_a_folder_both_are_seen_and_merging_settles_it(merged) -> None:
    folder = {"landing": "labeled", "folder": "010.t-shirt"}
    merged.add("raw_images", [{**raw_image("a", "labeled/010.t-shirt/<b>.jpg"), **folder}])
    take_labels(merged)
    reading = Reading(Settings(root=merged.lake.root))
    found = contradictions(reading)

    assert found.total == 1
    (row,) = found.shown
    assert (row.path, row.name, row.folder_name) == ("labeled/010.t-shirt/<b>.jpg", "hat", "t-shirt")
    assert (row.annotator, row.labeled_at.tzinfo is not None) == ("Ada", True)

    merge(merged, 10, 2)
    take_labels(merged)
    assert contradictions(Reading(Settings(root=merged.lake.root))).total == 0


def test_the_command_merges_by_number_or_name_and_shows_it(asked: Bench) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        done = invoke("classes", *arguments, DLASSETS_ROOT=asked.lake.root)
        return done.exit_code, done.output

    assert run("merge", "shirt", "2")[1].startswith("Class 6 (shirt) is class 2 (hat) from now on.")
    assert run("merge", "6", "10")[0] == run("merge", "2", "6")[0] == 1
    assert run("merge", "blouse", "2")[0] == 2
    code, shown = run("list")
    assert (code, shown) == run()
    (line,) = (line for line in shown.splitlines() if line.split()[0] == "6")
    assert "into 2 by " in line


def test_a_model_that_knows_both_classes_is_judged_by_the_one() -> None:
    from dlassets.learning.evaluation.evaluate import evaluate_probabilities
    from dlassets.learning.examples import Examples

    rows = Examples(["1", "2"], ["a", "b"], np.array([2, 10]), ["hat", "t-shirt"], np.empty((2, 0), np.float32))
    found = evaluate_probabilities(np.array([[0.3, 0.4, 0.3], [0.3, 0.3, 0.4]]), [2, 2, 10], ["hat"] * 2 + ["t"], rows)

    assert (found.accuracy, found.labels, found.untested) == (1, (2, 10), ())
    assert found.log_loss == pytest.approx(-(np.log(0.7) + np.log(0.4)) / 2)


def test_two_who_merge_at_once_are_one_after_the_other(asked: Bench) -> None:
    from dlassets.engines.local import LocalEngine
    from dlassets.errors import ConflictError
    from dlassets_tests.killing import overtaken_at

    def another() -> None:
        merge(asked, 2, 10)

    with overtaken_at(LocalEngine, "merge", another), pytest.raises(ConflictError):
        merge(asked, 6, 2)
    with pytest.raises(DlassetsError, match="merge into 10"):
        merge_classes(asked.engine, pin(asked.lake, "classes"), 6, 2, "bo")


def test_the_folder_offers_the_classes_of_now_and_shows_what_the_model_thinks_by_them(asked: Bench) -> None:
    merge(asked, 2, 10)
    asked.service.show_classes(known_classes(asked.engine, asked.pin("classes")))
    asked.show()

    (batch,) = asked.requests.glob("v3-*")
    how_to = (batch / "README.txt").read_text().partition("The classes:")[2].split()
    assert how_to == ["006.shirt", "010.t-shirt"]
    assert not (asked.answers / "002.hat").exists()
    shown = (batch / "requests.csv").read_text(), (batch / "index.html").read_text()
    assert all("t-shirt" in each and not re.search(r"\bhat\b", each) for each in shown)


def test_what_was_asked_of_a_class_that_was_merged_stays_asked(bench: Bench) -> None:
    """A honeypot whose answer was known, and a label that looked wrong, are so by the class of now."""
    told = [labelled(name, 10, f"labeled/010.t-shirt/{name}.jpg") for name in "hd"]
    bench.add("labeled_images", told)
    bench.add("raw_images", [raw_image(name, row["path"]) for name, row in zip("hd", told, strict=True)])
    bench.add("label_errors", [{**doubted("d", 6, 0.1), "suggested_label": 2}])
    bench.add(
        "label_requests", [request("h", strategy="honeypot", known_label=6), request("d", strategy="label_error")]
    )
    merge(bench, 6, 10)

    bench.close(version=3)

    assert {row["request_id"]: row["reason"] for row in bench.rows("label_requests")} == {"h": None, "d": None}
    assert {row["known_label"] for row in bench.rows("label_requests")} == {6, None}  # as it was written
