"""The package on disk: read back as it was written, and nothing else is read."""

import json

import numpy as np
import pytest

from dlassets.errors import DlassetsError
from dlassets.registry.package import ModelPackage, ranked
from dlassets_tests.registry.conftest import head

ARRAYS = ("weight", "bias", "mean", "scale")


@pytest.fixture
def folder(tmp_path):
    ModelPackage(head(3, 12, 40), "efficientnet_lite0", "features-1").save(tmp_path / "package")
    return tmp_path / "package"


def test_a_package_is_read_as_it_was_written(folder) -> None:
    read = ModelPackage.load(folder)

    assert (read.backbone, read.feature_version) == ("efficientnet_lite0", "features-1")
    assert (read.head.labels, read.head.names) == ((3, 12, 40), ("class 3", "class 12", "class 40"))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(read.head, name), getattr(head(3, 12, 40), name))


def test_a_package_says_its_classes_and_its_preprocessing_to_other_programs(folder) -> None:
    said = json.loads((folder / "package.json").read_text())

    assert said["classes"][1] == {"label": 12, "name": "class 12"}
    assert said["preprocessing"]["crop_centre_to"] == 224


def test_pickled_arrays_are_refused(folder) -> None:
    arrays = {name: np.array([{"code": "runs"}], dtype=object) for name in ARRAYS}
    np.savez(folder / "head.npz", **arrays)

    with pytest.raises(DlassetsError, match="no readable model package: Object arrays cannot be loaded"):
        ModelPackage.load(folder)


def test_a_newer_format_names_the_remedy(folder) -> None:
    said = json.loads((folder / "package.json").read_text())
    (folder / "package.json").write_text(json.dumps(said | {"format": 2}))

    with pytest.raises(DlassetsError, match=r"format 2, .* reads format 1\. Install the dlassets that made it"):
        ModelPackage.load(folder)


def remove(name):
    return lambda folder: (folder / name).unlink()


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def cut(folder):
    whole = (folder / "head.npz").read_bytes()
    (folder / "head.npz").write_bytes(whole[: len(whole) // 2])


def flip_a_byte(folder):
    content = bytearray((folder / "head.npz").read_bytes())
    content[content.index(b"weight.npy") + 150] ^= 0xFF
    (folder / "head.npz").write_bytes(content)


def forget_a_class(folder):
    said = json.loads((folder / "package.json").read_text())
    (folder / "package.json").write_text(json.dumps(said | {"classes": said["classes"][:2]}))


@pytest.mark.parametrize(
    "damage",
    [
        remove("head.npz"),
        remove("package.json"),
        write("head.npz", b""),
        write("head.npz", b"no zip"),
        write("package.json", b"{"),
        write("package.json", b"[]"),
        write("package.json", b'{"format": 1}'),
        write("package.json", b'{"format": 1, "classes": [1]}'),
        cut,
        flip_a_byte,
        forget_a_class,
    ],
)
def test_a_damaged_package_is_said_with_its_place_and_the_remedy(folder, damage) -> None:
    damage(folder)

    with pytest.raises(DlassetsError, match=r"package holds no readable model package: .* Restore its files"):
        ModelPackage.load(folder)


def test_the_likeliest_classes_come_first_with_the_margin_to_the_second() -> None:
    (row,) = ranked(head(3, 12, 40), np.array([[0.2, 0.7, 0.1]]), top_k=2)

    assert (row["label"], row["name"], row["confidence"], row["margin"]) == (12, "class 12", 0.7, pytest.approx(0.5))
    assert [(best["label"], best["confidence"]) for best in row["top_k"]] == [(12, 0.7), (3, 0.2)]


@pytest.mark.parametrize(("top_k", "listed"), [(1, 1), (5, 3)])
def test_top_k_lists_no_more_classes_than_there_are(top_k, listed) -> None:
    (row,) = ranked(head(3, 12, 40), np.array([[0.2, 0.7, 0.1]]), top_k=top_k)

    assert len(row["top_k"]) == listed
    assert row["margin"] == pytest.approx(0.5)


def test_of_equally_likely_classes_the_first_is_taken() -> None:
    (row,) = ranked(head(3, 12), np.array([[0.5, 0.5]]), top_k=2)

    assert (row["label"], row["margin"]) == (3, 0)
