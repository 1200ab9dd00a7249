"""A package in a process that has loaded nothing before: whether it loads there, what it answers, and how fast.

The process is this file itself, run as a program. It loads the package, which holds no code, and not MLflow's model
around it, which does; and it is shown pixels, so that it needs no torch. Its memory and its time are bounded.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from dlassets.images.decode import Pixels
    from dlassets.learning.backbones import Runtime

# One photo is asked about so often, and then so many at a time.
_REPEATS, _TOGETHER = 3, 8


@dataclass(frozen=True)
class Limits:
    """How long the process may take, and how much of the machine's addresses it may have."""

    seconds: float
    gigabytes: float


@dataclass(frozen=True)
class Answer:
    """What the process said of the photo, and took for it: `failure` is why it said nothing.

    `one_ms` is the median time from one photo's pixels to its answer, `together_ms` that of one among eight; `peak_mb`
    is the most memory that it held.
    """

    failure: str | None = None
    label: int | None = None
    confidence: float | None = None
    total: float | None = None
    load_seconds: float | None = None
    one_ms: float | None = None
    together_ms: float | None = None
    peak_mb: float | None = None


def ask(package: Path, pixels: Pixels, runtime: Runtime, limits: Limits) -> Answer:
    """Have a new process load the package in this folder, and answer of a photo's pixels, (side, side, 3)."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pixels.npy"
        np.save(file, pixels)
        command = [sys.executable, "-m", __name__, str(package), str(file), runtime, str(limits.gigabytes)]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limits.seconds)
        except subprocess.TimeoutExpired:
            return Answer(failure=f"it had given no answer after {limits.seconds:g} s")
    if ran.returncode != 0:
        return Answer(failure=_last_words(ran))
    return Answer(**json.loads(ran.stdout.splitlines()[-1]))


def _last_words(ran: subprocess.CompletedProcess[str]) -> str:
    """Return how a process ended that gave no answer."""
    if ran.returncode < 0:
        return f"its process was ended by signal {-ran.returncode}"
    lines = [line.strip() for line in ran.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"its process ended with {ran.returncode}"


def _answer(package: str, pixels: str, runtime: Any) -> dict[str, Any]:
    from dlassets.learning.embedding import load_backbone
    from dlassets.registry.package import ModelPackage

    shown = np.load(pixels, allow_pickle=False)[None]
    began = time.perf_counter()
    loaded = ModelPackage.load(Path(package))
    backbone = load_backbone(loaded.backbone, runtime)

    def milliseconds(images: Pixels) -> float:
        began = time.perf_counter()
        loaded.head.probabilities(backbone.embed(images))
        return (time.perf_counter() - began) * 1000

    (answer,) = loaded.head.probabilities(backbone.embed(shown))
    load_seconds = time.perf_counter() - began
    together = np.repeat(shown, _TOGETHER, axis=0)
    return {
        "label": int(loaded.head.labels[int(answer.argmax())]),
        "confidence": float(answer.max()),
        "total": float(answer.sum()),
        "load_seconds": load_seconds,
        "one_ms": float(np.median([milliseconds(shown) for _ in range(_REPEATS)])),
        "together_ms": float(np.median([milliseconds(together) for _ in range(_REPEATS)])) / _TOGETHER,
        "peak_mb": _peak_megabytes(),
    }


def _peak_megabytes() -> float:
    import resource

    with suppress(OSError, StopIteration):  # elsewhere than on Linux
        lines = Path("/proc/self/status").read_text().splitlines()
        # What the system counts for a process includes what its parent held when it started it.
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _bound_memory(gigabytes: float) -> None:
    import resource

    with suppress(ValueError, OSError):  # macOS knows of no such bound
        resource.setrlimit(resource.RLIMIT_AS, (int(gigabytes * 1e9), int(gigabytes * 1e9)))


def main(package: str, pixels: str, runtime: str, gigabytes: str) -> None:
    _bound_memory(float(gigabytes))
    sys.stdout.write(json.dumps(_answer(package, pixels, runtime)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
