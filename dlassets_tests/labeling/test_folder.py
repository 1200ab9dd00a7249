import codecs
import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dlassets.errors import DlassetsError
from dlassets.labeling import folder, formats
from dlassets.labeling.folder import FolderService
from dlassets.labeling.services import Answer, Batch, Request, Standing
from dlassets_tests.tables import NOON

from .conftest import CLASSES, photo

PHOTOS = [("aa11", photo("a")), ("bb22", b"\x89PNG\r\n\x1a\n and more")]
HOSTILE = "<script>alert('x')</script>"


@pytest.fixture
def service(tmp_path: Path) -> FolderService:
    (tmp_path / "answers").mkdir()
    return FolderService(tmp_path / "requests", tmp_path / "answers")


def batch(classes: dict[int, str] = CLASSES) -> Batch:
    asked = [
        Request("aa11", f"unlabeled/{HOSTILE}.jpg", "a" * 64, 6, HOSTILE, 0.8),
        Request("bb22", "unlabeled/b.png", "b" * 64, 2, "=hat", 0.25),
    ]
    return Batch("v1-ab", asked, classes)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put(tmp_path: Path, name: str, content: str | bytes = "") -> Path:
    """Write a file under the answers, last written at noon."""
    path = tmp_path / "answers" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    os.utime(path, (NOON.timestamp(), NOON.timestamp()))
    return path


def answered(service: FolderService) -> list[tuple[str, str | None]]:
    return [(answer.request_id, answer.label) for answer in service.answers()]


def problems(service: FolderService) -> list[str]:
    return [answer.problem for answer in service.answers() if answer.problem is not None]


def test_a_batch_holds_photos_a_list_a_contact_sheet_and_a_how_to(service, tmp_path) -> None:
    assert service.send(batch(), iter(PHOTOS)) == {"aa11": "v1-ab/aa11", "bb22": "v1-ab/bb22"}
    folder = tmp_path / "requests" / "v1-ab"
    assert sorted(contents(folder)) == [
        ".lists",
        "README.txt",
        "aa11.jpg",
        "bb22.png",
        "index.html",
        "requests.csv",
    ]
    assert (folder / "bb22.png").read_bytes() == PHOTOS[1][1]
    with (folder / "requests.csv").open(encoding="utf-8-sig", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert lines[1] == {
        "request_id": "aa11",
        "path": f"unlabeled/{HOSTILE}.jpg",
        "predicted_label": "6",
        "predicted_name": HOSTILE,
        "confidence": "0.8000",
        "label": "",
    }
    assert lines[0]["predicted_name"] == "'=hat"  # a spreadsheet must not run it
    assert "002.hat" in (folder / "README.txt").read_text()


def test_the_contact_sheet_escapes_what_came_from_outside_and_shows_the_least_sure_first(service, tmp_path) -> None:
    service.send(batch(), iter(PHOTOS))
    page = (tmp_path / "requests" / "v1-ab" / "index.html").read_text()
    assert "<script" not in page
    assert page.index('src="bb22.png"') < page.index('src="aa11.jpg"')
    assert page.index("25.0%") < page.index("80.0%")


def test_sending_makes_a_folder_for_every_class(service, tmp_path) -> None:
    service.send(batch(classes={2: "hat", 3: "a/b", 7: "7"}), iter(PHOTOS))
    assert class_folders(tmp_path) == ["002.hat", "003.a_b", "007"]


def test_classes_follow_in_folders_that_nobody_uses_and_in_how_to_answer(service, tmp_path) -> None:
    service.send(batch(), iter(PHOTOS))
    put(tmp_path, "006.shirt/aa11.jpg")
    (tmp_path / "answers" / "011.scarf").mkdir()  # somebody's own
    (tmp_path / "answers" / "mine").mkdir()
    how_to = tmp_path / "requests" / "v1-ab" / "README.txt"

    service.show_classes({2: "cap", 12: "sock"})

    assert class_folders(tmp_path) == ["002.cap", "006.shirt", "011.scarf", "012.sock", "mine"]
    assert "012.sock" in how_to.read_text()
    assert "shirt" not in how_to.read_text()
    assert answered(service) == [("aa11", "006.shirt")]
    before = contents(tmp_path), how_to.stat().st_ino
    service.show_classes({2: "cap", 12: "sock"})
    assert (contents(tmp_path), how_to.stat().st_ino) == before


def test_where_nobody_is_asked_no_class_is_shown(service, tmp_path) -> None:
    service.show_classes({2: "cap"})
    assert class_folders(tmp_path) == []


def class_folders(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "answers").glob("[!.]*"))


def test_what_matters_most_stands_first_in_the_list_and_on_the_sheet_also_when_it_is_written_again(
    service, tmp_path
) -> None:
    names = ("aa11", "bb22", "cc33", "dd44")
    asked = [
        Request(name, f"unlabeled/{name}.jpg", name, 2, "hat", confidence, priority=priority)
        for name, confidence, priority in zip(names, (0.3, 0.9, 0.2, 0.9), (None, 7, -1, 7), strict=True)
    ]
    folder = tmp_path / "requests" / "v1-ab"
    sent = Batch("v1-ab", asked, CLASSES)
    service.send(sent, [(name, photo(name)) for name in names])
    lists = [(folder / "requests.csv").read_bytes()]
    service.show_standing([("v1-ab", [Standing(request) for request in reversed(asked)])], "again")
    lists.append((folder / "requests.csv").read_bytes())

    assert re.findall(r"^[a-d]{2}\d{2}", lists[0].decode(), re.MULTILINE) == ["bb22", "dd44", "aa11", "cc33"]
    assert lists[0] == lists[1]
    page = (folder / "index.html").read_text()
    assert re.findall(r'src="(\w+)\.jpg"', page) == ["bb22", "dd44", "aa11", "cc33"]


def test_the_same_batch_again_changes_nothing_and_reads_no_photo(service, tmp_path) -> None:
    first = service.send(batch(), iter(PHOTOS))
    (tmp_path / "requests" / "v1-ab" / "aa11.jpg").rename(tmp_path / "answers" / "002.hat" / "aa11.jpg")
    before = contents(tmp_path)
    unread = iter(PHOTOS)
    assert service.send(batch(), unread) == first
    assert list(unread) == PHOTOS
    assert contents(tmp_path) == before


def test_of_two_runs_that_send_a_batch_at_once_one_lays_it_out(service, tmp_path) -> None:
    def overtaken() -> Iterator[tuple[str, bytes]]:
        yield PHOTOS[0]
        service.send(batch(), iter(PHOTOS))
        yield PHOTOS[1]

    assert service.send(batch(), overtaken()).keys() == {"aa11", "bb22"}
    assert [path.name for path in (tmp_path / "requests").iterdir()] == ["v1-ab"]
    assert len(contents(tmp_path / "requests" / "v1-ab")) == 6


def test_a_batch_without_all_its_photos_is_not_laid_out(service, tmp_path) -> None:
    with pytest.raises(DlassetsError, match=r"1 photos of the labelling batch v1-ab are missing: \['bb22'\]"):
        service.send(batch(), PHOTOS[:1])
    assert not (tmp_path / "requests" / "v1-ab").exists()


@pytest.mark.parametrize("name", ["../out", "a/b", ".hidden", "", "a\0"])
def test_names_that_would_leave_the_folder_are_refused(service, tmp_path, name) -> None:
    with pytest.raises(DlassetsError, match="cannot be a file's name"):
        service.send(Batch(name, [], CLASSES), [])
    with pytest.raises(DlassetsError, match="cannot be a file's name"):
        service.send(Batch("v1-ab", [Request(name, "p", "i", 2, None, 0.5)], CLASSES), [(name, b"")])
    assert not (tmp_path / "requests").exists()


def test_what_was_shown_is_not_looked_at_again(service, tmp_path) -> None:
    service.send(batch(), iter(PHOTOS))
    standings = [Standing(request) for request in batch().requests]
    service.show_standing(iter([("v1-ab", standings), ("../out", []), ("taken-away", [])]), "state 1")
    unread = iter([("v1-ab", standings)])
    service.show_standing(unread, "state 1")
    assert len(list(unread)) == 1
    unread = iter([("v1-ab", standings)])
    service.show_standing(unread, "state 2")
    assert list(unread) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers", "requests"]


def test_no_answers_folder_is_no_answers(tmp_path) -> None:
    assert FolderService(tmp_path / "requests", tmp_path / "answers").answers() == []


def test_a_moved_photo_answers_with_its_folders_name_at_the_time_of_the_move(service, tmp_path) -> None:
    sent = put(tmp_path, "../aa11.jpg", photo("a"))
    before = datetime.now(UTC) - timedelta(seconds=1)
    (tmp_path / "answers" / "002.hat").mkdir()
    sent.rename(tmp_path / "answers" / "002.hat" / "aa11.jpg")
    (answer,) = service.answers()
    assert (answer.request_id, answer.label, answer.annotator, answer.dated) == ("aa11", "002.hat", None, False)
    assert answer.origin == "002.hat/aa11.jpg"
    assert before < answer.answered_at < datetime.now(UTC) + timedelta(seconds=1)
    assert service.answers() == [answer]


def test_a_csv_gives_label_annotator_and_time(service, tmp_path) -> None:
    put(
        tmp_path,
        "deep/er/mine.csv",
        "request_id,label,annotator,answered_at\n"
        "aa11,2,Åsa,2026-02-01T10:00:00.000001+02:00\n"
        "bb22,002.hat,,2026-02-01\n"
        "cc33,t-shirt,,\n"
        "dd44,,,\n",
    )
    where = "deep/er/mine.csv, line"
    assert service.answers() == [
        Answer("aa11", "2", "Åsa", datetime(2026, 2, 1, 8, 0, 0, 1, tzinfo=UTC), f"{where} 2", service="folder"),
        Answer("bb22", "002.hat", None, datetime(2026, 2, 1, tzinfo=UTC), f"{where} 3", service="folder"),
        Answer("cc33", "t-shirt", None, NOON, f"{where} 4", dated=False, service="folder"),
    ]


def test_the_list_that_was_sent_can_be_filled_in(service, tmp_path) -> None:
    service.send(batch(), iter(PHOTOS))
    text = (tmp_path / "requests" / "v1-ab" / "requests.csv").read_bytes().decode("utf-8-sig")
    put(tmp_path, "requests.csv", text)
    assert service.answers() == []
    put(tmp_path, "requests.csv", text.replace("0.2500,", "0.2500,shirt"))
    assert answered(service) == [("bb22", "shirt")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "request_id,label\naa11,2\nbb22,6\n"),
        ("a.csv", "sep=;\nrequest_id;label\naa11;2\nbb22;6\n"),
        ("a.csv", '\ufeff"sep=|"\r\nrequest_id|label|"note, and; more"\r\naa11|2|\r\nbb22|6|\r\n'),
        ("a.csv", "sep=\t\nrequest_id\tlabel\naa11\t2\nbb22\t6\n"),
        ("a.tsv", 'request_id\tlabel\tnote\naa11\t2\t"a, b; c"\nbb22\t6\t\n'),
        ("a.txt", "request_id\tlabel\r\naa11\t2\r\nbb22\t6\r\n"),
        ("a.csv", "request_id,label\naa11,2\nbb22,6\n".encode("utf-16")),
        ("a.csv", codecs.BOM_UTF16_BE + "sep=;\nrequest_id;label\naa11;2\nbb22;6".encode("utf-16-be")),
        ("a.json", '[{"request_id": "aa11", "label": 2}, {"request_id": "bb22", "label": "6"}]'.encode("utf-16")),
        ("a.CSV", "\ufeffrequest_id;label\r\naa11;2\r\n\r\nbb22;6"),
        ("a.csv", 'Label ; note ; Request_ID\n2;"a; b";aa11\n"6";"two\nlines";bb22\n'),
        ("a.json", '[{"request_id": "aa11", "label": 2}, {"request_id": "bb22", "label": "6"}]'),
        ("a.json", '\ufeff[{"request_id": "aa11", "label": 2},\n{"request_id": "bb22", "label": 6, "more": []}]'),
        ("a.jsonl", '{"request_id": "aa11", "label": 2}\n\n{"request_id": "bb22", "label": 6}\n'),
        ("a.jsonl", '\ufeff{"request_id": "aa11", "label": 2}\r\n{"request_id": "bb22", "label": 6}'),
    ],
)
def test_every_format_says_the_same(service, tmp_path, name, content) -> None:
    put(tmp_path, name, content)
    assert answered(service) == [("aa11", "2"), ("bb22", "6")]


def test_one_json_object_is_one_answer(service, tmp_path) -> None:
    put(tmp_path, "a.json", '{"request_id": "aa11", "label": "hat"}')
    put(tmp_path, "b.json", '{"request_id": "aa11", "label": null}')
    assert answered(service) == [("aa11", "hat")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "a.csv, line 1: the header lacks request_id and label"),
        ("a.csv", "id,label\naa11,2\n", "a.csv, line 1: the header lacks request_id"),
        ("a.csv", "request_id,label\nbb22,6\naa11,2,3\n", "a.csv, line 3: has 3 fields where the header has 2"),
        ("a.csv", 'request_id,label\nbb22,6\n"aa11,2\n', "a.csv, line 3: is not CSV: unexpected end of data"),
        ("a.csv", b"\x89PNG\r\n\x1a\n\x00\x00", "a.csv, line 1: is not UTF-8 text"),
        ("a.csv", "request_id,label\naa11,\xe9".encode("latin-1"), "a.csv, line 2: is not UTF-8 text"),
        ("a.csv", "request_id,label\nbb22,6\n,2\n", "a.csv, line 3: has the label '2' but no request_id"),
        (
            "a.csv",
            "request_id,label,answered_at\nbb22,6,\naa11,2,yesterday\n",
            "a.csv, line 3: answered_at 'yesterday' is no time",
        ),
        ("a.csv", "request_id,label,answered_at\naa11,2,0001-01-01T00:00:00+05:00\n", "a.csv, line 2: answered_at"),
        ("a.json", "[\n{,\n]", "a.json, line 2: is not JSON"),
        ("a.json", "[" * 100_000, "a.json, line 1: is not JSON that can be read"),
        ("a.json", '[{"label": 2}]', "a.json, item 1: lacks request_id"),
        ("a.json", "[7]", "a.json, item 1: is no object with request_id and label"),
        ("a.jsonl", '{"request_id": "bb22", "label": 6}\nnonsense\n', "a.jsonl, line 2: is not JSON"),
        ("a.xlsx", "PK", "a.xlsx: is neither a photo nor a CSV, JSON or JSONL file"),
        ("aa11.jpg", "", "aa11.jpg: lies in no class folder"),
    ],
)
def test_what_cannot_be_read_says_file_and_line_and_the_rest_counts(service, tmp_path, name, content, message) -> None:
    put(tmp_path, name, content)
    put(tmp_path, "z.csv", "request_id,label\ncc33,10\n")
    (problem,) = problems(service)
    assert problem.startswith(message)
    good = [pair for pair in answered(service) if pair[1] is not None]
    assert good == ([("bb22", "6")] if "bb22" in str(content) else []) + [("cc33", "10")]


def test_links_are_not_followed(service, tmp_path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.csv").write_text("request_id,label\naa11,2\n")
    (tmp_path / "answers" / "file.csv").symlink_to(outside / "secret.csv")
    (tmp_path / "answers" / "folder").symlink_to(outside)
    (tmp_path / "answers" / "loop").symlink_to(tmp_path / "answers")
    os.mkfifo(tmp_path / "answers" / "pipe.csv")
    assert [answer.label for answer in service.answers()] == [None] * 4
    assert [problem.split(":")[0] for problem in problems(service)] == ["file.csv", "folder", "loop", "pipe.csv"]


def test_what_file_managers_and_editors_leave_is_no_answer(service, tmp_path) -> None:
    for name in (".DS_Store", "002.hat/Thumbs.db", "~$mine.xlsx", ".~lock.mine.csv#", ".git/a.csv", "x/index.html"):
        put(tmp_path, name)
    assert service.answers() == []


def test_the_later_line_counts_where_one_person_answers_twice_at_no_stated_time(service, tmp_path) -> None:
    put(
        tmp_path,
        "log.jsonl",
        '{"request_id": "aa11", "label": 2}\n{"request_id": "aa11", "label": 6}\n'
        '{"request_id": "aa11", "label": 10, "annotator": "Bo"}\n'
        '{"request_id": "aa11", "label": 2, "answered_at": "2026-01-01"}\n',
    )
    assert answered(service) == [("aa11", "6"), ("aa11", "10"), ("aa11", "2")]


def test_names_that_are_no_unicode_are_answers_like_others(service, tmp_path) -> None:
    (tmp_path / "answers" / "002.hat").mkdir()
    (Path(os.fsdecode(os.fsencode(tmp_path / "answers" / "002.hat") + b"/\xff.jpg"))).write_bytes(photo("a"))
    put(tmp_path, "a.json", '{"request_id": "\\ud800", "label": 2}')
    assert set(answered(service)) == {("?", "002.hat"), ("?", "2")}


def of_many(good: dict[int, str], bad: bytes, count: int) -> bytes:
    """Answers among `count` lines, at these places; the other lines are bad."""
    lines = [b"request_id,label", *([bad] * count)]
    for place, request_id in good.items():
        lines[place] = f"{request_id},2".encode()
    return b"\n".join(lines) + b"\n"


@pytest.mark.parametrize("bad", [b"x,y,z", b"aa11,\xe9", b'"a,2', b"a,\x00,\x1b,1", b'a,"b"c', b"y" * (2**20 + 1)])
def test_a_bad_line_of_a_csv_costs_itself_alone(service, tmp_path, bad) -> None:
    put(tmp_path, "a.csv", of_many({1: "aa11", 3: "bb22", 4: "cc33"}, bad, 4))
    assert [pair for pair in answered(service) if pair[1]] == [("aa11", "2"), ("bb22", "2"), ("cc33", "2")]
    (problem,) = problems(service)
    assert problem.startswith("a.csv, line 3: ")


def test_of_many_bad_lines_some_are_named_and_the_others_counted(service, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(formats, "MOST_PROBLEMS", 2)
    put(tmp_path, "a.csv", of_many({5: "aa11"}, b"x,y,z", 5))
    assert problems(service)[-1] == "a.csv, further entries: 2 more cannot be read"
    assert len(problems(service)) == 3
    assert ("aa11", "2") in answered(service)


@pytest.mark.parametrize(
    ("name", "before", "each", "between", "after"),
    [
        ("a.jsonl", "", '{{"request_id": "{}", "label": "hat"}}', "\n", "\n"),
        ("a.json", "[", '{{"request_id": "{}", "label": "hat"}}', ", ", "]"),
        ("a.json", "[", '{{"request_id": "{}", "label": "hat"}}', ",\n", "]"),
        ("a.csv", "request_id,label\n", "{},hat", "\n", ""),
    ],
)
def test_answers_are_the_same_wherever_a_file_is_cut_for_reading(
    service, tmp_path, monkeypatch, name, before, each, between, after
) -> None:
    ids = [f"é{number}" for number in range(9)]
    put(tmp_path, name, before + between.join(each.format(request_id) for request_id in ids) + after)
    for size in (1, 2, 3, 7, 64):
        monkeypatch.setattr(folder, "READ_BYTES", size)
        assert answered(service) == [(request_id, "hat") for request_id in ids]


def test_json_that_breaks_off_says_where_and_what_came_before_counts(service, tmp_path, monkeypatch) -> None:
    put(tmp_path, "a.json", '[{"request_id": "aa11", "label": 2},\n{"request_id": "bb22", "label": 6},\n  {"request_id')
    for size in (5, 2**20):
        monkeypatch.setattr(folder, "READ_BYTES", size)
        assert [pair for pair in answered(service) if pair[1]] == [("aa11", "2"), ("bb22", "6")]
        assert problems(service) == ["a.json, line 3: is not JSON: Unterminated string starting at at column 4"]


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
def test_a_large_file_is_read_once_in_the_memory_of_a_few_entries(service, tmp_path, suffix) -> None:
    """A process of its own, whose peak is its own."""
    mebibytes = 32
    with put(tmp_path, f"a{suffix}").open("w") as file:
        file.write({".json": "[", ".jsonl": "", ".csv": "request_id,label,note\n"}[suffix])
        row = '{"request_id": "aa11", "label": "2", "note": "' + "x" * 8000 + '"}'
        between = ",\n" if suffix == ".json" else "\n"
        file.write(between.join(["aa11,2," + "x" * 8000 if suffix == ".csv" else row] * (mebibytes * 128)))
        file.write("]" if suffix == ".json" else "")
    code = f"""
import json, resource
from pathlib import Path
from dlassets.labeling.folder import FolderService
service = FolderService(Path({str(tmp_path)!r}, "requests"), Path({str(tmp_path)!r}, "answers"))
def read(): return int(Path("/proc/self/io").read_text().split()[1])
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak(), read()
answers = sum(answer.label == "2" for answer in service.each_answer())
print(json.dumps([answers, (peak() - before[0]) / 1024, (read() - before[1]) / 2**20]))
"""
    answers, grown, read = json.loads(subprocess.check_output([sys.executable, "-c", code]))
    assert answers == mebibytes * 128
    assert grown < mebibytes / 2
    assert read < mebibytes * 1.1
