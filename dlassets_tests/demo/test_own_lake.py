"""A lake, or a folder, is filled from one set of photos: another one is refused before a file of it moves."""

import shutil
import threading
from pathlib import Path

import pytest

from dlassets.demo.own_lake import taken_by, with_own_lake
from dlassets.demo.photos import arrive_labelled, as_it_stands
from dlassets.errors import DlassetsError
from dlassets.samples.one_set import filled_from
from dlassets.settings import Settings
from dlassets_tests.programs import invoke


def photos_of(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"a photo")
    return folder


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("source", "root", "environment", "expected"),
    [
        ("generated", "lake", {}, "lake"),
        ("/data/my photos", "lake", {}, "lake-my-photos"),
        ("/data/shoes.tar.gz", "lake", {}, "lake-shoes"),
        ("https://example.com/sets/hats.zip?token=abc", "lake", {}, "lake-hats"),
        ("clothing", "lake", {}, "lake-clothing"),
        ("/data/mine", "lake", {"DLASSETS_ROOT": "lake"}, "lake"),
        ("/data/mine", "/data/lake", {}, "/data/lake"),
    ],
)
def test_a_set_has_a_lake_of_its_own_unless_the_root_is_somebody_s_choice(source, root, environment, expected) -> None:
    assert with_own_lake(Settings(root=root), source, environment).root == expected


def test_another_set_is_refused_before_a_file_moves_and_the_error_says_what_to_run(tmp_path) -> None:
    lake, mine = tmp_path / "lake", photos_of(tmp_path / "mine", "001.cat/a.jpg", "002.dog/b.jpg")
    with taken_by(Settings(root=str(lake)), "generated"):
        photos_of(lake / "landing/labeled", "001.balloon/1.jpg")
    before = files_in(tmp_path)

    ran = invoke("demo", "--images", mine, DLASSETS_ROOT=str(lake))

    assert ran.exit_code == 1
    assert f"The lake at {lake} is filled from another set, generated: {mine} would be mixed into it" in ran.stderr
    assert f"DLASSETS_ROOT={lake}-mine " in ran.stderr
    assert f"dlassets demo --images {mine}" in ran.stderr
    assert files_in(tmp_path) == before
    assert not (tmp_path / "lake-mine").exists()


def test_a_set_that_has_gained_photos_goes_on_in_its_lake_also_when_the_first_demo_was_killed_at_once(tmp_path) -> None:
    settings, mine = Settings(root=str(tmp_path / "lake")), photos_of(tmp_path / "mine", "001.cat/a.jpg")
    with taken_by(settings, str(mine)):
        assert list(files_in(tmp_path / "lake")) == ["demo/set.txt"]  # before any photo

    photos_of(mine, "001.cat/b.jpg", "002.dog/c.jpg")
    for _ in range(2):
        with taken_by(settings, str(mine)):
            arrive_labelled(mine, str(tmp_path / "lake/landing/labeled"))
    assert files_in(tmp_path / "lake")["demo/set.txt"].decode() == f"{mine}\n"


@pytest.mark.parametrize(
    "place", ["landing/labeled/001.cat/a.jpg", "landing/unlabeled/a.jpg", "demo/given/001.cat/a.jpg"]
)
def test_photos_that_no_demo_put_there_are_not_mixed_with_a_set(tmp_path, place) -> None:
    photos_of(tmp_path / "lake", place)

    with (
        pytest.raises(DlassetsError, match="holds photos, and of what set is written down nowhere"),
        taken_by(Settings(root=str(tmp_path / "lake")), "generated"),
    ):
        pass


def test_an_earlier_version_s_lake_of_generated_samples_goes_on(tmp_path) -> None:
    photos_of(tmp_path / "lake", "demo/images/001.balloon/1.jpg", "landing/labeled/001.balloon/1.jpg")

    with taken_by(Settings(root=str(tmp_path / "lake")), "generated"):
        pass

    assert (tmp_path / "lake/demo/set.txt").read_text() == "generated\n"


def test_a_set_of_which_nothing_came_leaves_the_lake_to_another(tmp_path) -> None:
    (tmp_path / "broken.zip").write_bytes(b"no zip")

    broken = invoke("demo", "--images", tmp_path / "broken.zip", DLASSETS_ROOT=str(tmp_path / "lake"))

    assert "neither a folder nor a zip nor a tar" in broken.stderr
    with taken_by(Settings(root=str(tmp_path / "lake")), "generated"):
        pass


def test_of_demos_of_several_sets_at_once_one_has_the_lake(tmp_path) -> None:
    start, came, refused = threading.Barrier(8), [], []

    def demo(number: int) -> None:
        start.wait()
        try:
            with taken_by(Settings(root=str(tmp_path / "lake")), str(tmp_path / f"set{number}")):
                photos_of(tmp_path / "lake/landing/labeled", f"001.cat/{number}.jpg")
                came.append(number)
        except DlassetsError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=demo, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(came), len(refused)) == (1, 7)
    assert all(f"another set, {tmp_path}/set{came[0]}" in error for error in refused)


def test_storage_without_hard_links_has_the_record_as_well(tmp_path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr("os.link", refuse)
    with filled_from("a set", tmp_path, str(tmp_path / "record"), lambda: False, ""):
        pass

    assert files_in(tmp_path) == {"record": b"a set\n"}


def test_samples_of_another_set_or_seed_do_not_come_into_a_folder_and_of_the_same_they_do(tmp_path) -> None:
    few = ("--classes", 2, "--per-class", 2)
    assert invoke("samples", "generated", tmp_path / "photos", *few).exit_code == 0
    before = files_in(tmp_path)

    seeded = invoke("samples", "generated", tmp_path / "photos", *few, "--seed", 3)
    other = invoke("samples", photos_of(tmp_path / "mine", "cat/a.jpg", "dog/b.jpg"), tmp_path / "photos")

    for ran in (seeded, other):
        assert ran.exit_code == 1
        assert f"{tmp_path}/photos is filled from another set, generated:" in ran.stderr
        assert "Choose an empty folder" in ran.stderr
    shutil.rmtree(tmp_path / "mine")
    assert files_in(tmp_path) == before
    assert invoke("samples", "generated", tmp_path / "photos", *few).exit_code == 0


def test_samples_do_not_come_among_somebody_s_own_photos(tmp_path) -> None:
    photos_of(tmp_path, "001.cat/a.jpg")

    ran = invoke("samples", "generated", tmp_path)

    assert "holds photos, and of what set is written down nowhere" in ran.stderr
    assert list(files_in(tmp_path)) == ["001.cat/a.jpg"]


def test_two_classes_of_one_number_are_refused_before_a_photo_of_theirs_arrives(tmp_path) -> None:
    landing, images = tmp_path / "landing", photos_of(tmp_path / "images", "001.cat/a.jpg", "002.dog/b.jpg")
    arrive_labelled(images, str(landing))
    before = files_in(landing)
    (images / "002.dog").rename(images / "002.horse")
    photos_of(images, *(f"002.horse/{number}.jpg" for number in range(9)))

    with pytest.raises(DlassetsError, match=r"two classes of one number, 002.dog and 002.horse"):
        arrive_labelled(images, str(landing))
    assert files_in(landing) == before


def test_what_a_folder_of_class_folders_has_beside_photos_is_said_before_the_demo_begins(tmp_path) -> None:
    photos_of(tmp_path, "001.cat/a.jpg", "001.cat/b.HEIC", "002.dog/c.png", "002.dog/raw.nef", "notes.txt", "_x/hidden")
    photos_of(tmp_path, "stray.jpg", "001.cat/deep/er.jpg", "001.cat/Thumbs.db")

    taken = as_it_stands(tmp_path, Settings().ingest.formats)

    assert taken.understood == "3 photos of 2 classes, by their folders as they stand."
    assert sorted(taken.not_taken_in) == [
        "1 file is a RAW photo (.nef): export it as JPEG or TIFF.",
        "1 file is of no kind that is known as a photo (.txt).",
        "2 photos lie in no class folder and are left out, such as 001.cat/deep/er.jpg.",
    ]
