"""Photos the program draws itself."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dlassets.errors import DlassetsError
from dlassets.samples.generated import CLASSES, generate, photo
from dlassets_tests.samples.test_unpack import contents


def test_every_class_gets_its_numbered_folder_and_its_count_of_photos(tmp_path):
    reported = []

    count = generate(tmp_path, classes=3, per_class=2, progress=lambda done, total: reported.append((done, total)))

    assert count == 6
    folders = ("001.balloon", "002.lollipop", "003.mushroom")
    assert sorted(contents(tmp_path)) == [f"{name}/{name[:3]}_000{n}.jpg" for name in folders for n in (1, 2)]
    assert reported == [(done, 6) for done in range(1, 7)]


def test_one_seed_makes_the_same_bytes_and_another_seed_makes_others(tmp_path):
    for folder, seed in (("first", 5), ("second", 5), ("other", 6)):
        generate(tmp_path / folder, classes=4, per_class=3, seed=seed)

    first, other = contents(tmp_path / "first"), contents(tmp_path / "other")
    assert contents(tmp_path / "second") == first
    assert len({*first.values(), *other.values()}) == 24


def test_no_two_photos_are_equal_and_sizes_are_mixed():
    photos = [
        photo(name, np.random.default_rng((label, number))) for label, name in enumerate(CLASSES) for number in range(3)
    ]

    assert len(set(photos)) == len(photos)
    images = [Image.open(io.BytesIO(content)) for content in photos]
    assert {(image.format, image.mode) for image in images} == {("JPEG", "RGB")}
    assert len({image.size for image in images}) > len(images) / 2
    assert {140 <= side <= 340 for image in images for side in image.size} == {True}


def test_a_class_is_drawn_and_not_only_named():
    """The same random numbers draw different pictures for different classes."""
    assert len({photo(name, np.random.default_rng(1)) for name in CLASSES}) == len(CLASSES)


def test_a_second_run_makes_what_is_missing_and_leaves_the_rest(tmp_path):
    generate(tmp_path, classes=2, per_class=2)
    before = contents(tmp_path)
    (tmp_path / "001.balloon/001_0002.jpg").unlink()
    (tmp_path / "002.lollipop/002_0001.jpg").write_bytes(b"somebody's own")

    assert generate(tmp_path, classes=2, per_class=2) == 4

    assert contents(tmp_path) == before | {"002.lollipop/002_0001.jpg": b"somebody's own"}


@pytest.mark.parametrize(("classes", "per_class"), [(0, 1), (len(CLASSES) + 1, 1), (2, 0)])
def test_impossible_counts_are_refused(tmp_path, classes, per_class):
    with pytest.raises(DlassetsError, match=r"Generated samples (have|need)"):
        generate(tmp_path, classes=classes, per_class=per_class)


def test_a_folder_that_holds_other_classes_is_refused(tmp_path):
    (tmp_path / "001.dress").mkdir()

    with pytest.raises(DlassetsError, match=r"two classes of one number, 001\.balloon and 001\.dress"):
        generate(tmp_path, classes=1, per_class=1)

    assert [path.name for path in tmp_path.iterdir()] == ["001.dress"]


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(DlassetsError, match="could not be written to"):
        generate(tmp_path / "file" / "below", classes=1, per_class=1)
