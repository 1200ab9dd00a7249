"""Images a second from JPEG bytes to 224² float32 tensors, beside what others do it with."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from rich.table import Table as Grid

from benchmarks.training.bench import Bench


@dataclass(frozen=True)
class Speed:
    """`images_per_second` of the second epoch, a run; none where it could not be measured: `note` says why."""

    who: str
    images_per_second: tuple[float, ...]
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.images_per_second) if self.images_per_second else float("nan")


@dataclass(frozen=True)
class Loaded:
    speeds: list[Speed]

    def tables(self) -> list[Grid]:
        grid = Grid("who", "images/s", title="JPEG to 224² float32 tensors, second epoch", title_justify="left")
        for speed in self.speeds:
            grid.add_row(speed.who, f"{speed.median:.0f}" if speed.images_per_second else speed.note)
        return [grid]


def measure(bench: Bench) -> Loaded:
    return Loaded([_speed(bench, f"bare simplejpeg loop, {bench.cores} processes", "benchmarks.training.bare", "loop")])


def _speed(bench: Bench, who: str, module: str, task: str, *, peer: bool = False, **arguments: Any) -> Speed:
    images = str(bench.images)
    return Speed(who, tuple(bench.task(module, task, peer=peer, images=images, **arguments) for _ in range(bench.runs)))
