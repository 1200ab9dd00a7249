"""Which answers to a request count: late, repeated, taken back, skipped, or about a photo that they name."""

import datetime as dt
import itertools
import json
from typing import Any

import pytest

from dlassets.engines.base import Engine
from dlassets.labeling.services import Answer
from dlassets_tests.tables import NOON, local_alone

from .conftest import A, B, Bench, image_id, labelled, move, photo, put, raw_image
from .test_answers import assert_nothing_new, label_of_a
from .test_requests import take_labels


class Service:
    """A service of its own clock, whose answers are given as a test says."""

    name = "studio"

    def __init__(self, *answers: Answer) -> None:
        self._answers = answers

    def each_answer(self, _: Any) -> Any:
        return iter(self._answers)


def said(minute: int, label: str | None, act: str = "answered", who: str = "Ada", service: str = "studio") -> Answer:
    at = NOON + dt.timedelta(minutes=minute)
    return Answer(A, label, who, at, f"task {minute}", act=act, service=service, file="studio")  # type: ignore[arg-type]


def collect_from(bench: Bench, *answers: Answer) -> int:
    folder, bench.service = bench.service, Service(*answers)
    try:
        return bench.collect().inserted
    finally:
        bench.service = folder


def statuses(bench: Bench) -> dict[str, str]:
    return {row["request_id"]: row["status"] for row in bench.rows("label_requests")}


def in_force(bench: Bench) -> int | None:
    rows = take_labels(bench)
    return rows["unlabeled/a.jpg"][0] if "unlabeled/a.jpg" in rows else None


UPDATES = (said(1, "hat"), said(2, "shirt"), said(3, "t-shirt"))


ORDERS = [*itertools.permutations(range(3))]


@pytest.mark.parametrize("order", [ORDERS[-1], *(pytest.param(order, marks=pytest.mark.slow) for order in ORDERS[:-1])])
def test_a_service_s_newest_update_counts_in_whatever_order_they_are_read(asked, order) -> None:
    for place in order:
        assert collect_from(asked, UPDATES[place]) == 1
    assert collect_from(asked, *UPDATES, *UPDATES[::-1], *UPDATES) == 0

    assert in_force(asked) == 10
    assert len(asked.rows("human_labels")) == 3


def test_one_answer_five_times_at_once_is_one(asked) -> None:
    assert collect_from(asked, *[UPDATES[0]] * 5) == 1
    assert [row["label"] for row in asked.rows("human_labels")] == [2]


def test_of_two_services_the_answer_that_is_read_last_counts_whatever_their_clocks_say(asked) -> None:
    collect_from(asked, said(9, "shirt"))
    collect_from(asked, said(1, "hat", service="page"))
    assert in_force(asked) == 2

    collect_from(asked, said(5, "t-shirt"))  # older than what its own service has said

    assert in_force(asked) == 2


def test_what_is_taken_back_counts_no_more_and_nothing_before_it_does_instead(asked) -> None:
    collect_from(asked, UPDATES[0], UPDATES[1])
    collect_from(asked, said(3, None, "taken_back"))
    assert in_force(asked) is None
    assert [(r["status"], r["reason"]) for r in asked.rows("human_labels") if r["status"] == "taken_back"] == [
        ("taken_back", "takes back what that person answered before")
    ]

    collect_from(asked, said(4, "hat"))
    assert in_force(asked) == 2


def test_what_is_taken_back_before_it_is_read_never_counts(asked) -> None:
    collect_from(asked, said(3, None, "taken_back"))
    assert collect_from(asked, said(2, "hat")) == 1
    assert in_force(asked) is None
    assert asked.close().updated == 0


def test_another_person_s_answer_or_else_the_folder_s_label_is_in_force_then(asked) -> None:
    asked.add(
        "raw_images", [{**raw_image("a", "labeled/006.shirt/a.jpg"), "landing": "labeled", "folder": "006.shirt"}]
    )
    collect_from(asked, said(1, "t-shirt", who="Bo"), said(2, "hat"))
    assert take_labels(asked)["labeled/006.shirt/a.jpg"] == (2, "hat", "human")

    collect_from(asked, said(3, None, "taken_back"))
    assert take_labels(asked)["labeled/006.shirt/a.jpg"] == (10, "t-shirt", "human")

    collect_from(asked, said(4, None, "taken_back", who="Bo"))
    assert take_labels(asked)["labeled/006.shirt/a.jpg"] == (6, "shirt", "folder")
    assert in_force(asked) is None


def test_a_skip_says_nothing_and_takes_nothing_back(asked) -> None:
    collect_from(asked, said(1, "hat"), said(2, None, "skipped"))
    assert in_force(asked) == 2
    put(asked, "a.csv", f"request_id,label,status\n{B},6,\n{B},,skipped\n")
    asked.collect()

    rows = [(r["request_id"], r["label"], r["status"], r["reason"]) for r in asked.rows("human_labels")]
    assert (A, None, "skipped", "skipped: nothing was answered") in rows
    assert {(B, 6, "accepted", None), (B, None, "skipped", "skipped: nothing was answered")} < {*rows}
    assert_nothing_new(asked)


def test_the_request_of_an_answer_that_was_taken_back_opens_again_with_its_photo(asked) -> None:
    put(asked, "a.csv", f"request_id,label,annotator\n{A},2,Ada\n{B},6,Ada\n")
    asked.collect()
    asked.close()
    asked.show()
    (batch,) = asked.requests.glob("v3-*")
    assert (batch / "answered" / f"{A}.jpg").is_file()

    put(asked, "back.csv", f"request_id,label,annotator,status\n{A},,Ada,taken_back\n", 60)
    asked.collect()
    assert asked.reopen().updated == 1
    assert asked.reopen().changed is False
    asked.close()
    asked.show()

    assert statuses(asked) == {A: "open", B: "answered"}
    assert (batch / f"{A}.jpg").is_file()
    assert not (batch / "answered" / f"{A}.jpg").exists()
    assert A in (batch / "requests.csv").read_text()
    assert asked.send().inserted == 0  # nobody is asked twice

    put(asked, "again.csv", f"request_id,label,annotator\n{A},10,Ada\n", 120)
    asked.collect()
    asked.close()
    assert statuses(asked)[A] == "answered"
    assert in_force(asked) == 10


def test_a_request_whose_photo_has_a_label_by_now_is_withdrawn_where_its_answer_is_taken_back(asked) -> None:
    collect_from(asked, said(1, "hat"))
    asked.close()
    asked.add("labeled_images", [labelled("a", 2, "labeled/002.hat/a.jpg")])
    collect_from(asked, said(2, None, "taken_back"))
    asked.reopen()
    asked.close()

    (row,) = (row for row in asked.rows("label_requests") if row["request_id"] == A)
    assert (row["status"], row["reason"]) == ("withdrawn", "the photo has a label by now")


def test_a_list_that_is_saved_again_brings_nothing_back_that_was_said_otherwise_since(asked) -> None:
    put(asked, "a.csv", f"request_id,label,annotator\n{A},2,Ada\n{B},,\n")
    asked.collect()
    put(asked, "back.jsonl", json.dumps({"request_id": A, "annotator": "Ada", "status": "taken_back"}), 60)
    asked.collect()
    assert in_force(asked) is None

    put(asked, "a.csv", f"request_id,label,annotator\n{A},2,Ada\n{B},6,Ada\n", 120)
    assert asked.collect().inserted == 1
    assert in_force(asked) is None
    put(asked, "a.csv", f"request_id,label,annotator\n{A},6,Ada\n{B},6,Ada\n", 180)
    assert asked.collect().inserted == 1
    assert in_force(asked) == 6


@local_alone
def test_a_photo_that_nobody_asked_about_is_named_by_its_path_or_its_bytes(asked, engine: Engine) -> None:
    asked.add("raw_images", [raw_image("c"), raw_image("d"), raw_image("d", "unlabeled/again.jpg")])
    put(
        asked,
        "a.csv",
        f"path,image_id,label,annotator\nunlabeled/c.jpg,,2,Ada\n,{image_id('d').upper()},6,Ada\n"
        "../../etc/passwd,,2,Ada\nunlabeled/later.jpg,,2,Ada\n",
    )
    asked.collect()

    rows = {row["request_id"]: row for row in asked.rows("human_labels")}
    c, d = rows[f"photo {image_id('c')}"], rows[f"photo {image_id('d')}"]
    assert (c["path"], c["image_id"], c["label"], c["status"]) == ("unlabeled/c.jpg", image_id("c"), 2, "accepted")
    assert (d["path"], d["image_id"], d["label"]) == ("unlabeled/again.jpg", image_id("d"), 6)
    for path in ("../../etc/passwd", "unlabeled/later.jpg"):
        assert (rows[f"photo {path}"]["status"], rows[f"photo {path}"]["reason"]) == ("refused", "no such photo")
    assert_nothing_new(asked)
    labels = take_labels(asked)
    assert labels["unlabeled/c.jpg"] == (2, "hat", "human")
    assert labels["unlabeled/d.jpg"] == labels["unlabeled/again.jpg"] == (6, "shirt", "human")

    put(asked, "b.csv", f"request_id,label,annotator\nphoto {image_id('c')},6,Bo\n", 60)  # as human_labels has it
    asked.add_photos("later")
    assert asked.collect().inserted == 2
    assert take_labels(asked)["unlabeled/c.jpg"] == (6, "shirt", "human")
    assert take_labels(asked)["unlabeled/later.jpg"] == (2, "hat", "human")
    refused = [refusal.request_id for refusal in asked.collect_and_refuse()[1]]
    assert refused == ["photo ../../etc/passwd"]


@pytest.mark.parametrize("time", ["", "2026-02-01T00:00:00Z"])
def test_an_answer_to_a_path_stays_about_the_bytes_that_lay_there_when_it_was_read(asked, time) -> None:
    asked.add_photos("c")
    put(asked, "a.csv", f"path,label,answered_at\nunlabeled/c.jpg,2,{time}\n")
    asked.collect()
    asked.replace_photo(raw_image("new", "unlabeled/c.jpg"))
    put(asked, "a.csv", f"path,label,answered_at\nunlabeled/c.jpg,2,{time}\n", 60)  # saved again

    assert_nothing_new(asked)
    assert "unlabeled/c.jpg" not in take_labels(asked)

    put(asked, "a.csv", "path,label\nunlabeled/c.jpg,6\n", 120)
    asked.collect()
    assert take_labels(asked)["unlabeled/c.jpg"] == (6, "shirt", "human")


def test_an_answer_that_comes_after_other_bytes_is_about_the_old_and_the_new_are_asked_about(asked) -> None:
    asked.replace_photo(raw_image("new", "unlabeled/a.jpg"))
    put(asked, "a.csv", f"request_id,label\n{A},2\n")
    asked.collect()
    asked.close()

    (row,) = asked.rows("human_labels")
    assert (row["image_id"], row["status"]) == (image_id("a"), "accepted")
    assert statuses(asked)[A] == "answered"
    assert "unlabeled/a.jpg" not in take_labels(asked)

    asked.add("predictions", [{**asked.rows("predictions")[0], "path": "unlabeled/a.jpg", "image_id": image_id("new")}])
    assert asked.send(version=3).inserted == 1
    (new,) = (row for row in asked.rows("label_requests") if row["image_id"] == image_id("new"))
    assert (new["path"], new["status"]) == ("unlabeled/a.jpg", "open")
    assert {path.read_bytes() for path in asked.requests.rglob(f"{new['request_id']}.jpg")} == {photo("new")}

    asked.replace_photo(raw_image("a"))  # the old bytes are back, and with them what was said of them
    assert take_labels(asked)["unlabeled/a.jpg"] == (2, "hat", "human")


def test_an_answer_to_a_withdrawn_request_counts(asked) -> None:
    asked.add("labeled_images", [labelled("a", 6, "labeled/006.shirt/a.jpg")])
    asked.close()
    assert statuses(asked)[A] == "withdrawn"
    put(asked, "a.csv", f"request_id,label\n{A},2\n")
    asked.collect()
    asked.close()
    assert statuses(asked)[A] == "answered"
    assert label_of_a(asked) == 2


NO_ANSWERS = {
    "empty: no class was chosen": {"label": "", "status": "answered"},
    "empty: no class was chosen ": {"label": "", "answered_at": "2026-02-01"},
    "annotator is longer than 200 characters": {"label": "2", "annotator": "x" * 201},
    "unknown class ../../x: the classes are 2 hat, 6 shirt, 10 t-shirt": {"label": "../../x"},
    "unknown class a\ufffdb\ufffd[31m: the classes are 2 hat, 6 shirt, 10 t-shirt": {"label": "a\0b\x1b[31m"},
}


def test_what_is_no_answer_is_kept_with_its_reason(asked) -> None:
    entries = [{"request_id": A, "annotator": f"{n}", **entry} for n, entry in enumerate(NO_ANSWERS.values())]
    put(asked, "a.json", json.dumps(entries))
    asked.collect()

    rows = asked.rows("human_labels")
    assert {(row["request_id"], row["status"]) for row in rows} == {(A, "refused")}
    assert sorted(row["reason"] for row in rows) == sorted(reason.strip() for reason in NO_ANSWERS)
    assert {len(row["annotator"]) for row in rows} == {1, 200}
    assert_nothing_new(asked)


def test_seconds_that_are_none_are_refused_in_a_file_and_left_away_from_a_service(asked) -> None:
    wrong = ("nan", "-1", "inf", "1e300", "soon")
    lines = "".join(f"{A},2,{text}\n" for text in wrong)
    put(asked, "a.csv", f"request_id,label,seconds\n{lines}{B},6,2.5\n")
    asked.collect()
    rows = {row["request_id"]: row for row in asked.rows("human_labels")}
    assert rows[B]["seconds"] == 2.5
    for line, text in enumerate(wrong, 2):
        reason = f"a.csv, line {line}: seconds '{text}' is no number from 0 to 2678400"
        assert rows[f"a.csv, line {line}"]["reason"] == reason

    measured = [
        Answer(A, "hat", text, NOON, "task 1", service="studio", file="studio", seconds=float(text))
        for text in wrong[:4]
    ]
    collect_from(asked, *measured)
    of_service = [row for row in asked.rows("human_labels") if row["service"] == "studio"]
    assert {(row["label"], row["status"], row["seconds"]) for row in of_service} == {(2, "accepted", None)}
    assert len(of_service) == 4


def test_times_at_the_ends_of_the_calendar_are_times(asked, engine: Engine) -> None:
    asked.engine = engine
    times = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"
    put(asked, "a.csv", "request_id,label,answered_at\n" + "".join(f"{A},2,{time}\n" for time in times))
    asked.collect()
    assert label_of_a(asked) == 2
    put(asked, "b.csv", f"request_id,label\n{A},6\n", 60)
    asked.collect()
    assert_nothing_new(asked)
    assert label_of_a(asked) == 6
    assert {row["answered_at"].year for row in asked.rows("human_labels")} == {1, 2026, 9999}


def test_a_column_of_seconds_may_have_commas_as_spreadsheets_write_them(asked) -> None:
    put(asked, "a.csv", f"request_id;label;seconds;service\n{A};2;3,5;page\n")
    asked.collect()
    (row,) = asked.rows("human_labels")
    assert (row["seconds"], row["service"]) == (3.5, "page")


def test_a_class_that_was_renamed_is_meant_by_its_old_name_and_one_that_came_later_by_its_own(asked) -> None:
    from dlassets.lakehouse.classes import name_class

    name_class(asked.engine, asked.pin("classes"), "cap", "ada", 2)
    name_class(asked.engine, asked.pin("classes"), "scarf", "ada")
    move(asked, A, "002.hat")  # as the folder is called that was there when it was asked
    put(asked, "a.csv", f"request_id,label\n{B},scarf\n")
    asked.collect_as_it_is()

    rows = {row["request_id"]: (row["label"], row["status"]) for row in asked.rows("human_labels")}
    assert rows == {A: (2, "accepted"), B: (11, "accepted")}
    assert take_labels(asked)["unlabeled/a.jpg"] == (2, "cap", "human")


def test_unknown_photos_of_a_file_without_end_are_counted(asked) -> None:
    lines = "\n".join(f"unlabeled/no-{number}.jpg,2" for number in range(1300))
    put(asked, "a.csv", f"path,label\n{lines}\n")
    _, refusals = asked.collect_and_refuse()

    assert len(asked.rows("human_labels")) == 1000
    assert refusals[-1].reason == "300 more are refused"
    assert_nothing_new(asked)


def test_a_batch_s_folder_that_is_made_a_link_is_not_followed(asked, tmp_path) -> None:
    (batch,) = asked.requests.glob("v3-*")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (batch / "answered").symlink_to(elsewhere)
    put(asked, "a.csv", f"request_id,label\n{A},2\n")
    asked.collect()
    asked.close()
    asked.show()

    assert list(elsewhere.iterdir()) == []
    assert (batch / f"{A}.jpg").is_file()
