"""Where in a photo a model saw what it says: Grad-CAM on a backbone's last feature map."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dlassets.errors import DlassetsError
from dlassets.images.decode import ImageError, Pixels, as_seen
from dlassets.learning.backbones import BackboneRef, network
from dlassets.learning.evaluation import pictures
from dlassets.learning.head import Head

if TYPE_CHECKING:
    import torch

_BATCH = 8


class NoFeatureMapError(DlassetsError):
    """The network ends in something other than a map of the photo, so there is no telling where it saw what."""


def saliency(backbone: torch.nn.Module, head: Head, images: Pixels) -> NDArray[np.float32]:
    """Return how much each place of each image speaks for its predicted class, (N, height, width), at most 1 an image.

    Grad-CAM (Selvaraju et al., 2017): the channels of the last feature map, each weighted by what more of it would add
    to the predicted class, of which what speaks against the class is left out. 0 everywhere where nothing speaks for
    it. `images` are (N, height, width, 3) of 0 to 255, as `backbone`, which is put into evaluation mode, takes them;
    `head` is the one on its features. Raises NoFeatureMapError for a network, such as a vision transformer, whose last
    layers have no map of the image.
    """
    backbone.eval()
    found = [_grad_cam(backbone, head, images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)]
    return np.concatenate(found) if found else np.zeros(images.shape[:3], np.float32)


def explain(backbone: BackboneRef, head: Head, photos: Sequence[tuple[bytes, str]]) -> bytes:
    """Return a PNG of photos, each a file's bytes with its caption, beside what of them speaks for the predicted class.

    They are shown as the backbone sees them; what does not decode is left out. Raises NoFeatureMapError as `saliency`
    does.
    """
    view = backbone.view
    shown: list[Pixels] = []
    captions = []
    for content, caption in photos:
        with suppress(ImageError):
            shown.append(as_seen(content, view))
            captions.append(caption)
    images = np.array(shown, np.uint8).reshape(-1, view.side, view.side, 3)
    maps = saliency(network(backbone), head, images)
    return pictures.saliency_sheet(list(zip(images, maps, captions, strict=True)))


def _grad_cam(backbone: torch.nn.Module, head: Head, images: Pixels) -> NDArray[np.float32]:
    import torch

    # Pixels that ask for a gradient get the last map one, even where the whole network is frozen.
    pixels = torch.from_numpy(images).to(next(backbone.parameters()).device, torch.float32).requires_grad_()
    features, last = _features_and_map(backbone, pixels)
    predicted = head.probabilities(features.detach().cpu().numpy()).argmax(axis=1)
    evidence = torch.from_numpy(head.weight[predicted] / head.scale).to(features)
    (gradient,) = torch.autograd.grad((features * evidence).sum(), last)
    last, gradient = _channels_first(last.detach()), _channels_first(gradient)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    seen = torch.relu((weights * last).sum(dim=1, keepdim=True))
    seen = torch.nn.functional.interpolate(seen, images.shape[1:3], mode="bilinear")[:, 0]
    most = seen.amax(dim=(1, 2), keepdim=True)
    return np.asarray((seen / torch.where(most > 0, most, 1)).cpu().numpy(), dtype=np.float32)


def _features_and_map(backbone: torch.nn.Module, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the features, and the last output of a layer that still tells places apart."""
    import torch

    last: list[torch.Tensor] = []

    def keep(_module: torch.nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and len(output) == len(pixels) and _is_spatial(output):
            last[:] = [output]

    hooks = [module.register_forward_hook(keep) for module in backbone.modules()]
    try:
        with torch.enable_grad():
            features: torch.Tensor = backbone(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    if not last or last[0].ndim != 4:  # noqa: PLR2004 - images, channels, rows, columns
        shape = f"{tuple(last[0].shape[1:])} an image" if last else "none"
        raise NoFeatureMapError(
            f"There is no saliency for this backbone: Grad-CAM needs a map of the photo, and its last layer that tells "
            f"places apart gives tokens ({shape}). Set features.backbone to a convolutional network to have it."
        )
    return features, last[0]


def _is_spatial(output: torch.Tensor) -> bool:
    """Whether it is a map, (N, channels, side, side) or (N, side, side, channels), or tokens, (N, places, channels)."""
    match output.shape[1:]:
        case (first, second, third):
            return second == third > 1 or first == second > 1
        case (places, _):
            return places > 1
        case _:
            return False


def _channels_first(feature_map: torch.Tensor) -> torch.Tensor:
    _, _, rows, columns = feature_map.shape
    return feature_map if rows == columns else feature_map.permute(0, 3, 1, 2)
