"""What a trial does: train with the settings it was given, and measure the validation photos. Nothing of any study."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from dlassets.engines.base import Snapshot
from dlassets.lakehouse.tables import TRAIN, VALIDATION
from dlassets.learning.examples import Examples, read_splits
from dlassets.learning.training.job import Event, Job, Trained

if TYPE_CHECKING:
    from dlassets.learning.training.job import Metrics


def train_and_validate(job: Job, on_epoch: Callable[[Metrics], None]) -> Metrics:
    """Train as the job says, and return the kept epoch's metrics."""
    trained = (_head if job.settings.trainable == "head" else _model)(job, on_epoch)
    return trained.history[trained.best_epoch]


def _head(job: Job, on_epoch: Callable[[Metrics], None]) -> Trained:
    from dlassets.learning.training.head_training import train_head

    train, validation = _both_splits(job.training_set)
    return train_head(train, validation, job.settings, lambda _, metrics: on_epoch(metrics))


def _model(job: Job, on_epoch: Callable[[Metrics], None]) -> Trained:
    from dlassets.learning.training.group import Group, device_of
    from dlassets.learning.training.train import train

    def on_event(event: Event) -> None:
        if event.kind == "epoch":
            on_epoch(event.metrics)

    return train(job, Group(device=device_of(job.settings.compute)), on_event)


@functools.lru_cache(maxsize=1)
def _both_splits(training_set: Snapshot) -> tuple[Examples, Examples]:
    """Read what is learned from and what decides, once a process."""
    splits = read_splits(training_set)
    return splits[TRAIN], splits[VALIDATION]
