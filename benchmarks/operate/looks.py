"""What a look of the sensor of a landing zone takes, where nothing is new, and whether the daemon's memory grows by it.

The zone's files come by events. Each lake gets its looks in a process of its own, which is what the daemon is to it.
"""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import dataclass
from typing import Any

import psutil
from rich.table import Table as Grid

from benchmarks.bench import Bench

FILES, LOOKS = (1_000, 50_000, 500_000), 1_000
GOAL_S = 0.3
# Looks after which all is imported and every cache is filled.
_WARM = 100


@dataclass(frozen=True)
class Looks:
    """Seconds, and MiB of the process after the warm-up and after all looks."""

    files: int
    first_s: float
    median_s: float
    slowest_s: float
    before_mib: float
    after_mib: float


@dataclass(frozen=True)
class AllLooks:
    looks: list[Looks]

    def tables(self) -> list[Grid]:
        grid = Grid(
            "files", "first look", "median", "slowest", "goal", f"memory after {_WARM}", f"after {LOOKS:,}",
            title="A look of the sensor with nothing new, files by events", title_justify="left",
        )  # fmt: skip
        for one in self.looks:
            seconds = (f"{value:.3f} s" for value in (one.first_s, one.median_s, one.slowest_s))
            memory = (f"{value:.0f} MiB" for value in (one.before_mib, one.after_mib))
            grid.add_row(f"{one.files:,}", *seconds, f"≤ {GOAL_S} s", *memory)
        return [grid]


def measure(bench: Bench) -> AllLooks:
    return AllLooks(
        [Looks(**bench.task(__name__, "run", lake=str(bench.place("looks")), files=files)) for files in FILES]
    )


def run(lake: str, files: int) -> dict[str, Any]:
    """Have a lake of so many files, and look at it. A task of benchmarks.worker."""
    from benchmarks.ingest.worker import ZONE, came_by_events, fill
    from dlassets.intake.events import Manifest
    from dlassets.pipeline.session import Session
    from dlassets.settings import Settings
    from dlassets.storage.lake import Lake

    zone = f"{lake}/zone"
    settings = Settings.model_validate(
        {"root": lake, "landing": {ZONE: {"uri": zone, "discovery": "events", "labelled": True}}}
    )
    fill(lake, zone, files)
    came_by_events(Manifest.of(Lake.at(lake), ZONE, settings.landing[ZONE]), Lake.at(lake))
    seconds, memory = _looks(Session(settings), ZONE)
    first, *later = seconds
    return {
        "files": files,
        "first_s": first,
        "median_s": statistics.median(later),
        "slowest_s": max(later),
        "before_mib": memory[0],
        "after_mib": memory[1],
    }


def _looks(session: Any, zone: str) -> tuple[list[float], tuple[float, float]]:
    import dagster as dg

    from dlassets.defs.automation import landing_sensor
    from dlassets.errors import DlassetsError

    sensor, cursor, seconds, before = (
        landing_sensor(zone, session.settings.landing[zone], session.settings),
        None,
        [],
        0.0,
    )
    with dg.DagsterInstance.ephemeral() as instance:
        for number in range(LOOKS):
            with dg.build_sensor_context(instance=instance, cursor=cursor, resources={"session": session}) as context:
                began = time.perf_counter()
                tick = sensor.evaluate_tick(context)
                seconds.append(time.perf_counter() - began)
            if tick.run_requests:
                raise DlassetsError("A look found something new where nothing was.")
            cursor = tick.cursor
            if number == _WARM:
                before = _resident()
    return seconds, (before, _resident())


def _resident() -> float:
    gc.collect()
    resident: int = psutil.Process().memory_info().rss
    return resident / 2**20
