"""How long after an unlabelled photo landed its prediction can be read, and which part of the way takes how long."""

from __future__ import annotations

import hashlib
import math
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table as Grid

from benchmarks.bench import Bench
from benchmarks.ingest.data import Original, originals
from benchmarks.ingest.landing import PATIENCE_SECONDS, START_SECONDS, Reader, running
from benchmarks.processes import clean_environment
from benchmarks.serving.lake import champion_lake
from dlassets.lakehouse.tables import IMAGE_FEATURES, PREDICTIONS, RAW_IMAGES
from dlassets.resources.instance import dagster_home
from dlassets.storage.lake import Lake

ZONE = "unlabeled"
STREAM, SENSOR = "dlassets stream", "sensor every 2 s"
GOALS = {STREAM: 2.0, SENSOR: 10.0}
FILES = {STREAM: 40, SENSOR: 12}
# Between two files; a run of Dagster takes seconds.
PACE = {STREAM: 0.5, SENSOR: 3.0}
# The column by which a file is found again in each table that it passes.
_PARTS = {RAW_IMAGES.name: "path", IMAGE_FEATURES.name: "image_id", PREDICTIONS.name: "path"}


@dataclass(frozen=True)
class Arrived:
    """Seconds from each file's landing until each table showed it."""

    seconds: dict[str, dict[str, list[float]]]

    def tables(self) -> list[Grid]:
        grid = Grid(
            "noticed by", "until it can be read in", "files", "p50", "p95", "longest", "goal, p95",
            title="From an unlabelled photo's landing, files one after the other", title_justify="left",
        )  # fmt: skip
        for who, parts in self.seconds.items():
            for part, seconds in parts.items():
                ordered = sorted(seconds)
                p95 = ordered[math.ceil(0.95 * len(ordered)) - 1]
                goal = f"≤ {GOALS[who]:.0f} s" if part == PREDICTIONS.name else ""
                shown = (f"{value:.2f} s" for value in (statistics.median(ordered), p95, ordered[-1]))
                grid.add_row(who, part, str(len(ordered)), *shown, goal)
        return [grid]


def measure(bench: Bench) -> Arrived:
    photos = originals(bench.images)
    binaries = Path(sys.executable).parent
    commands = {
        STREAM: [str(binaries / "dlassets"), "stream"],
        SENSOR: [str(binaries / "dagster-daemon"), "run", "-m", "dlassets.definitions"],
    }
    return Arrived({who: _lags(bench, who, command, photos) for who, command in commands.items()})


def _lags(bench: Bench, who: str, command: Sequence[str], photos: Sequence[Original]) -> dict[str, list[float]]:
    bench.say(f"{who}, {FILES[who]} files")
    root = bench.place("arrival")
    shutil.copytree(champion_lake(bench), root, dirs_exist_ok=True)
    landed: dict[str, float] = {}
    ids: dict[str, str] = {}

    def land(number: int) -> str:
        content = photos[number % len(photos)].copy(number)
        path = f"{ZONE}/{number:06d}.jpg"
        ids[path] = hashlib.sha256(content).hexdigest()
        part = root / "landing" / f"{path}.part"
        part.write_bytes(content)
        part.rename(part.with_suffix(""))
        landed[path] = time.monotonic()
        return path

    readers = {name: Reader(str(root / "tables" / name), column) for name, column in _PARTS.items()}
    with running(command, _environment(root), root / "process.log") as alive:
        for reader in readers.values():
            reader.start()
        try:
            readers[PREDICTIONS.name].wait_for([land(0)], START_SECONDS, alive)  # the first use of everything is over
            paths = []
            for number in range(1, FILES[who] + 1):
                paths.append(land(number))
                time.sleep(PACE[who])
            readers[PREDICTIONS.name].wait_for(paths, PATIENCE_SECONDS, alive)
        finally:
            for reader in readers.values():
                reader.stop()
    names: Mapping[str, Mapping[str, str]] = {"path": {path: path for path in paths}, "image_id": ids}
    return {
        name: [readers[name].seen[names[column][path]] - landed[path] for path in paths]
        for name, column in _PARTS.items()
    }


def _environment(root: Path) -> dict[str, str]:
    environment = clean_environment(
        DLASSETS_ROOT=str(root),
        DLASSETS_AUTOMATION__SENSORS="true",
        DLASSETS_AUTOMATION__SENSOR_SECONDS="2",
    )
    environment["DAGSTER_HOME"] = str(dagster_home(Lake.at(str(root))))
    return environment
