"""Where a model is trained: in this process. The asset does not know, so another place is another trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dlassets.settings import TrainingSettings

if TYPE_CHECKING:
    from dlassets.learning.job import Metrics, Trained
    from dlassets.learning.rows import Rows


class Trainer:
    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings

    def fit(self, train: Rows, validation: Rows, on_epoch: Callable[[int, Metrics], None]) -> Trained:
        from dlassets.learning.head_training import train_head

        return train_head(train, validation, self.settings, on_epoch)
