"""How long `dlassets demo` takes: the first time, and again with nothing new; beside the bare model work."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table as Grid

from benchmarks.machine import load
from benchmarks.processes import Ran, clean_environment, demo, run

# Seconds on 2 cores for the 1,000 clothing photos: the first run, and the second where there is a goal.
GOALS: Mapping[str, tuple[float, float | None]] = {"local": (90, 15), "spark": (360, None)}
START, END = "start-up, until the first stage", "summary, and exit"
# The backbone is converted once a machine.
_SET_UP = """
from dlassets.learning.backbones import backbone_of
from dlassets.learning.embedding import load_backbone
from dlassets.settings import FeatureSettings
load_backbone(backbone_of(FeatureSettings()))
"""
_HEADING = re.compile(r"^\d+/\d+ (?P<title>.+)$")
_SUMMARY = re.compile(r"^\s*Summary\s*$")


@dataclass(frozen=True)
class Run:
    """`stages` are seconds, in order, and add up to `wall_s`."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    stages: dict[str, float]

    @classmethod
    def of(cls, ran: Ran) -> Run:
        return cls(ran.wall_s, ran.cpu_s, ran.peak_mib, stage_seconds(ran.lines, ran.wall_s))


@dataclass(frozen=True)
class DemoTime:
    """`gained` are the tables that the second run gave a version; `bare` is the model work alone, once."""

    engine: str
    images: int
    first: Run
    second: Run
    tables_in_all: int
    gained: list[str]
    bare: Run
    load: tuple[float, float, float]

    def tables(self) -> list[Grid]:
        grid = Grid(
            "", "first run", "again, nothing new", "bare model work",
            title=f"dlassets demo on {self.images:,} photos, engine {self.engine}", title_justify="left",
        )  # fmt: skip
        for stage in dict.fromkeys([*self.first.stages, *self.second.stages]):
            grid.add_row(stage, *(_seconds(run.stages.get(stage)) for run in (self.first, self.second)), "")
        grid.add_section()
        runs = (self.first, self.second, self.bare)
        first_goal, second_goal = GOALS[self.engine]
        grid.add_row("[bold]wall time in all[/bold]", *(f"[bold]{run.wall_s:.1f} s[/bold]" for run in runs))
        grid.add_row("goal (clothing, 2 cores)", f"≤{first_goal:.0f} s", f"≤{second_goal:.0f} s" if second_goal else "")
        grid.add_row("CPU time", *(f"{run.cpu_s:.1f} s" for run in runs))
        grid.add_row("peak memory of the largest process", *(f"{run.peak_mib:,.0f} MiB" for run in runs))
        gained = f"{len(self.gained)} of {self.tables_in_all}{': ' if self.gained else ''}{', '.join(self.gained)}"
        grid.add_row("tables that gained a version", "", f"{gained} (goal 0)")
        grid.add_row("load average after", " ".join(f"{value:.2f}" for value in self.load))
        return [grid]


def measure(images: Path, engine: str, folder: Path) -> DemoTime:
    """Run the demo twice on a lake of its own in `folder`."""
    root = folder / f"demo-{engine}"
    run([sys.executable, "-c", _SET_UP], clean_environment())
    bare = run([sys.executable, "-m", "benchmarks.bare", str(images)], clean_environment())
    first = demo(images, root, engine)
    versions = table_versions(root)
    second = demo(images, root, engine)
    after = table_versions(root)
    return DemoTime(
        engine=engine,
        images=sum(1 for path in images.glob("*/*") if path.is_file()),
        first=Run.of(first),
        second=Run.of(second),
        tables_in_all=len(after),
        gained=[name for name, version in after.items() if versions.get(name) != version],
        bare=Run(bare.wall_s, bare.cpu_s, bare.peak_mib, {}),
        load=load(),
    )


def stage_seconds(lines: Sequence[tuple[float, str]], wall_s: float) -> dict[str, float]:
    """Return how long each stage took, from the seconds at which their headings came."""
    marks = [(0.0, START)]
    for second, line in lines:
        if match := _HEADING.match(line):
            marks.append((second, match["title"]))
        elif _SUMMARY.match(line):
            marks.append((second, END))
    ends = [second for second, _ in marks[1:]] + [wall_s]
    return {title: end - start for (start, title), end in zip(marks, ends, strict=True)}


def table_versions(root: Path) -> dict[str, int]:
    """Return the version of every table of a lake."""
    from deltalake import DeltaTable

    return {path.name: DeltaTable(str(path)).version() for path in sorted((root / "tables").iterdir())}


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"
