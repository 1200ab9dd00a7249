import datetime as dt
import os
from typing import Any

import pytest

from dlassets.engines.base import Commit
from dlassets.errors import ConflictError
from dlassets.labeling.answers import class_of, collect_answers
from dlassets.lakehouse.classes import Class
from dlassets_tests.tables import NOON

from .conftest import CLASSES, A, B, Bench, image_id, move, put
from .test_requests import take_labels


def labels(bench: Bench) -> list[tuple[str, int | None, str, str | None]]:
    rows = bench.rows("human_labels")
    rows.sort(key=lambda row: (row["answered_at"], row["request_id"], str(row["label"])))
    return [(row["request_id"], row["label"], row["status"], row["annotator"]) for row in rows]


def assert_nothing_new(bench: Bench) -> None:
    before = bench.pin("human_labels").version
    written = bench.collect()
    assert (written.changed, written.inserted, written.version) == (False, 0, before)
    assert bench.pin("human_labels").version == before


def test_a_moved_photo_is_an_accepted_answer_about_its_image(asked: Bench) -> None:
    move(asked, A, "006.shirt")
    assert asked.collect().inserted == 1
    (row,) = asked.rows("human_labels")
    assert (row["request_id"], row["path"], row["image_id"]) == (A, "unlabeled/a.jpg", image_id("a"))
    assert (row["label"], row["status"], row["reason"]) == (6, "accepted", None)
    assert (row["answer"], row["origin"]) == ("006.shirt", f"006.shirt/{A}.jpg")
    assert_nothing_new(asked)
    assert asked.close().updated == 1


def test_moving_a_photo_on_is_a_newer_answer_and_moving_it_back_another(asked: Bench) -> None:
    for folder in ("006.shirt", "002.hat", "006.shirt"):
        move(asked, A, folder)
        assert asked.collect().inserted == 1
        assert_nothing_new(asked)
    assert [label for _, label, _, _ in labels(asked)] == [6, 2, 6]


def test_no_answers_make_no_version(asked: Bench) -> None:
    assert_nothing_new(asked)


def test_unknown_classes_and_requests_are_refused_with_a_reason_and_the_rest_is_accepted(asked: Bench) -> None:
    put(asked, "a.csv", f"request_id,label\n{A},99\n{B},hat\nfeedfeedfeedfeed,2\n")
    put(asked, "b.csv", "nonsense")
    asked.collect()
    rows = {row["request_id"]: row for row in asked.rows("human_labels")}
    assert rows[A]["reason"] == "unknown class 99: the classes are 2 hat, 6 shirt, 10 t-shirt"
    assert (rows[A]["label"], rows[A]["status"], rows[A]["path"]) == (None, "refused", "unlabeled/a.jpg")
    assert (rows[B]["label"], rows[B]["status"], rows[B]["reason"]) == (2, "accepted", None)
    unknown = rows["feedfeedfeedfeed"]
    assert (unknown["reason"], unknown["status"]) == ("no such request", "refused")
    assert (unknown["path"], unknown["image_id"]) == (None, None)
    broken = rows["b.csv, line 1"]
    assert broken["reason"] == "b.csv, line 1: the header lacks request_id and label"
    assert (broken["status"], broken["label"], broken["answer"], broken["path"]) == ("refused", None, None, None)
    assert_nothing_new(asked)
    assert asked.close().updated == 1


def test_two_people_who_differ_are_both_written_down(asked: Bench) -> None:
    put(asked, "a.csv", f"request_id,label,annotator\n{A},2,Ada\n{A},6,Bo\n")
    asked.collect()
    assert labels(asked) == [(A, 2, "accepted", "Ada"), (A, 6, "accepted", "Bo")]
    assert_nothing_new(asked)


def test_the_same_answer_in_two_files_is_one(asked: Bench) -> None:
    put(asked, "a.csv", f"request_id,label,answered_at\n{A},2,2026-02-01T00:00:00Z\n")
    put(asked, "b.json", f'{{"request_id": "{A}", "label": 2, "answered_at": "2026-02-01"}}')
    assert asked.collect().inserted == 1
    assert_nothing_new(asked)


def test_a_list_saved_again_with_more_answers_adds_only_those(asked: Bench) -> None:
    put(asked, "a.csv", f"request_id,label\n{A},2\n{B},\n")
    asked.collect()
    put(asked, "a.csv", f"request_id,label\n{A},2\n{B},6\n", seconds_after_noon=60)
    assert asked.collect().inserted == 1
    assert labels(asked) == [(A, 2, "accepted", None), (B, 6, "accepted", None)]
    put(asked, "a.csv", f"request_id,label\n{A},10\n{B},6\n", seconds_after_noon=120)
    assert asked.collect().inserted == 1
    put(asked, "a.csv", f"request_id,label\n{A},2\n{B},6\n", seconds_after_noon=180)
    assert asked.collect().inserted == 1
    assert [label for id_, label, _, _ in labels(asked) if id_ == A] == [2, 10, 2]
    assert_nothing_new(asked)


def test_a_dated_answer_that_repeats_the_last_is_written_down_as_said(asked: Bench) -> None:
    put(asked, "a.csv", f"request_id,label,answered_at\n{A},2,2026-02-01\n{A},2,2026-02-02\n")
    assert asked.collect().inserted == 2
    assert_nothing_new(asked)


def test_an_answer_refused_is_accepted_once_its_class_is_known_and_stays_so(asked: Bench) -> None:
    put(asked, "a.csv", f"request_id,label,answered_at\n{A},99,\n{B},99,2026-02-01\n")
    asked.collect()
    assert asked.collect({**CLASSES, 99: "cape"}).inserted == 2
    assert {*labels(asked)} == {(id_, *said, None) for id_ in (A, B) for said in ((99, "accepted"), (None, "refused"))}
    assert len(labels(asked)) == 4
    assert_nothing_new(asked)  # though the class is unknown again


def test_an_answer_that_came_before_its_request_counts_once_that_is_there(bench: Bench) -> None:
    bench.answers.mkdir(parents=True)
    put(bench, "a.csv", f"request_id,label\n{A},2\n")
    bench.collect()
    bench.add_photos("a")
    bench.score({"a": 0.5})
    bench.send()
    assert bench.collect().inserted == 1
    assert {status for _, _, status, _ in labels(bench)} == {"refused", "accepted"}
    assert_nothing_new(bench)


def test_of_two_runs_at_once_one_is_told_to_collect_again(asked: Bench) -> None:
    put(asked, "a.csv", f"request_id,label\n{A},2\n")
    pinned, sources = asked.pin("human_labels"), {**asked.snapshots, "label_requests": asked.pin("label_requests")}
    asked.collect()
    with pytest.raises(ConflictError):
        collect_answers(asked.engine, asked.service, pinned, sources, Commit())
    assert len(asked.rows("human_labels")) == 1


def test_the_key_of_the_table_is_kept(asked: Bench) -> None:
    from dlassets.lakehouse.tables import HUMAN_LABELS

    put(asked, "a.csv", f"request_id,label,annotator\n{A},2,Ada\n{A},2,Ada\n{A},2,\n{A},hat,\n{A},98,\n{A},99,\n")
    put(asked, "b.csv", "broken")
    put(asked, "c.csv", "broken")
    asked.collect()
    keys: list[Any] = [tuple(row[name] for name in HUMAN_LABELS.key) for row in asked.rows("human_labels")]
    assert len(keys) == len(set(keys)) == 4


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("2", 2),
        ("002", 2),
        ("002.hat", 2),
        ("2_anything", 2),
        ("Hat", 2),
        ("t-shirt", 10),
        ("2.0", 2),  # as spreadsheets write a number
        ("5 stars", 11),  # a name that begins with a number
        ("002.shirt", None),
        ("twice", 12),
        ("TWICE", None),
        ("99", None),
        ("-2", None),
        ("", None),
        ("9" * 5000, None),
        ("True", None),
    ],
)
def test_a_class_is_said_by_number_name_or_both(answer: str, label: int | None) -> None:
    known = {**CLASSES, 5: "five", 11: "5 stars", 12: "twice", 13: "Twice"}
    assert class_of(answer, {number: Class(number, name, [], NOON, "ada") for number, name in known.items()}) == label


@pytest.mark.parametrize(("answer", "label"), [("cap", 2), ("2.cap", 2), ("6.cap", None), ("CAP", 2)])
def test_a_class_is_known_by_the_names_it_had_before(answer, label) -> None:
    known = {2: Class(2, "hat", ["cap"], NOON, "ada"), 6: Class(6, "shirt", [], NOON, "ada")}
    assert class_of(answer, known) == label


def label_of_a(bench: Bench) -> int:
    return take_labels(bench)["unlabeled/a.jpg"][0]


def labeled_at_of_a(bench: Bench) -> dt.datetime:
    take_labels(bench)
    return next(row["labeled_at"] for row in bench.rows("labeled_images") if row["path"] == "unlabeled/a.jpg")


CENTURIES = 80 * 365 * 86_400


@pytest.mark.parametrize(
    ("wrong", "seconds"), [(f"{A},2,2099-01-01T00:00:00Z", 0), (f"{A},2,", CENTURIES), (f"{A},2,2026-03-01", 0)]
)
@pytest.mark.parametrize(
    "right",
    [f"{A},6,2026-02-01", *(pytest.param(said, marks=pytest.mark.slow) for said in (f"{A},6,", f"{A},6,1970-01-01"))],
)
def test_a_correction_counts_whatever_the_clocks_of_two_computers_say(asked, wrong, seconds, right) -> None:
    put(asked, "a.csv", f"request_id,label,answered_at\n{wrong}\n", seconds)
    asked.collect()
    assert label_of_a(asked) == 2
    assert labeled_at_of_a(asked) <= dt.datetime.now(dt.UTC)

    put(asked, "b.csv", f"request_id,label,answered_at\n{right}\n", seconds_after_noon=60)
    assert asked.collect().inserted == 1

    assert label_of_a(asked) == 6
    assert_nothing_new(asked)


def test_answers_that_are_read_together_stand_in_the_order_in_which_their_files_came(asked: Bench) -> None:
    put(asked, "z.csv", f"request_id,label\n{A},2\n", CENTURIES)
    first = (asked.answers / "z.csv").stat().st_ctime_ns
    while not (asked.answers / "a.csv").exists() or (asked.answers / "a.csv").stat().st_ctime_ns == first:
        put(asked, "a.csv", f"request_id,label,annotator\n{A},6,Bo\n")
    asked.collect()
    assert label_of_a(asked) == 6


def test_a_photo_moved_back_is_an_answer_whatever_time_it_bears(asked: Bench) -> None:
    (laid_out,) = asked.requests.parent.rglob(f"{A}.jpg")
    os.utime(laid_out, (CENTURIES * 2, CENTURIES * 2))
    for folder in ("006.shirt", "002.hat", "006.shirt"):
        move(asked, A, folder)
        assert asked.collect().inserted == 1
    assert label_of_a(asked) == 6


def test_what_was_answered_before_answers_had_an_order_is_older_than_all_that_come(asked: Bench) -> None:
    said = {"label": 2, "status": "accepted", "answer": "2", "path": "unlabeled/a.jpg", "image_id": image_id("a")}
    asked.add("human_labels", [{"request_id": A, "answered_at": dt.datetime(2099, 1, 1, tzinfo=dt.UTC), **said}])
    assert label_of_a(asked) == 2
    put(asked, "a.csv", f"request_id,label\n{A},6\n")
    asked.collect()
    assert label_of_a(asked) == 6
    assert {row["label"]: row["read_order"] for row in asked.rows("human_labels")} == {2: None, 6: 1}


def test_a_correction_that_changes_nothing_says_so(asked: Bench) -> None:
    put(asked, "a.csv", f"request_id,label,annotator\n{A},2,Ada\n{A},hat,Bo\n{B},2,Ada\n")
    asked.collect()
    put(asked, "b.csv", f"request_id,label,annotator\n{A},002.hat,Cy\n{B},6,Cy\n", seconds_after_noon=60)
    asked.collect()

    rows = {(row["request_id"], row["annotator"]): (row["status"], row["reason"]) for row in asked.rows("human_labels")}
    nothing = ("accepted", "changes nothing: the answer in force says the same")
    assert rows == {
        (A, "Ada"): ("accepted", None),
        (A, "Bo"): nothing,
        (B, "Ada"): ("accepted", None),
        (A, "Cy"): nothing,
        (B, "Cy"): ("accepted", None),
    }
    orders = sorted(row["read_order"] for row in asked.rows("human_labels"))
    assert orders == [1, 2, 3, 4, 5]
