"""Labelling in a bucket is labelling in folders: the same files, the same answers. A real S3 server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dlassets.errors import DlassetsError
from dlassets.labeling import bucket as of_bucket
from dlassets.labeling import page_files as of_page
from dlassets.labeling.bucket import BucketService
from dlassets.labeling.exchange.importing import Import
from dlassets.labeling.exchange.resolving import Known
from dlassets.labeling.folder import FolderService
from dlassets.labeling.page_answers import Given, PageAnswers, UnwrittenError
from dlassets.labeling.page_files import page_files
from dlassets.labeling.services import Batch, Refusal, Standing
from dlassets.lakehouse.classes import Class
from dlassets.storage.files import files_under, move_file, read_whole, write_whole
from dlassets_tests.storage.server import Faults
from dlassets_tests.tables import NOON

from .conftest import Bench
from .test_folder import PHOTOS, batch

A_LIST = "request_id,label,annotator\naa11,hat,Ann\nbb22,6,Ann\n"


class Place:
    """A lake's labelling in a bucket."""

    def __init__(self, root: str) -> None:
        self.requests, self.answers = f"{root}/requests", f"{root}/answers"
        self.service = BucketService(self.requests, self.answers)

    def names(self) -> list[str]:
        return list(files_under(self.requests))

    def answer(self, name: str, content: str | bytes = "") -> None:
        write_whole(f"{self.answers}/{name}", content)

    def said(self) -> set[tuple[str, str | None, str | None]]:
        return {(answer.request_id, answer.label, answer.annotator) for answer in self.service.answers()}


@pytest.fixture
def place(bucket: str) -> Place:
    return Place(f"s3://{bucket}/lake/labeling")


def raises(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


def standings(of: Batch, **closed: str) -> list[Standing]:
    return [Standing(request, closed.get(request.request_id, "open"), "hat", "Ann") for request in of.requests]


def test_a_batch_is_the_objects_that_a_folder_has_as_files(place, tmp_path) -> None:
    folder = FolderService(tmp_path / "requests", tmp_path / "answers")

    assert place.service.send(batch(), iter(PHOTOS)) == folder.send(batch(), iter(PHOTOS))

    assert place.names() == sorted(f"v1-ab/{path.name}" for path in (tmp_path / "requests/v1-ab").iterdir())
    for name in set(place.names()) - {"v1-ab/README.txt"}:
        assert read_whole(f"{place.requests}/{name}") == (tmp_path / "requests" / name).read_bytes(), name
    how_to = read_whole(f"{place.requests}/v1-ab/README.txt").decode()
    assert place.answers in how_to
    assert "002.hat" in how_to


def test_what_was_sent_is_not_written_again_and_no_photo_that_people_moved_comes_back(place, monkeypatch) -> None:
    place.service.send(batch(), iter(PHOTOS))
    move_file(f"{place.requests}/v1-ab/aa11.jpg", f"{place.answers}/002.hat/aa11.jpg")
    there = place.names()

    monkeypatch.setattr(of_bucket, "write_whole", lambda *_: pytest.fail("written again"))
    place.service.send(batch(), iter(PHOTOS))

    assert place.names() == there
    assert place.service.photos() == {"aa11", "bb22"}


def test_a_batch_that_was_broken_off_is_completed(place) -> None:
    def breaks_off() -> Iterator[tuple[str, bytes]]:
        yield PHOTOS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.service.send(batch(), breaks_off())
    assert place.names() == ["v1-ab/aa11.jpg"]

    place.service.send(batch(), iter(PHOTOS))
    assert len(place.names()) == 6


def test_answers_are_lists_and_photos_in_class_prefixes_and_what_is_none_says_why(place) -> None:
    place.service.send(batch(), iter(PHOTOS))
    move_file(f"{place.requests}/v1-ab/bb22.png", f"{place.answers}/006.shirt/bb22.png")
    place.answer("mine.csv", "request_id,label,annotator\naa11,hat,Ann\n")
    place.answer("loose.jpg", PHOTOS[0][1])
    place.answer("notes.docx", "?")
    place.answer("~$mine.csv", "left by an editor")

    answers = {answer.origin: answer for answer in place.service.answers()}

    assert (answers["mine.csv, line 2"].label, answers["mine.csv, line 2"].annotator) == ("hat", "Ann")
    moved = answers["006.shirt/bb22.png"]
    assert (moved.request_id, moved.label, moved.dated) == ("bb22", "006.shirt", False)
    assert abs((datetime.now(UTC) - moved.answered_at).total_seconds()) < 60
    assert "lies in no class folder" in answers["loose.jpg"].problem
    assert "neither a photo nor" in answers["notes.docx"].problem
    assert len(answers) == 4


def test_the_digest_changes_with_every_change_and_says_nothing_of_nothing(place, monkeypatch) -> None:
    monkeypatch.setattr(of_bucket, "_CLOCK_SECONDS", 0)  # of what was written this second it changes by itself
    assert place.service.answers_digest() == ""
    place.service.send(batch(), iter(PHOTOS))
    assert place.service.answers_digest() == ""

    seen = [""]
    for change in (
        lambda: place.answer("mine.csv", "request_id,label\naa11,hat\n"),
        lambda: place.answer("mine.csv", "request_id,label\naa11,shirt\n"),
        lambda: move_file(f"{place.requests}/v1-ab/bb22.png", f"{place.answers}/006.shirt/bb22.png"),
        lambda: write_whole(f"{place.requests}/v1-ab/requests.csv", A_LIST),
    ):
        change()
        seen.append(place.service.answers_digest())
        assert place.service.answers_digest() == seen[-1]
    assert len(set(seen)) == len(seen)


def test_what_was_written_this_second_is_looked_at_again(place) -> None:
    place.answer("mine.csv", A_LIST)

    assert place.service.answers_digest() != place.service.answers_digest()


def test_a_list_that_was_filled_in_where_it_lay_is_an_answer_and_stays(place) -> None:
    place.service.send(batch(), iter(PHOTOS))
    assert place.said() == set()

    write_whole(f"{place.requests}/v1-ab/requests.csv", A_LIST)
    place.service.show_standing([("v1-ab", standings(batch(), aa11="answered"))], "later")

    assert place.said() == {("aa11", "hat", "Ann"), ("bb22", "6", "Ann")}


def test_what_is_closed_is_put_aside_and_comes_back_where_it_is_open_again(place) -> None:
    place.service.send(batch(), iter(PHOTOS))

    place.service.show_standing([("v1-ab", standings(batch(), aa11="answered"))], "one")
    closed = place.names()
    waiting = read_whole(f"{place.requests}/v1-ab/requests.csv").decode("utf-8-sig")
    place.service.show_standing([("v1-ab", standings(batch()))], "two")

    assert "v1-ab/answered/aa11.jpg" in closed
    assert "v1-ab/aa11.jpg" not in closed
    assert ("aa11" in waiting, "bb22" in waiting) == (False, True)
    assert "v1-ab/aa11.jpg" in place.names()
    assert "aa11" in read_whole(f"{place.requests}/v1-ab/requests.csv").decode("utf-8-sig")


def test_what_is_refused_is_told_beside_it_until_it_is_no_more(place) -> None:
    place.answer("mine.csv", A_LIST)
    place.answer("refused.csv", "request_id,label\naa11,hat\n")  # a person's own
    about = [
        Refusal("mine.csv", "mine.csv, line 2", "aa11", "hut", "Ann", "unknown class hut"),
        Refusal("loose.jpg", "loose.jpg", "", None, None, "lies in no class folder"),
    ]

    place.service.show_refusals(about)
    told = set(files_under(place.answers))
    assert place.said() == {("aa11", "hat", "Ann"), ("bb22", "6", "Ann"), ("aa11", "hat", None)}
    place.service.show_refusals([])

    assert told == {"mine.csv", "refused.csv", "mine.csv.refused.csv", "2.refused.csv"}
    assert set(files_under(place.answers)) == {"mine.csv", "refused.csv"}


def test_a_store_that_does_not_answer_is_one_clear_error_and_no_answer_is_lost(s3, place) -> None:
    place.answer("mine.csv", A_LIST)

    with s3.faults(Faults(denied="labeling/")), pytest.raises(DlassetsError, match="answers could not be read"):
        place.service.answers()

    assert len(place.said()) == 2


def test_answers_are_collected_from_a_bucket_once_and_close_their_requests(bucket, tmp_path) -> None:
    bench = Bench(tmp_path)
    place = Place(f"s3://{bucket}/labeling")
    bench.service = place.service
    bench.add_photos("a", "b")
    bench.score({"a": 0.4, "b": 0.5})
    bench.send()
    ids = {Path(row["path"]).stem: row["request_id"] for row in bench.rows("label_requests")}
    place.answer("mine.csv", f"request_id,label,annotator\n{ids['a']},hat,Ann\n{ids['b']},hut,Ann\n")

    for _ in range(2):
        bench.collect()
        bench.close()
        bench.show()

    assert {(row["status"], row["label"]) for row in bench.rows("human_labels")} == {("accepted", 2), ("refused", None)}
    assert len(bench.rows("human_labels")) == 2
    found = {row["request_id"]: row["status"] for row in bench.rows("label_requests")}
    assert found == {ids["a"]: "answered", ids["b"]: "open"}
    (waiting,) = (name for name in place.names() if name.endswith("requests.csv"))
    assert ids["a"] not in read_whole(f"{place.requests}/{waiting}").decode()


class TestThePage:
    def given(self, answer_id: str, request_id: str, annotator: str = "Ann") -> Given:
        return Given(answer_id, request_id, annotator, "answered", 6, 1.5)

    def test_each_server_sees_what_others_wrote_and_an_answer_is_written_once(self, place) -> None:
        one, two = (PageAnswers(page_files(f"{place.answers}/page")) for _ in range(2))

        one.write([self.given("x", "aa11")])
        two.write([self.given("x", "aa11"), self.given("y", "bb22", "Ben")])
        one.write([self.given("z", "cc33")])
        one.follow()

        assert {name for name in ("aa11", "bb22", "cc33") if one.of(name)} == {"aa11", "bb22", "cc33"}
        two.follow()
        assert two.answered_by("Ann") == 2
        assert len(place.service.answers()) == 3
        assert len(files_under(f"{place.answers}/page")) == 2

    def test_what_the_store_did_not_take_is_no_answer_and_may_be_sent_again(self, place, monkeypatch) -> None:
        page = PageAnswers(page_files(f"{place.answers}/page"))
        page.write([self.given("x", "aa11")])

        with monkeypatch.context() as broken:
            broken.setattr(of_page, "write_whole", raises(OSError("no such store")))
            with pytest.raises(UnwrittenError, match="no such store"):
                page.write([self.given("y", "bb22")])
        page.write([self.given("y", "bb22")])

        assert place.said() == {("aa11", "6", "Ann"), ("bb22", "6", "Ann")}


def test_another_service_s_file_is_imported_into_a_bucket_and_again_changes_nothing(place, tmp_path, bench) -> None:
    bench.add_photos("a")
    bench.score({"a": 0.4})
    bench.send()
    (asked,) = bench.rows("label_requests")
    known = Known(bench.engine, bench.pin("label_requests"), bench.pin("raw_images"))
    given = tmp_path / "theirs.csv"
    given.write_text(f"request_id;label;annotator\n{asked['request_id']};hat;Ann\n")
    importing = Import(known, place.answers, {2: Class(2, "hat", [], NOON, "test")})

    taken = [importing.file(given) for _ in range(2)]

    assert [(each.answers, each.written) for each in taken] == [(1, True), (1, False)]
    assert place.said() == {(asked["request_id"], "hat", "Ann")}
