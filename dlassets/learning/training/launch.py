"""Run a training where it is to run: in this process, in several of this machine, or in tasks of Spark.

The function that trains is the same everywhere. Where it runs in other processes (see `process`), what they report
comes back through an `Exchange`, and the caller's own thread hands it on: a report that raises, Ctrl-C or Dagster's
termination end them all. Of a training whose process was killed, all processes are started again, and go on from its
last checkpoint.

Processes of this machine meet in a file and speak gloo on loopback; on a cluster, or with GPUs (nccl), as Spark's
TorchDistributor and torch say.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dlassets.engines.base import Engine
from dlassets.engines.child_processes import python_path
from dlassets.engines.processors import processors
from dlassets.engines.spark_session import workers_lack, works_here
from dlassets.errors import DlassetsError, decoded_error
from dlassets.learning.examples import Splits
from dlassets.learning.training.exchange import Exchange
from dlassets.learning.training.group import Group, device_of
from dlassets.learning.training.job import Job, OnEvent, Trained
from dlassets.learning.training.process import Start, Training, killed_too_often, run_process
from dlassets.learning.training.train import train
from dlassets.settings import ComputeSettings
from dlassets.storage.stores import is_object_storage

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LAST_LINES = 40
# Spark asks for free slots for ten minutes before it says that there are too few.
PATIENCE = 60

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """So many processes: tasks of a Spark session, where one is given, or of this machine. One of those is this one."""

    processes: int = 1
    session: SparkSession | None = None


def place_of(compute: ComputeSettings, engine: Engine) -> Place:
    """Return where these settings have a training run: several processes are Spark's where Spark is the engine."""
    from dlassets.engines.spark import SparkEngine

    session = engine.session if compute.processes > 1 and isinstance(engine, SparkEngine) else None
    return Place(compute.processes, session)


def launch(
    job: Job, place: Place, report: OnEvent, training: Training = train, splits: Splits | None = None
) -> Trained:
    """Train in that place and return what was learned; `report` is called, in this thread, while it goes on.

    `training` is a function of a module that every process can import. `splits` are the training set's where they have
    been read here: this process does not read them again, while others read what is theirs. Raises the DlassetsError
    that any process raised; one where processes were killed more than `compute.attempts` times; and ProcessFailedError
    for what else a process failed of.
    """
    if place == Place():
        return training(job, Group(device=device_of(job.settings.compute)), report, splits)
    with _exchange(job, place) as exchange:
        return _train_in_processes(job, place, report, training, exchange)


def _train_in_processes(job: Job, place: Place, report: OnEvent, training: Training, exchange: Exchange) -> Trained:
    output = ""
    for _ in range(attempts := job.settings.compute.attempts):
        run = _start(job, place, exchange, f"{training.__module__}:{training.__qualname__}")
        try:
            _follow(run, exchange, report)
        finally:
            run.end()
        if (trained := exchange.trained()) is not None:
            return _with_remark(trained, exchange.starts)
        exchange.raise_failure()
        output = last_lines(checked_output(run.output(), place.processes))
        _log.warning("A process of the training ended early. Its last words:\n%s", output)
    raise DlassetsError(f"{killed_too_often(attempts)} Its last words:\n{output}")


def _follow(run: _Run, exchange: Exchange, report: OnEvent) -> None:
    """Hand on what rank 0 reports until all processes have ended, or one has failed."""
    pause = 1.0 if is_object_storage(exchange.folder) else 0.1
    running = True
    while running:
        running = run.wait(pause) and not exchange.has_failed
        for event in exchange.events():
            report(event)


def _with_remark(trained: Trained, starts: int) -> Trained:
    if starts == 1:
        return trained
    times = "once" if starts == 2 else f"{starts - 1} times"  # noqa: PLR2004
    remark = f"A process of this training ended early {times}: it was started again, from its last checkpoint if any."
    return dataclasses.replace(trained, remarks=(*trained.remarks, remark))


@contextmanager
def _exchange(job: Job, place: Place) -> Iterator[Exchange]:
    with ExitStack() as stack:
        if place.session is None or works_here(place.session):
            exchange = Exchange(stack.enter_context(tempfile.TemporaryDirectory(prefix="dlassets-training-")))
        elif job.folder is None:
            raise DlassetsError("A training on a cluster needs a folder (Job.folder) that all of its machines reach.")
        else:
            exchange = Exchange(f"{job.folder}/exchange-{uuid.uuid4().hex}")
            stack.callback(exchange.delete)
        exchange.open(job)
        stack.callback(exchange.stop)
        yield exchange


# ---- the processes, and how they are started


class _Run(Protocol):
    """All processes of one attempt."""

    def wait(self, seconds: float) -> bool:
        """Wait at most so long; return whether all of them are still well, or some still run."""

    def end(self) -> None:
        """End those that still run, and wait until they have."""

    def output(self) -> str:
        """Return all that the first of them that failed has printed."""


def _start(job: Job, place: Place, exchange: Exchange, training: str) -> _Run:
    on_one_machine = place.session is None or works_here(place.session)
    start = Start(exchange.folder, training)
    if on_one_machine:
        start = dataclasses.replace(
            start,
            rendezvous=f"file://{exchange.folder}/rendezvous-{uuid.uuid4().hex}",
            threads=max(1, processors() // place.processes),
        )
    if place.session is None:
        return _LocalProcesses(start, place.processes)
    return _SparkTasks(start, place.session, place.processes, job.settings.compute, exchange)


class _LocalProcesses:
    """Processes of this machine. They end when this process does, however it ends."""

    def __init__(self, start: Start, processes: int) -> None:
        self._folder = Path(start.folder)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._failed = 0
        try:
            for rank in range(processes):
                self._processes.append(self._begin(start, rank, processes))
        except BaseException:
            self.end()
            raise

    def _begin(self, start: Start, rank: int, processes: int) -> subprocess.Popen[bytes]:
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        with self._file(rank).open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", run_process.__module__, json.dumps(asdict(start))],
                env={
                    **os.environ,
                    **{name: str(value) for name, value in places.items()},
                    "OMP_NUM_THREADS": str(start.threads),
                    "PYTHONPATH": python_path(),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for this process: what then becomes of them it says itself
            )

    def wait(self, seconds: float) -> bool:
        running = [process for process in self._processes if process.poll() is None]
        failed = [rank for rank, process in enumerate(self._processes) if process.returncode]
        if failed:
            self._failed = failed[0]  # told apart now: `end` kills the others, which then have a code as well
        if failed or not running:
            return False
        with suppress(subprocess.TimeoutExpired):
            running[0].wait(seconds)
        return True

    def end(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes:
            process.wait()

    def output(self) -> str:
        code = self._processes[self._failed].returncode
        printed = self._file(self._failed).read_text(errors="replace").strip()
        return f"{printed}\n(process {self._failed} of {len(self._processes)}, exit code {code})"

    def _file(self, rank: int) -> Path:
        return self._folder / f"output-{rank}.txt"


class _SparkTasks:
    """Tasks of Spark's TorchDistributor. It returns when all have ended, so it runs in a thread of its own."""

    def __init__(
        self, start: Start, session: SparkSession, processes: int, compute: ComputeSettings, exchange: Exchange
    ) -> None:
        from pyspark.ml.torch.distributor import TorchDistributor

        local = works_here(session)
        self._session, self._exchange = session, exchange
        self._tag = f"dlassets-training-{uuid.uuid4().hex}"
        self._error: Exception | None = None
        self._waited = 0.0
        try:
            self._distributor = TorchDistributor(
                num_processes=processes, local_mode=local, use_gpu=_use_gpu(session, compute, local=local)
            )
        except RuntimeError as error:
            raise DlassetsError(
                f"Spark has no GPU to train on: {error} Set spark.conf as its documentation of resources says, or "
                "training.compute.device to cpu."
            ) from error
        self._thread = threading.Thread(target=self._work, args=(start,), daemon=True)
        self._thread.start()

    def _work(self, start: Start) -> None:
        self._session.addTag(self._tag)
        try:
            self._distributor.run(run_process, *asdict(start).values())
        except Exception as error:  # noqa: BLE001 - its text is the `output` for the thread that waits
            self._error = error

    def wait(self, seconds: float) -> bool:
        self._thread.join(seconds)
        before, self._waited = self._waited, self._waited + seconds
        if before < PATIENCE <= self._waited and not self._exchange.starts:
            _log.warning(
                "Spark has not begun the training's %d processes yet. They need as many free slots at once: "
                "spark.task.cpus each, of the cores that its executors have.",
                self._distributor.num_processes,
            )
        return self._thread.is_alive()

    def end(self) -> None:
        if self._thread.is_alive():
            self._exchange.stop()
            self._session.interruptTag(self._tag)
        self._thread.join(PATIENCE)

    def output(self) -> str:
        return str(self._error)


def checked_output(output: str, processes: int) -> str:
    """Return the output of processes that ended early.

    Raises DlassetsError where it tells of something that trying again does not mend.
    """
    if (error := decoded_error(output)) is not None:
        raise error
    if (lack := workers_lack(output)) is not None:
        raise lack
    if "SPARK-24819" in output or "requires more slots" in output:
        raise DlassetsError(
            f"Spark has fewer slots than the {processes} that training.compute.processes asks for, and they are needed "
            "at once. Lower it, or give Spark more cores."
        )
    return output


def last_lines(output: str) -> str:
    """Return the end of an output, without the JVM's stack, which tells of itself alone."""
    lines = [line for line in output.strip().splitlines() if not line.startswith("\tat ")]
    return "\n".join(lines[-LAST_LINES:])


def _use_gpu(session: SparkSession, compute: ComputeSettings, *, local: bool) -> bool:
    setting = "spark.driver.resource.gpu.amount" if local else "spark.task.resource.gpu.amount"
    has_some = session.conf.get(setting, "0") != "0"
    return compute.device == "cuda" or (compute.device == "auto" and has_some)
