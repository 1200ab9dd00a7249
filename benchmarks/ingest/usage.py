"""What a stretch of work takes of the machine, by this process and all that it started (a JVM, its Python workers)."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Used:
    """`cpu_s` and `peak_mib` are the process tree's. The peak adds up each process's own, so it is never too low."""

    wall_s: float
    cpu_s: float
    peak_mib: float


class Meter:
    """Measures from its making on; `read` may be called more than once."""

    def __init__(self) -> None:
        for process in _tree():
            # Linux forgets a process's peak so; elsewhere the peak is that of the process's whole life.
            with suppress(OSError):
                Path(f"/proc/{process.pid}/clear_refs").write_text("5")
        self._cpu = _cpu_seconds()
        self._started = time.perf_counter()

    def read(self) -> Used:
        wall = time.perf_counter() - self._started
        return Used(wall, _cpu_seconds() - self._cpu, sum(map(_peak_mib, _tree())))


def since_start() -> float:
    """Return the seconds since this process began."""
    began: float = psutil.Process().create_time()
    return time.time() - began


def _tree() -> list[psutil.Process]:
    this = psutil.Process()
    return [this, *this.children(recursive=True)]


def _cpu_seconds() -> float:
    total = 0.0
    for process in _tree():
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            # A child that has ended is counted in its parent.
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _peak_mib(process: psutil.Process) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    with suppress(psutil.NoSuchProcess):
        resident: int = process.memory_info().rss
        return resident / 2**20
    return 0.0
