"""Ingests in processes of their own, to be killed: SIGKILL at a step, or after so long.

Run as a program, this is a server that has everything imported and forks for each ingest. It never runs one itself, so
that no thread of Arrow's or delta-rs's is there when it forks. It takes lists of jobs as lines of JSON.
"""

from __future__ import annotations

import functools
import json
import os
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
from dlassets_tests.soak.forked import Forked

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
    ended = []
    for job, process in [(job, Forked(_said, job)) for job in jobs]:
        if job.step is None and job.seconds is not None:
            process.wait(job.seconds)
            process.send(signal.SIGKILL)
        end = process.end()
        if end.value is not None:
            ended.append({"killed": False, **end.value})
        elif end.code == -signal.SIGKILL:
            ended.append({"killed": True, "done": None})
        else:
            ended.append({"killed": False, "done": None, "error": f"the process ended with status {end.code}"})
    return ended


def _refuse_threads() -> None:
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    if len(names) - names.count(_HARMLESS) > 1:
        raise RuntimeError(f"forking with threads is not safe: {names}")


def _said(job: Job) -> dict[str, Any]:
    try:
        return {"done": asdict(_ingest(job))}
    except BaseException as error:  # noqa: BLE001 - all of it is reported
        said = f"{type(error).__name__}: {error}"
        return {"done": None, "error": said, "conflict": isinstance(error, ConflictError)}


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
