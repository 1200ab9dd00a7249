"""Run a training where it is to run: in this process, in several of this machine, or in tasks of Spark.

The function that trains is the same everywhere. Where it runs in other processes, what they tell comes back through an
`Exchange`, and the caller's own thread hands it on: a report that raises, Ctrl-C or Dagster's termination end them all.
Of a training whose process was killed, all processes are started again, and go on from its last checkpoint.

Processes of this machine meet in a file and speak gloo on loopback; on a cluster, or with GPUs (nccl), as Spark's
TorchDistributor and torch say.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import dlassets
from dlassets.engines.processors import processors
from dlassets.errors import DlassetsError
from dlassets.learning.training.exchange import Exchange
from dlassets.learning.training.group import Group, device_of
from dlassets.learning.training.train import train
from dlassets.storage.stores import is_object_storage

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from dlassets.engines.base import Engine
    from dlassets.learning.training.job import Job, OnEvent, Trained
    from dlassets.settings import ComputeSettings

    Training = Callable[[Job, Group, OnEvent], Trained]

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

    if compute.processes > 1 and isinstance(engine, SparkEngine):
        return Place(compute.processes, engine.session)
    return Place(compute.processes)


def launch(job: Job, place: Place, report: OnEvent, training: Training = train) -> Trained:
    """Train in that place and return what was learned; `report` is called, in this thread, while it goes on.

    `training` is a function of a module that every process can import. Raises the DlassetsError that any process
    raised; one where processes were killed more than `compute.attempts` times; and TrainingFailedError, with the
    traceback, for what else a process failed of.
    """
    if place == Place():
        return training(job, Group(device=device_of(job.settings.compute)), report)
    with _exchange(job, place) as exchange:
        return _tried(job, place, report, training, exchange)


def _tried(job: Job, place: Place, report: OnEvent, training: Training, exchange: Exchange) -> Trained:
    said = ""
    for _ in range(attempts := job.settings.compute.attempts):
        run = _start(job, place, exchange, f"{training.__module__}:{training.__qualname__}")
        try:
            _follow(run, exchange, report)
        finally:
            run.end()
        if (trained := exchange.trained()) is not None:
            return _with_remark(trained, exchange.starts)
        exchange.raise_failure()
        said = run.explanation()
        _log.warning("A process of the training ended early. Its last words:\n%s", said)
    raise DlassetsError(f"{_killed_too_often(attempts)} Its last words:\n{said}")


def _follow(run: _Run, exchange: Exchange, report: OnEvent) -> None:
    """Hand on what rank 0 tells until all processes have ended, or one has failed."""
    pause = 1.0 if is_object_storage(exchange.folder) else 0.1
    running = True
    while running:
        running = run.goes_on(pause) and not exchange.has_failed
        for event in exchange.events():
            report(event)


def _with_remark(trained: Trained, starts: int) -> Trained:
    if starts == 1:
        return trained
    times = "once" if starts == 2 else f"{starts - 1} times"  # noqa: PLR2004
    remark = f"A process of this training ended early {times}: it was started again, from its last checkpoint if any."
    return dataclasses.replace(trained, remarks=(*trained.remarks, remark))


def _killed_too_often(attempts: int) -> str:
    return (
        f"A process of the training ended early in each of {attempts} attempts (training.compute.attempts). A process "
        "that is killed without a word had most often no memory left: lower training.pixels.batch_size or "
        "training.compute.processes and run again, which goes on from the last checkpoint."
    )


@contextmanager
def _exchange(job: Job, place: Place) -> Iterator[Exchange]:
    with ExitStack() as stack:
        if place.session is None or _is_local(place.session):
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


@dataclass(frozen=True)
class Start:
    """What a process is told: its exchange, which function trains, where to meet the others, and its threads."""

    folder: str
    training: str
    rendezvous: str = "env://"
    threads: int | None = None


class _Run(Protocol):
    """All processes of one attempt."""

    def goes_on(self, seconds: float) -> bool:
        """Wait at most so long; return whether all of them are still well, or some still run."""

    def end(self) -> None:
        """End those that still run, and wait until they have."""

    def explanation(self) -> str:
        """Return what they said last. Raises DlassetsError where that tells what to do, and trying again is no use."""


def _start(job: Job, place: Place, exchange: Exchange, training: str) -> _Run:
    on_one_machine = place.session is None or _is_local(place.session)
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
        try:
            for rank in range(processes):
                self._processes.append(self._begin(start, rank, processes))
        except BaseException:
            self.end()
            raise

    def _begin(self, start: Start, rank: int, processes: int) -> subprocess.Popen[bytes]:
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        package = str(Path(dlassets.__file__).parent.parent)
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        with self._output(rank).open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", __name__, json.dumps(asdict(start))],
                env={
                    **os.environ,
                    **{name: str(value) for name, value in places.items()},
                    "OMP_NUM_THREADS": str(start.threads),
                    "PYTHONPATH": path,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for this process: what then becomes of them it says itself
            )

    def goes_on(self, seconds: float) -> bool:
        running = [process for process in self._processes if process.poll() is None]
        if not running or any(process.returncode for process in self._processes):
            return False
        with _no_timeout():
            running[0].wait(seconds)
        return True

    def end(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes:
            process.wait()

    def explanation(self) -> str:
        first = next((rank for rank, process in enumerate(self._processes) if process.returncode), 0)
        said = self._output(first).read_text(errors="replace").strip().splitlines()
        code = self._processes[first].returncode
        return "\n".join([*said[-LAST_LINES:], f"(process {first} of {len(self._processes)}, exit code {code})"])

    def _output(self, rank: int) -> Path:
        return self._folder / f"output-{rank}.txt"


@contextmanager
def _no_timeout() -> Iterator[None]:
    try:
        yield
    except subprocess.TimeoutExpired:
        return


class _SparkTasks:
    """Tasks of Spark's TorchDistributor. It returns when all have ended, so it runs in a thread of its own."""

    def __init__(
        self, start: Start, session: SparkSession, processes: int, compute: ComputeSettings, exchange: Exchange
    ) -> None:
        from pyspark.ml.torch.distributor import TorchDistributor

        local = _is_local(session)
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
        except Exception as error:  # noqa: BLE001 - told by `explanation`, in the thread that waits
            self._error = error

    def goes_on(self, seconds: float) -> bool:
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

    def explanation(self) -> str:
        return explained(str(self._error), self._distributor.num_processes)


def explained(said: str, processes: int) -> str:
    """Return the end of what Spark said, without the JVM's part of it, which tells of itself alone.

    Raises DlassetsError where it tells of something that trying again does not mend.
    """
    lines = [line for line in said.strip().splitlines() if not line.startswith("\tat ")]
    if error := re.search(r"^.*DlassetsError: (.*)$", said, re.MULTILINE):
        raise DlassetsError(error[1])
    if "No module named 'dlassets'" in said:
        raise DlassetsError(
            "Spark's workers have no package dlassets. Install it there, in the Python that PYSPARK_PYTHON names, or "
            "set training.compute.processes to 1 to train in this process."
        )
    if "SPARK-24819" in said or "requires more slots" in said:
        raise DlassetsError(
            f"Spark has fewer slots than the {processes} that training.compute.processes asks for, and they are needed "
            "at once. Lower it, or give Spark more cores."
        )
    return "\n".join(lines[-LAST_LINES:])


def _is_local(session: SparkSession) -> bool:
    return str(session.conf.get("spark.master", "")).startswith("local")


def _use_gpu(session: SparkSession, compute: ComputeSettings, *, local: bool) -> bool:
    setting = "spark.driver.resource.gpu.amount" if local else "spark.task.resource.gpu.amount"
    has_some = session.conf.get(setting, "0") != "0"
    return compute.device == "cuda" or (compute.device == "auto" and has_some)


# ---- in a process of the training


def run_process(folder: str, training: str, rendezvous: str, threads: int | None) -> None:
    """Be one process of a training; RANK, WORLD_SIZE and their like say which. The arguments are a `Start`'s."""
    exchange = Exchange(folder)
    if exchange.has_failed:  # Spark tries a stage again, though nothing would come of it
        return
    job = exchange.job()
    threading.Thread(target=_end_with_the_others, args=(exchange, os.getppid()), daemon=True).start()
    try:
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        _train(job, _meet(job.settings.compute, rendezvous), exchange, _function(training))
    except Exception as error:
        # It is written down before this process parts from the others, who will fail for want of it.
        if not exchange.has_failed and _is_of_another(error):
            raise
        if not exchange.has_failed:
            exchange.fail(error)
    else:
        _part()


def _train(job: Job, group: Group, exchange: Exchange, training: Training) -> None:
    attempts = job.settings.compute.attempts
    if group.is_main and exchange.begin() > attempts:  # Spark, too, starts a stage again
        raise DlassetsError(_killed_too_often(attempts))
    with exchange.telling() if group.is_main else nullcontext(_ignore) as report:
        trained = training(job, group, report)
    if group.is_main:
        exchange.finish(trained)


def _ignore(_: object) -> None:
    """Take what ranks other than 0 tell, which is nothing new."""


def _meet(compute: ComputeSettings, rendezvous: str) -> Group:
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
            os.environ.setdefault("GLOO_SOCKET_IFNAME", _loopback())
        torch.distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo", init_method=rendezvous, rank=rank, world_size=size
        )
    return group


def _part() -> None:
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _loopback() -> str:
    return next(name for _, name in socket.if_nameindex() if name in {"lo", "lo0"})


def _function(name: str) -> Training:
    module, _, function = name.partition(":")
    found: Training = getattr(importlib.import_module(module), function)
    return found


def _is_of_another(error: Exception) -> bool:
    """Whether a process fails because another one has gone: gloo says so in words, with an error of no kind."""
    import torch.distributed

    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and re.search(r"gloo|NCCL|Connection (closed|reset)", str(error)) is not None


def _end_with_the_others(exchange: Exchange, parent: int) -> None:
    """End this process when its training is no longer wanted, or the process that started it is gone."""
    pause = threading.Event()  # set by none but to wait on
    seconds = 2.0 if is_object_storage(exchange.folder) else 0.5
    while os.getppid() == parent and exchange.is_wanted:
        pause.wait(seconds)
    os._exit(1)


if __name__ == "__main__":
    run_process(**json.loads(sys.argv[1]))
