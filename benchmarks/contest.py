"""Jobs over photos that lie in a Delta table, each beside a bare loop in the same minutes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table as Grid

from benchmarks.bench import Bench
from dlassets.errors import DlassetsError

LIMIT = "bare loop"


@dataclass(frozen=True)
class Contender:
    """A task. A `peer` runs in the peers' environment; of ours, `goal` is the share of the limit that is wanted."""

    name: str
    task: str
    peer: bool = False
    goal: float | None = None


@dataclass(frozen=True)
class Contest:
    """What is done, by functions of the module `tasks`, in the peers' way and in ours.

    `ours` is to be `times` as fast as `slow`, which is what people start from. The limit is the function `limit_task`
    of the module `limit_tasks`.
    """

    title: str
    tasks: str
    contenders: tuple[Contender, ...]
    ours: str
    slow: str
    times: int
    limit_tasks: str
    limit_task: str = "loop"

    def measure(self, bench: Bench, lake: str, images: int) -> Outcome:
        """Measure all in turn, so often, and the limit before and after each: what else the machine does meets both."""
        limit, speeds = Speed(LIMIT), {one: Speed(one.name) for one in self.contenders}
        for contender, speed in speeds.items():
            if contender.goal is None and bench.without_peers and (contender.peer or not bench.peers):
                speed.missing = bench.without_peers
        for _ in range(bench.runs):
            before = self._limit(bench, limit, lake)
            for contender, speed in speeds.items():
                if speed.missing or (found := self._figures(bench, contender, speed, lake)) is None:
                    continue
                after = self._limit(bench, limit, lake)
                speed.add(found, (before + after) / 2)
                before = after
        return Outcome(self, images, limit, list(speeds.values()))

    def _limit(self, bench: Bench, speed: Speed, lake: str) -> float:
        speed.add(bench.task(self.limit_tasks, self.limit_task, lake=lake, workers=bench.cores))
        return speed.images_per_second[-1]

    def _figures(self, bench: Bench, contender: Contender, speed: Speed, lake: str) -> Any:
        try:
            return bench.task(self.tasks, contender.task, peer=contender.peer, lake=lake, workers=bench.cores)
        except DlassetsError as error:
            if contender.goal is not None:
                raise
            speed.missing = f"failed: {str(error).splitlines()[-1]}"
            bench.say(str(error))
            return None


@dataclass
class Speed:
    """Of each run: images/s, milliseconds of all cores an image where they can be told, the share of the limit's speed.

    `between` is that of the speed from the first finished batch to the last, where it can be told. The limit is that of
    the same minutes. `first_s` is how long the first job took, with all that is started once.
    `missing` says why there is nothing.
    """

    who: str
    images_per_second: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    of_limit: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    missing: str = ""

    def add(self, figures: Mapping[str, float], limit: float | None = None) -> None:
        self.images_per_second.append(figures["images"] / figures["wall_s"])
        if "cpu_s" in figures:
            self.cpu_ms.append(figures["cpu_s"] / figures["images"] * 1000)
        self.first_s.append(figures["first_s"])
        if limit is not None:
            self.of_limit.append(self.images_per_second[-1] / limit)
            if "between" in figures:
                self.between.append(figures["between"] / limit)

    @property
    def share(self) -> float:
        return statistics.median(self.of_limit) if self.of_limit else 0.0


@dataclass(frozen=True)
class Outcome:
    contest: Contest
    images: int
    limit: Speed
    speeds: list[Speed]

    def tables(self) -> list[Grid]:
        title = (
            f"{self.images} {self.contest.title}, the whole second job of a process; between its first and last batch\n"
            f"Medians of the runs; each contender beside the {LIMIT} in the same minutes"
        )
        grid = Grid(
            "who",
            "images/s",
            "CPU ms",
            f"of the {LIMIT}",
            "between batches",
            "first job",
            title=title,
            title_justify="left",
        )
        for speed in (self.limit, *sorted(self.speeds, key=lambda one: -one.share)):
            if speed.missing:
                grid.add_row(speed.who, f"[yellow]{speed.missing}[/yellow]")
                continue
            rate, first = map(statistics.median, (speed.images_per_second, speed.first_s))
            cpu = f"{statistics.median(speed.cpu_ms):.2f}" if speed.cpu_ms else ""
            runs = " ".join(f"{share:.2f}" for share in speed.of_limit)
            share = f"{speed.share:.2f}  ({runs})" if runs else ""
            between = f"{statistics.median(speed.between):.2f}" if speed.between else ""
            grid.add_row(speed.who, f"{rate:.0f}", cpu, share, between, f"{first:.0f} s")
        return [grid, self._goals()]

    def _goals(self) -> Grid:
        contest = self.contest
        grid = Grid("dlassets", "here", "goal", title_justify="left")
        shares = {speed.who: speed.share for speed in self.speeds if speed.of_limit}
        goals = {one.name: one.goal for one in contest.contenders if one.goal is not None}
        for who, goal in goals.items():
            if who in shares:
                grid.add_row(f"{who}: of the {LIMIT}", f"{shares[who]:.2f}", f"≥ {goal}")
        if contest.ours in shares and shares.get(contest.slow):
            times = shares[contest.ours] / shares[contest.slow]
            grid.add_row(f"{contest.ours}: times {contest.slow}", f"{times:.1f}", f"≥ {contest.times}")
        between = {speed.who: statistics.median(speed.between) for speed in self.speeds if speed.between}
        for how, found in (("", shares), (", between batches", between)):
            peers = {who: share for who, share in found.items() if who not in goals}
            if contest.ours in found and peers:
                fastest = max(peers, key=lambda who: peers[who])
                times = found[contest.ours] / peers[fastest]
                grid.add_row(f"{contest.ours}: times the fastest peer{how}, {fastest}", f"{times:.2f}", "> 1")
        return grid
