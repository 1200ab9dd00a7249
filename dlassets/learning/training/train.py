"""One training, as each of its processes runs it: of a head on cached features, or of blocks as well on pixels."""

from __future__ import annotations

from dlassets.learning.examples import Splits
from dlassets.learning.training.group import ALONE, Group
from dlassets.learning.training.job import Job, OnEvent, Trained


def train(job: Job, group: Group = ALONE, report: OnEvent = lambda _: None, splits: Splits | None = None) -> Trained:
    """Train what the job's settings say; every process of the group calls it and is given the same result.

    `report` is called by rank 0 alone. `splits` are the training set's, where this process has read them already: with
    features for a head. Raises DlassetsError for what a person can put right.
    """
    if job.settings.trainable == "head":
        from dlassets.learning.training.head_training import fit_head

        return fit_head(job, group, report, splits)
    from dlassets.learning.training.pixel_training import fit_pixels

    return fit_pixels(job, group, report, splits)
