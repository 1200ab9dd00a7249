"""Augmentation: a photo's bytes to pixels that differ from epoch to epoch, and repeat with the seed.

All that is drawn comes from the generator given, never from torch's own, which the threads that decode would share.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from dlassets.images.decode import USUAL_VIEW, Pixels, View, as_seen, decode_rgb

if TYPE_CHECKING:
    import torch

Augmentation = Literal["none", "light", "strong"]

LEAST_AREA = 0.35
RATIOS = (3 / 4, 4 / 3)
COLOUR = 0.3
DEGREES = 15.0
ERASED = (0.02, 0.2)
GREY = 127


def load(data: bytes, view: View = USUAL_VIEW) -> torch.Tensor:
    """Return (side, side, 3) uint8 RGB as scoring sees a photo. Raises ImageError for bytes that do not decode."""
    import torch

    return torch.from_numpy(as_seen(data, view))


def load_augmented(
    data: bytes, random: np.random.Generator, kind: Augmentation, view: View = USUAL_VIEW
) -> torch.Tensor:
    """Return (side, side, 3) uint8 RGB, changed as `kind` says by what `random` gives.

    none: as `load`. light: a crop of at least 35% of the area, and a flip (Szegedy et al., 2015). strong: brightness,
    contrast, saturation, a turn of up to 15 degrees and a patch of grey as well (Zhong et al., 2017). Raises ImageError
    for bytes that do not decode.
    """
    if kind == "none":
        return load(data, view)
    # Decoded so large, even the smallest crop has the pixels that the network is shown.
    at_least = math.ceil(view.side / math.sqrt(LEAST_AREA))
    pixels = _cropped_and_flipped(decode_rgb(data, at_least), view.side, random)
    if kind == "strong":
        pixels = _erased(_turned(_recoloured(pixels, random), random), random)
    return pixels.permute(1, 2, 0).contiguous()


def crop_of(height: int, width: int, random: np.random.Generator) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a crop, in pixels: the middle square where ten draws do not fit in."""
    for _ in range(10):
        area = height * width * random.uniform(LEAST_AREA, 1)
        ratio = _ratio(random)
        tall, wide = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < tall <= height and 0 < wide <= width:
            return int(random.integers(height - tall + 1)), int(random.integers(width - wide + 1)), tall, wide
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def _ratio(random: np.random.Generator) -> float:
    """Draw a width by height, as likely wide as tall."""
    low, high = map(math.log, RATIOS)
    return math.exp(random.uniform(low, high))


def _cropped_and_flipped(pixels: Pixels, side: int, random: np.random.Generator) -> torch.Tensor:
    import torch

    height, width = pixels.shape[:2]
    top, left, tall, wide = crop_of(height, width, random)
    crop = np.require(pixels[top : top + tall, left : left + wide], requirements=["C", "W"])
    # torch's uint8 resize is several times faster than Pillow's, on channels that lie together.
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(crop).permute(2, 0, 1)[None], size=(side, side), mode="bilinear", antialias=True
    )[0]
    return resized.flip(2) if random.random() < 0.5 else resized  # noqa: PLR2004 - one in two


def _recoloured(pixels: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    from torchvision.transforms.v2 import functional

    changes = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
    for place in random.permutation(len(changes)):
        pixels = changes[place](pixels, random.uniform(1 - COLOUR, 1 + COLOUR))
    return pixels


def _turned(pixels: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    from torchvision.transforms.v2 import InterpolationMode, functional

    angle = random.uniform(-DEGREES, DEGREES)
    turned: torch.Tensor = functional.rotate(pixels, angle, InterpolationMode.BILINEAR, fill=[GREY] * 3)
    return turned


def _erased(pixels: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    if random.random() < 0.5:  # noqa: PLR2004 - one in two
        return pixels
    side = pixels.shape[1]
    erased, ratio = math.sqrt(random.uniform(*ERASED)) * side, math.sqrt(_ratio(random))
    tall, wide = round(erased / ratio), round(erased * ratio)
    top, left = random.integers(side - tall + 1), random.integers(side - wide + 1)
    pixels = pixels.clone()
    pixels[:, top : top + tall, left : left + wide] = GREY
    return pixels
