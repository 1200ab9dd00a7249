"""The label in force: the folder's, unless a person has said otherwise; the split, a function of the bytes alone."""

import datetime as dt
from typing import Any

import pytest

from dlassets.engines.base import Commit, Engine, Written
from dlassets.lakehouse.labels import known_classes, update_labels
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import RAW_IMAGES
from dlassets.settings import Settings, SplitSettings
from dlassets.storage.lake import Lake
from dlassets_tests.tables import NOON, arrow, get, image_id, pins, put

BY_FOLDER = {"labeled/001.cat/a.jpg": (1, "cat", "folder"), "labeled/012.dog/b.jpg": (12, "dog", "folder")}
LATER = NOON + dt.timedelta(hours=1)


def photo(path: str, of: str | None = None, minutes: int = 0) -> dict[str, Any]:
    landing, *_, folder, _ = path.split("/")
    return {
        "path": path,
        "image_id": image_id(of or path),
        "landing": landing,
        "folder": folder,
        "modificationTime": NOON + dt.timedelta(minutes=minutes),
    }


def overwrite(engine: Engine, lake: Lake, row: dict[str, Any]) -> None:
    """As ingest does with a file that has other bytes."""
    rows = engine.rows(arrow("raw_images", row))
    engine.replace(rows, RAW_IMAGES, pin(lake, "raw_images").uri, Commit(), where={"path": [row["path"]]})


def gone(path: str, *, back: bool = False) -> dict[str, Any]:
    landing = path.split("/", maxsplit=1)[0]
    return {"path": path, "landing": landing, "deleted_at": LATER, "returned_at": LATER if back else None}


def said(path: str, label: int, *, minutes: int = 0, status: str = "accepted", who: str = "ada") -> dict[str, Any]:
    return {
        "request_id": f"r-{path}",
        "path": path,
        "image_id": image_id(path),
        "label": label,
        "annotator": who,
        "answered_at": NOON + dt.timedelta(minutes=minutes),
        "status": status,
    }


@pytest.fixture(autouse=True)
def photos(lake: Lake) -> None:
    paths = ("labeled/001.cat/a.jpg", "labeled/012.dog/b.jpg", "unlabeled/x/c.jpg", "unlabeled/x/d.jpg")
    put(lake, "raw_images", *map(photo, paths))


def update(engine: Engine, lake: Lake, settings: Settings) -> Written:
    tables = pins(lake, "raw_images", "deleted_files", "human_labels", "image_profiles", "labeled_images")
    return update_labels(engine, tables, settings.landing, settings.split, Commit())


def labels(engine: Engine, lake: Lake) -> dict[str, tuple[int, str, str]]:
    rows = get(engine, lake, "labeled_images", "path, label, label_name, source")
    return {row["path"]: (row["label"], row["label_name"], row["source"]) for row in rows}


def test_a_folder_s_number_is_the_label_and_the_rest_its_name(engine, lake, settings) -> None:
    update(engine, lake, settings)

    assert labels(engine, lake) == BY_FOLDER
    assert known_classes(engine, pin(lake, "labeled_images")) == {1: "cat", 12: "dog"}


def test_a_person_s_newest_accepted_answer_wins(engine, lake, settings) -> None:
    put(
        lake,
        "human_labels",
        said("unlabeled/x/c.jpg", 12),
        said("unlabeled/x/c.jpg", 1, minutes=5, who="bob"),
        said("unlabeled/x/c.jpg", 12, minutes=9, status="refused"),
        said("labeled/001.cat/a.jpg", 12),
    )

    update(engine, lake, settings)

    assert labels(engine, lake) == {
        "labeled/001.cat/a.jpg": (12, "dog", "human"),
        "labeled/012.dog/b.jpg": (12, "dog", "folder"),
        "unlabeled/x/c.jpg": (1, "cat", "human"),
    }


def test_a_later_answer_updates_one_row_and_the_same_again_none(local_engine, lake, settings) -> None:
    update(local_engine, lake, settings)
    put(lake, "human_labels", said("labeled/001.cat/a.jpg", 12), said("unlabeled/x/d.jpg", 1))

    merged = update(local_engine, lake, settings)
    again = update(local_engine, lake, settings)

    assert (merged.inserted, merged.updated) == (1, 1)
    assert again == Written(merged.version, changed=False)


def test_an_answer_holds_for_every_path_with_the_same_bytes(local_engine, lake, settings) -> None:
    put(lake, "raw_images", photo("unlabeled/y/copy.jpg", of="unlabeled/x/c.jpg"))
    put(lake, "human_labels", said("unlabeled/x/c.jpg", 1))

    update(local_engine, lake, settings)

    assert labels(local_engine, lake)["unlabeled/y/copy.jpg"] == (1, "cat", "human")
    splits = {row["path"]: row["split"] for row in get(local_engine, lake, "labeled_images", "path, split")}
    assert splits["unlabeled/y/copy.jpg"] == splits["unlabeled/x/c.jpg"]


def test_the_split_follows_the_hash_and_its_shares(engine, lake, settings) -> None:
    paths = [f"labeled/001.cat/{number}.jpg" for number in range(1000)]
    put(lake, "raw_images", *map(photo, paths))

    update(engine, lake, settings)

    def side(name: str) -> str:
        share = int(image_id(name)[:8], 16) / 16**8
        return "train" if share < 0.7 else "validation" if share < 0.85 else "test"

    expected = {path: side(path) for path in (*paths, "labeled/001.cat/a.jpg", "labeled/012.dog/b.jpg")}
    found = get(engine, lake, "labeled_images", "path, split")
    assert {row["path"]: row["split"] for row in found} == expected


def test_another_split_moves_the_rows_it_concerns(local_engine, lake, settings) -> None:
    update(local_engine, lake, settings)
    everything = settings.model_copy(update={"split": SplitSettings(train=0.0001, validation=0.0001)})

    update(local_engine, lake, everything)

    assert {row["split"] for row in get(local_engine, lake, "labeled_images", "split")} == {"test"}


def test_the_label_rule_is_the_zone_s(local_engine, lake, settings) -> None:
    put(lake, "raw_images", photo("labeled/dog-7/e.jpg"))
    zone = settings.landing["labeled"].model_copy(update={"label_rule": r"(?P<name>[a-z]+)-(?P<label>\d+)"})

    update(local_engine, lake, settings.model_copy(update={"landing": {"labeled": zone}}))

    assert labels(local_engine, lake) == {"labeled/dog-7/e.jpg": (7, "dog", "folder")}


def images(engine: Engine, lake: Lake) -> dict[str, str]:
    return {row["path"]: row["image_id"] for row in get(engine, lake, "labeled_images", "path, image_id")}


def test_other_bytes_under_a_path_keep_no_answer_that_was_about_the_old(engine, lake, settings) -> None:
    put(lake, "human_labels", said("labeled/001.cat/a.jpg", 12), said("unlabeled/x/c.jpg", 1))
    update(engine, lake, settings)
    overwrite(engine, lake, photo("labeled/001.cat/a.jpg", of="new"))
    overwrite(engine, lake, photo("unlabeled/x/c.jpg", of="newer"))

    update(engine, lake, settings)

    # The folder says again what the one is; of the other nothing is said, and its row goes.
    assert labels(engine, lake) == BY_FOLDER
    assert images(engine, lake)["labeled/001.cat/a.jpg"] == image_id("new")
    overwrite(engine, lake, photo("unlabeled/x/c.jpg"))
    update(engine, lake, settings)
    assert labels(engine, lake)["unlabeled/x/c.jpg"] == (1, "cat", "human")


def test_new_bytes_that_were_answered_elsewhere_have_that_answer(local_engine, lake, settings) -> None:
    put(lake, "human_labels", said("unlabeled/x/c.jpg", 1))
    overwrite(local_engine, lake, photo("labeled/012.dog/b.jpg", of="unlabeled/x/c.jpg"))

    update(local_engine, lake, settings)

    assert labels(local_engine, lake)["labeled/012.dog/b.jpg"] == (1, "cat", "human")


def test_labels_go_with_the_zone_s_being_labelled_and_stay_where_it_is_taken_out(local_engine, lake, settings) -> None:
    update(local_engine, lake, settings)
    before = labels(local_engine, lake)

    update(local_engine, lake, settings.model_copy(update={"landing": {"unlabeled": settings.landing["unlabeled"]}}))
    assert labels(local_engine, lake) == before

    plain = settings.landing["labeled"].model_copy(update={"labelled": False})
    update(local_engine, lake, settings.model_copy(update={"landing": {"labeled": plain}}))
    assert labels(local_engine, lake) == {}


def test_a_photo_moved_to_another_folder_has_that_one_s_label(engine, lake, settings) -> None:
    old, new = "labeled/001.cat/a.jpg", "labeled/012.dog/a.jpg"
    put(lake, "raw_images", photo(new, of=old))
    update(engine, lake, settings)
    assert (labels(engine, lake)[old][0], labels(engine, lake)[new][0]) == (1, 12)

    put(lake, "deleted_files", gone(old))
    update(engine, lake, settings)

    assert labels(engine, lake)[old] == labels(engine, lake)[new] == (12, "dog", "folder")
    times = {row["path"]: row["labeled_at"] for row in get(engine, lake, "labeled_images", "path, labeled_at")}
    assert (times[old], times[new]) == (LATER, NOON)


def test_a_photo_that_is_gone_keeps_its_label_and_one_that_is_back_its_own(local_engine, lake, settings) -> None:
    copy = photo("labeled/012.dog/a.jpg", of="labeled/001.cat/a.jpg")
    put(lake, "raw_images", copy)
    put(lake, "deleted_files", gone("labeled/012.dog/b.jpg"), gone("labeled/001.cat/a.jpg", back=True))

    update(local_engine, lake, settings)

    assert {path: label for path, (label, *_) in labels(local_engine, lake).items()} == {
        "labeled/001.cat/a.jpg": 1,
        "labeled/012.dog/a.jpg": 12,
        "labeled/012.dog/b.jpg": 12,
    }


def test_a_file_s_new_time_is_the_label_s(local_engine, lake, settings) -> None:
    update(local_engine, lake, settings)
    overwrite(local_engine, lake, photo("labeled/001.cat/a.jpg", minutes=3))

    assert update(local_engine, lake, settings).updated == 1
    assert update(local_engine, lake, settings).changed is False


def test_many_labels_go_a_part_at_a_time(local_engine, lake, settings, monkeypatch) -> None:
    monkeypatch.setattr("dlassets.lakehouse.labels.REPLACED_AT_ONCE", 2)
    put(lake, "raw_images", *(photo(f"labeled/001.cat/{number}.jpg") for number in range(5)))
    update(local_engine, lake, settings)
    plain = settings.landing["labeled"].model_copy(update={"labelled": False})

    update(local_engine, lake, settings.model_copy(update={"landing": {"labeled": plain}}))

    assert labels(local_engine, lake) == {}
