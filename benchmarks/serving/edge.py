"""The bundle for devices: int8 beside f32, in time, accuracy, calibration and size, as its own checks measure them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.table import Table as Grid

from benchmarks.bench import Bench
from benchmarks.serving.lake import champion_lake

GOALS = {"int8_is_faster": "≥ 2", "int8_as_right": "≤ 0.005", "int8_as_sure": "refitted"}


@dataclass(frozen=True)
class Bundled:
    """The bundle's checks: name, number and sentence of each. Times are of one photo at a time, on all cores."""

    cores: int
    checks: list[dict[str, Any]]

    def tables(self) -> list[Grid]:
        title = f"The bundle for devices, one photo at a time on {self.cores} cores"
        grid = Grid("check", "here", "goal", "what came of it", title=title, title_justify="left")
        for check in self.checks:
            value = "" if check["value"] is None else f"{check['value']:.4g}"
            grid.add_row(check["name"], value, GOALS.get(check["name"], ""), check["sentence"])
        return [grid]


def measure(bench: Bench) -> Bundled:
    return Bundled(bench.cores, bench.task(__name__, "bundle", lake=str(champion_lake(bench))))


def bundle(lake: str) -> list[dict[str, Any]]:
    """Make the champion's bundle, and return its checks. A task of benchmarks.worker."""
    from dataclasses import asdict

    from dlassets.pipeline import steps
    from dlassets.pipeline.session import Session
    from dlassets.settings import Settings

    made = steps.edge_model.run(Session(Settings(root=lake))).details["bundle"]
    return [asdict(check) for check in made.checks]
