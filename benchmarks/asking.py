"""`python -m benchmarks asking`: what it takes to choose whom to ask about, by strategy and number of candidates."""

from __future__ import annotations

import hashlib
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table as Grid

from benchmarks.machine import Machine
from benchmarks.report import Report
from dlassets.engines.base import Commit
from dlassets.engines.local import LocalEngine
from dlassets.labeling.selection.choice import select_requests
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import TABLES
from dlassets.registry.models import ModelVersion
from dlassets.settings import LabelingSettings, Settings, StrategyName
from dlassets.storage.lake import Lake

STRATEGIES: tuple[StrategyName, ...] = ("margin", "hybrid", "diversity")
MODEL = ModelVersion("image_classifier", 1)
_READ = (
    *("raw_images", "deleted_files", "quarantined_files", "predictions", "labeled_images", "label_requests"),
    *("image_profiles", "image_features"),
)
_FEATURES, _A_TIME, _CLASSES = 1280, 10_000, 5


@dataclass(frozen=True)
class Chosen:
    candidates: int
    strategy: str
    asked: int
    cpu_seconds: float
    peak_mib: float


@dataclass(frozen=True)
class Asking:
    chosen: list[Chosen]

    def tables(self) -> list[Grid]:
        grid = Grid(
            "candidates", "strategy", "asked about", "CPU seconds", "most memory so far (MiB)",
            title=f"Choosing whom to ask about, by embeddings of {_FEATURES:,} numbers", title_justify="left",
        )  # fmt: skip
        for one in self.chosen:
            row = (
                f"{one.candidates:,}",
                one.strategy,
                f"{one.asked:,}",
                f"{one.cpu_seconds:.1f}",
                f"{one.peak_mib:,.0f}",
            )
            grid.add_row(*row)
        return [grid]


def measure(candidates: list[int], folder: Path) -> Asking:
    """Choose among so many candidates, each strategy once; the second time, when everything is loaded, counts."""
    engine, chosen = LocalEngine(), []
    for number in sorted(candidates):
        lake = Lake.at(str(folder / str(number)))
        for name, rows in _rows(number):
            engine.append(engine.rows(rows), TABLES[name], pin(lake, name).uri, Commit())
        snapshots = {name: pin(lake, name) for name in _READ}
        for strategy in STRATEGIES:
            settings = Settings(labeling=LabelingSettings(strategy=strategy))
            select_requests(engine, snapshots, MODEL, settings)
            before = time.process_time()
            asked, _ = select_requests(engine, snapshots, MODEL, settings)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            chosen.append(Chosen(number, strategy, asked.num_rows, time.process_time() - before, peak))
    return Asking(chosen)


def _rows(number: int) -> Iterator[tuple[str, Any]]:
    """Yield rows of photos that a model is unsure of, table by table, some at a time; a tenth more have a label."""

    chance = np.random.default_rng(0)
    for start in range(0, number + number // 10, _A_TIME):
        count = min(_A_TIME, number + number // 10 - start)
        ids = [hashlib.sha256(str(start + place).encode()).hexdigest() for place in range(count)]
        paths = [f"unlabeled/{image_id}.jpg" for image_id in ids]
        said = -np.sort(-chance.dirichlet(np.ones(_CLASSES), count), axis=1)
        top_k = [[{"label": n, "name": str(n), "confidence": p} for n, p in enumerate(row)] for row in said.tolist()]
        columns: dict[str, Any] = {
            "path": paths,
            "image_id": ids,
            "content": [b""] * count,
            "landing": ["unlabeled"] * count,
            "model_name": [MODEL.name] * count,
            "model_version": [MODEL.version] * count,
            "confidence": said[:, 0],
            "margin": said[:, 0] - said[:, 1],
            "top_k": top_k,
            "perceptual_hash": chance.integers(-(2**62), 2**62, count),
            "feature_version": ["v1"] * count,
            "features": list(chance.standard_normal((count, _FEATURES), np.float32)),
            "split": ["train"] * count,
        }
        names = ["raw_images", "image_profiles", "image_features"]
        names.append("predictions" if start < number else "labeled_images")
        for name in names:
            yield name, _complete(TABLES[name].schema, columns, count)


def _complete(schema: Any, columns: dict[str, Any], count: int) -> Any:
    """Return rows of a table: what `columns` do not say is null, or nothing of its kind."""
    import pyarrow as pa

    empty = {"string": "", "int64": 0, "double": 0.0}
    values = {}
    for field in schema:
        nothing = None if field.nullable else empty.get(str(field.type), 0)
        values[field.name] = pa.array(columns.get(field.name, [nothing] * count), field.type)
    return pa.table(values, schema=schema)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--candidates", multiple=True, type=click.IntRange(1), default=(10_000, 100_000), show_default=True)
@click.option("--json", "record", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures there too.")
def main(candidates: tuple[int, ...], record: Path | None) -> None:
    """Measure how long it takes, and in how much memory, to choose the photos that people are asked about."""
    report = Report(Console(width=None if sys.stdout.isatty() else 160), record)
    report.show("machine", Machine.here())
    with tempfile.TemporaryDirectory(prefix="dlassets-asking-") as folder:
        report.show("asking", measure([*candidates], Path(folder)))
