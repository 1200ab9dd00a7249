"""Images a second from photos in Delta to embeddings in Delta, on both engines, beside what others do it with."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table as Grid

from benchmarks.training.bench import Bench
from dlassets.errors import DlassetsError

LIMIT, LOCAL, SPARK, TORCH = "bare loop", "dlassets, local", "dlassets, spark", "Spark, torch in a pandas function"
PHOTOS = 3800
# Of the limit's images/s, and of torch's.
GOALS = {LOCAL: 0.85, SPARK: 0.7}
TIMES_TORCH = 10

_TASKS = "benchmarks.training.embedders"


@dataclass(frozen=True)
class Contender:
    """A task. A `peer` runs in the peers' environment."""

    name: str
    task: str
    peer: bool = False


CONTENDERS = (
    Contender(LOCAL, "local"),
    Contender(SPARK, "spark"),
    Contender("Spark, OpenVINO in mapInArrow", "spark_openvino"),
    Contender("Ray Data, OpenVINO", "ray", peer=True),
    Contender("Daft, OpenVINO", "daft", peer=True),
    Contender(TORCH, "spark_torch"),
)


@dataclass
class Speed:
    """Of each run: images/s, milliseconds of all cores an image where they can be told, the share of the limit's speed.

    The limit is that of the same minutes. `first_s` is how long the first job took, with all that is started once.
    `missing` says why there is nothing.
    """

    who: str
    images_per_second: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    of_limit: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    missing: str = ""

    def add(self, figures: Mapping[str, float], limit: float | None = None) -> None:
        self.images_per_second.append(figures["images"] / figures["wall_s"])
        if "cpu_s" in figures:
            self.cpu_ms.append(figures["cpu_s"] / figures["images"] * 1000)
        self.first_s.append(figures["first_s"])
        if limit is not None:
            self.of_limit.append(self.images_per_second[-1] / limit)

    @property
    def share(self) -> float:
        return statistics.median(self.of_limit) if self.of_limit else 0.0


@dataclass(frozen=True)
class Embedded:
    images: int
    limit: Speed
    speeds: list[Speed]

    def tables(self) -> list[Grid]:
        title = (
            f"{self.images} photos in Delta to embeddings, the second job of a process\n"
            f"Medians of the runs; each contender beside the {LIMIT} in the same minutes"
        )
        grid = Grid("who", "images/s", "CPU ms", f"of the {LIMIT}", "first job", title=title, title_justify="left")
        for speed in (self.limit, *sorted(self.speeds, key=lambda one: -one.share)):
            if speed.missing:
                grid.add_row(speed.who, f"[yellow]{speed.missing}[/yellow]")
                continue
            rate, first = map(statistics.median, (speed.images_per_second, speed.first_s))
            cpu = f"{statistics.median(speed.cpu_ms):.2f}" if speed.cpu_ms else ""
            runs = " ".join(f"{share:.2f}" for share in speed.of_limit)
            share = f"{speed.share:.2f}  ({runs})" if runs else ""
            grid.add_row(speed.who, f"{rate:.0f}", cpu, share, f"{first:.0f} s")
        return [grid, self._goals()]

    def _goals(self) -> Grid:
        grid = Grid("dlassets", "here", "goal", title_justify="left")
        shares = {speed.who: speed.share for speed in self.speeds if speed.of_limit}
        for who, goal in GOALS.items():
            if who in shares:
                grid.add_row(f"{who}: of the {LIMIT}", f"{shares[who]:.2f}", f"≥ {goal}")
        if LOCAL in shares and shares.get(TORCH):
            grid.add_row(f"{LOCAL}: times {TORCH}", f"{shares[LOCAL] / shares[TORCH]:.1f}", f"≥ {TIMES_TORCH}")
        peers = {who: share for who, share in shares.items() if who not in {LOCAL, SPARK}}
        if LOCAL in shares and peers:
            fastest = max(peers, key=lambda who: peers[who])
            grid.add_row(f"{LOCAL}: times the fastest peer, {fastest}", f"{shares[LOCAL] / peers[fastest]:.2f}", "> 1")
        return grid


def measure(bench: Bench, photos: int = PHOTOS) -> Embedded:
    """Measure all in turn, so often, and the limit before and after each: what else the machine does meets both."""
    lake = str(bench.place("embedding"))
    images = bench.task(_TASKS, "written", images=str(bench.images), lake=lake, photos=photos)
    limit, speeds = Speed(LIMIT), {one: Speed(one.name) for one in CONTENDERS}
    for contender, speed in speeds.items():
        if contender.name not in GOALS and bench.without_peers and (contender.peer or not bench.peers):
            speed.missing = bench.without_peers
    for _ in range(bench.runs):
        before = _limit(bench, limit, lake)
        for contender, speed in speeds.items():
            if speed.missing or (found := _figures(bench, contender, speed, lake)) is None:
                continue
            after = _limit(bench, limit, lake)
            speed.add(found, (before + after) / 2)
            before = after
    return Embedded(images, limit, list(speeds.values()))


def _limit(bench: Bench, speed: Speed, lake: str) -> float:
    speed.add(bench.task(_TASKS, "loop", lake=lake, workers=bench.cores))
    return speed.images_per_second[-1]


def _figures(bench: Bench, contender: Contender, speed: Speed, lake: str) -> Any:
    try:
        return bench.task(_TASKS, contender.task, peer=contender.peer, lake=lake, workers=bench.cores)
    except DlassetsError as error:
        if contender.name in GOALS:
            raise
        speed.missing = f"failed: {str(error).splitlines()[-1]}"
        bench.say(str(error))
        return None
