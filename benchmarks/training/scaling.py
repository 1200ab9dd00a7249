"""Training by one process with two threads, by two with one each, and by two of Spark's: the same work and cores."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table as Grid

from benchmarks.bench import Bench
from dlassets.lakehouse.training_set import PIXELS

HEAD_ROWS, FEATURES, CLASSES = 40_000, 1280, 10
# Photos of the training split: so many steps of 32 that their speed shows.
PHOTOS = 320
HERE, PROCESSES, SPARK = "1 process, 2 threads", "2 processes, 1 thread each", "2 processes of Spark, 1 thread each"
HEAD, LAST_BLOCK, ALL_BLOCKS = "head, on features", "head and last block, on photos", "all blocks, on photos"
_SETTINGS: dict[str, dict[str, Any]] = {
    HEAD: {"trainable": "head", "epochs": 20, "patience": 20},
    LAST_BLOCK: {"trainable": "last_n", "last_n": 1, "pixels": {"epochs": 1}},
    ALL_BLOCKS: {"trainable": "all", "pixels": {"epochs": 1}},
}
# The first are slower: threads start, files are read for the first time.
WARM_UP = 2


@dataclass(frozen=True)
class Scaled:
    """`rows_per_second` while it trains, and `seconds` of the whole, with what it takes to start."""

    what: str
    where: str
    rows: int
    rows_per_second: float
    seconds: float


@dataclass(frozen=True)
class Scaling:
    figures: list[Scaled]

    def tables(self) -> list[Grid]:
        title = "Training on two cores: rows/s of an epoch, and seconds from the call to the model"
        grid = Grid(
            "what", "where", "rows", "rows/s", "against 1 process", "s in all", title=title, title_justify="left"
        )
        alone = {figure.what: figure.rows_per_second for figure in self.figures if figure.where == HERE}
        for one in self.figures:
            ratio = f"{one.rows_per_second / alone[one.what]:.2f}"
            grid.add_row(
                one.what, one.where, f"{one.rows:,}", f"{one.rows_per_second:,.0f}", ratio, f"{one.seconds:.1f}"
            )
        return [grid]


def measure(bench: Bench) -> Scaling:
    """Measure each training in each place, so often in turn, and keep the median of each figure."""
    places = {
        HEAD: _written(_points(), bench.place("points")),
        LAST_BLOCK: _written(_photos(bench), bench.place("photos")),
    }
    places[ALL_BLOCKS] = places[LAST_BLOCK]
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(bench.runs):
        for what, (table, version, _) in places.items():
            for where in (HERE, PROCESSES, SPARK):
                bench.say(f"{what}, {where}")
                figures = bench.task(__name__, "trained", table=table, version=version, what=what, where=where)
                runs.setdefault((what, where), []).append(figures)
    return Scaling(
        [
            Scaled(
                what,
                where,
                places[what][2],
                statistics.median(run["rows_per_second"] for run in taken),
                statistics.median(run["seconds"] for run in taken),
            )
            for (what, where), taken in runs.items()
        ]
    )


def trained(table: str, version: int, what: str, where: str) -> dict[str, float]:
    """Train, and return rows/s and seconds. A task of bench.worker."""
    import torch

    from dlassets.engines.base import Snapshot
    from dlassets.learning.backbones import BackboneRef
    from dlassets.learning.training.job import Event, Job
    from dlassets.learning.training.launch import launch
    from dlassets.settings import TrainingSettings

    torch.set_num_threads(2)
    job = Job(
        Snapshot("training_set", table, version), BackboneRef("efficientnet_lite0"), _settings(what, TrainingSettings)
    )
    place = _place(where)
    told: list[tuple[float, Event]] = []
    began = time.perf_counter()
    launch(job, place, lambda event: told.append((time.perf_counter(), event)))
    seconds = time.perf_counter() - began
    speed = _speed_of_epochs(told) if what == HEAD else _speed_of_steps([event for _, event in told])
    return {"rows_per_second": speed, "seconds": seconds}


def _settings(what: str, kind: Any) -> Any:
    return kind.model_validate({"min_improvement": 0, **_SETTINGS[what]})


def _place(where: str) -> Any:
    from dlassets.learning.training.launch import Place

    if where == HERE:
        return Place()
    if where == PROCESSES:
        return Place(2)
    from dlassets.engines.spark_session import spark_session
    from dlassets.settings import SparkSettings

    return Place(2, spark_session(SparkSettings(driver_memory="1g")))


def _speed_of_epochs(told: Sequence[tuple[float, Any]]) -> float:
    """Rows/s over the epochs after the first; each is told within a fifth of a second of its end."""
    moments = [moment for moment, event in told if event.kind == "epoch"]
    return (len(moments) - 1) * HEAD_ROWS / (moments[-1] - moments[0])


def _speed_of_steps(told: Sequence[Any]) -> float:
    speeds: list[float] = [event.metrics["images_per_second"] for event in told if event.kind == "step"][WARM_UP:]
    return statistics.harmonic_mean(speeds)


# ---- what is learned from


def _points() -> list[dict[str, Any]]:
    """Points around a centre a class, near enough to each other that learning them takes all epochs."""
    import numpy as np

    random = np.random.default_rng(0)
    centres = random.normal(0, 1, (CLASSES, FEATURES)).astype(np.float32)
    rows = []
    for place in range(HEAD_ROWS + 2000):
        label = place % CLASSES
        features = centres[label] + random.normal(0, 20, FEATURES).astype(np.float32)
        split = "train" if place < HEAD_ROWS else "validation"
        rows.append(_row(f"{place}", label, f"class {label}", split) | {"features": features})
    return [*rows, _row("test", 0, "class 0", "test") | {"features": centres[0]}]


def _photos(bench: Bench) -> list[dict[str, Any]]:
    files = sorted(bench.images.glob("*/*.jp*g"), key=lambda file: hashlib.sha256(file.name.encode()).hexdigest())
    splits = ["train"] * PHOTOS + ["validation"] * 64 + ["test"] * 8
    rows = []
    for file, split in zip(files, splits, strict=False):
        number, _, name = file.parent.name.partition(".")
        path = f"{file.parent.name}/{file.name}"
        content = {"feature_version": PIXELS, "content": file.read_bytes()}
        rows.append(_row(path, int(number), name, split) | content)
    return rows


def _row(path: str, label: int, name: str, split: str) -> dict[str, Any]:
    return {
        "path": path,
        "image_id": hashlib.sha256(path.encode()).hexdigest(),
        "label": label,
        "label_name": name,
        "feature_version": "made up",
        "split": split,
    }


def _written(rows: list[dict[str, Any]], place: Path) -> tuple[str, int, int]:
    """Write a training set; return where it is, its version, and the rows to train on."""
    import pyarrow as pa

    from dlassets.engines.base import Commit
    from dlassets.engines.local import LocalEngine
    from dlassets.lakehouse.snapshots import pin
    from dlassets.lakehouse.tables import TRAINING_SET
    from dlassets.storage.lake import Lake

    table = pin(Lake.at(str(place)), TRAINING_SET.name)
    engine = LocalEngine()
    written = engine.replace(
        engine.rows(pa.Table.from_pylist(rows, schema=TRAINING_SET.schema)), TRAINING_SET, table.uri, Commit({})
    )
    return table.uri, written.version, sum(row["split"] == "train" for row in rows)
