"""Where a model is trained: in this process, in several, or on Spark. The asset does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlassets.engines.base import Engine
    from dlassets.learning.examples import Splits
    from dlassets.learning.training.job import Job, OnEvent, Trained


class Trainer:
    def train(self, job: Job, engine: Engine, report: OnEvent, splits: Splits | None = None) -> Trained:
        """Train where the job's settings and the engine say; see `launch`."""
        from dlassets.learning.training.launch import launch, place_of

        return launch(job, place_of(job.settings.compute, engine), report, splits=splits)
