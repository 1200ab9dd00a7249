"""What a training is given, what it tells while it runs, and what it leaves: the same wherever it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from dlassets.engines.base import Snapshot
from dlassets.learning.backbones import BackboneRef
from dlassets.learning.head import Head
from dlassets.settings import TrainingSettings

if TYPE_CHECKING:
    import torch

    Metrics = dict[str, float]
    Report = Callable[["Event"], None]


@dataclass(frozen=True)
class Job:
    """All that every process of a training is given.

    `folder`, a path or URI that all of them reach, takes checkpoints; without one a killed training starts anew.
    """

    training_set: Snapshot
    backbone: BackboneRef
    settings: TrainingSettings
    folder: str | None = None


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

    `weights` are the backbone's tensors where it was trained too, by their names in the network that
    `backbones.network` gives; `remarks` is what a person should know of how it went.
    """

    head: Head
    history: list[Metrics]
    best_epoch: int
    weights: dict[str, torch.Tensor] | None = None
    remarks: tuple[str, ...] = field(default=())
