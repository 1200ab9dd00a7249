"""Processes of this machine that try settings, each one trial at a time; a process that dies costs its trial alone."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Self, TypeAlias, cast

from dlassets.engines.local import WORKERS
from dlassets.errors import DlassetsError, error_from, record_of
from dlassets.learning.training.job import Job, Metrics

# Trains and returns the kept epoch's metrics, validation_loss among them; told of each epoch, it goes on or is cut
# short by what `on_epoch` raises.
Objective = Callable[[Job, Callable[[Metrics], None]], Metrics]


class TrialCutShort(Exception):  # noqa: N818 - no error: others did better, and this trial ends
    """Raised in a trial that is not worth going on with."""


@dataclass(frozen=True)
class Epoch:
    """An epoch of a trial is done; the trial waits for `Worker.answer`."""

    metrics: Metrics


@dataclass(frozen=True)
class Done:
    """`metrics` of the kept epoch; None where the trial was cut short."""

    metrics: Metrics | None


@dataclass(frozen=True)
class Failed:
    """`failure` is a DlassetsError, else a ProcessFailedError."""

    failure: Exception


Message: TypeAlias = Epoch | Done | Failed


class Worker:
    """One process and the connection to it. It ends when its parent does, however that ends."""

    def __init__(self, objective: Objective, threads: int) -> None:
        # Spawned: a fork of a process that has torch's, Arrow's or the JVM's threads may hang.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process: SpawnProcess = context.Process(target=_work, args=(theirs, objective, threads), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def start(self, job: Job) -> None:
        self.connection.send(job)

    def answer(self, *, go_on: bool) -> None:
        self.connection.send(go_on)

    def receive(self) -> Message:
        try:
            message: Message = self.connection.recv()
        except (EOFError, OSError):
            self._process.join()
            return Failed(DlassetsError(f"Its process ended in the middle, with exit code {self._process.exitcode}."))
        return message

    def stop(self) -> None:
        # It has nothing to put in order, and where a shell ignores Ctrl-C for it, Dagster has it ignore SIGTERM too.
        self._process.kill()
        self._process.join()
        self.connection.close()


@dataclass
class Workers:
    """At most `processes` workers; `with` ends them all."""

    objective: Objective
    processes: int
    _idle: list[Worker] = field(default_factory=list)
    _busy: dict[Connection, Worker] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in (*self._idle, *self._busy.values()):
            worker.stop()

    @property
    def busy(self) -> int:
        return len(self._busy)

    @property
    def has_room(self) -> bool:
        return self.busy < self.processes

    def start(self, job: Job) -> Worker:
        """Have an idle worker, or a new one, try the job's settings."""
        worker = self._idle.pop() if self._idle else Worker(self.objective, max(1, WORKERS // self.processes))
        self._busy[worker.connection] = worker
        try:
            worker.start(job)
        except OSError:  # it is dead
            self._busy.pop(worker.connection).stop()
            return self.start(job)
        return worker

    def messages(self) -> Iterator[tuple[Worker, Message]]:
        """Wait until a busy worker sends a message, and yield those that have come."""
        for ready in wait(list(self._busy)):
            worker = self._busy[cast("Connection", ready)]
            message = worker.receive()
            if not isinstance(message, Epoch):
                self._idle.append(self._busy.pop(worker.connection))
            yield worker, message


def _work(connection: Connection, objective: Objective, threads: int) -> None:
    """Be a worker: try one job after the other until the parent is gone."""
    # Ctrl-C reaches every process of a terminal, and the parent says what then becomes of this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # torch reads it when it is imported
    on_epoch = functools.partial(_report_epoch, connection)
    with _ending_with_the_parent():
        while True:
            job = connection.recv()
            outcome = _outcome(job, objective, on_epoch)
            connection.send(outcome)


@contextmanager
def _ending_with_the_parent() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError):
        raise SystemExit from None


def _report_epoch(connection: Connection, metrics: Metrics) -> None:
    with _ending_with_the_parent():
        connection.send(Epoch(metrics))
        go_on = connection.recv()
    if not go_on:
        raise TrialCutShort


def _outcome(job: Job, objective: Objective, on_epoch: Callable[[Metrics], None]) -> Done | Failed:
    try:
        return Done(objective(job, on_epoch))
    except TrialCutShort:
        return Done(None)
    except Exception as error:  # noqa: BLE001 - whatever settings lead to, it is written down with their trial
        return Failed(error_from(record_of(error)))  # another's might not be one that can be pickled
