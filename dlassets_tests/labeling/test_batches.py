"""A batch is filled as photos come, and follows what was answered; requests that need no answer any more are closed."""

import csv
import datetime as dt
import re
from pathlib import Path
from typing import Any

import pytest

from dlassets.engines.base import Engine
from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError
from dlassets.labeling import batch_folder
from dlassets.labeling.closing import BELIEVED, DECIDED, GONE, LABELLED, SURE
from dlassets.labeling.folder import FolderService
from dlassets.labeling.requests import request_id
from dlassets.labeling.selection.sources import EXPIRED
from dlassets.registry.models import ModelVersion
from dlassets_tests.killing import killed_at, overtaken_at

from .conftest import MODEL, Bench, doubted, image_id, labelled, prediction, raw_image

NOW = dt.datetime.now(dt.UTC)


def id_of(name: str, version: int = 3) -> str:
    return request_id(image_id(name), ModelVersion(MODEL, version))


def ask(bench: Bench, *names: str, version: int = 3, **settings: Any) -> None:
    """The photos come, the model is the less sure of them the later their names stand, and people are asked."""
    bench.add_photos(*names)
    bench.score({name: 0.9 - ord(name[0]) / 1000 for name in names}, version)
    bench.send(version, **settings)
    bench.show()


def answer(bench: Bench, content: str, name: str = "mine.csv") -> None:
    (bench.answers / name).write_text(f"request_id,label,annotator\n{content}")
    take_answers(bench)


def take_answers(bench: Bench) -> None:
    bench.collect()
    bench.close()
    bench.show()


def folders(bench: Bench) -> list[Path]:
    return sorted(path for path in bench.requests.iterdir() if path.is_dir())


def batches(bench: Bench) -> list[list[str]]:
    """The photos that each batch asks about, in its order, as its list has them."""
    found = [listed(folder / "requests.csv") for folder in folders(bench)]
    return sorted([name_of(row["path"]) for row in rows] for rows in found)


def name_of(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".jpg")


def listed(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def sheet(folder: Path) -> str:
    return (folder / "index.html").read_text()


def statuses(bench: Bench) -> dict[str, tuple[str, str | None]]:
    return {name_of(row["path"]): (row["status"], row["reason"]) for row in bench.rows("label_requests")}


def photos(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.jpg"))


def test_photos_that_come_one_by_one_fill_a_batch_and_then_another(bench: Bench) -> None:
    for name in "abcd":
        ask(bench, name, batch_size=3)
        ask(bench, batch_size=3)
    assert batches(bench) == [["c", "b", "a"], ["d"]]
    assert len({row["batch_id"] for row in bench.rows("label_requests")}) == 2
    assert [photos(folder) for folder in folders(bench) if len(photos(folder)) == 3] == [sorted(map(id_of, "abc"))]
    assert sorted(re.findall(r"<h1>\S+ (.*)</h1>", "".join(map(sheet, folders(bench))))) == [
        "0 of 1 answered",
        "0 of 3 answered",
    ]


@pytest.mark.slow
def test_many_at_once_are_as_many_batches_as_they_take_the_least_sure_in_the_first(bench: Bench) -> None:
    ask(bench, "a", batch_size=2)
    ask(bench, *"bcde", batch_size=2)
    assert batches(bench) == [["b"], ["d", "c"], ["e", "a"]]
    ask(bench, "f", batch_size=2)
    assert batches(bench) == [["d", "c"], ["e", "a"], ["f", "b"]]


@pytest.mark.parametrize(("version", "settings"), [(3, {"batch_hours": 0}), (4, {})])
def test_a_batch_that_is_old_or_another_model_s_is_not_added_to(bench, version, settings) -> None:
    ask(bench, "a", **settings)
    ask(bench, "b", version=version, **settings)
    assert batches(bench) == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("owner", "name", "after"),
    [
        pytest.param(LocalEngine, "merge", 0, marks=pytest.mark.slow),
        (LocalEngine, "merge", 1),
        pytest.param(Path, "write_bytes", 0, marks=pytest.mark.slow),
        pytest.param(Path, "rename", 0, marks=pytest.mark.slow),
        (Path, "rename", 2),
        pytest.param(batch_folder, "write_where_changed", 2, marks=pytest.mark.slow),
        (batch_folder, "write_where_changed", 3),
    ],
)
def test_killed_while_a_batch_grows_and_run_again_it_ends_as_if_never_killed(bench, owner, name, after) -> None:
    ask(bench, "a")
    with killed_at(owner, name, after):
        ask(bench, "b", "c")
    bench.send()
    bench.show()
    assert batches(bench) == [["c", "b", "a"]]
    (folder,) = folders(bench)
    assert photos(folder) == sorted(map(id_of, "abc"))
    assert set(statuses(bench).values()) == {("open", None)}
    assert "0 of 3 answered" in sheet(folder)


def test_of_two_runs_that_fill_a_batch_at_once_each_brings_its_photos(bench: Bench) -> None:
    ask(bench, "a")
    with overtaken_at(FolderService, "_bring", lambda: ask(bench, "c")):
        ask(bench, "b")
    assert batches(bench) == [["c", "b", "a"]]
    (folder,) = folders(bench)
    assert photos(folder) == sorted(map(id_of, "abc"))


def test_a_list_that_a_person_has_filled_in_stays_and_what_joins_is_listed_beside_it(bench: Bench) -> None:
    ask(bench, "a", "b")
    (folder,) = folders(bench)
    filled = (folder / "requests.csv").read_bytes().replace(b"0.8030,", b"0.8030,hat")
    (folder / "requests.csv").write_bytes(filled)
    ask(bench, "c")
    ask(bench, "d")
    assert (folder / "requests.csv").read_bytes() == filled
    assert [name_of(row["path"]) for row in listed(folder / "requests-2.csv")] == ["d", "c"]

    (folder / "requests.csv").rename(bench.answers / "mine.csv")
    take_answers(bench)
    assert [name_of(row["path"]) for row in listed(folder / "requests.csv")] == ["d", "c", "b"]
    assert not (folder / "requests-2.csv").exists()


def test_a_list_that_was_filled_in_where_it_lay_is_read_once(bench: Bench) -> None:
    ask(bench, "a", "b")
    (folder,) = folders(bench)
    digest = bench.service.answers_digest()
    assert bench.service.answers() == []
    filled = (
        (folder / "requests.csv").read_bytes().replace(b"0.8030,", b"0.8030,hat").replace(b"0.8020,", b"0.8020,cape")
    )
    (folder / "requests.csv").write_bytes(filled)
    assert bench.service.answers_digest() != digest
    written, (refusal,) = bench.collect_and_refuse()
    assert written.inserted == 2
    assert refusal.origin == f"../requests/{folder.name}/requests.csv, line 2"
    assert bench.collect().changed is False
    bench.close()
    bench.show()
    assert statuses(bench) == {"a": ("answered", None), "b": ("open", None)}
    assert (folder / "requests.csv").read_bytes() == filled


@pytest.mark.slow
def test_a_list_that_somebody_has_open_is_not_written(bench: Bench) -> None:
    ask(bench, "a")
    (folder,) = folders(bench)
    (folder / ".~lock.requests.csv#").touch()
    ask(bench, "b")
    assert [name_of(row["path"]) for row in listed(folder / "requests.csv")] == ["a"]
    assert [name_of(row["path"]) for row in listed(folder / "requests-2.csv")] == ["b"]


def test_what_was_answered_leaves_what_waits_and_the_sheet_shows_it(bench: Bench) -> None:
    ask(bench, *"abc")
    (folder,) = folders(bench)
    (folder / f"{id_of('a')}.jpg").rename(bench.answers / "002.hat" / f"{id_of('a')}.jpg")
    answer(bench, f"{id_of('b')},shirt,A<b>da\n{id_of('c')},cape,Bo\n")

    assert photos(folder) == [id_of("c")]
    assert photos(folder / "answered") == [id_of("b")]
    assert [name_of(row["path"]) for row in listed(folder / "requests.csv")] == ["c"]
    page = sheet(folder)
    assert "2 of 3 answered" in page
    assert "answered <b>002.hat</b><br>" in page
    assert "answered <b>006.shirt</b> by A&lt;b&gt;da" in page
    assert "answer refused: unknown class cape: the classes are" in page
    pictures = re.findall(r'src="([^"]+)"', page)
    assert pictures == [f"{id_of('c')}.jpg", f"answered/{id_of('b')}.jpg"]
    assert all((folder / picture).is_file() for picture in pictures)

    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    bench.add("classes", [{"label": 99, "name": "of no answer"}])
    bench.show()
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before, "written where it changes alone"

    answer(bench, f"{id_of('c')},hat,Bo\n", "again.csv")
    assert "3 of 3 answered" in sheet(folder)
    assert (photos(folder), (folder / "requests.csv").exists()) == ([], False)


@pytest.mark.slow
def test_nothing_that_a_person_has_put_into_a_batch_is_lost(bench: Bench) -> None:
    ask(bench, "a")
    (folder,) = folders(bench)
    (folder / "notes.txt").write_text("mine")
    (folder / f"{id_of('a')}.jpg").write_bytes(b"drawn upon")
    (folder / "answered").mkdir()
    (folder / "answered" / f"{id_of('a')}.jpg").write_bytes(b"another")
    answer(bench, f"{id_of('a')},hat,\n")
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / f"{id_of('a')}.jpg").read_bytes() == b"drawn upon"
    assert (folder / "answered" / f"{id_of('a')}.jpg").read_bytes() == b"another"


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Path, "rename"),
        pytest.param(batch_folder, "write_where_changed", marks=pytest.mark.slow),
        pytest.param(FolderService, "show_standing", marks=pytest.mark.slow),
    ],
)
def test_killed_while_people_are_shown_what_was_answered_the_next_run_shows_it(bench, owner, name) -> None:
    ask(bench, *"ab")
    (folder,) = folders(bench)
    with killed_at(owner, name):
        answer(bench, f"{id_of('b')},shirt,\n")
    bench.show()
    assert "1 of 2 answered" in sheet(folder)
    assert (photos(folder), photos(folder / "answered")) == ([id_of("a")], [id_of("b")])
    assert [name_of(row["path"]) for row in listed(folder / "requests.csv")] == ["a"]


@pytest.mark.slow
def test_a_batch_that_cannot_be_written_is_said_and_shown_later(bench: Bench) -> None:
    ask(bench, "a", version=3)
    ask(bench, "b", version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(PermissionError(13, "not yours")))
        with pytest.raises(DlassetsError, match=r"1 labelling batches do not show what was answered: .*not yours"):
            answer_without_file(bench)
    bench.show()
    assert sum("1 of 1 answered" in sheet(folder) for folder in folders(bench)) == 1


def answer_without_file(bench: Bench) -> None:
    said = {"request_id": id_of("a"), "image_id": image_id("a"), "label": 2, "status": "accepted"}
    bench.add("human_labels", [said])
    bench.close()
    bench.show()


def test_no_more_wait_than_the_budget_allows_and_the_rest_is_asked_as_these_are_answered(bench: Bench) -> None:
    bench.add_photos(*"abc")
    bench.score({"a": 0.5, "b": 0.4, "c": 0.3})
    written, unasked = bench.send_and_count(batch_limit=2)
    assert (written.inserted, unasked) == (2, 1)
    written, unasked = bench.send_and_count(batch_limit=2)
    assert (written.changed, unasked) == (False, 1)
    answer(bench, f"{id_of('c')},hat,\n")
    written, unasked = bench.send_and_count(batch_limit=2)
    assert (written.inserted, unasked) == (1, 0)
    assert statuses(bench) == {"a": ("open", None), "b": ("open", None), "c": ("answered", None)}


@pytest.fixture
def waiting(bench: Bench) -> Bench:
    """People are asked about `a`, which the model is unsure of, and `c`, which lies in two class folders."""
    copies = ("labeled/002.hat/c.jpg", "labeled/006.shirt/c.jpg")
    bench.add("raw_images", [raw_image("a"), *(raw_image("c", path) for path in copies)])
    bench.add("labeled_images", [labelled("c", label, path) for label, path in zip((2, 6), copies, strict=True)])
    bench.add("predictions", [prediction("a", 0.5), {**prediction("c", 0.9), "path": copies[0]}])
    bench.send(conflicts="ask")
    bench.show()
    return bench


def gone(bench: Bench) -> None:
    bench.replace_photo(raw_image("other", "unlabeled/a.jpg"))


def labelled_elsewhere(bench: Bench) -> None:
    bench.add("labeled_images", [labelled("a", 2, "labeled/002.hat/a.jpg")])


def sure(bench: Bench) -> None:
    bench.score({"a": 0.96}, version=4)


@pytest.mark.parametrize(("happens", "reason"), [(gone, GONE), (labelled_elsewhere, LABELLED), (sure, SURE)])
def test_what_needs_no_answer_any_more_is_withdrawn_and_says_why(waiting, engine, happens, reason) -> None:
    happens(waiting)
    waiting.engine = engine
    assert waiting.close(4, "ask").updated == 1
    waiting.show()
    assert statuses(waiting) == {"a": ("withdrawn", reason), "c": ("open", None)}
    assert waiting.close(4, "ask").changed is False
    (folder,) = folders(waiting)
    assert (photos(folder), photos(folder / "withdrawn")) == ([id_of("c")], [id_of("a")])
    assert f"no longer asked: {reason}" in sheet(folder)
    assert "0 of 2 answered, 1 no longer asked" in sheet(folder)


@pytest.mark.slow
def test_what_people_were_to_decide_is_withdrawn_once_it_is_decided(waiting: Bench) -> None:
    assert waiting.close(3, "ask").changed is False
    assert waiting.close(3, "drop").updated == 1
    assert statuses(waiting)["c"] == ("withdrawn", DECIDED)


@pytest.mark.slow
def test_a_label_that_no_longer_looks_wrong_is_not_asked_about(bench: Bench) -> None:
    bench.add("raw_images", [raw_image("w", "labeled/006.shirt/w.jpg")])
    bench.add("labeled_images", [labelled("w", 6, "labeled/006.shirt/w.jpg")])
    bench.add("label_errors", [doubted("w", 6, 0.01)])
    bench.send(relabel_limit=1)
    assert bench.close(3).changed is False
    bench.add(
        "labeled_images", [labelled("w", 10, "labeled/010.t-shirt/w.jpg")]
    )  # now in two folders, by which none is
    bench.close(3)
    assert statuses(bench)["w"] == ("withdrawn", BELIEVED)


@pytest.mark.parametrize(
    "strategy", ["threshold", "least_confidence", "margin", "entropy", "diversity", "hybrid", "random"]
)
def test_whatever_chose_a_photo_it_is_withdrawn_once_the_model_is_sure_of_it(bench, strategy) -> None:
    bench.add_photos("a")
    bench.score({"a": 0.5})
    bench.send(strategy=strategy)
    sure(bench)
    bench.close(4)
    assert statuses(bench) == {"a": ("withdrawn", SURE)}


def test_one_of_the_audit_waits_for_its_answer_whatever_the_model_says_and_others_label(bench, engine) -> None:
    bench.add_photos("a", "b")
    bench.score({"a": 0.5, "b": 0.99})
    bench.send(audit_share=1.0)
    assert [row["strategy"] for row in bench.rows("label_requests")] == ["audit", "audit"]
    sure(bench)
    labelled_elsewhere(bench)
    bench.engine = engine
    assert bench.close(4).changed is False
    gone(bench)
    bench.close(4)
    assert statuses(bench) == {"a": ("withdrawn", GONE), "b": ("open", None)}


def test_what_nobody_answers_in_time_is_withdrawn_and_rests(bench, engine) -> None:
    bench.add_photos("a", "b")
    bench.score({"a": 0.5, "b": 0.6})
    bench.send()
    a, b = (
        {**row, "requested_at": NOW - dt.timedelta(days=days)} for row, days in zip(by_path(bench), (4, 2), strict=True)
    )
    bench.replace_requests(a, b)
    bench.engine = engine
    assert bench.close().changed is False
    bench.close(expire_days=3)
    assert statuses(bench) == {"a": ("withdrawn", EXPIRED), "b": ("open", None)}
    closed = [row["closed_at"] for row in by_path(bench)]
    assert NOW < closed[0] < dt.datetime.now(dt.UTC)
    assert closed[1] is None
    assert bench.send(expire_days=3).changed is False
    bench.replace_requests({**by_path(bench)[0], "requested_at": NOW - dt.timedelta(days=7)}, b)
    assert bench.send(expire_days=3).inserted == 1
    assert statuses(bench) == {"a": ("open", None), "b": ("open", None)}
    assert [row["closed_at"] for row in by_path(bench)] == [None, None]


def by_path(bench: Bench) -> list[dict[str, Any]]:
    return sorted(bench.rows("label_requests"), key=lambda row: row["path"])


def test_an_answer_to_what_was_withdrawn_counts(waiting: Bench) -> None:
    sure(waiting)
    waiting.close(4, "ask")
    answer(waiting, f"{id_of('a')},hat,\n")
    assert statuses(waiting)["a"] == ("answered", None)
    (folder,) = folders(waiting)
    assert "1 of 2 answered" in sheet(folder)


def test_what_was_withdrawn_is_asked_again_when_there_is_reason_to(waiting: Bench, engine: Engine) -> None:
    gone(waiting)
    waiting.close(3, "ask")
    waiting.show()
    waiting.replace_photo(raw_image("a"))
    waiting.engine = engine
    assert waiting.send(conflicts="ask").inserted == 1
    waiting.show()
    assert statuses(waiting) == {"a": ("open", None), "c": ("open", None)}
    (folder,) = folders(waiting)
    assert photos(folder) == sorted([id_of("a"), id_of("c")])
    assert "0 of 2 answered" in sheet(folder)


@pytest.mark.slow
def test_a_planned_request_whose_photo_is_gone_is_withdrawn(bench: Bench) -> None:
    bench.add_photos("a", "b")
    bench.score({"a": 0.5, "b": 0.5})
    with killed_at(FolderService, "send"):
        bench.send()
    gone(bench)
    bench.close(3)
    bench.send()
    assert statuses(bench) == {"a": ("withdrawn", GONE), "b": ("open", None)}


@pytest.mark.slow
def test_batches_of_before_this_version_are_shown_and_closed_like_others(bench: Bench) -> None:
    """Their list stays as it is: nothing says that no person has changed it."""
    ask(bench, "a", "b")
    (folder,) = folders(bench)
    (folder / ".lists").unlink()
    content = (folder / "requests.csv").read_bytes()
    answer(bench, f"{id_of('b')},shirt,\n")
    assert (folder / "requests.csv").read_bytes() == content
    assert "1 of 2 answered" in sheet(folder)
    ask(bench, "c")
    assert [name_of(row["path"]) for row in listed(folder / "requests-2.csv")] == ["c"]
