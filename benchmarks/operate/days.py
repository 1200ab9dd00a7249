"""A lake that takes in a hundred photos a day for years: what a tick, the tables' logs and Dagster's databases come to.

The days are those of benchmarks.ingest.history, all of them within this hour. So care is told to keep nothing for time
travel; by default it keeps a week, which are the files of seven days more.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table as Grid

from benchmarks.bench import Bench

DAYS, CARE_DAYS = (10, 100, 300, 1_000), 5
RUNS = 25


@dataclass(frozen=True)
class Aged:
    """After so many days, the last care included; `tick_s` are those with a hundred new photos."""

    days: int
    tick_s: float
    nothing_s: float
    care_s: float
    log_files: int
    log_mib: float
    data_files: int


@dataclass(frozen=True)
class Runs:
    """MiB of Dagster's home after so many runs, and again as many, with old runs deleted in between or not."""

    runs: int
    first_mib: float
    kept_mib: float
    cared_mib: float


@dataclass(frozen=True)
class Days:
    aged: list[Aged]
    runs: Runs

    def tables(self) -> list[Grid]:
        grid = Grid(
            "days", "tick of 100 photos", "nothing new", "care of all", "files of logs", "their size", "files of rows",
            title=f"100 photos a day, care every {CARE_DAYS} days, nothing kept for time travel", title_justify="left",
        )  # fmt: skip
        for one in self.aged:
            seconds = (f"{value:.2f} s" for value in (one.tick_s, one.nothing_s, one.care_s))
            grid.add_row(
                f"{one.days:,}", *seconds, f"{one.log_files:,}", f"{one.log_mib:.1f} MiB", f"{one.data_files:,}"
            )
        stores = Grid(
            f"after {self.runs.runs} runs", f"and {self.runs.runs} more", "old ones deleted, and as many more",
            title="Dagster's databases and logs", title_justify="left",
        )  # fmt: skip
        stores.add_row(*(f"{size:.1f} MiB" for size in (self.runs.first_mib, self.runs.kept_mib, self.runs.cared_mib)))
        return [grid, stores]


def measure(bench: Bench) -> Days:
    root, zone, photos = bench.place("days"), bench.place("days-zone"), bench.place("days-photos")
    bench.task(__name__, "write_photos", images=str(bench.images), folder=str(photos))
    aged, done = [], 0
    for days in DAYS:
        figures = bench.task(
            __name__,
            "live",
            root=str(root),
            zone=str(zone),
            photos=str(photos),
            start=done,
            stop=days,
            times=bench.runs,
        )
        aged.append(Aged(days, **figures))
        done = days
    return Days(aged, Runs(**bench.task(__name__, "run", root=str(bench.place("days-runs")))))


def write_photos(images: str, folder: str) -> None:
    """Write a day's photos, small ones. A task of benchmarks.worker."""
    from benchmarks.ingest.data import originals, thumbnails, written
    from benchmarks.ingest.history import PHOTOS

    written(thumbnails(originals(Path(images))), PHOTOS, Path(folder, "day"))


def live(root: str, zone: str, photos: str, start: int, stop: int, times: int) -> dict[str, Any]:
    """Let the days from `start` to `stop` go by, and take the next ticks. A task of benchmarks.worker."""
    from benchmarks.ingest.history import grow, next_ticks

    care_s = grow(root, zone, start, stop, care_every=CARE_DAYS, retention_hours=0)["care_s"]
    figures = next_ticks(root, zone, f"{photos}/day", stop, times)
    logs = [file for file in Path(root, "tables").glob("*/_delta_log/*") if file.is_file()]
    return {
        "tick_s": statistics.median(wall for wall, _ in figures["tick"]),
        "nothing_s": statistics.median(wall for wall, _ in figures["nothing"]),
        "care_s": care_s,
        "log_files": len(logs),
        "log_mib": _mib(logs),
        "data_files": sum(1 for _ in Path(root, "tables").rglob("*.parquet"))
        - sum(file.suffix == ".parquet" for file in logs),
    }


def run(root: str) -> dict[str, Any]:
    """Run the pipeline that takes photos in, where there are none. A task of benchmarks.worker."""
    import dagster as dg

    from dlassets.definitions import build_defs
    from dlassets.resources.instance import dagster_home
    from dlassets.resources.old_runs import delete_old_runs
    from dlassets.settings import Settings
    from dlassets.storage.lake import Lake

    for zone in ("labeled", "unlabeled"):
        Path(root, "landing", zone).mkdir(parents=True)
    home = Path(dagster_home(Lake.at(root)))
    job = build_defs(Settings(root=root)).resolve_job_def("ingest_pipeline")
    sizes = []
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for care in (False, False, True):
            if care:
                time.sleep(1)  # what ended within this second is not older than it
                delete_old_runs(instance, days=0)
            for _ in range(RUNS):
                job.execute_in_process(instance=instance)
            sizes.append(_mib([file for file in home.rglob("*") if file.is_file()]))
    return dict(zip(("first_mib", "kept_mib", "cared_mib"), sizes, strict=True)) | {"runs": RUNS}


def _mib(files: Sequence[Path]) -> float:
    return sum(file.stat().st_size for file in files) / 2**20
