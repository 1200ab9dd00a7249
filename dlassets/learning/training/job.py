"""What a training is given, what it reports while it runs, and what it leaves: the same wherever it runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from dlassets.engines.base import Snapshot
from dlassets.learning.backbones import BackboneRef
from dlassets.learning.head import Head
from dlassets.settings import TrainingSettings
from dlassets.storage.files import read_whole, write_whole

if TYPE_CHECKING:
    import torch

Metrics = dict[str, float]
OnEvent = Callable[["Event"], None]

# Of an epoch's metrics, the validation loss after its temperature was fitted, where that decides which epoch is kept.
CALIBRATED_LOSS = "calibrated_loss"

_TRAINED, _HEAD, _WEIGHTS = "trained.json", "head.safetensors", "weights.safetensors"
_ARRAYS = ("weight", "bias", "mean", "scale")


@dataclass(frozen=True)
class Job:
    """All that every process of a training is given.

    `folder`, a path or URI that all of them reach, takes checkpoints of pixels' training, and on a cluster whatever
    processes hand to each other; without one a killed training starts anew.
    """

    training_set: Snapshot
    backbone: BackboneRef
    settings: TrainingSettings
    folder: str | None = None

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "settings": self.settings.model_dump(mode="json")})

    @classmethod
    def from_json(cls, text: str) -> Job:
        said = json.loads(text)
        return cls(
            training_set=Snapshot(**said["training_set"]),
            backbone=BackboneRef(**said["backbone"]),
            settings=TrainingSettings.model_validate(said["settings"]),
            folder=said["folder"],
        )


@dataclass(frozen=True)
class Event:
    """A step or an epoch that is done, counted from 1, of how many at most, and what was measured."""

    kind: Literal["step", "epoch"]
    number: int
    of: int
    metrics: Metrics


@dataclass(frozen=True)
class Trained:
    """`history` has each epoch's metrics, `best_epoch` (from 0) is the one whose weights were kept.

    `weights` are the backbone's tensors where it was trained too, by their names in the `network` of what
    `backbones.network` gives; `remarks` is what a person should know of how it went, and `left_out`
    are the paths of photos that were not learned from, or not judged by, for their bytes.
    """

    head: Head
    history: list[Metrics]
    best_epoch: int
    weights: dict[str, torch.Tensor] | None = None
    remarks: tuple[str, ...] = field(default=())
    left_out: tuple[str, ...] = field(default=())

    def save(self, folder: str) -> None:
        """Write it to a folder, a path or URI: numbers as safetensors, the rest as JSON, which comes last."""
        from safetensors import numpy, torch

        said = {
            "labels": self.head.labels,
            "names": self.head.names,
            "temperature": self.head.temperature,
            "history": self.history,
            "best_epoch": self.best_epoch,
            "remarks": self.remarks,
            "left_out": self.left_out,
            "weights": self.weights is not None,
        }
        # Of an array whose rows are not one after the other it would save the numbers in another order.
        files = {_HEAD: numpy.save({name: np.ascontiguousarray(getattr(self.head, name)) for name in _ARRAYS})}
        if self.weights is not None:
            files[_WEIGHTS] = torch.save({name: value.contiguous() for name, value in self.weights.items()})
        files[_TRAINED] = json.dumps(said).encode()
        for name, content in files.items():
            write_whole(f"{folder}/{name}", content)

    @classmethod
    def load(cls, folder: str) -> Trained:
        """Read what `save` wrote. Raises FileNotFoundError where it did not finish."""
        from safetensors import numpy, torch

        said = json.loads(read_whole(f"{folder}/{_TRAINED}"))
        head = Head(
            labels=tuple(said["labels"]),
            names=tuple(said["names"]),
            temperature=said["temperature"],
            **numpy.load(read_whole(f"{folder}/{_HEAD}")),
        )
        return cls(
            head=head,
            history=said["history"],
            best_epoch=said["best_epoch"],
            weights=torch.load(read_whole(f"{folder}/{_WEIGHTS}")) if said["weights"] else None,
            remarks=tuple(said["remarks"]),
            left_out=tuple(said["left_out"]),
        )
