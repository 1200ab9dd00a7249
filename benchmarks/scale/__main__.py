"""`python -m benchmarks.scale log|commits|keys|rows|runs|mlflow`: each part prints its figures, a line a size.

What is measured runs in a process of its own, so that its memory is its own; tables, logs and events are made up.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.scale import parts

PARTS: dict[str, tuple[Callable[[Path, int], Any], Callable[[Any], dict[str, Any]], Sequence[int]]] = {
    "log": (parts.log_of_files, parts.opened, (1_000, 10_000, 100_000)),
    "commits": (parts.log_of_commits, parts.opened, (10, 100, 1_000)),
    "keys": (parts.tables_of_keys, parts.compared, (100_000, 1_000_000, 4_000_000)),
    "rows": (parts.nothing, parts.bytes_a_row, (0,)),
    "runs": (parts.instance_of_runs, parts.asked, (100, 1_000, 10_000)),
    "mlflow": (parts.store_of_runs, parts.found, (100, 1_000)),
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("part", type=click.Choice(tuple(PARTS)))
@click.option("--size", "sizes", type=int, multiple=True, help="In place of the part's own sizes; may be repeated.")
def main(part: str, sizes: Sequence[int]) -> None:
    """Measure PART. `rows` looks at the lake of DLASSETS_ROOT, and takes no size."""
    make, measure, usual = PARTS[part]
    for size in sizes or usual:
        with tempfile.TemporaryDirectory(prefix="dlassets-scale-") as folder:
            made = make(Path(folder), size)
            figures = parts.alone(measure, made)
        click.echo("  ".join([f"{part} {size:,}", *(f"{name} {value}" for name, value in figures.items())]))


if __name__ == "__main__":
    main()
