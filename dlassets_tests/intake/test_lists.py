"""Labels that come in lists beside the photos: taken in like files, as they change."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dlassets.defs.checks import folders_are_classes, lists_name_photos
from dlassets.engines.base import Engine
from dlassets.engines.local import LocalEngine
from dlassets.intake import ingest as intake
from dlassets.intake.ingest import ingest
from dlassets.intake.quarantine import refused_files
from dlassets.intake.waiting import waiting_files
from dlassets.lakehouse import listed_labels
from dlassets.lakehouse.snapshots import pin
from dlassets.pipeline.session import Session
from dlassets.settings import LandingZone, Settings
from dlassets.storage.lake import Lake
from dlassets_tests.intake.test_ingest import photo, with_events
from dlassets_tests.killing import killed_at
from dlassets_tests.tables import get, put, take_labels

ENGINE = LocalEngine()
TABLES = ("raw_images", "quarantined_files", "listed_labels", "classes", "labeled_images")


@pytest.fixture
def settings(lake: Lake) -> Settings:
    zone = LandingZone(uri="labeled", labelled=True, label_from="list")
    return Settings(root=lake.root, landing={"labeled": zone})


@pytest.fixture
def landing(lake: Lake) -> Path:
    """A zone with three photos and a list that says the class of two."""
    landing = Path(lake.zone("labeled"))
    for number, name in enumerate(("train/a", "train/b", "c")):
        place(landing / f"{name}.jpg", photo(number * 40))
    place(landing / "labels.csv", b"image,label\na,cat\ntrain/b.jpg,dog\n")
    return landing


def place(path: Path, content: bytes, minute: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (1_760_000_000 + 60 * minute,) * 2)


def change(settings: Settings, **zone: Any) -> Settings:
    return settings.model_copy(update={"landing": {"labeled": settings.landing["labeled"].model_copy(update=zone)}})


def labels(lake: Lake, settings: Settings, engine: Engine = ENGINE) -> dict[str, str]:
    """Take everything in; return the name of each photo's class."""
    ingest(engine, lake, settings, {})
    take_labels(engine, lake, settings)
    return {row["path"].removeprefix("labeled/"): row["label_name"] for row in get(ENGINE, lake, "labeled_images")}


def said(check: Any, settings: Settings) -> tuple[bool, str | None]:
    result = check(session=Session(settings))
    return result.passed, result.description


def test_a_list_says_the_labels_of_the_photos_beside_it(lake, settings, landing) -> None:
    assert labels(lake, settings) == {"train/a.jpg": "cat", "train/b.jpg": "dog"}

    assert {(row["label"], row["name"], row["said_by"]) for row in get(ENGINE, lake, "classes")} == {
        (1, "cat", "list labeled/labels.csv/cat"),
        (2, "dog", "list labeled/labels.csv/dog"),
    }
    (listed, _) = get(ENGINE, lake, "listed_labels")
    assert {row["source"] for row in get(ENGINE, lake, "labeled_images")} == {"list"}
    assert {row["labeled_at"] for row in get(ENGINE, lake, "labeled_images")} == {listed["modificationTime"]}
    assert len(get(ENGINE, lake, "raw_images", "path")) == 3
    assert get(ENGINE, lake, "quarantined_files") == []


def test_with_nothing_new_no_table_has_a_new_version(lake, settings, landing) -> None:
    labels(lake, settings)
    before = [pin(lake, name) for name in TABLES]

    assert waiting_files(lake, settings, "labeled").files == 0
    labels(lake, settings)

    assert [pin(lake, name) for name in TABLES] == before


def test_a_list_that_changes_changes_what_it_says(engine, lake, settings, landing) -> None:
    labels(lake, settings, engine)
    before = {row["path"]: row for row in get(ENGINE, lake, "labeled_images")}
    place(landing / "labels.csv", b"image,label\na,cat\nc.jpg,003.bird\n", minute=1)

    assert waiting_files(lake, settings, "labeled").files == 1
    assert labels(lake, settings, engine) == {"train/a.jpg": "cat", "c.jpg": "bird"}

    after = {row["path"]: row for row in get(ENGINE, lake, "labeled_images")}
    assert after["labeled/train/a.jpg"] == before["labeled/train/a.jpg"]  # it says so since then
    assert (after["labeled/c.jpg"]["labeled_at"] - before["labeled/train/a.jpg"]["labeled_at"]).seconds == 60
    assert {row["label"]: row["name"] for row in get(ENGINE, lake, "classes")} == {1: "cat", 2: "dog", 3: "bird"}


def test_a_list_that_can_no_longer_be_used_leaves_what_it_said_and_is_named(lake, settings, landing) -> None:
    was = labels(lake, settings)
    place(landing / "labels.csv", b"photo number,kind\na,cat\n", minute=1)

    assert ingest(ENGINE, lake, settings, {}).bad_lists
    assert labels(lake, settings) == was

    passed, why = said(lists_name_photos, settings)
    assert not passed
    assert why is not None
    assert why.startswith(
        "1 entries give no photo a label, such as labeled/labels.csv: the file cannot be used: among its columns "
        "(kind, photo number) is none of file_name,"
    )
    version = pin(lake, "listed_labels").version
    assert ingest(ENGINE, lake, settings, {}).lists == 0
    assert pin(lake, "listed_labels").version == version
    mended = change(settings, photo_column="photo number", label_column="kind")
    assert labels(lake, mended) == {"train/a.jpg": "cat"}
    assert said(lists_name_photos, mended) == (True, None)


def test_photos_and_lists_come_in_any_order(lake, settings, landing) -> None:
    (landing / "train/a.jpg").rename(landing.parent / "a.jpg")
    assert labels(lake, settings) == {"train/b.jpg": "dog"}
    assert said(lists_name_photos, settings) == (True, None)

    (landing.parent / "a.jpg").rename(landing / "train/a.jpg")
    place(landing / "more.jsonl", b'{"path": "c.jpg", "label": "cat"}')

    assert labels(lake, settings) == {"train/a.jpg": "cat", "train/b.jpg": "dog", "c.jpg": "cat"}


def test_of_lists_that_differ_the_one_that_was_written_last_counts(lake, settings, landing) -> None:
    place(landing / "a.csv", b"image,label\na,dog\n", minute=2)
    place(landing / "b.csv", b"image,label\na,bird\n", minute=1)

    assert labels(lake, settings)["train/a.jpg"] == "dog"

    (landing / "a.csv").unlink()  # a file that goes takes nothing with it
    assert labels(lake, settings)["train/a.jpg"] == "dog"
    place(landing / "b.csv", b"image,label\na,bird\n", minute=3)
    assert labels(lake, settings)["train/a.jpg"] == "bird"


def test_what_a_person_says_stands_above_a_list(lake, settings, landing) -> None:
    labels(lake, settings)
    (a,) = (row for row in get(ENGINE, lake, "raw_images") if row["path"] == "labeled/train/a.jpg")
    put(lake, "human_labels", {"request_id": "r", "image_id": a["image_id"], "label": 2, "status": "accepted"})

    assert labels(lake, settings)["train/a.jpg"] == "dog"
    assert {row["source"] for row in get(ENGINE, lake, "labeled_images")} == {"human", "list"}


@pytest.mark.parametrize(
    ("list_", "why"),
    [
        (b"image,label\nz.jpg,cat\n", "No photo that a list names is there, such as labeled/labels.csv: z.jpg"),
        (b"image,label\na,cat\na.jpg,dog\n", "labeled/labels.csv: a is train/a.jpg, of which the list says more than"),
        (b"image,label\nc.jpg,cat\nc.jpg,dog\n", "labeled/labels.csv: c.jpg is said to be cat and dog"),
        (
            b"image,label\nb,cat\nc.jpg,dog\n",
            "labeled/labels.csv: b may be other/b.jpg or train/b.jpg: give its folder",
        ),
    ],
)
def test_entries_that_give_no_photo_a_label_are_named(lake, settings, landing, list_: bytes, why: str) -> None:
    place(landing / "other/b.jpg", photo(99))
    place(landing / "labels.csv", list_ + b"train/a.jpg,cat\n" * (b"c.jpg,cat\nc.jpg" in list_), minute=1)
    ingest(ENGINE, lake, settings, {})

    passed, text = said(lists_name_photos, settings)

    assert not passed
    assert text is not None
    assert why in text


def test_a_label_that_contradicts_a_class_is_named_and_gives_none(lake, settings, landing) -> None:
    place(landing / "labels.csv", b"image,label\na,001.cat\nb,001.dog\n")

    assert labels(lake, settings) == {"train/a.jpg": "cat"}
    passed, why = said(folders_are_classes, settings)
    assert not passed
    assert "labeled/labels.csv/1.dog: class 1 is cat already" in (why or "")


def test_events_name_lists_too(lake, settings, landing) -> None:
    settings = with_events(settings)
    labels(lake, settings)  # the first look lists the zone
    place(landing / "labels.csv", b"image,label\nc,cat\n", minute=1)
    folder = Path(lake.events("labeled"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "producer.jsonl").write_text(json.dumps({"path": "labels.csv"}) + "\n")

    assert labels(lake, settings) == {"c.jpg": "cat"}


def test_what_the_zone_s_settings_call_a_list_is_one_and_everything_else_a_photo(lake, settings, landing) -> None:
    settings = change(settings, lists=("labels.*", "notes/*.txt"), pattern=r"\.jpg$")
    place(landing / "notes/all.txt", b"image,label\nc,bird\n")
    place(landing / "other.csv", b"image,label\nc,cat\n")

    assert labels(lake, settings) == {"train/a.jpg": "cat", "train/b.jpg": "dog", "c.jpg": "bird"}
    assert get(ENGINE, lake, "quarantined_files") == []
    labels(lake, change(settings, pattern=""))
    assert [row["path"] for row in get(ENGINE, lake, "quarantined_files")] == ["labeled/other.csv"]


def test_a_list_that_is_too_large_or_empty_is_set_aside_as_a_file_is(lake, settings, landing) -> None:
    place(landing / "empty.csv", b"")
    limits = settings.ingest.model_copy(update={"max_file_bytes": 1000})
    place(landing / "long.csv", b"image,label\n" + b"c,cat\n" * 500)

    labels(lake, settings.model_copy(update={"ingest": limits}))

    assert {row["path"]: row["reason"] for row in get(ENGINE, lake, "quarantined_files")} == {
        "labeled/empty.csv": "empty",
        "labeled/long.csv": "too_large",
    }
    place(landing / "empty.csv", b"image,label\nc,cat\n", minute=1)
    assert labels(lake, settings)["c.jpg"] == "cat"
    assert [file.path for file in refused_files(ENGINE, lake)] == ["labeled/long.csv"]


def test_many_lists_are_a_few_commits(lake, settings, landing) -> None:
    for number in range(30):
        place(landing / f"lists/{number}.json", json.dumps({"c.jpg": "cat", f"{number}.jpg": "dog"}).encode())
    ingest(ENGINE, lake, settings, {})

    assert pin(lake, "listed_labels").version == 1
    assert len(get(ENGINE, lake, "listed_labels")) == 62


@pytest.mark.parametrize("owner", [listed_labels, intake])
def test_a_run_that_was_killed_and_is_run_again_ends_as_one_that_was_not(lake, settings, landing, owner) -> None:
    place(landing / "b.csv", b"image,label\nc,cat\n")
    place(landing / "broken.csv", b"\xff\n", minute=1)
    with killed_at(owner, "read_list" if owner is listed_labels else "take_in_lists"):
        ingest(ENGINE, lake, settings, {})

    assert labels(lake, settings) == {"train/a.jpg": "cat", "train/b.jpg": "dog", "c.jpg": "cat"}
    assert len(get(ENGINE, lake, "listed_labels")) == 4


def test_a_photo_that_is_gone_keeps_the_label_that_a_list_says(lake, settings, landing) -> None:
    labels(lake, settings)
    (landing / "train/a.jpg").unlink()

    assert labels(lake, settings) == {"train/a.jpg": "cat", "train/b.jpg": "dog"}
