"""What tests call in a process of its own: it imports little, so that such a process is there soon."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from dlassets.errors import ConflictError
from dlassets.pipeline.own_process import Call
from dlassets.pipeline.report import Report

__all__ = ["Call", "Report", "fail", "go_on", "own_processes", "tell", "until"]


def tell(number: int, report: Report) -> tuple[int, int]:
    report.info("begun")
    report.count("photos", number, None)
    return number + 1, os.getpid()


def fail(kind: str, _: Report) -> None:
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise {"conflict": ConflictError("again"), "other": KeyError("lost")}[kind]


def go_on(file: str, _: Report) -> None:
    child = subprocess.Popen(["sleep", "600"])
    Path(file).write_text(f"{os.getpid()} {child.pid}")
    child.wait()


def until(happens: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def own_processes() -> list[psutil.Process]:
    """Return the processes of calls that this one has; tests before have left others, which serve them all."""
    children = psutil.Process().children()
    return [child for child in children if "dlassets.pipeline.own_process" in child.cmdline()]
