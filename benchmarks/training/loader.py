"""Images a second from JPEG bytes to 224² float32 tensors, beside what others do it with."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table as Grid

from benchmarks.bench import Bench
from dlassets.errors import DlassetsError

LIMIT, OURS = "bare simplejpeg loop", "dlassets, from Delta"
# Of the fastest peer's images/s, and of the limit's.
GOALS = (2.5, 0.8)

_FEEDS, _BARE = "benchmarks.training.feeds", "benchmarks.training.bare"


@dataclass(frozen=True)
class Contender:
    """A task of a module. A `peer` runs in the peers' environment, on the photos or, with `on_table`, on our table."""

    name: str
    task: str
    module: str = _FEEDS
    peer: bool = False
    on_table: bool = False


CONTENDERS = (
    Contender(LIMIT, "loop", _BARE),
    Contender(OURS, "dlassets", on_table=True),
    Contender("petastorm, pandas transform, from Delta", "petastorm", on_table=True),
    Contender("torchvision ImageFolder + DataLoader", "torchvision"),
    Contender("webdataset", "webdataset", peer=True),
    Contender("litdata", "litdata", peer=True),
    Contender("mosaicml-streaming", "mosaicml_streaming", peer=True),
)


@dataclass
class Speed:
    """Of the second epoch, a run each: images/s, and milliseconds of all cores an image. `missing` says why none is."""

    who: str
    images_per_second: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    missing: str = ""

    def add(self, figures: Mapping[str, float]) -> None:
        self.images_per_second.append(figures["images"] / figures["wall_s"])
        self.cpu_ms.append(figures["cpu_s"] / figures["images"] * 1000)

    @property
    def median(self) -> float:
        return statistics.median(self.images_per_second) if self.images_per_second else 0.0


@dataclass(frozen=True)
class Loaded:
    images: int
    workers: int
    speeds: list[Speed]

    def tables(self) -> list[Grid]:
        title = (
            f"{self.images} JPEG photos to 224² float32 tensors, {self.workers} workers, second epoch\n"
            "The median run (all of them); milliseconds of all cores an image"
        )
        grid = Grid("who", "images/s", "CPU ms", f"of the {LIMIT}", title=title, title_justify="left")
        for speed in sorted(self.speeds, key=lambda one: -one.median):
            if speed.missing:
                grid.add_row(speed.who, f"[yellow]{speed.missing}[/yellow]")
                continue
            runs = " ".join(f"{run:.0f}" for run in speed.images_per_second)
            cpu = f"{statistics.median(speed.cpu_ms):.2f}"
            grid.add_row(speed.who, f"{speed.median:.0f}  ({runs})", cpu, f"{speed.median / self._of(LIMIT):.2f}")
        return [grid, self._goals()]

    def _goals(self) -> Grid:
        grid = Grid("dlassets", "here", "goal", title_justify="left")
        ours, peers = self._of(OURS), [speed for speed in self.speeds if speed.who not in {LIMIT, OURS}]
        if fastest := max((speed for speed in peers if not speed.missing), key=lambda one: one.median, default=None):
            grid.add_row(f"times the fastest peer, {fastest.who}", f"{ours / fastest.median:.2f}", f"≥ {GOALS[0]}")
        grid.add_row(f"times the {LIMIT}", f"{ours / self._of(LIMIT):.2f}", f"≥ {GOALS[1]}")
        return grid

    def _of(self, who: str) -> float:
        return next(speed.median for speed in self.speeds if speed.who == who)


def measure(bench: Bench) -> Loaded:
    """Measure all contenders in turn, so often: what else the machine does meets them alike."""
    table, version, images = _written(bench)
    speeds = {one: Speed(one.name) for one in CONTENDERS}
    for contender, speed in speeds.items():
        if contender.name not in {LIMIT, OURS} and bench.without_peers and (contender.peer or not bench.peers):
            speed.missing = bench.without_peers
    for _ in range(bench.runs):
        for contender, speed in speeds.items():
            if not speed.missing:
                _run(bench, contender, speed, {"table": table, "version": version})
    return Loaded(images, bench.cores, list(speeds.values()))


def _run(bench: Bench, contender: Contender, speed: Speed, table: Mapping[str, Any]) -> None:
    arguments = {**table} if contender.on_table else {"images": str(bench.images)}
    if contender.module == _FEEDS and not contender.on_table:
        arguments["place"] = str(bench.place(contender.task))
    try:
        speed.add(bench.task(contender.module, contender.task, peer=contender.peer, workers=bench.cores, **arguments))
    except DlassetsError as error:
        if contender.name in {LIMIT, OURS}:
            raise
        speed.missing = f"failed: {str(error).splitlines()[-1]}"
        bench.say(str(error))


def _written(bench: Bench) -> tuple[str, int, int]:
    """Write the photos as a training set; return its place, its version, and how many photos there are."""
    import hashlib

    import pyarrow as pa

    from dlassets.engines.base import Commit
    from dlassets.engines.local import LocalEngine
    from dlassets.lakehouse.snapshots import pin
    from dlassets.lakehouse.tables import TRAIN, TRAINING_SET
    from dlassets.storage.lake import Lake

    rows = []
    for file in sorted(bench.images.glob("*/*.jp*g")):
        content = file.read_bytes()
        number, _, name = file.parent.name.partition(".")
        rows.append(
            {
                "path": f"{file.parent.name}/{file.name}",
                "image_id": hashlib.sha256(content).hexdigest(),
                "label": int(number),
                "label_name": name,
                "feature_version": "none",
                "features": None,
                "split": TRAIN,
                "content": content,
            }
        )
    table = pin(Lake.at(str(bench.place("lake"))), TRAINING_SET.name)
    engine = LocalEngine()
    photos = engine.rows(pa.Table.from_pylist(rows, schema=TRAINING_SET.schema))
    return table.uri, engine.replace(photos, TRAINING_SET, table.uri, Commit({})).version, len(rows)
