"""Requests that are written for a service, answered there, and taken in again: what it carries over is the same."""

import csv
import io
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlassets.labeling.exchange.registry import FORMATS
from dlassets_tests.labeling.exchange.conftest import ANN, BOB, CAT, DAN, Exchange, by_request, counts

# What people answer: of the last photo, nothing.
ANSWERS = {ANN: "hat", BOB: "t-shirt", CAT: "shirt"}
WHEN, SECONDS, WHO = "2026-01-31T14:05:00+00:00", 4.25, "anna@example.com"


def stem(place: str) -> str:
    return Path(place).stem


def in_azure(folder: Path) -> Path:
    """It keeps the photos' places, and no name of a request."""
    lines = [json.loads(line) for line in (folder / "images.jsonl").read_text().splitlines()]
    labelled = [
        {"image_url": f"AmlDatastore://blobs/{line['image_url']}", "label": label, "label_confidence": 1.0}
        for line in lines
        if (label := ANSWERS.get(stem(line["image_url"])))
    ]
    return written(folder / "labels.jsonl", "".join(json.dumps(line) + "\n" for line in labelled))


def in_ground_truth(folder: Path) -> Path:
    classes = [each["label"] for each in json.loads((folder / "label-categories.json").read_text())["labels"]]
    lines = [json.loads(line) for line in (folder / "input.manifest").read_text().splitlines()]
    for line in lines:
        if label := ANSWERS.get(line["request-id"]):
            line["source-ref"] = f"s3://bucket/renamed/{line['source-ref'][-8:]}"
            line["garment"] = classes.index(label)
            line["garment-metadata"] = {
                "class-name": label,
                "job-name": "labeling-job/garment",
                "confidence": 0.95,
                "type": "groundtruth/image-classification",
                "human-annotated": "yes",
                "creation-date": WHEN.removesuffix("+00:00"),
            }
    return written(folder / "output.manifest", "".join(json.dumps(line) + "\n" for line in lines))


def in_coco(folder: Path) -> Path:
    """As tools save it that know no more of an image than its id and its file."""
    whole = json.loads((folder / "instances.json").read_text())
    numbers = {category["name"]: category["id"] for category in whole["categories"]}
    images = [{"id": image["id"], "file_name": image["file_name"]} for image in whole["images"]]
    said = [(image["id"], ANSWERS.get(stem(image["file_name"]))) for image in images]
    annotations = [
        {"id": number, "image_id": image, "category_id": numbers[label], "bbox": [], "area": 0}
        for number, (image, label) in enumerate(said)
        if label
    ]
    answered = {"images": images, "annotations": annotations, "categories": whole["categories"]}
    return written(folder / "answered.json", json.dumps(answered))


def in_cvat(folder: Path) -> Path:
    tree = ET.parse(folder / "annotations.xml")
    (task,) = tree.iter("task")
    ET.SubElement(ET.SubElement(task, "assignee"), "username").text = WHO
    for image in tree.iter("image"):
        if label := ANSWERS.get(stem(image.attrib["name"])):
            ET.SubElement(image, "tag", label=label, source="manual")
    tree.write(folder / "answered.xml", encoding="utf-8", xml_declaration=True)
    return folder / "answered.xml"


def annotation(label: str) -> dict[str, Any]:
    result = {"from_name": "label", "to_name": "photo", "type": "choices", "value": {"choices": [label]}}
    made = {"created_at": "2026-01-31T14:00:00.5Z", "updated_at": WHEN, "lead_time": SECONDS, "was_cancelled": False}
    return {"id": 7, "completed_by": {"id": 3, "email": WHO}, "result": [result], **made}


def in_label_studio(folder: Path) -> Path:
    """It says of a class what its label config has as the alias."""
    choices = ET.parse(folder / "label-config.xml").getroot().iter("Choice")
    aliases = {choice.get("value"): choice.attrib["alias"] for choice in choices}
    tasks = json.loads((folder / "tasks.json").read_text())
    for number, task in enumerate(tasks, 1):
        label = ANSWERS.get(task["data"]["request_id"])
        task |= {"id": number, "annotations": [annotation(aliases[label])] if label else []}
    return written(folder / "project-1-at-2026-01-31.json", json.dumps(tasks))


def in_a_spreadsheet(folder: Path) -> Path:
    """As Excel saves it where commas stand in numbers: semicolons, UTF-16, its own way to write a time."""
    rows = list(csv.DictReader(io.StringIO((folder / "requests.csv").read_text("utf-8-sig"))))
    for row in rows:
        row["LABEL"] = ANSWERS.get(row["request_id"], "")
        del row["label"]
        if row["LABEL"]:
            row.update({"Annotator": WHO, "Answered_At": "31.01.2026 14:05", "Seconds": "4,25"})
    stream = io.StringIO()
    columns = [*rows[0], "Annotator", "Answered_At", "Seconds"]
    writer = csv.DictWriter(stream, list(dict.fromkeys(columns)), delimiter=";", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    (folder / "mine.csv").write_bytes(("sep=;\r\n" + stream.getvalue()).encode("utf-16"))
    return folder / "mine.csv"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


TIME = {"answered_at": WHEN}
# The service, what it makes of what it was sent, and what of an answer comes back beside the label.
SERVICES: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "azureml": (in_azure, {}),
    "groundtruth": (in_ground_truth, TIME),
    "coco": (in_coco, {}),
    "cvat": (in_cvat, {"annotator": WHO}),
    "labelstudio-file": (in_label_studio, {**TIME, "annotator": WHO, "seconds": SECONDS}),
    "csv": (in_a_spreadsheet, {**TIME, "annotator": WHO, "seconds": SECONDS}),
}


def test_every_format_goes_there_and_back() -> None:
    assert {*SERVICES} == {*FORMATS}


@pytest.mark.parametrize("name", SERVICES)
def test_what_was_answered_there_comes_back_as_it_was(exchange: Exchange, tmp_path: Path, name: str) -> None:
    answer, carried = SERVICES[name]

    imported = exchange.take(answer(exchange.export(name, tmp_path / "out", photos=True)))

    said = by_request(exchange.said(imported))
    for each in said.values():
        each["label"] = each["label"].partition(".")[2] or each["label"]  # 002.hat, or hat
    assert said == {request: {"label": label, **carried} for request, label in ANSWERS.items()}
    assert imported.format.name == name
    unanswered = 0 if name == "azureml" else 1  # which exports what is labelled alone
    assert counts(imported) == (3, 0, unanswered, 0)


@pytest.mark.parametrize("name", SERVICES)
def test_what_nobody_has_answered_says_nothing(exchange: Exchange, tmp_path: Path, name: str) -> None:
    folder = exchange.export(name, tmp_path / "out", photos=True)
    listed = {"coco": "instances.json", "cvat": "annotations.xml", "labelstudio-file": "tasks.json"}
    listed |= {"azureml": "images.jsonl", "groundtruth": "input.manifest", "csv": "requests.csv"}

    imported = exchange.take(folder / listed[name], format=FORMATS[name])

    assert (counts(imported)[:1], Path(imported.target).exists()) == ((0,), False)
    assert DAN not in by_request(exchange.said(imported))


@pytest.mark.parametrize("name", ["groundtruth", "labelstudio-file", "csv"])
def test_a_service_that_keeps_what_it_is_told_needs_no_photo_s_name(
    exchange: Exchange, tmp_path: Path, name: str
) -> None:
    imported = exchange.take(SERVICES[name][0](exchange.export(name, tmp_path / "out", at="s3://bucket/")))

    assert {*by_request(exchange.said(imported))} == {*ANSWERS}


def test_the_same_file_twice_changes_nothing(exchange: Exchange, tmp_path: Path) -> None:
    path = in_label_studio(exchange.export("labelstudio-file", tmp_path / "out"))
    first = exchange.take(path)
    before = Path(first.target).stat()

    again = exchange.take(path)

    assert (first.written, again.written) == (True, False)
    assert (again.target, Path(again.target).stat()) == (first.target, before)
    assert [file.name for file in Path(first.target).parent.glob("[!.]*")] == [Path(first.target).name]


def test_the_labelling_pipeline_takes_it_in(tmp_path: Path, exchange: Exchange) -> None:
    """Through the folder service, whose answers they stand among; refused is told where it always is."""
    bench = exchange.bench
    exchange.answers = bench.answers
    tasks = json.loads((exchange.export("labelstudio-file", tmp_path / "out") / "tasks.json").read_text())
    by_id = {task["data"]["request_id"]: task for task in tasks}
    by_id[ANN]["annotations"] = [annotation("hat")]
    by_id[BOB]["annotations"] = [annotation("kilt")]
    by_id[CAT]["annotations"] = [{**annotation("hat"), "result": []}]
    by_id[DAN]["annotations"] = [{**annotation("hat"), "was_cancelled": True, "result": []}]
    exchange.take(written(tmp_path / "export.json", json.dumps(tasks)))

    written_down, refusals = bench.collect_and_refuse()
    bench.service.show_refusals(refusals)

    assert written_down.changed
    rows = {row["answer"] or row["status"]: row for row in bench.rows("human_labels")}
    assert {name: row["status"] for name, row in rows.items()} == {
        "hat": "accepted",
        "kilt": "refused",
        "refused": "refused",
        "skipped": "skipped",
    }
    hat = rows["hat"]
    assert [hat[name] for name in ("label", "annotator", "service", "seconds")] == [2, WHO, "labelstudio-file", SECONDS]
    assert hat["answered_at"].isoformat() == WHEN
    assert "imported from export.json, item 3: was submitted without a class" in rows["refused"]["reason"]
    told = "".join(file.read_text() for file in bench.answers.rglob("*refused.csv"))
    assert "unknown class kilt" in told
    assert "Put it right where it was labelled" in told
    assert not bench.collect().changed
