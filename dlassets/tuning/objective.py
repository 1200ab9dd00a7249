"""What a trial does: train with the settings it was given, and measure the validation photos. Nothing of any study."""

from __future__ import annotations

import functools
from collections.abc import Callable

from dlassets.engines.base import Snapshot
from dlassets.learning.examples import Splits, read_splits
from dlassets.learning.training.job import Event, Job, Metrics


def train_and_validate(job: Job, on_epoch: Callable[[Metrics], None]) -> Metrics:
    """Train as the job says, and return the kept epoch's metrics."""
    from dlassets.learning.training.group import ALONE, Group, device_of
    from dlassets.learning.training.train import train

    def on_event(event: Event) -> None:
        if event.kind == "epoch":
            on_epoch(event.metrics)

    is_head = job.settings.trainable == "head"
    # A head takes moments on a processor, and trials run side by side.
    group = ALONE if is_head else Group(device=device_of(job.settings.compute))
    trained = train(job, group, on_event, _splits(job.training_set, is_head))
    return trained.history[trained.best_epoch]


@functools.lru_cache(maxsize=1)
def _splits(training_set: Snapshot, features: bool) -> Splits:
    """Read the training set, once a process."""
    return read_splits(training_set, features=features)
