"""The model as it serves, without HTTP: the same features and answers as batch scoring's, and no torch."""

import numpy as np
import pytest

from dlassets.errors import DlassetsError
from dlassets.images.decode import ImageError, as_seen
from dlassets.learning.backbones import BackboneRef, feature_version
from dlassets.learning.embedding import load_backbone
from dlassets.registry.models import ModelVersion
from dlassets.registry.package import ModelPackage, ranked
from dlassets.scoring.online import FUSED, Network, Online, answer
from dlassets_tests.learning.examples import head
from dlassets_tests.learning.test_embedding import FILES
from dlassets_tests.programs import python

REF = BackboneRef("efficientnet_lite0", root=True)


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(REF)


def package(seed: int = 0) -> ModelPackage:
    weight = np.random.default_rng(seed).normal(0, 0.05, (3, 1280))
    return ModelPackage(head((1, 2, 3), weight), REF, feature_version(REF))


def online(network: Network, version: int = 1) -> Online:
    return Online(ModelVersion("m", version), package(version), network)


@pytest.mark.parametrize("photos", [0, 1, FUSED - 1, FUSED, 2 * FUSED + 1])
def test_features_are_those_of_batch_scoring_to_the_last_bit(network, photos) -> None:
    images = [as_seen(data, REF.view) for data in FILES[:photos]]

    assert np.array_equal(network.features(images), load_backbone(REF).embed_bytes(FILES[:photos]))


def test_each_model_answers_for_itself_and_a_photo_that_does_not_decode_has_its_error(network) -> None:
    models = [online(network, version) for version in (1, 2)]

    first, bad, second = answer(models, [FILES[0], b"none", FILES[1]])

    features = load_backbone(REF).embed_bytes(FILES[:2])
    assert isinstance(first, list)
    for place, found in enumerate((first, second)):
        assert isinstance(found, list)
        for model, said in zip(models, found, strict=True):
            expected = ranked(model.package.head, model.package.head.probabilities(features[place : place + 1]), 5)[0]
            assert said["name"] == expected["name"]
            assert said["confidence"] == pytest.approx(expected["confidence"], abs=1e-12)
    assert isinstance(bad, ImageError)
    assert first[0]["confidence"] != first[1]["confidence"]


def test_models_on_one_network_share_its_inference(network, monkeypatch) -> None:
    inferred = []
    features = Network.features

    def counted(self, images):
        inferred.append(len(images))
        return features(self, images)

    monkeypatch.setattr(Network, "features", counted)

    answer([online(network, version) for version in (1, 2, 3)], FILES[:2])

    assert inferred == [2]


def test_a_larger_picture_is_refused_from_its_header(network) -> None:
    (found,) = answer([online(network)], [FILES[0]], max_pixels=100)

    assert isinstance(found, ImageError)
    assert "more than 100" in str(found)


def test_a_model_of_other_features_is_refused(network) -> None:
    other = ModelPackage(package().head, REF, "features-1")

    with pytest.raises(DlassetsError, match="reads features features-1, and what is installed here makes"):
        Online(ModelVersion("m", 1), other, network)


NO_TORCH = """
import io, sys
import numpy as np
from PIL import Image
from dlassets.learning.backbones import BackboneRef, feature_version
from dlassets.learning.head import Head
from dlassets.registry.models import ModelVersion
from dlassets.registry.package import ModelPackage
from dlassets.scoring.online import Network, Online, answer

ref = BackboneRef("efficientnet_lite0", side=64)
zeros = np.zeros((2, 1280), np.float32)
head = Head((1, 2), ("one", "two"), zeros, zeros[:, 0], zeros[0], zeros[0] + 1)
model = Online(ModelVersion("m", 1), ModelPackage(head, ref, feature_version(ref)), Network(ref))
file = io.BytesIO()
Image.new("RGB", (90, 80)).save(file, "JPEG")
for _ in range(6):
    assert len(answer([model], [file.getvalue()] * 200)) == 200
print(*(name in sys.modules for name in ("torch", "torchvision", "timm", "openvino")))
"""


@pytest.mark.slow
def test_torch_is_never_imported_whether_the_network_was_converted_or_not(tmp_path) -> None:
    # An empty cache: another process converts the network. Then it is there. Each time 1,200 photos are looked at.
    for _ in range(2):
        assert python(NO_TORCH, XDG_CACHE_HOME=str(tmp_path)) == "False False False True\n"


@pytest.mark.slow
def test_a_network_that_cannot_be_kept_is_refused_with_what_went_wrong(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    with pytest.raises(DlassetsError, match=r"could not be converted and kept in .*Not a directory"):
        Network(REF)
