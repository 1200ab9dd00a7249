"""`dlassets demo`, `samples` and `dev`: the whole loop at once, photos to try it on, and the user interfaces."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlassets.cli.group import bars, console, ended_by_sigterm
from dlassets.settings import Settings, load_settings
from dlassets.storage.lake import Lake, local_path

if TYPE_CHECKING:
    from rich.console import Console


@click.command()
@click.option("--images", metavar="SOURCE", help="Photos in class folders: a folder, zip, tar or URL.")
@click.option(
    "--classes",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Classes to generate where no --images are given.",
)
@click.option(
    "--per-class", type=click.IntRange(min=1), default=60, show_default=True, help="Photos a class to generate."
)
def demo(images: str | None, classes: int, per_class: int) -> None:
    """Run the whole loop on photos: ingest, train, score, ask people, learn from their answers."""
    from dlassets.pipeline.session import Session

    settings = load_settings()
    _ = Session(settings).engine  # what it lacks is an error now, and not when there are photos
    from dlassets.demo.loop import run_demo

    with ended_by_sigterm():
        run_demo(settings, _images(images, settings.root, classes, per_class), console())
    _print_how_to_look(console(), settings)


@click.command()
@click.argument("source", default="generated")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--classes", type=click.IntRange(min=1), default=10, show_default=True, help="Classes to generate.")
@click.option(
    "--per-class", type=click.IntRange(min=1), default=60, show_default=True, help="Photos a class to generate."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed makes the same photos."
)
@click.option("--checksum", metavar="ALGO:HEX", help="Of a URL's archive, such as sha256:…; a mismatch is refused.")
def samples(source: str, folder: Path, classes: int, per_class: int, seed: int, checksum: str | None) -> None:
    """Put a set of sample photos into FOLDER, as NNN.class/ folders.

    SOURCE is `generated`, the name of a public set, a URL, or a folder, zip or tar.
    """
    from dlassets.samples.sets import samples as make

    with bars() as report:
        taken = make(
            source, folder, classes=classes, per_class=per_class, seed=seed, checksum=checksum, progress=report.count
        )
    click.echo(f"{taken.understood}\n{taken.photos:,} photos in {folder}")


@click.command()
@click.option("--pages-port", type=click.IntRange(1, 65_535), default=4000, show_default=True)
@click.option("--dagster-port", type=click.IntRange(1, 65_535), default=3000, show_default=True)
@click.option("--mlflow-port", type=click.IntRange(1, 65_535), default=5000, show_default=True)
def dev(pages_port: int, dagster_port: int, mlflow_port: int) -> None:
    """Start the lake's pages and Dagster's and MLflow's UI, on this machine alone; Ctrl-C stops all three."""
    from dlassets.cli.servers import Ports, serve

    sys.exit(serve(load_settings(), Ports(pages_port, dagster_port, mlflow_port)))


def _images(source: str | None, root: str, classes: int, per_class: int) -> Path:
    """Return a folder of class folders: the user's own as it stands, or one made under the lake's root."""
    from dlassets.demo.photos import has_class_folders
    from dlassets.samples.sets import samples as make

    if source is not None and Path(source).is_dir() and has_class_folders(Path(source)):
        return Path(source)
    folder = local_path(Lake.at(root).under("demo", "images" if source is None else "given"))
    with bars() as report:
        taken = make(source or "generated", folder, classes=classes, per_class=per_class, progress=report.count)
    if source is not None:
        console().print(f"{source}: {taken.understood}", highlight=False, soft_wrap=True)
    return folder


def _print_how_to_look(out: Console, settings: Settings) -> None:
    lake = Lake.at(settings.root)
    program = Path(sys.executable).parent / "dlassets"
    lines = (
        "",
        "Look at this lake, its models, photos and mistakes, and at the runs in Dagster's and MLflow's UIs:",
        f"  DLASSETS_ROOT={shlex.quote(lake.root)} {program} dev",
    )
    for line in lines:
        out.print(line, highlight=False, soft_wrap=True)
