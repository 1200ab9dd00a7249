"""The command: which parts to measure, on what, and where the figures go."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks.machine import Machine
from benchmarks.report import Report
from benchmarks.training import accuracy, embedding, head, heads, loader, retrain, scaling
from benchmarks.training.bench import Bench

# What a part measures is a dataclass of its figures with `tables()`, as benchmarks.report shows it.
PARTS: dict[str, Callable[[Bench], Any]] = {
    "loader": loader.measure,
    "scaling": scaling.measure,
    "embedding": embedding.measure,
    "accuracy": accuracy.measure,
    "retrain": retrain.measure,
    "head": head.measure,
    "heads": heads.measure,
}


@click.command(name="training", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("chosen", metavar="[PART]...", nargs=-1, type=click.Choice(tuple(PARTS)))
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    help="JPEG photos in NNN.class/ folders; generated ones without it, which say little.",
)
@click.option("--runs", default=3, show_default=True, help="How often each figure is taken; the median is shown.")
@click.option("--no-peers", is_flag=True, help="Measure dlassets alone.")
@click.option("--json", "record", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures there too.")
def main(chosen: tuple[str, ...], images: Path | None, runs: int, no_peers: bool, record: Path | None) -> None:
    """Measure training (all PARTs by default), beside its peers on the same photos and cores."""
    console = Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "160")))
    started = time.monotonic()

    def say(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:6.0f} s  {text}[/dim]", highlight=False, soft_wrap=True)

    with tempfile.TemporaryDirectory(prefix="dlassets-bench-training-") as folder:
        bench = Bench(
            images=images or _generated(Path(folder)), folder=Path(folder), runs=runs, peers=not no_peers, say=say
        )
        report = Report(console, record)
        report.show("machine", Machine.here())
        for part in chosen or PARTS:
            report.show(part, PARTS[part](bench))
        report.show("machine afterwards", Machine.here())


def _generated(folder: Path) -> Path:
    from dlassets.samples.generated import generate

    images = folder / "images"
    generate(images, classes=10, per_class=60)
    return images
