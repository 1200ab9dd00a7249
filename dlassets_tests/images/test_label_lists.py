"""Lists of labels in the forms that people and programs write them, and which photos they are of."""

import io
import json
from contextlib import suppress
from typing import Any

import pytest

from dlassets.errors import DlassetsError
from dlassets.images.folders import FolderClass
from dlassets.images.label_lists import Listed, ListRule, find_photos, read_list
from dlassets.settings import LandingZone

CAT, DOG = FolderClass(None, "cat"), FolderClass(None, "dog")
BOTH = {"a.jpg": CAT, "b.jpg": DOG}


def parquet(**columns: list[Any]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


def coco(*annotations: tuple[int, int]) -> bytes:
    images = [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}]
    categories = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    said = [{"id": n, "image_id": image, "category_id": kind} for n, (image, kind) in enumerate(annotations)]
    return json.dumps({"images": images, "annotations": said, "categories": categories}).encode()


def task(photo: str, *choices: str, **more: Any) -> dict[str, Any]:
    result = [{"type": "choices", "from_name": "choice", "value": {"choices": [choice]}} for choice in choices]
    return {"id": 1, "data": {"image": photo}, "annotations": [{"result": result, "was_cancelled": False, **more}]}


def read(data: bytes | str, name: str = "labels.csv", **rule: str) -> list[Listed]:
    return read_list(data.encode() if isinstance(data, str) else data, f"labeled/{name}", ListRule(**rule))


def classes(data: bytes | str, name: str = "labels.csv", **rule: str) -> dict[str, FolderClass | None]:
    return {each.photo: each.said for each in read(data, name, **rule)}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("labels.csv", "path,label\na.jpg,cat\nb.jpg,dog\n"),
        ("LABELS.CSV", "\ufefffile_name;class\r\na.jpg;cat\r\nb.jpg;dog\r\n"),
        ("labels.tsv", "Image\tCategory\na.jpg\tcat\nb.jpg\tdog\n"),
        ("labels.csv", "path,label\na.jpg,cat\nb.jpg,dog\n".encode("utf-16")),
        ("metadata.jsonl", '{"file_name": "a.jpg", "label": "cat"}\n{"file_name": "b.jpg", "label": "dog"}\n'),
        ("labels.json", '[{"image": "a.jpg", "choice": "cat"}, {"image": "b.jpg", "choice": "dog"}]'),
        ("labels.json", '{"a.jpg": "cat", "b.jpg": "dog"}'),
        ("metadata.parquet", parquet(file_name=["a.jpg", "b.jpg"], label=["cat", "dog"], width=[1, 2])),
        ("instances.json", coco((7, 0), (8, 1), (8, 1))),
        ("export.json", json.dumps([task("/data/upload/3/0a1b2c3d-a.jpg", "cat"), task("s3://bucket/b.jpg", "dog")])),
        ("export.json", json.dumps([task("/data/local-files/?d=a.jpg", "cat"), task("b.jpg", "dog", more=1)])),
        ("export.csv", 'id,image,choice\n1,a.jpg,cat\n2,b.jpg,"{""choices"": [""dog""]}"\n'),
    ],
)
def test_every_form_says_the_same(name: str, data: bytes | str) -> None:
    assert classes(data, name) == BOTH


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("cat", CAT),
        ("3", FolderClass(3, None)),
        ("3.0", FolderClass(3, None)),  # pandas writes so where a value is missing
        ("003.cat", FolderClass(3, "cat")),
        (" wild  cat ", FolderClass(None, "wild cat")),
    ],
)
def test_a_label_is_a_name_a_number_or_both(label: str, said: FolderClass) -> None:
    assert classes(f"path,label\na.jpg,{label}\n") == {"a.jpg": said}


def test_a_number_has_the_name_that_stands_beside_it() -> None:
    assert classes("path,label,label_name\na.jpg,3,cat\nb.jpg,40,\n") == {
        "a.jpg": FolderClass(3, "cat"),
        "b.jpg": FolderClass(40, None),
    }


def test_the_settings_name_the_columns() -> None:
    data = "id,label,breed\na,1,cat\nb,1,dog\n"
    assert classes(data, photo_column="id", label_column="Breed") == {"a": CAT, "b": DOG}


def test_a_rule_of_the_zone_s_own_takes_what_no_folder_is_called() -> None:
    data = "path,label\na.jpg,20-29\n"
    with pytest.raises(DlassetsError, match="'20-29', which is a range of numbers, not a class"):
        read(data)
    zone = LandingZone(uri="x", labelled=True, label_from="list", label_rule="(?P<name>.+)")
    rule = ListRule.of(zone)
    assert rule is not None
    assert read_list(data.encode(), "x/labels.csv", rule) == [Listed("a.jpg", FolderClass(None, "20-29"))]


def test_photos_without_a_label_are_not_in_it() -> None:
    data = '{"file_name": "c.jpg"}\n{"file_name": "a.jpg", "label": "cat"}\n{"file_name": "d.jpg", "label": null}\n'
    assert classes(data, "metadata.jsonl") == {"a.jpg": CAT}
    assert classes(parquet(path=["a.jpg", "b.jpg"], label=[3.0, float("nan")]), "x.parquet") == {
        "a.jpg": FolderClass(3, None)
    }
    skipped = json.dumps([task("a.jpg", "cat"), task("b.jpg", "dog", was_cancelled=True)])
    assert classes(skipped, "export.json") == {"a.jpg": CAT}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("labels.csv", "path,label\na.jpg,cat\nb.jpg,dog\na.jpg,dog\na.jpg,cat\n"),
        ("instances.json", coco((7, 0), (7, 1), (8, 1))),
        ("export.json", json.dumps([task("a.jpg", "cat", "dog"), task("b.jpg", "dog")])),
    ],
)
def test_a_photo_of_two_classes_has_none(name: str, data: bytes | str) -> None:
    a, b = read(data, name)
    assert (a.photo, a.said, a.problem) == ("a.jpg", None, "is said to be cat and dog")
    assert b == Listed("b.jpg", DOG)


def test_an_entry_that_cannot_be_read_costs_itself_alone() -> None:
    data = 'path,label\na.jpg,cat\n"b.jpg"x,dog\n,dog\nc.jpg,test\n'
    said, *problems = read(data)
    assert said == Listed("a.jpg", CAT)
    assert [(each.photo, each.said) for each in problems] == [("line 3", None), ("line 4", None), ("c.jpg", None)]
    assert [each.problem and each.problem.split(":")[0] for each in problems] == [
        "is not CSV",
        "has the label 'dog' and no photo",
        "has the label 'test', which is a side of a split, not a class by the zone's label_rule",
    ]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("labels.csv", "", "it gives no photo a class: line 1 there is no header"),
        ("labels.csv", "path,label\n", "it gives no photo a class"),
        ("labels.csv", "when,who\n1,ada\n", r"among its columns \(when, who\) is none of file_name, .*photo_column"),
        ("labels.csv", "path,who\na,ada\n", r"is none of label, class, .*: say which in the zone's label_column"),
        ("labels.json", "{", "it is not JSON"),
        ("labels.json", '{"images": [], "annotations": [{}]}', "is no COCO file"),
        ("labels.json", "[" * 100_000, "it gives no photo a class: line 1 is not JSON"),
        ("labels.parquet", b"PAR1", "it is no Parquet file that can be read"),
        ("labels.parquet", parquet(path=["a"], label=["c"]).replace(b"label", b"la\xffel"), "it is no Parquet file"),
        ("labels.xlsx", b"PK", "a list is one of .csv, .tsv, .txt, .json, .jsonl, .parquet"),
        ("labels.csv", b"\xff\xd8\xff\xe0" * 9, "it gives no photo a class: line 1 is not UTF-8"),
    ],
)
def test_what_is_no_list_is_refused_in_words(name: str, data: bytes | str, message: str) -> None:
    with pytest.raises(DlassetsError, match=message):
        read(data, name)


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(DlassetsError, match=r"\(id, label\) is no column breed: say which in .*label_column"):
        read("id,label\na,b\n", label_column="breed")


@pytest.mark.parametrize(
    ("folder", "photo", "paths", "found"),
    [
        ("", "a.jpg", ["a.jpg", "train/a.jpg"], ["a.jpg"]),
        ("train", "a.jpg", ["test/a.jpg", "train/a.jpg"], ["train/a.jpg"]),
        ("train", "test/a.jpg", ["test/a.jpg", "train/a.jpg"], ["test/a.jpg"]),
        ("annotations", "a.jpg", ["images/a.jpg"], ["images/a.jpg"]),
        ("", "a.jpg", ["train/a.jpg", "test/a.jpg"], ["train/a.jpg", "test/a.jpg"]),
        ("", "photos/2026/a.jpg", ["a.jpg"], ["a.jpg"]),
        ("", "a", ["images/a.jpg", "images/a.txt.jpg"], ["images/a.jpg"]),
        ("", "a.png", ["a.jpg"], []),
        ("", "ba.jpg", ["a.jpg"], []),
        ("", "a.jpg", ["x/a.jpg", "x/a.jpg.png"], ["x/a.jpg"]),
        ("x", "../y/a.jpg", ["y/a.jpg", "x/a.jpg"], ["y/a.jpg"]),
        ("", "cafe\u0301.jpg", ["caf\u00e9.jpg"], ["caf\u00e9.jpg"]),
        ("", "IMG.JPG", ["img.jpg"], []),
    ],
)
def test_a_photo_is_found_by_the_nearest_path_that_its_name_fits(
    folder: str, photo: str, paths: list[str], found: list[str]
) -> None:
    assert find_photos([(folder, photo)], paths) == {(folder, photo): found}


def test_case_tells_photos_apart_unless_the_setting_says_otherwise() -> None:
    assert find_photos([("", "IMG.JPG")], ["img.jpg"], ignore_case=True) == {("", "IMG.JPG"): ["img.jpg"]}


def test_photos_that_are_all_called_the_same_are_told_apart_by_their_folders_at_once() -> None:
    paths = [f"patient{number}/study/image.png" for number in range(20_000)]
    listed = [("", path.removesuffix(".png")) for path in paths]

    assert find_photos(listed, paths) == {entry: [path] for entry, path in zip(listed, paths, strict=True)}


def test_what_is_right_is_kept_however_much_is_wrong() -> None:
    listed = read("path,label\n" + ",cat\n" * 5_000 + "a.jpg,cat\n")

    assert len(listed) == 1_001
    assert listed[-1] == Listed("a.jpg", CAT)


@pytest.mark.parametrize("path", ["?d=", "x#?d=a", "http://[::1/a.jpg", "://", "a?d=%"])
def test_what_looks_like_a_url_and_is_none_is_no_error(path: str) -> None:
    with suppress(DlassetsError):
        read(f"path,label\n{path},cat\n")


@pytest.mark.parametrize("path", ["C:\\photos\\a.jpg", "./a.jpg", "/a.jpg", "https://host/a.jpg?token=1", "x/../a.jpg"])
def test_a_path_of_any_system_is_one(path: str) -> None:
    (listed,) = read(f"path,label\n{path},cat\n")
    assert listed.photo in {"a.jpg", "photos/a.jpg"}
