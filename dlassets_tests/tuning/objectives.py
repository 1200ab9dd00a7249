"""What trials do in tests in place of training; a module of its own, which other processes import quickly."""

import math
import os
import signal

from dlassets.learning.training.job import Job
from dlassets_tests.errors import ERRORS

LOSS, ACCURACY = "validation_loss", "validation_accuracy"


def l2_of(job: Job) -> float:
    """Return the penalty of a job that has been given one."""
    assert job.settings.l2 is not None
    return job.settings.l2


def bowl(job: Job, on_epoch) -> dict[str, float]:
    """Least at l2 = 0.1, and less with weights than without."""
    loss = abs(math.log10(l2_of(job)) + 1) + (job.settings.balance == "none")
    metrics = {LOSS: loss, ACCURACY: 1 / (1 + loss), "train_loss": 0.5}
    on_epoch({**metrics, LOSS: loss + 1})
    on_epoch(metrics)
    return metrics


def killed_without_weights(job: Job, on_epoch) -> dict[str, float]:
    if job.settings.balance == "none":
        os.kill(os.getpid(), signal.SIGKILL)
    return bowl(job, on_epoch)


def always_refused(job: Job, on_epoch) -> dict[str, float]:
    raise ERRORS[1]


def no_number(job: Job, on_epoch) -> dict[str, float]:
    return {LOSS: float("nan"), ACCURACY: 0.0}


def worse_with_l2(job: Job, on_epoch) -> dict[str, float]:
    for epoch in range(20):
        on_epoch({LOSS: l2_of(job) + 1 / (epoch + 1), ACCURACY: 0.5})
    return {LOSS: l2_of(job), ACCURACY: 0.5}
