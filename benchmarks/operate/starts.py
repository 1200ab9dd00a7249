"""How long `dlassets up` takes until all that a team shares is healthy, in a new folder each time."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from rich.table import Table as Grid

from benchmarks.bench import Bench
from benchmarks.operate.places import up

KINDS = ("none", "cluster")
GOAL_S = 60


@dataclass(frozen=True)
class Starts:
    """Seconds of each start, by the kind of Spark."""

    seconds: dict[str, list[float]]

    def tables(self) -> list[Grid]:
        grid = Grid("--spark", "median", "longest", "goal", title="dlassets up, a new folder", title_justify="left")
        for kind, seconds in self.seconds.items():
            grid.add_row(kind, f"{statistics.median(seconds):.0f} s", f"{max(seconds):.0f} s", f"≤ {GOAL_S} s")
        return [grid]


def measure(bench: Bench) -> Starts:
    return Starts({kind: [_start(bench, kind) for _ in range(bench.runs)] for kind in KINDS})


def _start(bench: Bench, kind: str) -> float:
    bench.say(f"up --spark {kind}")
    with up("local", kind) as (_, seconds):
        return seconds
