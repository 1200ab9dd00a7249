"""Where a model is trained: in this process, in several, or on Spark. The asset does not know."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dlassets.settings import TrainingSettings

if TYPE_CHECKING:
    from dlassets.engines.base import Engine
    from dlassets.learning.job import Job, Metrics, Report, Trained
    from dlassets.learning.rows import Rows


class Trainer:
    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings

    def train(self, job: Job, engine: Engine, report: Report) -> Trained:
        """Train where the job's settings and the engine say; `report` is called, in this thread, while it goes on."""
        from dlassets.learning.launch import launch, place_of

        return launch(job, place_of(job.settings.compute, engine), report)

    def fit(self, train: Rows, validation: Rows, on_epoch: Callable[[int, Metrics], None]) -> Trained:
        from dlassets.learning.head_training import train_head

        return train_head(train, validation, self.settings, on_epoch)
