"""A class is a number and a name, each given once: which folders mean which, and what is no class."""

import dataclasses
import datetime as dt
from typing import Any

import pytest

from dlassets.engines.base import Commit
from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError
from dlassets.images.folders import class_of_folder
from dlassets.lakehouse.classes import Class, Decided, Folder, classes_of, decide, name_class, update_classes
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import TABLES
from dlassets.settings import LabelSettings, LandingZone, Settings
from dlassets.storage.lake import Lake
from dlassets_tests.killing import overtaken_at
from dlassets_tests.programs import invoke
from dlassets_tests.tables import NOON, get, image_id, pins, put, take_labels

ENGINE = LocalEngine()


def folder(name: str, *, minutes: int = 0, is_there: bool = True) -> Folder:
    said = class_of_folder(name)
    assert said is not None
    return Folder("labeled", name, said, NOON + dt.timedelta(minutes=minutes), is_there)


def named(label: int, name: str, *aliases: str, said_by: str = "folder labeled/x") -> Class:
    return Class(label, name, list(aliases), NOON, said_by)


def decided(*names: str | Folder, known: tuple[Class, ...] = (), ignore_case: bool = False) -> Decided:
    folders = [each if isinstance(each, Folder) else folder(each) for each in names]
    return decide({each.label: each for each in known}, folders, ignore_case=ignore_case)


def labels(done: Decided) -> dict[str, int]:
    return {name: label for (_, name), label in done.labels.items()}


def names(done: Decided) -> dict[int, str]:
    return {label: each.name for label, each in done.classes.items()}


def test_a_name_without_a_number_has_the_next_one_in_the_order_of_the_alphabet() -> None:
    done = decided("dog", "cat", "012.bird")

    assert labels(done) == {"012.bird": 12, "cat": 13, "dog": 14}
    assert names(done) == {12: "bird", 13: "cat", 14: "dog"}


def test_a_number_once_given_stays_whatever_comes_later() -> None:
    assert labels(decided("ant", "cat", known=(named(1, "cat"), named(2, "dog")))) == {"ant": 3, "cat": 1}


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("1", "001.cat"), {"1": 1, "001.cat": 1}),
        (("cat", "007.cat"), {"cat": 7, "007.cat": 7}),
        (("7", "cat"), {"7": 7, "cat": 8}),
        (("1.cat", "01_cat"), {"1.cat": 1, "01_cat": 1}),
    ],
)
def test_a_number_alone_and_a_name_alone_are_the_class_that_has_both(folders, expected) -> None:
    done = decided(*folders)

    assert (labels(done), done.problems) == (expected, [])


def test_two_names_for_one_number_are_the_older_folder_s_and_a_problem() -> None:
    done = decided(folder("1.cat", minutes=5), folder("01.dog"))

    assert (labels(done), names(done)) == ({"01.dog": 1}, {1: "dog"})
    assert done.problems == ["labeled/1.cat: class 1 is dog already"]


def test_one_name_for_two_numbers_is_the_older_folder_s_and_a_problem() -> None:
    done = decided(folder("1.cat"), folder("7.cat", minutes=5))

    assert (labels(done), names(done)) == ({"1.cat": 1}, {1: "cat"})
    assert done.problems == ["labeled/7.cat: cat is class 1 already"]


def test_a_folder_that_was_renamed_renames_its_class_and_what_is_gone_keeps_its_number() -> None:
    done = decided(folder("001.cat", is_there=False), "001.katze", known=(named(1, "cat"),))

    assert labels(done) == {"001.cat": 1, "001.katze": 1}
    assert (done.classes[1].name, done.classes[1].aliases) == ("katze", ["cat"])
    assert done.problems == []


def test_a_name_that_a_person_gave_stays_and_the_folder_s_still_means_the_class() -> None:
    feline = named(1, "feline", "cat", said_by="ada")

    assert decided("001.cat", "cat", known=(feline,)).labels == {("labeled", "001.cat"): 1, ("labeled", "cat"): 1}
    assert decided("001.kitten", known=(feline,)).problems == ["labeled/001.kitten: class 1 is feline already"]


def test_a_class_of_a_number_alone_takes_the_first_name_that_comes() -> None:
    assert names(decided("1", "001.cat", known=(named(1, "1"),))) == {1: "cat"}


@pytest.mark.parametrize(
    ("one", "other"),
    [("caf\u00e9", "cafe\u0301"), ("\uff23at", "Cat"), ("wild cat", " wild  cat"), ("\ufb01sh", "fish")],
)
def test_one_name_in_two_forms_is_one_class(one, other) -> None:
    assert set(labels(decided(one, other)).values()) == {1}


@pytest.mark.parametrize(("ignore_case", "number"), [(False, 2), (True, 1)])
def test_case_tells_classes_apart_unless_the_setting_says_otherwise(ignore_case, number) -> None:
    assert len(decided("Cat", "cat", ignore_case=ignore_case).classes) == number


def photo(name: str, minutes: int = 0, path: str | None = None) -> dict[str, Any]:
    path = path or f"labeled/{name}/{minutes}.jpg"
    landing, *_, folder, _ = path.split("/")
    row = {"path": path, "image_id": image_id(path), "landing": landing, "folder": folder}
    return row | {"modificationTime": NOON + dt.timedelta(minutes=minutes)}


def update(lake: Lake, engine=ENGINE, **labels: Any) -> list[str]:
    settings = Settings(root=lake.root, labels=LabelSettings(**labels))
    return update_classes(
        engine, pins(lake, "raw_images", "deleted_files", "listed_labels", "classes"), settings, Commit()
    )[1]


def test_classes_are_written_once_by_either_engine(engine, lake) -> None:
    put(lake, "raw_images", photo("cat"), photo("cat", 5), photo("012.dog"))

    update(lake, engine)
    version = pin(lake, "classes").version
    update(lake, engine)

    assert pin(lake, "classes").version == version
    assert get(ENGINE, lake, "classes", "label, name, aliases, since, said_by") == [
        {"label": 12, "name": "dog", "aliases": [], "since": NOON, "said_by": "folder labeled/012.dog"},
        {"label": 13, "name": "cat", "aliases": [], "since": NOON, "said_by": "folder labeled/cat"},
    ]


def test_photos_in_a_folder_that_contradicts_a_class_have_no_label(lake, settings) -> None:
    put(lake, "raw_images", photo("1.cat"), photo("01.dog", 5), photo("fish"))

    take_labels(ENGINE, lake, settings)

    rows = get(ENGINE, lake, "labeled_images", "path, label, label_name")
    assert [(row["path"], row["label"], row["label_name"]) for row in rows] == [
        ("labeled/1.cat/0.jpg", 1, "cat"),
        ("labeled/fish/0.jpg", 2, "fish"),
    ]


def test_a_zone_s_paths_may_say_the_classes(engine, lake, settings) -> None:
    zone = LandingZone(uri="pets", labelled=True, label_from="path", label_rule=r"(?P<name>[a-z]+)\.\d+\.jpg$")
    rows = [photo("cat", number, f"pets/all/{name}.{number}.jpg") for number, name in enumerate(("dog", "cat", "dog"))]
    put(lake, "raw_images", photo("cat"), photo("012.dog", 9), *rows)
    both = settings.model_copy(update={"landing": {**settings.landing, "pets": zone}})

    take_labels(engine, lake, both)

    rows = get(ENGINE, lake, "labeled_images", "path, label, label_name")
    assert {row["path"]: (row["label"], row["label_name"]) for row in rows} == {
        "labeled/cat/0.jpg": (13, "cat"),
        "labeled/012.dog/9.jpg": (12, "dog"),
        "pets/all/dog.0.jpg": (12, "dog"),
        "pets/all/cat.1.jpg": (13, "cat"),
        "pets/all/dog.2.jpg": (12, "dog"),
    }


def test_two_runs_at_once_do_not_give_one_number_to_two_names(lake) -> None:
    from dlassets.errors import ConflictError

    put(lake, "raw_images", photo("cat"))

    def another() -> None:
        name_class(ENGINE, pin(lake, "classes"), "dog", "ada")

    with overtaken_at(LocalEngine, "merge", another), pytest.raises(ConflictError):
        update(lake)
    update(lake)

    known = classes_of(ENGINE, pin(lake, "classes"))
    assert {label: each.name for label, each in known.items()} == {1: "dog", 2: "cat"}


def test_the_command_shows_adds_and_renames_classes(lake) -> None:
    put(lake, "raw_images", photo("cat"))
    update(lake)

    def run(*arguments: str) -> tuple[int, str]:
        done = invoke("classes", *arguments, DLASSETS_ROOT=lake.root)
        return done.exit_code, done.output

    assert run("rename", "1", "feline")[0] == run("add", "dog")[0] == run("add", "bird", "--label", "9")[0] == 0
    assert run("rename", "2", "cat") == (1, "error: cat is class 1 already. A name belongs to one class.\n")
    assert run("add", "7")[0] == 1
    assert run("rename", "5", "ant")[0] == run("add", "ant", "--label", "9")[0] == 2
    shown = run()[1]
    assert [line.split()[:2] for line in shown.splitlines()[1:]] == [["1", "feline"], ["2", "dog"], ["9", "bird"]]
    assert update(lake) == []
    assert classes_of(ENGINE, pin(lake, "classes"))[1].aliases == ["cat"]


def test_what_is_no_name_is_refused(lake) -> None:
    for name in ("", "  ", "12"):
        with pytest.raises(DlassetsError, match="no name for a class"):
            name_class(ENGINE, pin(lake, "classes"), name, "ada")


def test_the_table_holds_what_a_class_is() -> None:
    assert [column.name for column in TABLES["classes"].columns] == [field.name for field in dataclasses.fields(Class)]
