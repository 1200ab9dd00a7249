"""Files as the services write them, of photos that they know by names of their own: what is made of each."""

import json
from pathlib import Path
from typing import Any

import pytest

from dlassets.errors import DlassetsError
from dlassets.labeling.exchange.registry import FORMATS
from dlassets_tests.labeling.conftest import image_id
from dlassets_tests.labeling.exchange.conftest import ANN, BOB, CAT, Exchange, by_request, counts

EVE = image_id("eve")


def take(exchange: Exchange, name: str, text: str, **how: Any) -> tuple[str, list[dict[str, Any]], list[str]]:
    """Return the format that a file is known to be of, its lines and why some of it cannot be used."""
    path = exchange.answers.parent / name
    path.write_text(text)
    imported = exchange.take(path, **how)
    lines = exchange.said(imported)
    return imported.format.name, [line for line in lines if "unusable" not in line], imported.examples


def lines_of(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_azure_s_json_lines(exchange: Exchange) -> None:
    workspace = "azureml://subscriptions/1/resourcegroups/g/workspaces/w/datastores/blobs/paths"
    details = {"format": "jpg", "width": "400px", "height": "258px"}
    text = lines_of(
        {"image_url": f"{workspace}/landing/unlabeled/ann.jpg", "image_details": details, "label": "hat"},
        {"image_url": "AmlDatastore://blobs/unlabeled/bob.jpg", "label": ["shirt"], "label_confidence": [1.0]},
        {"image_url": "AmlDatastore://blobs/unlabeled/cat.jpg", "label": ["hat", "shirt"]},
        {"image_url": "AmlDatastore://blobs/unlabeled/eve.jpg", "label": "t-shirt"},
    )

    found = take(exchange, "labels.jsonl", text, annotator="anna")

    said = {"annotator": "anna"}
    assert found == (
        "azureml",
        [
            {"request_id": ANN, "label": "hat", **said},
            {"request_id": BOB, "label": "shirt", **said},
            {"image_id": EVE, "label": "t-shirt", **said},
        ],
        ["line 3: is said to be hat and shirt"],
    )


def test_azure_s_csv(exchange: Exchange) -> None:
    text = "Url,Label,LabelConfidence\nAmlDatastore://blobs/unlabeled/ann.jpg,hat,1.0\n"

    assert take(exchange, "labels.csv", text)[:2] == ("azureml", [{"request_id": ANN, "label": "hat"}])


def test_azure_s_coco(exchange: Exchange) -> None:
    def image(number: int, name: str) -> dict[str, Any]:
        urls = {"coco_url": f"AmlDatastore://blobs/{name}", "absolute_url": f"https://store.blob.example/blobs/{name}"}
        size = {"width": 400.0, "height": 258.0, "date_captured": "2026-01-31T14:05:56.1086527Z"}
        return {"id": number, "file_name": name, **size, **urls}

    whole = {
        "images": [image(1, "unlabeled/ann.jpg"), image(2, "unlabeled/bob.jpg")],
        "annotations": [{"id": 1, "category_id": 2, "image_id": 1, "area": 0.0}],
        "categories": [{"id": 1, "name": "shirt"}, {"id": 2, "name": "hat"}],
    }

    found = take(exchange, "coco.json", json.dumps(whole))

    assert found == ("azureml", [{"request_id": ANN, "label": "hat"}], [])


def job(name: str, **more: Any) -> dict[str, Any]:
    told = {"class-name": "hat", "confidence": 0.8, "type": "groundtruth/image-classification"}
    told |= {"job-name": f"labeling-job/{name}", "human-annotated": "yes", "creation-date": "2026-01-31T14:05:13.5"}
    return {name: 0, f"{name}-metadata": told | more}


def test_ground_truth_s_manifest(exchange: Exchange) -> None:
    several = {"class-map": {"0": "shirt"}, "type": "groundtruth/image-classification-multilabel"}
    text = lines_of(
        {"source-ref": "s3://bucket/unlabeled/ann.jpg", **job("first"), **job("second", **{"class-name": "t-shirt"})},
        {"source-ref": "s3://bucket/unlabeled/bob.jpg", **job("sport", **several), "sport": [0]},
        {"source-ref": "s3://bucket/unlabeled/cat.jpg", **job("sport", **{"human-annotated": "no"})},
        {"source-ref": "s3://bucket/unlabeled/dan.jpg", **job("box", type="groundtruth/object-detection")},
        {"source-ref": "s3://bucket/unlabeled/dan.jpg", **job("sport", **{"class-name": None})},
        {"source-ref": "s3://bucket/unlabeled/dan.jpg", "sport-metadata": {"failure-reason": "ClientError: gone"}},
        {"source-ref": "s3://bucket/unlabeled/dan.jpg"},
    )

    name, lines, problems = take(exchange, "output.manifest", text)

    when = {"answered_at": "2026-01-31T14:05:13.500000+00:00"}
    assert name == "groundtruth"
    assert lines == [
        {"request_id": ANN, "label": "hat", **when},
        {"request_id": ANN, "label": "t-shirt", **when},
        {"request_id": BOB, "label": "shirt", **when},
    ]
    assert problems == [
        "line 3: sport is of the service's own model (human-annotated: no), and nobody has looked at it",
        "line 4: box is of groundtruth/object-detection, and not of groundtruth/image-classification",
        "line 5: sport-metadata has no class-name",
        "line 6: sport has no label: ClientError: gone",
    ]


def test_coco_s_categories_are_known_by_their_names(exchange: Exchange) -> None:
    """Their numbers are the file's own: 2 is a shirt in it, and a hat here."""
    said = [(1, 2), (1, 2), (2, 0), (3, 0), (3, 2), (4, 9), (8, 2)]
    whole = {
        "info": {"description": "garments"},
        "categories": [{"id": 0, "name": "hat", "supercategory": ""}, {"id": 2, "name": "shirt"}],
        "annotations": [{"id": n, "image_id": image, "category_id": kind} for n, (image, kind) in enumerate(said)],
        "images": [{"id": n, "file_name": f"{name}.jpg"} for n, name in enumerate(["ann", "bob", "cat", "dan"], 1)],
    }

    name, lines, problems = take(exchange, "instances.json", json.dumps(whole, indent=2))

    assert name == "coco"
    assert by_request(lines) == {ANN: {"label": "shirt"}, BOB: {"label": "hat"}}
    assert problems == [
        "image 3: is said to be hat and shirt",
        "image 4: has the category 9, which has no name",
        "image 8: is in annotations, and not in images",
    ]


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <job><id>5</id><size>5</size><mode>annotation</mode><created>2026-01-31 13:00:00.1+00:00</created></job>
    <task>
      <owner><username>boss</username><email></email></owner>
      <assignee><username>anna</username><email></email></assignee>
      <labels><label><name>hat</name><color>#c06060</color><type>tag</type><attributes></attributes></label></labels>
    </task>
    <dumped>2026-01-31 15:00:00.1+00:00</dumped>
  </meta>
  <image id="0" name="ann.jpg" width="28" height="28">
    <tag label="hat" source="manual"></tag>
    <box label="shirt" source="manual" occluded="0" xtl="1" ytl="1" xbr="9" ybr="9" z_order="0"></box>
  </image>
  <image id="1" name="unlabeled/bob.jpg" width="28" height="28">
  </image>
  <image id="2" name="cat.jpg" width="28" height="28">
    <tag label="hat" source="auto"></tag>
  </image>
  <image id="3" name="dan.jpg" width="28" height="28">
    <polygon label="hat" source="manual" occluded="0" points="1,1;9,1;9,9" z_order="0"></polygon>
  </image>
  <image id="4" name="eve.jpg" width="28" height="28">
    <tag label="hat" source="manual"></tag>
    <tag label="shirt" source="manual"></tag>
  </image>
</annotations>
"""


def test_cvat_s_xml(exchange: Exchange) -> None:
    name, lines, problems = take(exchange, "annotations.xml", CVAT)

    assert (name, lines) == ("cvat", [{"request_id": ANN, "label": "hat", "annotator": "anna"}])
    assert problems == [
        "line 19: has the tag hat of a model (source auto), and nobody has looked at it",
        "line 22: has shapes and no tag: its class is a tag",
        "line 25: is said to be hat and shirt",
    ]


def test_cvat_s_datumaro(exchange: Exchange) -> None:
    def label(number: int) -> dict[str, Any]:
        return {"id": 0, "type": "label", "attributes": {}, "group": 0, "label_id": number}

    def item(name: str, *annotations: dict[str, Any]) -> dict[str, Any]:
        return {"id": name, "annotations": [*annotations], "attr": {"frame": 0}, "image": {"path": f"{name}.jpg"}}

    names: list[dict[str, Any]] = [{"name": name, "parent": "", "attributes": []} for name in ("shirt", "hat")]
    whole = {
        "info": {},
        "categories": {"label": {"labels": names, "attributes": []}},
        "items": [item("ann", label(1)), item("bob"), item("cat", label(2)), item("dan", label(0), label(1))],
    }

    found = take(exchange, "default.json", json.dumps(whole))

    assert found == (
        "cvat",
        [{"request_id": ANN, "label": "hat"}],
        [
            "items, item 3: has the label_id 2, which is none of the labels before the items",
            "items, item 4: is said to be hat and shirt",
        ],
    )


def annotation(*labels: str, who: Any = 1, **more: Any) -> dict[str, Any]:
    result = {"id": "Dx_aB91ISN", "type": "choices", "from_name": "choice", "to_name": "image", "origin": "manual"}
    times = {"created_at": "2026-01-31T14:05:00.1Z", "updated_at": "2026-01-31T14:06:00.25Z", "lead_time": 4.288}
    said = [{**result, "value": {"choices": [*labels]}}] if labels else []
    flags = {"was_cancelled": False, "ground_truth": False, "result_count": 0, "parent_prediction": None}
    return {"id": 11, "completed_by": who, "result": said, **times, **flags, **more}


def task(number: int, image: str, *annotations: dict[str, Any]) -> dict[str, Any]:
    about = {"created_at": "2026-01-31T13:00:00Z", "updated_at": "2026-01-31T15:00:00Z", "project": 3, "drafts": []}
    return {"id": number, "data": {"image": image}, "annotations": [*annotations], "predictions": [], **about}


def test_label_studio_s_json_has_several_people_and_what_they_skipped(exchange: Exchange) -> None:
    tasks = [
        task(1, "/data/local-files/?d=landing/unlabeled/ann.jpg", annotation("hat"), annotation("shirt", who=2)),
        task(2, "/data/upload/3/0a1b2c3d-bob.jpg", annotation(who={"id": 3, "email": "c@x.y"}, was_cancelled=True)),
        task(3, "s3://bucket/unlabeled/cat.jpg"),
        task(4, "s3://bucket/unlabeled/eve.jpg", annotation()),
        task(5, "s3://bucket/unlabeled/eve.jpg", annotation("hat", "shirt")),
    ]

    name, lines, problems = take(exchange, "project-3.json", json.dumps(tasks))

    told = {"answered_at": "2026-01-31T14:06:00.250000+00:00", "seconds": 4.288}
    assert name == "labelstudio-file"
    assert lines == [
        {"request_id": ANN, "label": "hat", "annotator": "1", **told},
        {"request_id": ANN, "label": "shirt", "annotator": "2", **told},
        {"request_id": BOB, "annotator": "c@x.y", "status": "skipped", **told},
    ]
    assert problems == ["task 4: was submitted without a class", "task 5: is said to be hat and shirt"]


SMALL = {"annotator": 1, "annotation_id": 11, "created_at": "2026-01-31T14:05:00.1Z", "lead_time": 4.288}


def test_label_studio_s_json_min(exchange: Exchange) -> None:
    rows = [
        {"image": "s3://b/unlabeled/ann.jpg", "id": 1, "choice": "hat", **SMALL, "updated_at": "2026-01-31T14:06:00Z"},
        {"image": "s3://b/unlabeled/bob.jpg", "id": 2, "choice": {"choices": ["hat", "shirt"]}, **SMALL},
        {"image": "s3://b/unlabeled/cat.jpg", "id": 3, "choice": [{"choices": ["shirt"]}], **SMALL},
    ]

    name, lines, problems = take(exchange, "min.json", json.dumps(rows))

    assert (name, problems) == ("labelstudio-file", ["item 2: is said to be hat and shirt"])
    assert by_request(lines) == {
        ANN: {"label": "hat", "annotator": "1", "answered_at": "2026-01-31T14:06:00+00:00", "seconds": 4.288},
        CAT: {"label": "shirt", "annotator": "1", "answered_at": "2026-01-31T14:05:00.100000+00:00", "seconds": 4.288},
    }


def test_label_studio_s_csv(exchange: Exchange) -> None:
    text = """annotation_id,annotator,choice,created_at,id,image,lead_time,updated_at
11,1,hat,2026-01-31T14:05:00.1Z,1,s3://b/unlabeled/ann.jpg,4.288,2026-01-31T14:06:00Z
12,2,"{""choices"": [""hat"", ""shirt""]}",2026-01-31T14:05:00.1Z,2,s3://b/unlabeled/bob.jpg,4.288,
"""

    name, lines, problems = take(exchange, "project.csv", text)

    told = {"annotator": "1", "answered_at": "2026-01-31T14:06:00+00:00", "seconds": 4.288}
    assert (name, lines) == ("labelstudio-file", [{"request_id": ANN, "label": "hat", **told}])
    assert problems == ["line 3: is said to be hat and shirt"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_lists_as_spreadsheets_save_them(exchange: Exchange, tmp_path: Path, encoding: str, separator: str) -> None:
    rows = [
        ("Path", "LABEL", "Annotator", "Answered_at", "Seconds"),
        ("unlabeled/ann.jpg", "002.hat", "Änne", "31.01.2026 14:05", '"4,5"'),
        ("C:\\photos\\bob.jpg", "2", "", "", ""),
        ("cat.jpg", "", "", "", ""),
        ("unlabeled/dan.jpg", "2", "", "01/02/2026 10:00", ""),
        ("unlabeled/dan.jpg", "2", "", "", "quick"),
    ]
    path = tmp_path / "mine.csv"
    path.write_bytes("\r\n".join(separator.join(row) for row in rows).encode(encoding))

    imported = exchange.take(path)

    assert exchange.said(imported)[:2] == [
        {
            "request_id": ANN,
            "label": "002.hat",
            "annotator": "Änne",
            "answered_at": "2026-01-31T14:05:00+00:00",
            "seconds": 4.5,
        },
        {"request_id": BOB, "label": "2"},
    ]
    assert counts(imported) == (2, 0, 1, 2)
    assert imported.examples == [
        "line 5: '01/02/2026 10:00' is no time such as 2026-01-31T14:05:00Z",
        "line 6: 'quick' is no number of seconds",
    ]


def test_a_photo_is_found_by_its_digest_its_path_or_its_name_alone(exchange: Exchange) -> None:
    names = [
        EVE,
        f"s3://b/files/{EVE[:2]}/{EVE}",
        "../../unlabeled/eve.jpg",
        "elsewhere/eve.jpg",
        "same.jpg",
        "x/twice.jpg",
        "twice.jpg",
        "nobody.jpg",
    ]
    text = "photo,label\n" + "".join(f"{name},hat\n" for name in names)

    _, lines, problems = take(exchange, "photos.csv", text)

    assert [line["image_id"] for line in lines] == [*[EVE] * 4, image_id("same"), image_id("x twice")]
    some = "unlabeled/x/twice.jpg and unlabeled/y/twice.jpg"
    assert problems == [
        f"line 8: twice.jpg may be any of 2 photos of the lake, {some}: name it by its path",
        "line 9: names no photo of the lake: nobody.jpg",
    ]


def test_other_bytes_are_another_photo_whatever_it_is_called(exchange: Exchange) -> None:
    text = f"image_id,path,label\n{'0' * 64},unlabeled/ann.jpg,hat\n{EVE},unlabeled/ann.jpg,hat\n"

    _, lines, problems = take(exchange, "photos.csv", text)

    assert lines == [{"image_id": EVE, "label": "hat"}]
    assert problems == ["line 2: names no photo of the lake: unlabeled/ann.jpg"]


def test_a_class_that_is_unknown_is_passed_on_and_told(exchange: Exchange) -> None:
    _, lines, problems = take(exchange, "photos.csv", "photo,label\nunlabeled/ann.jpg,kilt\n")

    assert lines == [{"request_id": ANN, "label": "kilt"}]
    assert problems == ["line 2: unknown class kilt"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("export.zip", "PK\x03\x04…", "unpack it"),
        ("notes.md", "# notes", "of no format that is known"),
        ("empty.json", "", "of no format that is known"),
    ],
)
def test_a_file_of_no_format_is_one_clear_error(exchange: Exchange, name: str, text: str, message: str) -> None:
    with pytest.raises(DlassetsError, match=f"{name} cannot be imported: .*{message}"):
        take(exchange, name, text)


def test_a_dry_run_says_the_same_and_writes_nothing(exchange: Exchange, tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(CVAT)

    imported = exchange.take(tmp_path / "a.xml", dry_run=True)

    assert counts(imported) == counts(exchange.take(tmp_path / "a.xml", dry_run=False)) == (1, 0, 1, 3)
    assert not imported.written


def test_a_format_that_is_said_is_not_guessed(exchange: Exchange) -> None:
    text = lines_of({"image": "unlabeled/ann.jpg", "label": "hat"})

    assert take(exchange, "a.jsonl", text, format=FORMATS["azureml"])[1] == [{"request_id": ANN, "label": "hat"}]
