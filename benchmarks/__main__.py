"""`python -m benchmarks [names…]`, `… ingest|training|serving|labeling|operate [parts…]`, `… simulate|asking`: measure.

Figures are shown as tables. Nothing passes or fails: goals stand beside figures.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks import accuracy, asking, demo_time, loading, simulate
from benchmarks.ingest import command as ingest
from benchmarks.labeling import command as labeling
from benchmarks.machine import Machine
from benchmarks.operate import command as operate
from benchmarks.report import Report
from benchmarks.serving import command as serving
from benchmarks.training import command as training
from dlassets.errors import DlassetsError

NAMES = ("loading", "demo", "accuracy")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    help="Photos in NNN.class/ folders; without it, generated ones, which say little of accuracy.",
)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    type=click.Choice(tuple(demo_time.GOALS)),
    help="Engine of the demo, local by default; may be given twice. Accuracy is measured on the first.",
)
@click.option("--processes", default=7, show_default=True, help="Fresh processes of each import that `loading` times.")
@click.option("--draws", default=10, show_default=True, help="Splits that `accuracy` draws anew.")
@click.option("--json", "record", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures there too.")
def main(
    names: tuple[str, ...],
    images: Path | None,
    engines: tuple[str, ...],
    processes: int,
    draws: int,
    record: Path | None,
) -> None:
    """Measure what NAMES say (all by default): how the code location loads, the demo's time, the models' accuracy."""
    console = Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "160")))
    chosen_engines = engines or (os.environ.get("DLASSETS_ENGINE", "local"),)
    chosen = names or NAMES
    report = Report(console, record)

    def show(name: str, work: Callable[[], Any]) -> None:
        with console.status(f"{name} …"):
            result = work()
        report.show(name, result)

    show("machine", Machine.here)
    if "loading" in chosen:
        show("loading", lambda: loading.measure(processes))
    with tempfile.TemporaryDirectory(prefix="dlassets-bench-") as folder:
        photos = images or _generated(Path(folder), needed=set(chosen) != {"loading"})
        if "demo" in chosen:
            for engine in chosen_engines:
                show(f"demo, {engine}", functools.partial(demo_time.measure, photos, engine, Path(folder)))
        if "accuracy" in chosen:
            show("accuracy", lambda: accuracy.measure(photos, chosen_engines[0], Path(folder), draws))


def _generated(folder: Path, *, needed: bool) -> Path:
    """Return a folder of generated photos, those of `dlassets demo`."""
    from dlassets.samples.generated import generate

    photos = folder / "images"
    if needed:
        generate(photos, classes=10, per_class=60)
    return photos


if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case ["ingest", *rest]:
                ingest.main(rest, prog_name="python -m benchmarks ingest")
            case ["training", *rest]:
                training.main(rest, prog_name="python -m benchmarks training")
            case ["serving", *rest]:
                serving.main(rest, prog_name="python -m benchmarks serving")
            case ["labeling", *rest]:
                labeling.main(rest, prog_name="python -m benchmarks labeling")
            case ["operate", *rest]:
                operate.main(rest, prog_name="python -m benchmarks operate")
            case ["asking", *rest]:
                asking.main(rest, prog_name="python -m benchmarks asking")
            case ["simulate", *rest]:
                simulate.main(rest, prog_name="python -m benchmarks simulate")
        main()
    except DlassetsError as error:
        sys.exit(f"error: {error}")
