"""One training, as each of its processes runs it: of a head on cached features, or of blocks as well on pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlassets.learning.training.group import Group

if TYPE_CHECKING:
    from dlassets.learning.training.job import Job, OnEvent, Trained


def train(job: Job, group: Group | None = None, report: OnEvent | None = None) -> Trained:
    """Train what the job's settings say; every process of the group calls it and is given the same result.

    `report` is called by rank 0 alone. Raises DlassetsError for what a person can put right.
    """
    group = group or Group()
    report = report or _say_nothing
    if job.settings.trainable == "head":
        from dlassets.learning.training.head_training import fit_head

        return fit_head(job, group, report)
    from dlassets.learning.training.pixel_training import fit_pixels

    return fit_pixels(job, group, report)


def _say_nothing(_: object) -> None:
    pass
