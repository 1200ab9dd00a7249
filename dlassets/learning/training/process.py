"""One process of a training, as `launch` starts it: it joins the others, trains with them, and leaves what was learned.

`python -m dlassets.learning.training.process` is one, with a `Start` in JSON as its argument.
"""

from __future__ import annotations

import json
import os
import pkgutil
import re
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

from dlassets.errors import DlassetsError, encoded_errors
from dlassets.learning.examples import Splits
from dlassets.learning.training.exchange import Exchange
from dlassets.learning.training.group import Group, device_of
from dlassets.learning.training.job import Job, OnEvent, Trained
from dlassets.settings import ComputeSettings
from dlassets.storage.stores import is_object_storage

# The splits are given where this process has read them already, each of them whole.
Training = Callable[[Job, Group, OnEvent, Splits | None], Trained]


@dataclass(frozen=True)
class Start:
    """What a process is given: its exchange, which function trains, where to meet the others, and its threads."""

    folder: str
    training: str
    rendezvous: str = "env://"
    threads: int | None = None


@encoded_errors()  # one that does not reach the exchange is in this process's output alone
def run_process(folder: str, training: str, rendezvous: str, threads: int | None) -> None:
    """Be one process of a training; RANK, WORLD_SIZE and their like say which. The arguments are a `Start`'s."""
    exchange = Exchange(folder)
    if exchange.has_failed:  # Spark tries a stage again, though nothing would come of it
        return
    job = exchange.job()
    threading.Thread(target=_end_when_unwanted, args=(exchange, os.getppid()), daemon=True).start()
    try:
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        _train(job, _join(job.settings.compute, rendezvous), exchange, pkgutil.resolve_name(training))
    except Exception as error:
        # It is written down before this process leaves the others, who will fail for want of it.
        if not exchange.has_failed and _is_for_want_of_another(error):
            raise
        if not exchange.has_failed:
            exchange.fail(error)
    else:
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def killed_too_often(attempts: int) -> DlassetsError:
    return DlassetsError(
        f"A process of the training ended early in each of {attempts} attempts (training.compute.attempts). A process "
        "that is killed without a word had most often no memory left: lower training.pixels.batch_size or "
        "training.compute.processes and run again, which goes on from the last checkpoint."
    )


def _train(job: Job, group: Group, exchange: Exchange, training: Training) -> None:
    attempts = job.settings.compute.attempts
    if group.is_main and exchange.begin() > attempts:  # Spark, too, starts a stage again
        raise killed_too_often(attempts)
    # What the other ranks report is nothing new.
    with exchange.reporting() if group.is_main else nullcontext(lambda _: None) as report:
        trained = training(job, group, report, None)
    if group.is_main:
        exchange.finish(trained)


def _join(compute: ComputeSettings, rendezvous: str) -> Group:
    """Wait for the other processes, and return the group that they are."""
    import torch
    import torch.distributed

    rank, size, local_rank, local_size = (
        int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    )
    group = Group(rank, size, device_of(compute, local_rank, local_size))
    on_gpu = group.device != "cpu"
    if on_gpu:
        torch.cuda.set_device(group.device)
    if size > 1:
        if rendezvous.startswith("file://"):
            loopback = next(name for _, name in socket.if_nameindex() if name in {"lo", "lo0"})
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
        torch.distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo", init_method=rendezvous, rank=rank, world_size=size
        )
    return group


def _is_for_want_of_another(error: Exception) -> bool:
    """Whether a process fails because another one has gone: gloo says so in words, with an error of no kind."""
    import torch.distributed

    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and re.search(r"gloo|NCCL|Connection (closed|reset)", str(error)) is not None


def _end_when_unwanted(exchange: Exchange, parent: int) -> None:
    """End this process when its training is no longer wanted, or the process that started it is gone."""
    pause = threading.Event()  # set by none but to wait on
    seconds = 2.0 if is_object_storage(exchange.folder) else 0.5
    while os.getppid() == parent and exchange.is_wanted:
        pause.wait(seconds)
    os._exit(1)


if __name__ == "__main__":
    run_process(**json.loads(sys.argv[1]))
