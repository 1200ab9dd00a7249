"""What people are told of answers that were refused: in files beside these."""

import csv
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dlassets.errors import DlassetsError
from dlassets.labeling import answers as module
from dlassets.labeling.folder import FolderService
from dlassets.labeling.services import Refusal
from dlassets_tests.killing import killed_at

from .conftest import CLASSES, A, B, Bench, move, photo, put
from .test_answers import labels

UNKNOWN = "unknown class cape: the classes are 2 hat, 6 shirt, 10 t-shirt"
ADD = "Use one of the classes that are named. A new class: dlassets classes add <name>."
LIST = f"request_id,label\n{A},cape\n"
KEEP = "Keep request_id, or the photo's name, as it was."


@pytest.fixture
def told(asked: Bench) -> Bench:
    return asked


@dataclass
class Place:
    """The folder service by itself; every answer in it is refused."""

    answers: Path
    service: FolderService

    def tell(self) -> None:
        given = self.service.answers()
        self.service.show_refusals([Refusal(a.file, a.origin, a.request_id, a.label, None, UNKNOWN) for a in given])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "answers").mkdir()
    return Place(tmp_path / "answers", FolderService(tmp_path / "requests", tmp_path / "answers"))


def tell(bench: Bench, classes: dict[int, str] = CLASSES) -> None:
    bench.service.show_refusals(bench.collect_and_refuse(classes)[1])


def refusal_files(bench: Bench | Place) -> dict[str, list[list[str]]]:
    """The rows of every file that tells of refusals, without its header."""
    return {
        path.relative_to(bench.answers).as_posix(): rows(path)
        for path in bench.answers.rglob("*refused.csv")
        if rows(path, header=True)[0][0] == "refused"
    }


def rows(path: Path, *, header: bool = False) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.reader(stream))[0 if header else 1 :]


def test_what_is_refused_of_a_list_stands_beside_it_until_it_is_corrected(told: Bench) -> None:
    put(told, "mine.csv", f"request_id,label,annotator\n{A},cape,Ada\n{B},hat,Ada\nfeed,2,Ada\n")
    tell(told)
    assert refusal_files(told) == {
        "mine.csv.refused.csv": [
            ["mine.csv, line 2", A, "cape", "Ada", UNKNOWN, ADD],
            ["mine.csv, line 4", "feed", "2", "Ada", "no such request", KEEP],
        ]
    }
    put(told, "mine.csv", f"request_id,label,annotator\n{A},shirt,Ada\n{B},hat,Ada\nfeed,2,Ada\n")
    tell(told)
    assert refusal_files(told) == {
        "mine.csv.refused.csv": [["mine.csv, line 4", "feed", "2", "Ada", "no such request", KEEP]]
    }
    put(told, "mine.csv", f"request_id,label,annotator\n{A},shirt,Ada\n{B},hat,Ada\n")
    tell(told)
    assert refusal_files(told) == {}
    assert [path.name for path in told.answers.glob("[!.]*") if path.is_file()] == ["mine.csv"]


def test_what_cannot_be_read_of_a_list_stands_beside_it_too_also_when_it_is_saved_again(told: Bench) -> None:
    content = f"request_id,label,answered_at\n{A},hat,,\n{B},cape,\n{B},hat,soon\n"
    for seconds in (0, 60):
        put(told, "mine.csv", content, seconds)
        tell(told)
        (beside,) = refusal_files(told).items()
        assert beside[0] == "mine.csv.refused.csv"
        assert [(row[0], row[4].removeprefix(f"{row[0]}: ")[:22]) for row in beside[1]] == [
            ("mine.csv, line 2", "has 4 fields where the"),
            ("mine.csv, line 3", "unknown class cape: th"),
            ("mine.csv, line 4", "answered_at 'soon' is "),
        ]
    put(told, "mine.csv", f"request_id,label\n{A},hat\n", 120)
    tell(told)
    assert refusal_files(told) == {}


def test_what_is_refused_of_photos_stands_in_one_file(told: Bench) -> None:
    (told.answers / "cape").mkdir()
    (told.answers / "002.hat" / "renamed.jpg").write_bytes(photo("a"))
    for request in (A, B):
        move(told, request, "cape")
    tell(told)
    assert refusal_files(told) == {
        "refused.csv": [
            ["002.hat/renamed.jpg", "renamed", "002.hat", "", "no such request", KEEP],
            *([f"cape/{request}.jpg", request, "cape", "", UNKNOWN, ADD] for request in sorted((A, B))),
        ]
    }
    tell(told, {**CLASSES, 7: "cape"})
    assert [row[0] for row in refusal_files(told)["refused.csv"]] == ["002.hat/renamed.jpg"]


def test_a_file_of_refusals_is_no_answer_and_is_written_only_where_it_changes(told: Bench) -> None:
    put(told, "mine.csv", f"request_id,label\n{A},cape\n")
    answers, digest = told.service.answers(), told.service.answers_digest()
    tell(told)
    path = told.answers / "mine.csv.refused.csv"
    written = path.stat().st_mtime_ns
    tell(told)
    assert path.stat().st_mtime_ns == written
    assert (told.service.answers(), told.service.answers_digest()) == (answers, digest)
    assert told.collect().changed is False

    for saved in (path.read_bytes().replace(b",", b";"), path.read_bytes().decode("utf-8-sig").encode("utf-16")):
        path.write_bytes(saved)
        assert told.service.answers() == answers, "though a spreadsheet has saved it"


def test_a_list_of_that_name_that_a_person_has_put_there_is_read_and_stays(told: Bench) -> None:
    content = f"request_id,label\n{B},hat\n"
    put(told, "mine.csv", f"request_id,label\n{A},cape\n")
    put(told, "mine.csv.refused.csv", content)
    tell(told)
    assert {(request, label, status) for request, label, status, _ in labels(told)} == {
        (A, None, "refused"),
        (B, 2, "accepted"),
    }
    assert (told.answers / "mine.csv.refused.csv").read_text() == content
    assert list(refusal_files(told)) == ["mine.csv.2.refused.csv"]


def test_killed_while_it_is_written_the_next_run_writes_it(place: Place) -> None:
    (place.answers / "mine.csv").write_text(LIST)
    answers = place.service.answers()
    with killed_at(Path, "replace"):
        place.tell()
    assert (refusal_files(place), place.service.answers()) == ({}, answers)
    place.tell()
    assert list(refusal_files(place)) == ["mine.csv.refused.csv"]
    assert place.service.answers() == answers


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        (b"=cmd().csv", "=cmd().csv.refused.csv"),
        (b"two\nlines.csv", "two\nlines.csv.refused.csv"),
        (b"\xff.csv", "?.csv.refused.csv"),
        (b"deep/er/a.csv", "deep/er/a.csv.refused.csv"),
        (b" a /b.csv", "refused.csv"),
        (b"x" * 250 + b".csv", None),
        (b"a.xlsx", "refused.csv"),
    ],
)
def test_any_name_of_a_list_gets_its_file(place: Place, name: bytes, beside: str | None) -> None:
    path = Path(os.fsdecode(os.fsencode(place.answers) + b"/" + name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(LIST)
    place.tell()
    ((found, told_of),) = refusal_files(place).items()
    assert found == beside or (beside is None and len(found) <= 255)
    assert len(told_of) == 1
    assert not told_of[0][0].startswith("="), "a spreadsheet must not run it"
    path.unlink()
    place.tell()
    assert refusal_files(place) == {}


def test_links_are_neither_followed_nor_written_through(place: Place, tmp_path: Path) -> None:
    outside = tmp_path / "outside.csv"
    outside.write_text("refused,request_id,answer\n")
    (place.answers / "mine.csv.refused.csv").symlink_to(outside)
    (place.answers / "mine.csv").write_text(LIST)
    place.tell()
    assert outside.read_text() == "refused,request_id,answer\n"
    assert rows(place.answers / "mine.csv.2.refused.csv")[0][0] == "mine.csv, line 2"


def test_of_many_refusals_in_a_file_some_are_named_and_the_others_counted(told: Bench, monkeypatch) -> None:
    monkeypatch.setattr(module, "MOST_PROBLEMS", 2)
    put(told, "mine.csv", "request_id,label\n" + "".join(f"{A},cape{number}\n" for number in range(5)) + f"{B},no\n")
    put(told, "other.csv", "request_id,label,answered_at\n" + "".join(f"{A},x,2026-02-0{day}\n" for day in range(1, 6)))
    tell(told)
    found = refusal_files(told)
    assert [row[2] for row in found["mine.csv.refused.csv"]] == ["cape4", "no"]
    assert [row[0] for row in found["other.csv.refused.csv"]] == [
        "other.csv, line 2",
        "other.csv, line 3",
        "other.csv, further answers",
    ]
    assert found["other.csv.refused.csv"][-1][4:] == ["3 more are refused", "See to those above first."]


def test_a_place_that_cannot_be_written_is_said(place: Place) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "not yours")

    (place.answers / "mine.csv").write_text(LIST)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_bytes", refuse)
        with pytest.raises(DlassetsError, match=r"not told which of their answers are refused: .*not yours"):
            place.tell()


def copy(bench: Bench, request: str, folder: str) -> Path:
    source = next(bench.requests.parent.rglob(f"{request}.jpg"))
    (bench.answers / folder).mkdir(exist_ok=True)
    return Path(shutil.copy(source, bench.answers / folder))


def test_a_photo_in_the_folders_of_two_classes_is_no_answer_until_it_lies_in_one(told: Bench) -> None:
    move(told, A, "002.hat")
    second = copy(told, A, "006.shirt")
    tell(told)
    reason = f"lies in folders of two classes, 002.hat/{A}.jpg and 006.shirt/{A}.jpg: leave it in one"
    assert {(row["status"], row["reason"]) for row in told.rows("human_labels")} == {("refused", reason)}
    assert [row[4] for row in refusal_files(told)["refused.csv"]] == [reason, reason]
    assert told.close().updated == 0
    assert told.collect().changed is False

    second.unlink()
    tell(told)
    assert [(label, status) for _, label, status, _ in labels(told) if status == "accepted"] == [(2, "accepted")]
    assert refusal_files(told) == {}


def test_a_photo_copied_to_another_class_after_it_was_read_changes_no_label_in_silence(told: Bench) -> None:
    move(told, A, "002.hat")
    told.collect()
    copy(told, A, "006.shirt")
    tell(told)
    assert [status for _, label, status, _ in labels(told) if label == 6] == ["refused"]
    assert "leave it in one" in refusal_files(told)["refused.csv"][0][4]

    (told.answers / "002.hat" / f"{A}.jpg").unlink()
    tell(told)
    assert [label for _, label, status, _ in labels(told) if status == "accepted"] == [2, 6]


def test_a_photo_in_two_folders_of_one_class_is_an_answer(told: Bench) -> None:
    move(told, A, "002.hat")
    copy(told, A, "hat")
    tell(told)
    assert {status for _, _, status, _ in labels(told)} == {"accepted"}
    assert refusal_files(told) == {}
