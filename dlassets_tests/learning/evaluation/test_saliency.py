"""Saliency has its peak where the evidence is: by hand on a network of one layer, and on real ones."""

import io

import numpy as np
import pytest
from PIL import Image

from dlassets.learning.backbones import BackboneRef, network
from dlassets.learning.evaluation.saliency import NoFeatureMapError, explain, saliency
from dlassets.learning.head import Head
from dlassets.learning.training.head_training import train_head
from dlassets.settings import TrainingSettings
from dlassets_tests.images.corpus import encoded
from dlassets_tests.learning.examples import examples, head

SIDE, CELL = 224, 16


def mean_colours(*, channels_last: bool = False, frozen: bool = False):
    """A network whose features are the mean red, green and blue, over a map of 14 by 14 cells."""
    import torch

    class Cells(torch.nn.Module):
        """The one layer that gives a map."""

        def __init__(self) -> None:
            super().__init__()
            weight = torch.eye(3)[:, :, None, None].expand(3, 3, CELL, CELL) / CELL**2 / 255
            self.weight = torch.nn.Parameter(weight, requires_grad=not frozen)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            cells = torch.nn.functional.conv2d(images.permute(0, 3, 1, 2).to(torch.float32), self.weight, stride=CELL)
            return cells.permute(0, 2, 3, 1) if channels_last else cells

    class MeanColours(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells = Cells()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.cells(images).mean(dim=(1, 2) if channels_last else (2, 3))

    return MeanColours().train()


def picture(**squares: tuple[int, int, int]) -> np.ndarray:
    """A black picture with squares of a colour, each of so many cells at this row and column of cells."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    for colour, (row, column, cells) in squares.items():
        band = ("red", "green", "blue").index(colour)
        image[row * CELL : (row + cells) * CELL, column * CELL : (column + cells) * CELL, band] = 255
    return image


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_peak_is_where_the_predicted_class_is_and_nothing_is_where_another_is(channels_last, frozen) -> None:
    images = np.stack([picture(red=(1, 2, 4), blue=(9, 9, 3)), picture(red=(9, 9, 2), blue=(2, 1, 4))])

    found = saliency(mean_colours(channels_last=channels_last, frozen=frozen), head(range(3)), images)

    assert found.shape == (2, SIDE, SIDE)
    assert found.dtype == np.float32
    for seen, (row, column), (other_row, other_column) in zip(found, [(1, 2), (2, 1)], [(9, 9), (9, 9)], strict=True):
        inside = seen[(row + 1) * CELL : (row + 3) * CELL, (column + 1) * CELL : (column + 3) * CELL]
        np.testing.assert_allclose(inside, 1)
        assert (seen[other_row * CELL :, other_column * CELL :] == 0).all()
        # All that is seen lies in the square, and in half a cell around it.
        assert seen.sum() == pytest.approx(16 * CELL**2, rel=0.01)


def test_a_feature_counts_by_its_weight_over_its_scale() -> None:
    image = picture(red=(1, 1, 4), green=(9, 9, 4))[None]

    (seen,) = saliency(mean_colours(), head((0, 1), [[1, 1, 0], [0, 0, 1]], scale=(1, 10, 1)), image)

    assert seen[3 * CELL, 3 * CELL] == 1
    assert seen[11 * CELL, 11 * CELL] == pytest.approx(0.1)


def test_what_speaks_against_the_class_is_left_out_and_nothing_is_nothing() -> None:
    images = np.stack([picture(red=(1, 1, 4), green=(9, 9, 2)), picture()])

    against, nothing = saliency(mean_colours(), head((0, 1), [[1, -1, 0], [-1, 1, 0]]), images)

    assert against[3 * CELL, 3 * CELL] == 1
    assert against[9 * CELL :, 9 * CELL :].max() == 0
    assert (nothing == 0).all()


def test_any_number_of_images_is_seen_as_each_alone() -> None:
    images = np.stack([picture(red=(place, place, 3)) for place in range(10)])
    colours, each = mean_colours(), head(range(3))

    np.testing.assert_allclose(
        saliency(colours, each, images), np.concatenate([saliency(colours, each, image[None]) for image in images])
    )
    assert saliency(colours, each, images[:0]).shape == (0, SIDE, SIDE)


def test_the_network_is_left_without_hooks_or_gradients() -> None:
    colours = mean_colours()

    saliency(colours, head(range(3)), picture(red=(1, 1, 4))[None])

    assert not any(module._forward_hooks for module in colours.modules())
    assert all(parameter.grad is None for parameter in colours.parameters())


def random_head(dimensions: int) -> Head:
    return head((0, 1), np.random.default_rng(0).normal(0, 1, (2, dimensions)))


def test_a_vision_transformer_is_refused_in_words() -> None:
    backbone = network(BackboneRef("timm/vit_tiny_patch16_224", "none"))

    with pytest.raises(NoFeatureMapError, match=r"gives tokens \(\(197, 192\) an image\)\. Set features\.backbone to"):
        saliency(backbone, random_head(192), picture()[None])


def test_a_network_that_works_in_place_has_a_map() -> None:
    backbone = network(BackboneRef("torchvision/resnet18", "none"))

    seen = saliency(backbone, random_head(512), picture(red=(1, 1, 4))[None])

    assert seen.shape == (1, SIDE, SIDE)
    assert 0 <= seen.min() <= seen.max() <= 1


def test_photos_are_explained_as_the_backbone_sees_them() -> None:
    photo = encoded(Image.fromarray(scene("stripes", (0, 0), 1)).resize((640, 480)), "JPEG")

    sheet = explain(BackboneRef("efficientnet_lite0"), random_head(1280), [(b"no photo", "x"), (photo, "a caption")])

    shown = Image.open(io.BytesIO(sheet))
    assert shown.format == "PNG"
    assert shown.width > 2 * shown.height


def scene(kind: str, corner: tuple[int, int], seed: int) -> np.ndarray:
    """A grey, grainy picture with a striped square or a chequered one in a corner."""
    chance = np.random.default_rng(seed)
    image = chance.normal(128, 8, (SIDE, SIDE, 3))
    rows, columns = np.mgrid[:80, :80] // 8
    pattern = rows % 2 if kind == "stripes" else (rows + columns) % 2
    row, column = (16 + place * 112 for place in corner)
    image[row : row + 80, column : column + 80] = np.where(pattern[..., None], (230, 60, 40), (250, 240, 220))
    return image.clip(0, 255).astype(np.uint8)


def test_a_trained_head_on_the_real_backbone_looks_at_the_corner_that_the_object_is_in() -> None:
    import torch

    kinds, corners = ("stripes", "chequers"), ((0, 0), (0, 1), (1, 0), (1, 1))
    scenes = [(kind, corner, seed) for kind in kinds for corner in corners for seed in range(3)]
    images = np.stack([scene(*each) for each in scenes])
    backbone = network(BackboneRef("efficientnet_lite0"))
    with torch.inference_mode():
        features = backbone(torch.from_numpy(images)).numpy()
    labels = np.array([kinds.index(kind) for kind, _, _ in scenes])
    rows = examples(labels, features)
    trained = train_head(rows, rows, TrainingSettings(epochs=10)).head

    unseen = [scene(kind, corner, 99) for kind in kinds for corner in corners]
    maps = saliency(backbone, trained, np.stack(unseen))

    shares = maps.reshape(8, 2, SIDE // 2, 2, SIDE // 2).sum(axis=(2, 4)) / maps.sum(axis=(1, 2))[:, None, None]
    looked_at = [np.unravel_index(share.argmax(), (2, 2)) for share in shares]
    assert looked_at == list(corners) * 2
    peaks = [np.unravel_index(seen.argmax(), seen.shape) for seen in maps]
    assert [(row // 112, column // 112) for row, column in peaks] == list(corners) * 2


def test_features_that_are_nothing_speak_for_no_place_where_roots_are_taken():
    backbone = network(BackboneRef("torchvision/squeezenet1_1", "none", root=True))
    weight = np.outer([1, -1], np.ones(backbone.dimensions))

    found = saliency(backbone, head((1, 2), weight), picture()[None])

    assert np.isfinite(found).all()
