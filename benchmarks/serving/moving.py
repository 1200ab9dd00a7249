"""What clients notice while the champion moves, ten times in a row, beside a champion that stays."""

from __future__ import annotations

import re
import statistics
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table as Grid

from benchmarks.bench import Bench
from benchmarks.serving.lake import champion_lake, sent
from benchmarks.serving.rest import CONTENDERS, WARM, started

CLIENTS, MOVES, SECONDS, EVERY_SECONDS = 16, 10, 40.0, 3.5
TIMES_P99 = 2


@dataclass(frozen=True)
class Moved:
    """What the clients got, in each run, with the champion staying and moving."""

    staying: list[dict[str, Any]]
    moving: list[dict[str, Any]]

    def tables(self) -> list[Grid]:
        grid = Grid(
            "champion", "taken over", "answered", "requests/s", "p50", "p99", "failed",
            title=f"{CLIENTS} clients of dlassets serve for {SECONDS:.0f} s, medians of the runs", title_justify="left",
        )  # fmt: skip
        for name, runs in (("stays", self.staying), (f"moves {MOVES} times", self.moving)):
            p50, p99, rate = (_median(runs, key) for key in ("p50_ms", "p99_ms", "per_second"))
            swaps, answered, failed = (str(sum(run[key] for run in runs)) for key in ("swaps", "answered", "failed"))
            grid.add_row(name, swaps, answered, f"{rate:.0f}", f"{p50:.1f} ms", f"{p99:.1f} ms", failed)
        goals = Grid("dlassets serve", "here", "goal", title_justify="left")
        goals.add_row("failed while it moves", str(sum(run["failed"] for run in self.moving)), "0")
        times = _median(self.moving, "p99_ms") / _median(self.staying, "p99_ms")
        goals.add_row("p99 while it moves, times p99 else", f"{times:.2f}", f"≤ {TIMES_P99}")
        return [grid, goals]


def measure(bench: Bench) -> Moved:
    lake, photos = champion_lake(bench), sent(bench)
    staying, moving = [], []
    for _ in range(bench.runs):
        staying.append(_asked(bench, lake, photos))
        with _moves(lake):
            moving.append(_asked(bench, lake, photos))
    return Moved(staying, moving)


def _asked(bench: Bench, lake: Path, photos: Path) -> dict[str, Any]:
    ours = CONTENDERS[0]
    with started(bench, ours, lake, DLASSETS_SERVING__CHAMPION_SECONDS="1") as server:
        asked: dict[str, Any] = bench.task(
            "benchmarks.serving.clients", "ask", port=server.port, path=ours.path, form=ours.form,
            photos=str(photos), clients=CLIENTS, seconds=SECONDS, warm=WARM,
        )  # fmt: skip
        address = f"http://127.0.0.1:{server.port}/metrics"
        with urllib.request.urlopen(address) as metrics:
            found = re.search(rb"^dlassets_model_swaps_total ([\d.]+)", metrics.read(), re.MULTILINE)
        return {**asked, "swaps": int(float(found[1])) if found else 0}


@contextmanager
def _moves(lake: Path) -> Iterator[None]:
    """Have the champion go to and fro between two versions, from a few seconds on."""
    from dlassets.pipeline.session import Session
    from dlassets.settings import Settings

    session = Session(Settings(root=str(lake)))
    client, name, ending = session.mlflow.client, session.model_name, threading.Event()

    def move() -> None:
        for number in range(MOVES):
            if ending.wait(EVERY_SECONDS):
                return
            client.set_registered_model_alias(name, "champion", str(number % 2 + 1))

    mover = threading.Thread(target=move)
    mover.start()
    try:
        yield
    finally:
        ending.set()
        mover.join()


def _median(runs: list[dict[str, Any]], key: str) -> float:
    return float(statistics.median(run[key] for run in runs))
