"""The command of a subject's parts: which to measure, on what, and where the figures go."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks.bench import Bench
from benchmarks.machine import Machine
from benchmarks.report import Report

# What a part measures is a dataclass of its figures with `tables()`, as benchmarks.report shows it.
Parts = Mapping[str, Callable[[Bench], Any]]


def part_command(subject: str, parts: Parts, description: str) -> click.Command:
    """Return `python -m benchmarks <subject> [PART]...`."""

    @click.command(name=subject, help=description, context_settings={"help_option_names": ["-h", "--help"]})
    @click.argument("chosen", metavar="[PART]...", nargs=-1, type=click.Choice(tuple(parts)))
    @click.option(
        "--images",
        type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
        help="JPEG photos in NNN.class/ folders; generated ones without it, which say little.",
    )
    @click.option("--runs", default=3, show_default=True, help="How often each figure is taken; the median is shown.")
    @click.option("--no-peers", is_flag=True, help="Measure dlassets alone.")
    @click.option(
        "--json", "record", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures there too."
    )
    def command(chosen: tuple[str, ...], images: Path | None, runs: int, no_peers: bool, record: Path | None) -> None:
        console = Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "160")))
        started = time.monotonic()

        def say(text: str) -> None:
            console.print(f"[dim]{time.monotonic() - started:6.0f} s  {text}[/dim]", highlight=False, soft_wrap=True)

        with tempfile.TemporaryDirectory(prefix=f"dlassets-bench-{subject}-") as folder:
            bench = Bench(
                images=images or _generated(Path(folder)), folder=Path(folder), runs=runs, peers=not no_peers, say=say
            )
            report = Report(console, record)
            report.show("machine", Machine.here())
            for part in chosen or parts:
                report.show(part, parts[part](bench))
            report.show("machine afterwards", Machine.here())

    return command


def _generated(folder: Path) -> Path:
    from dlassets.samples.generated import generate

    images = folder / "images"
    generate(images, classes=10, per_class=60)
    return images
