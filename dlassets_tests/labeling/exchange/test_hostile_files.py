"""Files that would do harm, or are broken: each costs itself or a part of it, and never the machine."""

import json
import os
import tracemalloc
from itertools import chain, repeat
from pathlib import Path

import pytest

from dlassets.errors import DlassetsError
from dlassets.labeling.exchange import coco, importing
from dlassets.labeling.exchange.base import ForeignAnswer
from dlassets.labeling.exchange.registry import FORMATS
from dlassets.labeling.formats import MOST_PROBLEMS
from dlassets_tests.disk import disk_full_after
from dlassets_tests.killing import killed_at
from dlassets_tests.labeling.exchange.conftest import ANN, Exchange, counts

MEGABYTE = 2**20


def read(name: str, suffix: str, *chunks: bytes) -> list[ForeignAnswer]:
    return list(FORMATS[name].read(chunks, suffix))


def problem(name: str, suffix: str, *chunks: bytes) -> str:
    (only,) = read(name, suffix, *chunks)
    return only.problem or ""


BOMB = b"""<?xml version="1.0"?>
<!DOCTYPE annotations [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<annotations><image name="&b;"></image></annotations>"""
READER = b"""<?xml version="1.0"?>
<!DOCTYPE annotations [<!ENTITY a SYSTEM "file:///etc/passwd">]>
<annotations><image name="&a;"></image></annotations>"""


@pytest.mark.parametrize("xml", [BOMB, READER, b'<!DOCTYPE annotations SYSTEM "http://x.y/z.dtd"><annotations/>'])
def test_xml_that_defines_anything_is_not_read(xml: bytes) -> None:
    assert "has a DOCTYPE" in problem("cvat", ".xml", xml)


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (b"<html><body/></html>", "it begins with <html>"),
        (b"<annotations><image name='a'>", "is not XML: no element found"),
        (b"<annotations><image name='a\xff'/></annotations>", "is not XML: not well-formed"),
        (b"<annotations>" + b"<a>" * 30, "more than 20 deep"),
        (b"<annotations><track id='1'/></annotations>", "is a track of a video"),
        (b"<annotations><image name='&a;'/></annotations>", "is not XML: undefined entity"),
    ],
)
def test_xml_that_is_none_of_cvat_s(xml: bytes, message: str) -> None:
    assert message in problem("cvat", ".xml", xml)


def test_an_element_of_xml_that_does_not_end_is_not_waited_for() -> None:
    endless = chain([b"<annotations><image name='"], repeat(b"a" * MEGABYTE, 200))

    (only,) = FORMATS["cvat"].read(endless, ".xml")

    assert "is longer than 1048576 bytes" in (only.problem or "")
    assert len([*endless]) > 190


@pytest.mark.parametrize("name", ["azureml", "coco", "cvat", "labelstudio-file", "groundtruth"])
def test_brackets_nested_deeply_are_said(name: str) -> None:
    text = b'{"image_url": "a", "images": [' + b"[" * 100_000

    assert "JSON" in problem(name, ".json" if name != "azureml" else ".jsonl", text)


def test_a_name_that_is_there_twice_says_nothing() -> None:
    lines = b'{"image_url": "a.jpg", "label": "hat", "label": "shirt"}\n{"image_url": "b.jpg", "label": "hat"}\n'

    twice, other = read("azureml", ".jsonl", lines)

    assert (twice.problem, twice.label) == ("says 'label' twice", None)
    assert (other.photo, other.label) == ("b.jpg", "hat")


def test_a_number_of_coco_s_that_two_have_is_said() -> None:
    images = b'"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]'

    first, second = read("coco", ".json", b'{"categories": [{"id": 1, "name": "hat"}], ' + images + b"}")

    assert (first.place, first.problem) == ("images, item 2", "has the id 1 that another has")
    assert (second.photo, second.label) == ("a.jpg", None)


def test_what_is_no_number_says_nothing() -> None:
    rows = b'[{"image": "a.jpg", "choice": NaN, "lead_time": 1}, {"image": "a", "choice": "hat", "lead_time": NaN}]'

    first, second = read("labelstudio-file", ".json", rows)

    assert (first.label, first.problem) == (None, None)
    assert (second.label, second.seconds) == ("hat", None)


def test_coco_of_more_images_than_memory_is_for_is_one_clear_problem(monkeypatch) -> None:
    monkeypatch.setattr(coco, "MOST_IMAGES", 10)
    images = ", ".join(f'{{"id": {n}, "file_name": "a.jpg"}}' for n in range(20))

    assert "there are more than 10 images" in problem("coco", ".json", f'{{"images": [{images}]}}'.encode())


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_a_list_in_another_encoding_costs_the_lines_that_have_it(
    exchange: Exchange, tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes("photo;label\nunlabeled/ann.jpg;hat\nunlabeled/bob.jpg;Mütze\n".encode(encoding))

    imported = exchange.take(path)

    assert counts(imported) == (1, 0, 0, 1)
    assert imported.examples == ["line 3: is not UTF-8 text: save it as UTF-8 (CSV UTF-8)"]


def test_of_a_file_full_of_rubbish_so_many_are_named_and_the_others_counted(exchange: Exchange, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text('{"image_url": "unlabeled/ann.jpg", "label": "hat"}\n' + "rubbish\n" * 3000)

    imported = exchange.take(path)

    assert counts(imported) == (1, 0, 0, 3000)
    lines = exchange.said(imported)
    assert len(lines) == 1 + MOST_PROBLEMS + 1
    assert lines[-1] == {"unusable": "imported from labels.jsonl, further places: 2,000 more"}


def test_many_answers_are_several_files(exchange: Exchange, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("photo,label\n" + "unlabeled/ann.jpg,hat\n" * 25)
    written = []
    for lines in (10, 10, 20):
        monkeypatch.setattr(importing, "LINES_A_FILE", lines)
        imported = exchange.take(path)
        parts = [path.read_text().count("\n") for path in sorted(Path(imported.target).parent.glob("[!.]*"))]
        written.append((imported.written, sorted(parts)))

    assert written == [(True, [5, 10, 10]), (False, [5, 10, 10]), (True, [5, 20])]


@pytest.mark.slow
def test_a_large_file_is_read_in_the_memory_of_a_few_parts(exchange: Exchange, tmp_path: Path) -> None:
    line = f'{{"image_url": "AmlDatastore://blobs/{ANN}.jpg", "label": "hat", "note": "{"x" * 900}"}}\n'
    path = tmp_path / "large.jsonl"
    path.write_text(line * 60_000)
    tracemalloc.start()

    imported = exchange.take(path)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (imported.answers, path.stat().st_size > 55 * MEGABYTE) == (60_000, True)
    assert peak < 40 * MEGABYTE


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/etc/passwd", "\\\\host\\share\\a", "a\0b", "https://[x/y", "%2e%2e/"]
)
def test_a_name_leads_nowhere(exchange: Exchange, tmp_path: Path, name: str, monkeypatch) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps({"image_url": name, "label": "hat"}))
    opened: list[str] = []
    really = os.open

    def watched(place: str, *more: int) -> int:
        opened.append(str(place))
        return really(place, *more)

    monkeypatch.setattr(os, "open", watched)

    imported = exchange.take(path)

    assert counts(imported) == (0, 0, 0, 1)
    assert "names no photo" in imported.examples[0]
    assert {*opened} <= {str(path), str(exchange.answers / "imported" / ".lock")}


def test_a_pipe_is_not_waited_for(exchange: Exchange, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")

    with pytest.raises(DlassetsError, match=r"pipe\.csv cannot be imported: .*no regular file"):
        exchange.take(tmp_path / "pipe.csv")


def test_a_full_disk_leaves_nothing_half_imported(exchange: Exchange, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("photo,label\n" + "unlabeled/ann.jpg,hat\n" * 500)

    with disk_full_after(1000), pytest.raises(DlassetsError, match="no file is half there"):
        exchange.take(path)

    assert {path.name for path in (exchange.answers / "imported").iterdir()} <= {".lock"}
    assert exchange.take(path).answers == 500


def test_what_a_killed_import_left_half_written_goes_with_the_next(
    exchange: Exchange, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "a.csv").write_text(f"request_id,label\n{ANN},hat\n")
    (tmp_path / "b.csv").write_text(f"request_id,label\n{ANN},shirt\n")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # a killed process tidies nothing up
        with killed_at(Path, "replace"):
            exchange.take(tmp_path / "a.csv")
    folder = exchange.answers / "imported"
    assert len([path for path in folder.glob(".*") if path.name != ".lock"]) == 1
    assert [*folder.glob("[!.]*")] == []

    imported = exchange.take(tmp_path / "b.csv")
    again = exchange.take(tmp_path / "a.csv")

    assert {path.name for path in folder.iterdir()} - {".lock"} == {Path(imported.target).name, Path(again.target).name}


def test_a_place_that_is_no_folder_is_a_clear_error(exchange: Exchange, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("photo,label\nunlabeled/ann.jpg,hat\n")
    exchange.answers.write_text("no folder")

    with pytest.raises(DlassetsError, match=r"mine\.csv cannot be imported"):
        exchange.take(tmp_path / "mine.csv")
