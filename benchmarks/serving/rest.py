"""Requests of one photo: throughput, waiting and processor time at several numbers of clients, and how others do."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table as Grid

from benchmarks.bench import PEERS, Bench
from benchmarks.processes import clean_environment
from benchmarks.serving.lake import champion_lake, sent
from benchmarks.serving.server import Server, free_port, served
from dlassets.errors import DlassetsError
from dlassets.storage.lake import Lake

CLIENTS = (1, 4, 16, 64)
SECONDS, WARM = 6.0, 1.5
OURS, MLFLOW, LITSERVE, LIMIT = "dlassets serve", "mlflow models serve", "LitServe", "bare loop"
TIMES_MLFLOW, OF_LIMIT, P50_MS = 4, 0.8, 10

_BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Contender:
    """How a server is started on a lake and a port, where it says that it is ready, and how it is asked."""

    name: str
    command: Callable[[Path, int], Sequence[str]]
    ready: str
    path: str
    form: str
    peer: bool = True


def _ours(_: Path, port: int) -> Sequence[str]:
    return [str(_BIN / "dlassets"), "serve", "--port", str(port)]


def _mlflow(_: Path, port: int) -> Sequence[str]:
    model = "models:/image_classifier@champion"
    return [str(_BIN / "mlflow"), "models", "serve", "-m", model, "--port", str(port), "--env-manager", "local"]


def _litserve(lake: Path, port: int) -> Sequence[str]:
    return [str(PEERS / "bin" / "python"), "-m", "benchmarks.serving.litserve_server", str(lake), str(port)]


CONTENDERS = (
    Contender(OURS, _ours, "/ready", "/predict", "raw", peer=False),
    Contender(MLFLOW, _mlflow, "/ping", "/invocations", "mlflow"),
    Contender(LITSERVE, _litserve, "/health", "/predict", "litserve"),
)


@dataclass
class Figures:
    """Of each run: requests answered a second, the median and 99th percentile of waiting, CPU time an image (ms)."""

    who: str
    clients: int
    per_second: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    failed: int = 0

    def add(self, asked: dict[str, Any], cpu_s: float) -> None:
        self.per_second.append(asked["per_second"])
        self.p50_ms.append(asked["p50_ms"])
        self.p99_ms.append(asked["p99_ms"])
        self.cpu_ms.append(cpu_s * 1000 / max(1, asked["answered"]) * SECONDS / (SECONDS + WARM))
        self.failed += asked["failed"]

    @property
    def speed(self) -> float:
        return statistics.median(self.per_second)


@dataclass(frozen=True)
class Served:
    limit: list[float]
    figures: list[Figures]
    missing: dict[str, str]

    def tables(self) -> list[Grid]:
        bare = f"the {LIMIT}: {statistics.median(self.limit):.0f} images/s"
        grid = Grid(
            "who", "clients", "requests/s", "p50", "p99", "CPU ms a photo", "failed",
            title=f"One photo a request, medians of the runs; {bare}", title_justify="left",
        )  # fmt: skip
        for each in self.figures:
            p50, p99, cpu = map(statistics.median, (each.p50_ms, each.p99_ms, each.cpu_ms))
            grid.add_row(
                each.who, str(each.clients), f"{each.speed:.0f}", f"{p50:.1f} ms", f"{p99:.1f} ms", f"{cpu:.1f}",
                str(each.failed),
            )  # fmt: skip
        for who, why in self.missing.items():
            grid.add_row(who, "", f"[yellow]{why}[/yellow]")
        return [grid, self._goals()]

    def _goals(self) -> Grid:
        grid = Grid(OURS, "here", "goal", title_justify="left")
        found = {(each.who, each.clients): each for each in self.figures}
        for other, goal in ((MLFLOW, TIMES_MLFLOW), (LITSERVE, 1)):
            for clients in CLIENTS:
                if (ours := found.get((OURS, clients))) and (theirs := found.get((other, clients))):
                    times = ours.speed / theirs.speed
                    grid.add_row(f"times {other}, {clients} clients", f"{times:.1f}", f"≥ {goal}")
        if ours := found.get((OURS, 16)):
            grid.add_row(
                f"of the {LIMIT}, 16 clients", f"{ours.speed / statistics.median(self.limit):.2f}", f"≥ {OF_LIMIT}"
            )
        if ours := found.get((OURS, 1)):
            grid.add_row("p50, 1 client", f"{statistics.median(ours.p50_ms):.1f} ms", f"≤ {P50_MS} ms")
        return grid


def measure(bench: Bench) -> Served:
    """Measure each server at each number of clients, one server after the other, as often as the runs say."""
    lake, photos = champion_lake(bench), sent(bench)
    found = {(one.name, clients): Figures(one.name, clients) for one in CONTENDERS for clients in CLIENTS}
    missing: dict[str, str] = {}
    limit = []
    for _ in range(bench.runs):
        limit.append(_limit(bench, photos))
        for one in CONTENDERS:
            why = bench.without_peers if one.peer else None
            if why is None and one.name not in missing:
                try:
                    for clients, asked, cpu_s in _asked(bench, one, lake, photos):
                        found[one.name, clients].add(asked, cpu_s)
                except DlassetsError as error:
                    if not one.peer:
                        raise
                    why = f"failed: {str(error).splitlines()[-1]}"
            if why:
                missing[one.name] = why
    return Served(limit, [each for each in found.values() if each.per_second], missing)


def _asked(bench: Bench, one: Contender, lake: Path, photos: Path) -> Iterator[tuple[int, dict[str, Any], float]]:
    with started(bench, one, lake) as server:
        for clients in CLIENTS:
            before = server.cpu_seconds()
            asked = bench.task(
                "benchmarks.serving.clients", "ask", port=server.port, path=one.path, form=one.form,
                photos=str(photos), clients=clients, seconds=SECONDS, warm=WARM,
            )  # fmt: skip
            yield clients, asked, server.cpu_seconds() - before


@contextmanager
def started(bench: Bench, one: Contender, lake: Path, **more: str) -> Iterator[Server]:
    """Have a server answer until the end, with more variables in its environment."""
    bench.say(f"{one.name} starts")
    port = free_port()
    variables = {
        "DLASSETS_ROOT": str(lake),
        "MLFLOW_TRACKING_URI": f"sqlite:///{Lake.at(str(lake)).mlflow.removeprefix('file://')}/mlflow.db",
        "PATH": f"{_BIN}:/usr/bin:/bin",
        "OMP_NUM_THREADS": str(bench.cores),
        **more,
    }
    log = bench.folder / f"{one.form}-{port}.log"
    with served(one.command(lake, port), clean_environment(**variables), port, one.ready, log) as server:
        yield server


def _limit(bench: Bench, photos: Path) -> float:
    figures = bench.task(__name__, "loop", photos=str(photos), workers=bench.cores)
    return float(figures["images"] / figures["wall_s"])


def loop(photos: str, workers: int, images: int = 1500) -> dict[str, float]:
    """The limit: threads that decode, resize and infer photos lying in memory. A task of benchmarks.worker."""
    from benchmarks.training.embedders import bare

    files = [file.read_bytes() for file in sorted(Path(photos).iterdir())]
    return bare((files * (images // len(files) + 1))[:images], workers)
