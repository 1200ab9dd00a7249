"""A backbone with a linear head on it, as torch trains the two together."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dlassets.errors import DlassetsError
from dlassets.learning.backbones import blocks, network
from dlassets.learning.head import Head
from dlassets.learning.training.group import Group
from dlassets.learning.training.job import Job
from dlassets.learning.weights import NONE

if TYPE_CHECKING:
    import torch

    from dlassets.learning.training.classes import Classes

    Tensors = dict[str, torch.Tensor]

_MEAN, _SCALE = "mean", "scale"


def multiplies_bfloat16(device: str) -> bool:
    """Return whether the device has instructions for bfloat16, with which it is about twice as fast as without.

    They are asked for, not timed: two runs on one machine must not differ in their precision.
    """
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def embedded(network: Any, pixels: torch.Tensor, *, bfloat16: bool = False) -> torch.Tensor:
    """Return (N, dimensions) float32 of (N, side, side, 3) uint8, the network perhaps computed in bfloat16."""
    import torch

    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=bfloat16):
        found: torch.Tensor = network(pixels)
    return found.float()


class Classifier:
    """Pixels to logits: a backbone, its features standardised by a mean and a scale, and a linear layer."""

    def __init__(self, network: Any, head: Head, device: str, *, pretrained: bool = True) -> None:
        """`network` is what `backbones.network` returns; where it is pretrained, batch norm stays as it is."""
        import torch

        self.network = network.to(device=device, memory_format=torch.channels_last)
        self.linear = torch.nn.Linear(*reversed(head.weight.shape)).to(device)
        self.device = device
        self._pretrained = pretrained
        self._both = torch.nn.ModuleDict({"network": network.network, "linear": self.linear})
        self.set_head(head)

    def set_head(self, head: Head) -> None:
        """Go on from this head, for the same classes."""
        import torch

        self._labels, self._names = head.labels, head.names
        self._mean, self._scale = (torch.tensor(values, device=self.device) for values in (head.mean, head.scale))
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(head.weight))
            self.linear.bias.copy_(torch.from_numpy(head.bias))

    def head(self) -> Head:
        """Return the head as it now is."""
        arrays = (self.linear.weight, self.linear.bias, self._mean, self._scale)
        weight, bias, mean, scale = (value.detach().cpu().numpy().copy() for value in arrays)
        return Head(self._labels, self._names, weight, bias, mean, scale)

    def logits(self, pixels: torch.Tensor, *, bfloat16: bool = False) -> torch.Tensor:
        """Return (N, classes) float32 of (N, side, side, 3) uint8."""
        features = embedded(self.network, pixels.to(self.device, non_blocking=True), bfloat16=bfloat16)
        found: torch.Tensor = self.linear((features - self._mean) / self._scale)
        return found

    def train(self) -> None:
        """Turn on what behaves otherwise in training; `features_of` turns it off.

        Batch norm keeps the statistics it was pretrained with: those of a small batch are worse, and another share of
        the batch in each process would give another result. A network with random weights has none to keep.
        """
        from torch.nn.modules.batchnorm import _BatchNorm

        self.network.train()
        if self._pretrained:
            for module in self.network.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def parameters(self) -> list[torch.nn.Parameter]:
        """Return what training changes, the backbone's first and the head's weight and bias last."""
        return [value for value in self._both.parameters() if value.requires_grad]

    def statistics(self) -> list[torch.Tensor]:
        """Return the means and variances that layers learn from the batches they see."""
        if self._pretrained:
            return []
        return [value for value in self._both.buffers() if value.is_floating_point()]

    def learned(self) -> Tensors:
        """Return all that training changes, by name."""
        fixed = {name for name, value in self._both.named_parameters() if not value.requires_grad}
        if self._pretrained:
            fixed |= {name for name, _ in self._both.named_buffers()}
        changing = {name: value for name, value in self._both.state_dict().items() if name not in fixed}
        return {**changing, _MEAN: self._mean, _SCALE: self._scale}

    def load_learned(self, tensors: Tensors) -> None:
        """Take over what `learned` returned once."""
        tensors = dict(tensors)
        self._mean, self._scale = (tensors.pop(name).to(self.device) for name in (_MEAN, _SCALE))
        self._both.load_state_dict(tensors, strict=False)

    def weights(self) -> Tensors:
        """Return the backbone's tensors on the CPU, numbers with a point as float32."""
        import torch

        return {
            name: value.detach().to("cpu", torch.float32 if value.is_floating_point() else value.dtype).contiguous()
            for name, value in self.network.network.state_dict().items()
        }


def new_classifier(job: Job, classes: Classes, group: Group) -> Classifier:
    """Return a classifier whose head knows nothing, and of which as much is to learn as the settings let it.

    Raises DlassetsError where the backbone has fewer blocks than `last_n`, and as `backbones.network` does.
    """
    pretrained = job.backbone.weights != NONE
    made = network(job.backbone)
    if group.size > 1 and group.device.startswith("cuda") and not pretrained:
        from timm.layers import convert_sync_batchnorm

        made.network = convert_sync_batchnorm(made.network)
    if job.settings.trainable != "all":
        made.requires_grad_(False)
        for part in _last_blocks(made, job):
            part.requires_grad_(True)
    if group.device == "cpu":
        _learn_depthwise_in_float32(made)
    return Classifier(made, _plain_head(made.dimensions, classes), group.device, pretrained=pretrained)


def _last_blocks(network: Any, job: Job) -> list[torch.nn.Module]:
    parts, wanted = blocks(network), job.settings.last_n
    if wanted > len(parts):
        raise DlassetsError(
            f"training.last_n is {wanted}, and {job.backbone.name} has {len(parts)} blocks. Set it to less, or "
            "training.trainable to all."
        )
    return parts[-wanted:]


def _learn_depthwise_in_float32(network: Any) -> None:
    """Have the convolutions of single channels that are to learn computed in float32, in bfloat16's midst too.

    On a CPU their gradient takes two to three times as long in bfloat16 (torch 2.12, with AVX-512): a step on all of
    EfficientNet-Lite0 is a quarter shorter so.
    """
    import torch

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d) and module.groups > 1 and module.weight.requires_grad:
            module.forward = functools.partial(_in_float32, module.forward)  # type: ignore[method-assign]


def _in_float32(forward: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
    import torch

    with torch.autocast(inputs.device.type, enabled=False):
        return forward(inputs.float()).to(inputs.dtype)


def _plain_head(dimensions: int, classes: Classes) -> Head:
    """Return a head that gives every class the same logit."""
    count = len(classes.labels)
    weight, bias = np.zeros((count, dimensions), np.float32), np.zeros(count, np.float32)
    mean, scale = np.zeros(dimensions, np.float32), np.ones(dimensions, np.float32)
    return Head(classes.labels, classes.names, weight, bias, mean, scale)
