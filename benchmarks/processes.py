"""Run a program in a process of its own and say what it took."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlassets.errors import DlassetsError

REPOSITORY = Path(__file__).resolve().parent.parent
_SHOWN_LINES = 30


@dataclass(frozen=True)
class Ran:
    """`cpu_s` and `peak_mib` are the process's and of those it waited for; `lines` is its output, with the second each
    line came. Where others use the machine, `cpu_s` is the steadier figure."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    lines: list[tuple[float, str]]


def run(command: Sequence[str], environment: Mapping[str, str]) -> Ran:
    """Run a command to its end. Raises DlassetsError with the end of what it said where it fails."""
    started = time.perf_counter()
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        output = process.stdout or ()
        lines = [(time.perf_counter() - started, line.rstrip()) for line in output]
        _, status, usage = os.wait4(process.pid, 0)  # unlike Popen.wait, it tells this one child's usage
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - started
    if process.returncode != 0:
        said = "\n".join(line for _, line in lines[-_SHOWN_LINES:])
        raise DlassetsError(f"{' '.join(command)} ended with {process.returncode}:\n{said}")
    memory_unit = 1 if sys.platform == "darwin" else 1024
    return Ran(
        wall_s=wall,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_mib=usage.ru_maxrss * memory_unit / 2**20,
        lines=lines,
    )


def clean_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without the user's own settings: what is measured is the defaults."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("DLASSETS_") and name not in {"DAGSTER_HOME", "COLUMNS"}
    }
    return {**kept, **variables}


def demo(images: Path, root: Path, engine: str) -> Ran:
    """Run `dlassets demo` on a folder of photos and a lake."""
    command = str(Path(sys.executable).with_name("dlassets"))
    variables = clean_environment(DLASSETS_ROOT=str(root), DLASSETS_ENGINE=engine)
    return run([command, "demo", "--images", str(images)], variables)
