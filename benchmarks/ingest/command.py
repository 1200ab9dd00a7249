"""The command: which parts to measure, on what, and where the figures go."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks.ingest import parts
from benchmarks.ingest.parts import LOCAL, SPARK, Bench
from benchmarks.machine import Machine
from benchmarks.report import Report

PARTS = ("take-in", "small", "stages", "tick", "history", "merge", "replace", "memory", "storage", "landing")


@click.command(name="ingest", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("chosen", metavar="[PART]...", nargs=-1, type=click.Choice(PARTS))
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    help="JPEG photos in NNN.class/ folders, to make as many of as are wanted; generated ones without it.",
)
@click.option("--photos", default=3781, show_default=True, help="Photos to take in.")
@click.option("--small", default=50_000, show_default=True, help="Small photos (64 pixels a side) to take in.")
@click.option("--ticks", default="4000,50000,500000", show_default=True, help="Files of a zone with nothing new.")
@click.option("--history", default="1,50,100,300,1000", show_default=True, help="Ingests of 100 photos before a tick.")
@click.option("--landing", default=100, show_default=True, help="Files that land while somebody watches.")
@click.option("--sensor-seconds", default=2, show_default=True, help="How often the sensor looks that is measured.")
@click.option("--runs", default=5, show_default=True, help="Processes of each kind, of which the median is shown.")
@click.option("--spark-runs", default=2, show_default=True, help="The same where Spark takes the photos in.")
@click.option("--engine", "engines", multiple=True, type=click.Choice((LOCAL, SPARK)), help="Both by default.")
@click.option("--no-peers", is_flag=True, help="Measure dlassets alone.")
@click.option("--full", is_flag=True, help="The plain job on all small photos as well, and memory at 200,000 files.")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), help="Make the photos there, once for all.")
@click.option("--json", "record", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures there too.")
def main(
    chosen: tuple[str, ...],
    images: Path | None,
    photos: int,
    small: int,
    ticks: str,
    history: str,
    landing: int,
    sensor_seconds: int,
    runs: int,
    spark_runs: int,
    engines: tuple[str, ...],
    no_peers: bool,
    full: bool,
    keep: Path | None,
    record: Path | None,
) -> None:
    """Measure taking photos in (all PARTs by default), beside a plain Spark job and a bare loop on the same photos."""
    console = Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "160")))
    started = time.monotonic()

    def say(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:6.0f} s  {text}[/dim]", highlight=False, soft_wrap=True)

    with _folder(keep) as folder:
        bench = Bench(
            images=images or _generated(folder),
            folder=folder,
            photos=photos,
            small=small,
            plain_small=small if full else min(small, 10_000),
            ticks=tuple(int(number) for number in ticks.split(",")),
            history=tuple(int(number) for number in history.split(",")),
            memory=(small // 10, small, *([200_000] if full else [])),
            landing=landing,
            sensor_seconds=sensor_seconds,
            runs=runs,
            spark_runs=spark_runs,
            engines=engines or (LOCAL, SPARK),
            peers=not no_peers,
            say=say,
        )
        measure(bench, chosen or PARTS, Report(console, record))


def measure(bench: Bench, chosen: tuple[str, ...], report: Report) -> None:
    """Measure the parts one after the other, and show each as it comes."""
    report.show("machine", Machine.here())
    plain_ticks: list[float] = []
    if "take-in" in chosen:
        taken = parts.take_in(bench)
        plain_ticks = taken.plain_ticks
        report.show("take-in", taken)
    if "small" in chosen:
        report.show("small", parts.take_in(bench, small=True))
    rest: dict[str, Callable[[], Any]] = {
        "stages": lambda: parts.stages(bench),
        "tick": lambda: parts.ticks(bench, plain_ticks),
        "history": lambda: parts.history(bench),
        "merge": lambda: parts.merges(bench),
        "replace": lambda: parts.replacements(bench),
        "memory": lambda: parts.memory(bench),
        "storage": lambda: parts.storage(bench),
        "landing": lambda: parts.landings(bench),
    }
    for name, work in rest.items():
        if name in chosen:
            report.show(name, work())
    report.show("machine afterwards", Machine.here())


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Give a folder for photos and lakes; of a kept one, the photos stay."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="dlassets-bench-ingest-") as folder:
            yield Path(folder)
        return
    try:
        yield keep.resolve()
    finally:
        shutil.rmtree(keep / "lakes", ignore_errors=True)


def _generated(folder: Path) -> Path:
    from dlassets.samples.generated import generate

    images = folder / "images"
    if not images.exists():
        generate(images, classes=10, per_class=60)
    return images
