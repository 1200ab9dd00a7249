"""Trainings for tests, as `launch` runs them in processes of their own: quick, and each with a will of its own."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from dlassets.engines.base import Snapshot
from dlassets.learning.backbones import BackboneRef
from dlassets.learning.training.group import Group
from dlassets.learning.training.job import Event, Job, Trained
from dlassets.settings import TrainingSettings
from dlassets_tests.errors import ERRORS
from dlassets_tests.learning.examples import head

STEPS = 30
HEARD = "heard"
SECONDS = 60


def job(folder: Path, **settings) -> Job:
    snapshot = Snapshot("training_set", str(folder / "training_set"), 0)
    return Job(snapshot, BackboneRef("none"), TrainingSettings(**settings), str(folder))


def trained(*remarks: str) -> Trained:
    return Trained(head((3, 12)), [{"validation_loss": 0.5}], best_epoch=0, remarks=remarks)


def pids(folder: Path) -> list[int]:
    """The processes of `stepping` or `endless` that have written themselves down."""
    return [int(path.read_text()) for path in folder.glob("pid-*") if path.read_text()]


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_until(happens: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not happens():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def counting(job: Job, group: Group, report, splits=None) -> Trained:
    """Say who takes part: each process adds its rank."""
    import torch

    total = int(group.sum(torch.tensor(float(group.rank + 1))).item())
    gathered = group.gather({"rank": group.rank, "text": "x" * group.rank})
    (first,) = group.broadcast(torch.tensor([group.rank])).tolist()
    return trained(f"{group.size} processes, sum {total}, first {first}", str([said["rank"] for said in gathered]))


def conversing(job: Job, group: Group, report, splits=None) -> Trained:
    """Tell of a step, and go on when it was heard."""
    report(Event("step", 1, 2, {"train_loss": 0.5, "rank": group.rank}))
    while not (Path(job.folder) / HEARD).exists():  # type: ignore[arg-type]  # `job` gives one
        time.sleep(0.01)
    report(Event("epoch", 1, 1, {"validation_loss": 0.25}))
    return trained()


def stepping(job: Job, group: Group, report, splits=None) -> Trained:
    """Take steps together, each written down: started again, it goes on from the last of them."""
    import torch

    folder = Path(job.folder)  # type: ignore[arg-type]  # `job` gives one
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


def stepping_to_an_error(job: Job, group: Group, report, splits=None) -> Trained:
    stepping(job, group, report)
    return refusing(job, group, report)


def endless(job: Job, group: Group, report, splits=None) -> Trained:
    """Write down who this process is, and wait to be ended."""
    (Path(job.folder) / f"pid-{group.rank}").write_text(str(os.getpid()))  # type: ignore[arg-type]  # as above
    report(Event("step", 1, 1, {}))
    while True:
        time.sleep(1)


def dying(job: Job, group: Group, report, splits=None) -> Trained:
    sys.stderr.write("about to die\n")
    sys.stderr.flush()
    os.abort()


def refusing(job: Job, group: Group, report, splits=None) -> Trained:
    """Raise the error that the seed names in the last process alone, while the others wait for it."""
    import torch

    if group.rank == group.size - 1:
        raise ERRORS[job.settings.seed]
    group.sum(torch.ones(1))
    return trained()


def mistaken(job: Job, group: Group, report, splits=None) -> Trained:
    """Fail of a mistake in the last process alone, while the others wait for it."""
    import torch

    if group.rank == group.size - 1:
        raise KeyError("no such thing")
    group.sum(torch.ones(1))
    return trained()
