"""What a study asks, and not how it is answered: a training, what of it may be chosen, and the digest of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dlassets.lakehouse.training_set import identity
from dlassets.learning.training.job import Job
from dlassets.tuning.search_space import Space, as_json, values_by_name

# Raise it when what a trial does changes what it measures: older trials are then not taken for comparable.
STUDY_VERSION = 1


@dataclass(frozen=True)
class Question:
    """All that decides what a trial of given settings measures. `job.settings` has the settings that are not tuned."""

    job: Job
    feature_version: str
    space: Space

    @property
    def sha256(self) -> str:
        return self._digest(identity(self.job.training_set))

    @property
    def earlier_sha256(self) -> str:
        """What it was while a training set was told by where it lies: studies of then have that."""
        return self._digest([self.job.training_set.uri, self.job.training_set.version])

    def _digest(self, training_set: Sequence[Any]) -> str:
        settings = values_by_name(self.job.settings)
        described = {
            "training_set": training_set,
            "feature_version": self.feature_version,
            # Where a model is trained changes nothing of what it learns.
            "settings": {
                name: settings[name] for name in settings.keys() - self.space.keys() if not name.startswith("compute.")
            },
            "space": as_json(self.space),
            "study_version": STUDY_VERSION,
        }
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
