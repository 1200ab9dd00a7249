"""What is written for other services: which requests, where their photos are, and never a half of it."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from dlassets.errors import DlassetsError
from dlassets.labeling.exchange.base import ShownRequest
from dlassets.labeling.exchange.registry import FORMATS
from dlassets.labeling.services import Request
from dlassets_tests.disk import disk_full_after
from dlassets_tests.labeling.conftest import Bench, failed, image_id, photo
from dlassets_tests.labeling.exchange.conftest import ANN, ASKED, BOB, CAT, DAN, Exchange, request_of


def tasks(folder: Path) -> dict[str, dict[str, Any]]:
    return {task["data"]["request_id"]: task for task in json.loads((folder / "tasks.json").read_text())}


def test_photos_are_copied_as_they_are_and_called_as_their_requests(exchange: Exchange, tmp_path: Path) -> None:
    folder = exchange.export("labelstudio-file", tmp_path / "out", photos=True, at="/data/local-files/?d=batch/")

    copied = {path.name: path.read_bytes() for path in (folder / "photos").iterdir()}
    assert copied == {f"{request_of(name)}.jpg": photo(name) for name in ASKED}
    assert tasks(folder)[ANN]["data"]["image"] == f"/data/local-files/?d=batch/photos/{ANN}.jpg"


def test_without_copies_a_photo_is_where_it_was_taken_in(exchange: Exchange, tmp_path: Path) -> None:
    folder = exchange.export("groundtruth", tmp_path / "out")
    elsewhere = exchange.export("groundtruth", tmp_path / "elsewhere", at="s3://bucket/lake/")

    def place(folder: Path) -> str:
        return json.loads((folder / "input.manifest").read_text().splitlines()[0])["source-ref"]

    assert place(folder) == f"{exchange.bench.lake.root}/landing/unlabeled/ann.jpg"
    assert place(elsewhere) == "s3://bucket/lake/unlabeled/ann.jpg"


def test_label_studio_is_told_what_the_model_thinks_the_least_sure_first(exchange: Exchange, tmp_path: Path) -> None:
    folder = exchange.export("labelstudio-file", tmp_path / "out")

    found = tasks(folder)
    assert [*found] == [ANN, BOB, CAT, DAN]
    result = {"from_name": "label", "to_name": "photo", "type": "choices", "value": {"choices": ["002.hat"]}}
    assert found[ANN]["predictions"] == [{"score": 0.1, "model_version": "dlassets", "result": [result]}]
    assert found[ANN]["data"]["about"] == "ann.jpg: the model thinks hat, 10% sure"
    assert '<Choice alias="010.t-shirt" value="t-shirt" hotkey="3"/>' in (folder / "label-config.xml").read_text()


def test_the_sizes_of_photos_are_told_where_they_are_known(asked: Bench, exchange: Exchange, tmp_path: Path) -> None:
    asked.add("image_profiles", [{"image_id": image_id("ann"), "width": 400, "height": 258}])

    images = json.loads((exchange.export("coco", tmp_path / "out") / "instances.json").read_text())["images"]

    assert [(image.get("width"), image.get("height")) for image in images] == [(400, 258), *[(None, None)] * 3]


@pytest.mark.parametrize("name", ["labelstudio-file", "cvat"])
def test_names_with_markup_in_them_are_text(tmp_path: Path, name: str) -> None:
    odd = '</View><Choice value="x"/>&\'"'
    shown = ShownRequest(Request("a1", "unlabeled/a.jpg", "0", 2, odd, 0.5), odd)

    files = FORMATS[name].write([shown], {2: odd})

    (xml,) = (content for file, content in files.items() if file.endswith(".xml"))
    tree = ET.fromstring(xml)
    told = {
        "labelstudio-file": [e.get("value") for e in tree.iter("Choice")],
        "cvat": [e.text for e in tree.iter("name")],
    }
    assert told[name] == [odd]


def test_a_formula_in_a_photo_s_name_is_text_in_a_spreadsheet(tmp_path: Path) -> None:
    shown = ShownRequest(Request("a1", "=1+1.jpg", "0", 2, "@hat", 0.5), "=1+1.jpg")

    (content,) = FORMATS["csv"].write([shown], {2: "@hat"}).values()

    assert b"a1,'=1+1.jpg,2,'@hat,0.5000," in content


def test_of_a_batch_alone_what_is_open_is_written(exchange: Exchange, tmp_path: Path) -> None:
    (batch,) = {row["batch_id"] for row in exchange.bench.rows("label_requests")}

    assert [*tasks(exchange.export("labelstudio-file", tmp_path / "out", batches=[batch]))] == [ANN, BOB, CAT, DAN]
    with pytest.raises(DlassetsError, match=f"batch v3-no is open.*: {batch}"):
        exchange.export("labelstudio-file", tmp_path / "other", batches=["v3-no"])
    assert not (tmp_path / "other").exists()


def test_what_is_there_is_not_written_over(exchange: Exchange, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")

    exchange.export("csv", tmp_path / "empty")
    for taken in ("empty", "full", "full/mine.txt"):
        with pytest.raises(DlassetsError, match="is there and not empty"):
            exchange.export("csv", tmp_path / taken)

    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_a_full_disk_leaves_nothing_half_written(exchange: Exchange, tmp_path: Path) -> None:
    with disk_full_after(30), pytest.raises(DlassetsError, match=r"could not be written.*nothing is half there"):
        exchange.export("labelstudio-file", tmp_path / "out", photos=True)

    assert [*tmp_path.iterdir()] == []


def test_with_nothing_open_there_is_nothing_to_ask(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(DlassetsError, match="No request is open"):
        Exchange(bench, tmp_path).export("csv", tmp_path / "out")


def test_a_photo_that_is_gone_is_left_out(bench: Bench, tmp_path: Path) -> None:
    bench.add_photos("ann", "bob")
    bench.score({"ann": 0.1, "bob": 0.2})
    bench.send()
    bench.add("quarantined_files", [failed("ann")])

    folder = Exchange(bench, tmp_path).export("labelstudio-file", tmp_path / "out", photos=True)

    assert [*tasks(folder)] == [BOB]
