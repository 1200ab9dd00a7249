"""Ingests in processes of their own, to be killed: SIGKILL at a step, or after so long.

Run as a program, this is a server that has everything imported and forks for each ingest. It never runs one itself, so
that no thread of Arrow's or delta-rs's is there when it forks. It takes lists of jobs as lines of JSON.
"""

from __future__ import annotations

import functools
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dlassets.engines.local import LocalEngine
from dlassets.errors import ConflictError
from dlassets.intake.ingest import Ingested, ingest
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.soak.faults import WITHIN, killed_at, modes_hold

_MODULES = ("pyarrow.dataset", "pyarrow.fs", "pyarrow.parquet", "deltalake", "duckdb", "simplejpeg", "PIL.Image")
# It survives a fork, and works on nothing that is not its own.
_HARMLESS = "jemalloc_bg_thd"


@dataclass(frozen=True)
class Job:
    """One ingest: killed at the n-th `step`, or after so many seconds, or never.

    Of a step within a commit, `seconds` is how long after its beginning.
    """

    settings: str
    step: str | None = None
    nth: int = 1
    seconds: float | None = None


@dataclass(frozen=True)
class Ended:
    """How it ended: killed, with an error, or with what it did."""

    killed: bool
    done: Ingested | None = None
    error: str | None = None
    conflict: bool = False


class Processes:
    """The server's other end. Use it as a context manager."""

    def __enter__(self) -> Self:
        threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            [sys.executable, "-m", __spec__.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | threads,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.communicate()

    def run(self, *jobs: Job) -> list[Ended]:
        """Run them, all at once, to their ends."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps([asdict(job) for job in jobs]) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        if not answer:
            raise RuntimeError(f"The server of processes ended with {self._server.wait()}.")
        return [
            Ended(**(ended | {"done": ended["done"] and Ingested(**ended["done"])})) for ended in json.loads(answer)
        ]


def serve() -> None:
    for module in _MODULES:
        __import__(module)
    for line in sys.stdin:
        jobs = [Job(**job) for job in json.loads(line)]
        print(json.dumps(_run(jobs)), flush=True)  # noqa: T201 - the answer


def _run(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    _refuse_threads()
    started = [_forked(job) for job in jobs]
    ended = []
    for job, (process, answer) in zip(jobs, started, strict=True):
        if job.step is None and job.seconds is not None:
            select.select([answer], [], [], job.seconds)  # ends sooner where the ingest does
            os.kill(process, signal.SIGKILL)
        with os.fdopen(answer) as opened:
            said = opened.read()
        _, status = os.waitpid(process, 0)
        if said:
            ended.append({"killed": False} | json.loads(said))
        elif os.waitstatus_to_exitcode(status) == -signal.SIGKILL:
            ended.append({"killed": True, "done": None})
        else:
            ended.append({"killed": False, "done": None, "error": f"the process ended with status {status}"})
    return ended


def _refuse_threads() -> None:
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    if len(names) - names.count(_HARMLESS) > 1:
        raise RuntimeError(f"forking with threads is not safe: {names}")


def _forked(job: Job) -> tuple[int, int]:
    ours, theirs = os.pipe()
    process = os.fork()
    if process:
        os.close(theirs)
        return process, ours
    os.close(ours)
    said: dict[str, Any] = {"done": None}
    try:
        said["done"] = asdict(_ingest(job))
    except BaseException as error:  # noqa: BLE001 - all of it is reported
        said |= {"error": f"{type(error).__name__}: {error}", "conflict": isinstance(error, ConflictError)}
    with os.fdopen(theirs, "w") as answer:
        json.dump(said, answer)
    os._exit(0)


def _ingest(job: Job) -> Ingested:
    settings, engine = Settings.model_validate_json(job.settings), LocalEngine()
    run = functools.partial(ingest, engine, Lake.at(settings.root), settings, {"run_id": str(os.getpid())})
    with modes_hold():
        if job.step is None:
            return run()
        if job.step not in WITHIN:
            with killed_at(engine, job.step, job.nth, _die):
                return run()
        soon = threading.Timer(job.seconds or 0, _die)
        with killed_at(engine, job.step.replace("within", "before"), job.nth, soon.start):
            return run()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    serve()
