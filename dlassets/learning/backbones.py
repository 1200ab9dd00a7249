"""Networks that turn a photo into an embedding: their names, and the torch modules behind them.

A name is `efficientnet_lite0`, `timm/<model>` or `torchvision/<model>`. `weights` says where their weights come from,
`embedding` runs a frozen one over photos.
"""

from __future__ import annotations

import difflib
import functools
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from dlassets.errors import DlassetsError
from dlassets.images.decode import CROP_SHARE, SIDE, USUAL_VIEW, View
from dlassets.learning import weights as stored
from dlassets.settings import FeatureSettings
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import torch

# To be raised whenever decode_rgb, resize_center_crop or the normalisation give other numbers.
PREPROCESSING_VERSION = 2

# Mean and standard deviation of ImageNet's pixels, which torchvision's networks were trained with.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_EPSILON = 1e-12
# A module with more of the network's parameters than this is a wrapper around blocks, and no block.
_WRAPPER_SHARE = 0.9

_log = logging.getLogger(__name__)

Runtime = Literal["auto", "openvino", "torch"]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class BackboneRef:
    """A network by name and weights, what it is shown and how its features are read, as the settings `features` say.

    `side` pixels show `crop` of a photo's shorter side. With `flips` the features are the mean of the photo's and its
    mirror image's; with `root` each is its square root, with its sign (Perronnin et al., 2010).
    """

    name: str
    weights: str = stored.PACKAGE
    side: int = SIDE
    crop: float = CROP_SHARE
    flips: bool = False
    root: bool = False

    @property
    def view(self) -> View:
        return View(self.side, self.crop)


@dataclass(frozen=True)
class Architecture:
    """A model of timm or torchvision. `mean` and `scale` normalise pixels of 0 to 255: (pixel - mean) / scale.

    `side` are the pixels a side of the only photos that it takes, where it does not take any.
    """

    library: Literal["timm", "torchvision"]
    model: str
    mean: Triple
    scale: Triple
    side: int | None = None


# Names of our own. EfficientNet-Lite was trained with numbers other than those timm has for it.
_OWN = {
    f"efficientnet_lite{size}": Architecture("timm", f"tf_efficientnet_lite{size}", (127,) * 3, (128,) * 3)
    for size in (0, 1, 2)
}
_OWN_DIMENSIONS = dict.fromkeys(_OWN, 1280)
# They take pixels normalised in a way of their own, and other sizes; timm has them as well.
_LEFT_OUT = {"googlenet", "inception_v3"}


def backbone_of(chosen: FeatureSettings) -> BackboneRef:
    return BackboneRef(chosen.backbone, chosen.weights, chosen.side, chosen.crop, chosen.flips, chosen.square_root)


def published(ref: BackboneRef, lake: Lake, tracking_uri: str | None = None) -> BackboneRef:
    """Return the same backbone with weights that every worker can load and nobody changes: see `weights.published`."""
    return replace(ref, weights=stored.published(ref.name, ref.weights, lake, tracking_uri))


def feature_version(ref: BackboneRef) -> str:
    """Return what identifies the features: backbone, weights, preprocessing. Imports neither torch nor OpenVINO.

    Both runtimes give the same features within a tolerance (bfloat16 where the processor has it, and float32), so it
    says nothing of the runtime. Raises DlassetsError where the weights are not to be had.
    """
    _check_form(ref.name)
    shown = "" if ref.view == USUAL_VIEW else f"-{ref.side}of{ref.crop:.6g}"
    return f"{slug(ref)}{shown}-p{PREPROCESSING_VERSION}"


def slug(ref: BackboneRef) -> str:
    """Return name, weights and the way features are read as a part of a file's name."""
    read = ("-flips" if ref.flips else "") + ("-root" if ref.root else "")
    return f"{ref.name.replace('/', '-')}-{stored.digest(ref.name, ref.weights)[:12]}{read}"


def preprocessing(ref: BackboneRef) -> dict[str, Any]:
    """Return what is done to a photo before the backbone sees it, for people and for other programs."""
    spec = _architecture(ref.name)
    return {
        "colours": "RGB",
        "resize_shorter_side_to": ref.view.at_least,
        "interpolation": "bicubic, antialiased",
        "crop_centre_to": ref.side,
        "subtract": _one_or_three(spec.mean),
        "then_divide_by": _one_or_three(spec.scale),
        "mean_with_mirror_image": ref.flips,
        "square_root_of_features": ref.root,
    }


def dimensions_of(ref: BackboneRef) -> int:
    """Return the length of the features, without needing the weights."""
    return _OWN_DIMENSIONS.get(ref.name) or _dimensions(ref.name)


@functools.cache
def _dimensions(name: str) -> int:
    ref = BackboneRef(name, side=_architecture(name).side or SIDE)
    return int(_from_pixels(ref, _headless(name)[0]).dimensions)


def network(ref: BackboneRef) -> Any:
    """Return the torch module from (N, side, side, 3) uint8 pixels to (N, dimensions) features, normalisation included.

    Its `network` is the model of timm or torchvision without its classifier, its `dimensions` the features' length. It
    is on the CPU, in evaluation mode, and every parameter asks for a gradient. Raises DlassetsError for a name that is
    unknown, and for weights that are not there, damaged, unsafe to load or of another network.
    """
    inner, classifier = _headless(ref.name)
    if ref.weights == stored.NONE:
        warn_of_random_weights(ref.name)
    elif ref.weights == stored.PACKAGE:
        # The file names its tensors otherwise than timm does, and has the same ones in the same order.
        names = [*inner.state_dict(), *classifier]
        found = dict(zip(names, stored.tensors(ref.name, ref.weights).values(), strict=True))
        stored.fit(inner, found, classifier, ref.name)
    else:
        stored.fit(inner, stored.tensors(ref.name, ref.weights), classifier, ref.name)
    return _from_pixels(ref, inner)


@functools.cache
def warn_of_random_weights(name: str) -> None:
    """Say it, once a process."""
    _log.warning("%s has random weights (features.weights: none): its features say little of a photo.", name)


def blocks(network: Any) -> list[torch.nn.Module]:
    """Return what `last_n` counts: the parts of a backbone that have parameters, from its input to its output.

    They are the model's children, with containers (and what wraps nearly all of the network) opened; a normalisation
    belongs to what comes before it. `network` is what the function of that name returns, or its `.network`.
    """
    import torch

    inner = getattr(network, "network", network)
    found: list[torch.nn.Module] = []
    for part in _opened(inner, _WRAPPER_SHARE * _size(inner)):
        if found and all(parameter.ndim <= 1 for parameter in part.parameters()):
            found[-1] = torch.nn.ModuleList([found[-1], part])
        else:
            found.append(part)
    return found


def _opened(module: torch.nn.Module, most: float) -> list[torch.nn.Module]:
    import torch

    parts: list[torch.nn.Module] = []
    for child in module.children():
        is_container = isinstance(child, torch.nn.Sequential | torch.nn.ModuleList)
        if is_container or (_size(child) > most and any(True for _ in child.children())):
            parts += _opened(child, most)
        elif _size(child):
            parts.append(child)
    return parts


def _size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _one_or_three(values: Triple) -> float | list[float]:
    return values[0] if len(set(values)) == 1 else list(values)


def _check_form(name: str) -> None:
    """Raise DlassetsError for a name that no library has, as far as that shows without importing one."""
    if name not in _OWN and not name.startswith(("timm/", "torchvision/")):
        raise DlassetsError(_unknown(name))


@functools.cache
def _architecture(name: str) -> Architecture:
    if name in _OWN:
        return _OWN[name]
    _check_form(name)
    library, _, model = name.partition("/")
    return _of_timm(name, model) if library == "timm" else _of_torchvision(name, model)


def _of_timm(name: str, model: str) -> Architecture:
    from timm.models import get_pretrained_cfg, is_model

    if not is_model(model):
        raise DlassetsError(_unknown(name))
    try:
        pretrained = get_pretrained_cfg(model)
    except RuntimeError as error:  # a tag that the model has not
        raise DlassetsError(f"{_unknown(name)} timm says: {error}") from error
    mean, scale = (pretrained.mean, pretrained.std) if pretrained is not None else _IMAGENET
    side = pretrained.input_size[-1] if pretrained is not None and pretrained.fixed_input_size else None
    return Architecture("timm", model, _of_255(mean), _of_255(scale), side)


def _of_torchvision(name: str, model: str) -> Architecture:
    from torchvision import models

    if model not in models.list_models(module=models) or model in _LEFT_OUT:
        raise DlassetsError(_unknown(name))
    mean, scale = _IMAGENET
    return Architecture("torchvision", model, _of_255(mean), _of_255(scale))


def _of_255(shares: tuple[float, ...]) -> Triple:
    one, two, three = (255 * share for share in shares)
    return one, two, three


def _unknown(name: str) -> str:
    import timm
    from torchvision import models

    torchvisions = set(models.list_models(module=models)) - _LEFT_OUT
    known = [*_OWN, *(f"timm/{one}" for one in timm.list_models()), *(f"torchvision/{one}" for one in torchvisions)]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    model = name.rpartition("/")[2]
    near += [one for one in sorted(known) if one.rpartition("/")[2] == model and one not in near]
    hint = f" Near it: {', '.join(near)}." if near else ""
    return (
        f"Unknown backbone {name!r}. Set features.backbone to one of: {', '.join(_OWN)}, timm/<model> or "
        f"torchvision/<model>.{hint}"
    )


def _headless(name: str) -> tuple[torch.nn.Module, list[str]]:
    """Return the model without its classifier, with random weights always the same, and the classifier's tensors."""
    import torch

    spec = _architecture(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stored.RANDOM_SEED)
        if spec.library == "timm":
            import timm

            model: Any = timm.create_model(spec.model, pretrained=False)
        else:
            from torchvision import models

            model = models.get_model(spec.model, weights=None)
    before = list(model.state_dict())
    if spec.library == "timm":
        model.reset_classifier(0)
    else:  # all that comes before the last layer makes the features, as timm has it too
        kinds = torch.nn.Linear | torch.nn.Conv2d
        *_, last = (name for name, module in model.named_modules() if isinstance(module, kinds))
        parent, _, child = last.rpartition(".")
        setattr(model.get_submodule(parent), child, torch.nn.Identity())
    after = set(model.state_dict())
    return model.eval(), [key for key in before if key not in after]


def _from_pixels(ref: BackboneRef, inner: torch.nn.Module) -> Any:
    import torch

    spec = _architecture(ref.name)
    if spec.side not in {None, ref.side}:
        raise DlassetsError(
            f"{ref.name} takes photos of {spec.side}x{spec.side} alone, and features.side is {ref.side}. Set "
            f"features.side to {spec.side}, or choose another backbone."
        )

    class FromPixels(torch.nn.Module):
        mean: torch.Tensor
        scale: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.network = inner
            self.register_buffer("mean", torch.tensor(spec.mean).reshape(3, 1, 1), persistent=False)
            self.register_buffer("scale", torch.tensor(spec.scale).reshape(3, 1, 1), persistent=False)
            self.dimensions = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            pixels = (images.permute(0, 3, 1, 2).to(torch.float32) - self.mean) / self.scale
            features = torch.flatten(self.network(pixels), 1)
            if ref.flips:
                features = (features + torch.flatten(self.network(pixels.flip(3)), 1)) / 2
            # Where a feature is nothing its root has no slope: what cannot be told from nothing gets none.
            return features.sign() * features.abs().clamp_min(_EPSILON).sqrt() if ref.root else features

    made = FromPixels().eval()
    with torch.no_grad():
        made.dimensions = made(torch.zeros(1, ref.side, ref.side, 3, dtype=torch.uint8)).shape[1]
    return made
