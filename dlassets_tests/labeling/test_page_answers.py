"""What people answer on the page: on the disk before it counts, once, in its order, and read as all answers are."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dlassets.labeling.page_answers import Given, PageAnswers, UnwrittenError
from dlassets.labeling.page_files import PageFolder
from dlassets_tests.disk import disk_full_after

from .conftest import A, B, Bench
from .test_answers import labels

WRITES = """
import sys
from pathlib import Path
from dlassets.labeling.page_answers import Given, PageAnswers
from dlassets.labeling.page_files import PageFolder
answers = PageAnswers(PageFolder(Path(sys.argv[1])))
for place in range(50):
    answers.write([Given(f"both-{place}", f"r{place}", "Ann", "answered", 2)])
    answers.write([Given(f"{sys.argv[2]}-{place}", f"r{place}", sys.argv[2], "answered", 6)])
"""


def given(name: str, request: str, label: int | None = 2, annotator: str = "Ann", **more: Any) -> Given:
    return Given(name, request, annotator, more.pop("act", "answered"), label, **more)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


@pytest.fixture
def page(asked: Bench) -> PageAnswers:
    return PageAnswers(PageFolder(asked.answers / "page"))


def test_an_answer_of_the_page_is_read_as_all_answers_are(asked: Bench, page: PageAnswers) -> None:
    page.write([given("one", A, 6, seconds=2.468), given("two", B, None, "Bob", act="skipped")])

    asked.collect()

    first, second = sorted(asked.rows("human_labels"), key=lambda row: row["answered_at"])
    assert (first["request_id"], first["label"], first["annotator"], first["status"]) == (A, 6, "Ann", "accepted")
    assert (first["service"], first["seconds"]) == ("page", 2.47)
    assert (second["request_id"], second["label"], second["annotator"], second["status"]) == (B, None, "Bob", "skipped")
    assert asked.collect().changed is False


def test_what_is_sent_again_is_written_once_also_by_the_next_server(page: PageAnswers, asked: Bench) -> None:
    page.write([given("one", A)])
    page.write([given("one", A), given("two", B), given("two", B)])
    PageAnswers(PageFolder(asked.answers / "page")).write([given("two", B), given("one", A)])

    assert [line["answer_id"] for line in lines_of(asked.answers / "page")] == ["one", "two"]


def test_an_answer_that_is_taken_back_at_once_and_given_anew_stands_as_it_was_given_last(
    asked: Bench, page: PageAnswers
) -> None:
    page.write([given("one", A, 2), given("two", A, None, act="taken_back"), given("three", A, 10)])
    page.write([given("four", B, 2), given("five", B, None, act="taken_back")])
    times = [line["answered_at"] for line in lines_of(asked.answers / "page")]
    assert times == sorted({*times})

    asked.collect()
    asked.close()

    assert [label for _, label, _, _ in labels(asked)] == [2, None, 10, 2, None]
    status = {row["request_id"]: row["status"] for row in asked.rows("label_requests")}
    assert status == {A: "answered", B: "open"}
    assert (page.answered_by("Ann"), page.of(A)["Ann"].act, page.of(B)["Ann"].act) == (1, "answered", "taken_back")


def test_times_rise_though_the_clock_is_set_back(page: PageAnswers, asked: Bench, monkeypatch) -> None:
    import datetime as dt

    from dlassets.labeling import page_answers

    now = dt.datetime.now(dt.UTC)

    class Clock(dt.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return now.astimezone(tz)

    page.write([given("one", A)])
    now -= dt.timedelta(seconds=30)
    monkeypatch.setattr(page_answers, "datetime", Clock)
    page.write([given("two", A, 6)])

    first, second = (line["answered_at"] for line in lines_of(asked.answers / "page"))
    assert second > first


def test_a_line_that_is_still_being_written_is_no_answer_yet_and_no_refusal(asked: Bench, page: PageAnswers) -> None:
    page.write([given("one", A, 6), given("two", B, 10)])
    (file,) = (asked.answers / "page").glob("*.jsonl")
    whole = file.read_bytes()
    half = len(whole) - 40

    file.write_bytes(whole[:half])
    asked.collect()
    assert [row["request_id"] for row in asked.rows("human_labels")] == [A]

    file.write_bytes(whole)
    asked.collect()
    assert {(row["request_id"], row["status"]) for row in asked.rows("human_labels")} == {
        (A, "accepted"),
        (B, "accepted"),
    }


def test_what_a_killed_server_left_of_a_line_costs_no_other_and_is_sent_again(asked: Bench, page: PageAnswers) -> None:
    page.write([given("one", A, 6)])
    (file,) = (asked.answers / "page").glob("*.jsonl")
    with file.open("ab") as stream:
        stream.write(b'{"request_id": "' + B.encode() + b'", "label": "1')

    after = PageAnswers(PageFolder(asked.answers / "page"))
    after.write([given("two", B, 10)])
    asked.collect()

    assert {(row["request_id"], row["label"]) for row in asked.rows("human_labels")} == {(A, 6), (B, 10)}
    assert after.of(B)["Ann"].act == "answered"


def test_where_the_disk_is_full_nothing_is_written_and_later_all_of_it(asked: Bench, page: PageAnswers) -> None:
    page.write([given("one", A, 6)])
    (file,) = (asked.answers / "page").glob("*.jsonl")
    before = file.read_bytes()

    with disk_full_after(len(before) + 20), pytest.raises(UnwrittenError, match="cannot be written") as raised:
        page.write([given("two", B, 10)])
    assert raised.value.is_full
    assert file.read_bytes() == before

    page.write([given("two", B, 10)])
    asked.collect()
    assert {(row["request_id"], row["label"]) for row in asked.rows("human_labels")} == {(A, 6), (B, 10)}


@pytest.mark.parametrize("planted", ["folder", "file", "pipe"])
def test_a_link_or_a_pipe_in_its_place_is_not_written_through(tmp_path: Path, planted: str) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "answers/page"
    elsewhere.mkdir()
    folder.parent.mkdir()
    probe = PageAnswers(PageFolder(tmp_path / "probe"))
    probe.write([given("probe", "r")])
    (name,) = (path.name for path in (tmp_path / "probe").glob("*.jsonl"))
    if planted == "folder":
        folder.symlink_to(elsewhere)
    else:
        folder.mkdir()
        (elsewhere / "file").write_text("")
        (folder / name).symlink_to(elsewhere / "file") if planted == "file" else os.mkfifo(folder / name)

    with pytest.raises(UnwrittenError, match="cannot be written") as raised:
        PageAnswers(PageFolder(folder)).write([given("one", "r")])

    assert not raised.value.is_full
    assert [path.read_bytes() for path in elsewhere.iterdir()] in ([], [b""])


def test_what_others_put_there_is_followed_as_far_as_it_says_anything(tmp_path: Path) -> None:
    (tmp_path / "theirs.jsonl").write_text(
        '{"request_id": "r1", "label": "2", "annotator": "Ann", "answered_at": "2026-01-31T14:05:00"}\n'
        '{"request_id": "r2", "label": "2", "answered_at": "9999-12-31T23:59:59Z", "annotator": "Ann"}\n'
        '{"request_id": "r3", "label": "2", "answered_at": "yesterday"}\n[1]\nno line\n'
    )
    page = PageAnswers(PageFolder(tmp_path))
    page.follow()
    page.write([given("one", "r4")])

    assert (page.answered_by("Ann"), set(page.of("r3"))) == (3, set())
    (mine,) = (line for path in tmp_path.glob("2*.jsonl") for line in path.read_text().splitlines())
    assert json.loads(mine)["answered_at"] < "9999"


@pytest.mark.slow
def test_two_servers_at_once_write_each_answer_once_in_rising_order(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITES, str(tmp_path), name]) for name in ("one", "two")]
    assert [writer.wait(60) for writer in writers] == [0, 0]

    lines = lines_of(tmp_path)
    assert len({line["answer_id"] for line in lines}) == len(lines) == 150
    times = [line["answered_at"] for line in lines]
    assert times == sorted({*times})
