"""Trainings for tests, as `launch` runs them in processes of their own: quick, and each with a will of its own."""

import os
import time
from pathlib import Path

import numpy as np

from dlassets.errors import SettingsError
from dlassets.learning.group import Group
from dlassets.learning.head import Head
from dlassets.learning.job import Event, Job, Trained

STEPS = 40


def trained(*remarks: str) -> Trained:
    head = Head(
        labels=(3, 12),
        names=("class 3", "class 12"),
        weight=np.eye(2, dtype=np.float32),
        bias=np.zeros(2, np.float32),
        mean=np.zeros(2, np.float32),
        scale=np.ones(2, np.float32),
    )
    return Trained(head, [{"validation_loss": 0.5}], best_epoch=0, remarks=remarks)


def counting(job: Job, group: Group, report) -> Trained:
    """Say who takes part: each process has its rank in the sum."""
    import torch

    total = int(group.sum(torch.tensor(float(group.rank + 1))).item())
    report(Event("step", 1, 1, {"total": total}))
    return trained(f"{group.size} processes, ranks sum to {total}, {torch.get_num_threads()} threads")


def stepping(job: Job, group: Group, report) -> Trained:
    """Take slow steps together, each written down: started again, it goes on from the last of them."""
    import torch

    folder = Path(job.folder)
    (folder / f"pid-{group.rank}").write_text(str(os.getpid()))
    done = folder / "steps"
    first = len(done.read_text().splitlines()) if done.exists() else 0
    for step in range(first, STEPS):
        group.sum(torch.ones(1))
        if group.is_main:
            with done.open("a") as file:
                file.write(f"{step}\n")
        report(Event("step", step + 1, STEPS, {"first": first}))
        time.sleep(0.05)
    return trained()


def dying(job: Job, group: Group, report) -> Trained:
    print("about to die", flush=True)
    os.abort()


def refusing(job: Job, group: Group, report) -> Trained:
    """Raise in one process alone, while the others wait for it."""
    import torch

    if group.rank == group.size - 1:
        raise SettingsError("training.l2 is odd: make it even.")
    group.sum(torch.ones(1))
    return trained()


def mistaken(job: Job, group: Group, report) -> Trained:
    import torch

    if group.rank == group.size - 1:
        raise KeyError("no such thing")
    group.sum(torch.ones(1))
    return trained()
