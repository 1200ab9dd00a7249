"""The package on disk: read back as it was written, and nothing else is read."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dlassets.errors import DlassetsError
from dlassets.learning.backbones import BackboneRef, feature_version, network
from dlassets.registry import package
from dlassets.registry.package import ModelPackage, digest_of, ranked
from dlassets_tests.registry.conftest import head

ARRAYS = ("weight", "bias", "mean", "scale")


@pytest.fixture
def folder(tmp_path):
    ModelPackage(head(3, 12, 40), BackboneRef("efficientnet_lite0"), "features-1").save(tmp_path / "package")
    return tmp_path / "package"


def described(folder) -> dict[str, Any]:
    return json.loads((folder / "package.json").read_text())


def describe(folder, **changes: Any) -> None:
    """Have a package say something else of itself, as if it had been made so."""
    said = described(folder) | changes
    (folder / "package.json").write_text(json.dumps(said | {"sha256": package._digest(folder, said)}))


def test_a_package_is_read_as_it_was_written(folder) -> None:
    read = ModelPackage.load(folder)

    assert (read.backbone, read.feature_version) == (BackboneRef("efficientnet_lite0"), "features-1")
    assert (read.head.labels, read.head.names) == ((3, 12, 40), ("class 3", "class 12", "class 40"))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(read.head, name), getattr(head(3, 12, 40), name))


def test_a_package_says_its_classes_and_its_preprocessing_to_other_programs(folder) -> None:
    assert described(folder)["classes"][1] == {"label": 12, "name": "class 12"}
    assert described(folder)["preprocessing"]["crop_centre_to"] == 224


def test_confidence_is_calibrated_as_it_was(tmp_path) -> None:
    calibrated = replace(head(3, 40), temperature=1.7)
    ModelPackage(calibrated, BackboneRef("efficientnet_lite0"), "features-1").save(tmp_path)

    assert ModelPackage.load(tmp_path).head.temperature == 1.7


def test_a_package_of_the_older_format_is_read(folder) -> None:
    older = {name: value for name, value in described(folder).items() if name not in {"temperature", "weights"}}
    (folder / "package.json").write_text(json.dumps(older | {"format": 1}))

    read = ModelPackage.load(folder)

    assert (read.backbone, read.head.temperature) == (BackboneRef("efficientnet_lite0"), 1.0)


@pytest.fixture
def with_weights(tmp_path):
    """The folder of a package with a backbone's own weights, which came from the file beside it."""
    from safetensors.torch import save_file

    small = BackboneRef("torchvision/squeezenet1_1", "none")
    save_file(network(small).network.state_dict(), tmp_path / "trained.safetensors")
    own = replace(small, weights=str(tmp_path / "trained.safetensors"))
    ModelPackage(head(3, 40), own, feature_version(own)).save(tmp_path / "package")
    return tmp_path / "package"


def test_a_backbone_s_own_weights_go_with_it(with_weights) -> None:
    (with_weights.parent / "trained.safetensors").unlink()

    read = ModelPackage.load(with_weights)

    assert feature_version(read.backbone) == read.feature_version
    assert len(network(read.backbone).state_dict()) == len(network(replace(read.backbone, weights="none")).state_dict())


def test_damaged_weights_are_refused(with_weights) -> None:
    file = with_weights / "backbone.safetensors"
    file.write_bytes(file.read_bytes()[:-1])

    with pytest.raises(DlassetsError, match="its files are not those that it was made of"):
        ModelPackage.load(with_weights)


def test_weights_outside_of_the_package_are_not_read(with_weights) -> None:
    describe(with_weights, weights=described(with_weights)["weights"] | {"file": "../trained.safetensors"})

    with pytest.raises(DlassetsError, match="which is not in its folder"):
        ModelPackage.load(with_weights)


def test_pickled_arrays_are_refused(folder) -> None:
    arrays: dict[str, Any] = {name: np.array([{"code": "runs"}], dtype=object) for name in ARRAYS}
    np.savez(folder / "head.npz", **arrays)
    describe(folder)

    with pytest.raises(DlassetsError, match="no readable model package: Object arrays cannot be loaded"):
        ModelPackage.load(folder)


@pytest.mark.parametrize("name", ["helper.py", "sitecustomize.pyc", "head.pkl", "hooks/helper.py"])
def test_code_that_is_put_into_a_package_makes_it_another_and_is_never_run(folder, name, tmp_path) -> None:
    before, ran = digest_of(folder), tmp_path / "ran"
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(f"open({str(ran)!r}, 'w')")

    with pytest.raises(DlassetsError, match="holds no readable model package"):
        ModelPackage.load(folder)
    if (folder / name).parent == folder:  # whole in itself again, as another package
        describe(folder)
        assert ModelPackage.load(folder).feature_version == "features-1"
        assert digest_of(folder) != before
    assert not ran.exists()


def test_a_newer_format_names_the_remedy(folder) -> None:
    describe(folder, format=4)

    with pytest.raises(DlassetsError, match=r"format 4, .* reads format 3\. Install the dlassets that made it"):
        ModelPackage.load(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 2.0},
        {"feature_version": "features-2"},
        {"view": {"side": 224, "crop": 1.0, "flips": False, "root": True}},
        {"classes": [{"label": 12, "name": "class 3"}, {"label": 3, "name": "class 12"}, {"label": 40, "name": "c"}]},
        {"backbone": "efficientnet_lite1"},
    ],
)
def test_an_edited_package_is_refused(folder, change) -> None:
    (folder / "package.json").write_text(json.dumps(described(folder) | change))

    with pytest.raises(DlassetsError, match="its files are not those that it was made of"):
        ModelPackage.load(folder)


def test_an_edited_head_is_refused_and_two_packages_have_two_digests(folder, tmp_path) -> None:
    ModelPackage(head(3, 12, 40, knows=-1), BackboneRef("efficientnet_lite0"), "features-1").save(tmp_path / "other")
    assert digest_of(folder) != digest_of(tmp_path / "other")

    (folder / "head.npz").write_bytes((tmp_path / "other" / "head.npz").read_bytes())

    with pytest.raises(DlassetsError, match="its files are not those that it was made of"):
        ModelPackage.load(folder)


def flip_a_byte(content):
    place = content.index(b"weight.npy") + 150
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("name", "damaged"),
    [
        ("head.npz", None),
        ("package.json", None),
        ("head.npz", lambda _: b""),
        ("head.npz", lambda _: b"no zip"),
        ("package.json", lambda _: b"{"),
        ("package.json", lambda _: b"[]"),
        ("package.json", lambda _: b'{"format": 1}'),
        ("package.json", lambda _: b'{"format": 1, "classes": [1]}'),
        ("head.npz", lambda content: content[: len(content) // 2]),
        ("head.npz", flip_a_byte),
    ],
)
def test_a_damaged_package_is_said_with_its_place_and_the_remedy(folder, name, damaged) -> None:
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if damaged:
        (folder / name).write_bytes(damaged(content))

    with pytest.raises(DlassetsError, match=r"package holds no readable model package: .* Restore its files"):
        ModelPackage.load(folder)


def test_a_package_with_a_class_forgotten_is_no_readable_one(folder) -> None:
    describe(folder, classes=described(folder)["classes"][:2])

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
