"""What learning from cached features takes: seconds and peak memory of each step, as the labelled photos grow.

No photo is there: features with classes in them are written straight into the lake's tables, and the pipeline's own
steps run on them, one after the other in one process, as a Dagster run does.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import importlib
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table as Grid

from benchmarks.bench import Bench
from benchmarks.ingest.usage import Meter
from dlassets.lakehouse.tables import IMAGE_FEATURES, LABELED_IMAGES

COUNTS = (10_000, 30_000, 100_000)
GOAL_ROWS, GOAL_S, GOAL_MIB = 100_000, 30, 1536
DIMENSIONS, CLASSES = 1280, 10
# Chosen so that a head is right in nine of ten rows and a few labels look wrong, as of photos.
_SPREAD = 8.0
_ROWS_A_COMMIT = 10_000
_STEPS = ("training_set", "label_errors", "trained_model")


@dataclass(frozen=True)
class Taken:
    """What the step took; `peak_mib` is of the whole process, with all that it had imported before."""

    step: str
    wall_s: float
    cpu_s: float
    peak_mib: float


@dataclass(frozen=True)
class Learned:
    """`start_s` is until all was imported, `start_mib` the memory that took; `taken` are the steps after it."""

    rows: int
    start_s: float
    start_mib: float
    accuracy: float
    label_errors: int
    taken: list[Taken]

    @property
    def seconds(self) -> float:
        return sum(step.wall_s for step in self.taken)

    @property
    def peak_mib(self) -> float:
        return max(step.peak_mib for step in self.taken)


@dataclass(frozen=True)
class Heads:
    learned: list[Learned]

    def tables(self) -> list[Grid]:
        grid = Grid(
            "rows", "step", "wall", "CPU", "peak", "goal", "found",
            title=f"A head on cached features, {DIMENSIONS:,} float32 a row", title_justify="left",
        )  # fmt: skip
        for each in self.learned:
            grid.add_row(f"{each.rows:,}", "imports", f"{each.start_s:.1f} s", "", f"{each.start_mib:,.0f} MiB", "", "")
            for step in each.taken:
                found = {
                    "label_errors": f"{each.label_errors} labels look wrong",
                    "trained_model": f"accuracy {each.accuracy:.4f}",
                }.get(step.step, "")
                wall, cpu, peak = f"{step.wall_s:.1f} s", f"{step.cpu_s:.1f} s", f"{step.peak_mib:,.0f} MiB"
                grid.add_row("", step.step, wall, cpu, peak, "", found)
            goal = f"≤{GOAL_S} s, ≤{GOAL_MIB:,} MiB" if each.rows == GOAL_ROWS else ""
            grid.add_row("", "all of them", f"{each.seconds:.1f} s", "", f"{each.peak_mib:,.0f} MiB", goal, "")
        return [grid]


def measure(bench: Bench) -> Heads:
    """Fill a lake for each number of rows, and learn from it once: what is shown is one process's figures."""
    found = []
    for rows in COUNTS:
        root = str(bench.place(f"head-{rows}"))
        bench.task(__name__, "fill", root=root, rows=rows)
        figures = bench.task(__name__, "learn", root=root)
        taken = [Taken(**step) for step in figures.pop("taken")]
        found.append(Learned(rows=rows, taken=taken, **figures))
    return Heads(found)


def fill(root: str, rows: int) -> dict[str, int]:
    """Write labels and features of so many images. A task of benchmarks.worker."""
    import pyarrow as pa

    from dlassets.engines.base import Commit
    from dlassets.engines.schema import Table

    session = _session(root)

    def append(table: Table, columns: dict[str, Any]) -> None:
        made = pa.table([pa.array(columns[name], type_) for name, type_ in _types(table)], schema=table.schema)
        session.engine.append(session.engine.rows(made), table, session.pin(table).uri, Commit())

    chance = np.random.default_rng(0)
    centres = chance.normal(0, 1, (CLASSES, DIMENSIONS)).astype(np.float32)
    now = dt.datetime.now(dt.UTC)
    for start in range(0, rows, _ROWS_A_COMMIT):
        count = min(_ROWS_A_COMMIT, rows - start)
        names = [f"{number:09d}" for number in range(start, start + count)]
        image_ids = [hashlib.sha256(name.encode()).hexdigest() for name in names]
        true = chance.integers(0, CLASSES, count)
        labels = np.where(chance.random(count) < 0.01, (true + 1) % CLASSES, true)
        features = centres[true] + chance.normal(0, _SPREAD, (count, DIMENSIONS)).astype(np.float32)
        flat = pa.array(features.reshape(-1), pa.float32())
        lists = pa.ListArray.from_arrays(np.arange(0, features.size + 1, DIMENSIONS, dtype=np.int32), flat)
        version = [session.feature_version] * count
        append(IMAGE_FEATURES, {"image_id": image_ids, "feature_version": version, "features": lists})
        shares = np.array([int(image_id[:8], 16) for image_id in image_ids]) / 2**32
        append(
            LABELED_IMAGES,
            {
                "path": [f"labeled/{name}.jpg" for name in names],
                "image_id": image_ids,
                "label": labels,
                "label_name": [f"class {label}" for label in labels],
                "source": ["folder"] * count,
                "annotator": [None] * count,
                "labeled_at": [now] * count,
                "split": np.select([shares < 0.7, shares < 0.85], ["train", "validation"], "test").tolist(),
            },
        )
    return {"rows": rows}


def learn(root: str) -> dict[str, Any]:
    """Run the steps on a lake that `fill` has filled. A task of benchmarks.worker."""
    from dlassets.pipeline import steps

    began = time.perf_counter()
    # What a Dagster run has imported before its first step, or will have by its last.
    for name in (
        "dagster",
        "mlflow",
        "torch",
        "deltalake",
        "duckdb",
        "pyarrow.dataset",
        "cleanlab",
        "matplotlib.figure",
    ):
        importlib.import_module(name)
    session = _session(root)
    start = {"start_s": time.perf_counter() - began, "start_mib": Meter().read().peak_mib}
    taken, made = [], {}
    for name in _STEPS:
        meter = Meter()
        made[name] = getattr(steps, name).run(session)
        taken.append({"step": name, **asdict(meter.read())})
    metrics = made["trained_model"].details["run"].data.metrics
    errors = made["label_errors"].written["label_errors"].inserted
    return {**start, "taken": taken, "accuracy": metrics["test_accuracy"], "label_errors": errors}


def _session(root: str) -> Any:
    from dlassets.pipeline.session import Session
    from dlassets.settings import Settings

    Path(root).mkdir(parents=True, exist_ok=True)
    return Session(Settings(root=root))


def _types(table: Any) -> list[tuple[str, Any]]:
    return [(field.name, field.type) for field in table.schema]
