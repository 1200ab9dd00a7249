"""`dlassets demo`, `samples` and `dev`: the whole loop at once, photos to try it on, and the user interfaces."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlassets.cli.group import PathHere, bars, console, ended_by_sigterm
from dlassets.settings import Settings, load_settings
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    from dlassets.samples.unpack import Taken


@click.command()
@click.option(
    "--images", metavar="SOURCE", type=os.path.expanduser, help="Photos in class folders: a folder, zip, tar or URL."
)
@click.option(
    "--classes",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Classes to generate where no --images are given.",
)
@click.option(
    "--per-class", type=click.IntRange(min=1), default=80, show_default=True, help="Photos a class to generate."
)
def demo(images: str | None, classes: int, per_class: int) -> None:
    """Run the whole loop on photos: ingest, train, score, ask people, learn from their answers."""
    from dlassets.demo.own_lake import taken_by, with_own_lake
    from dlassets.demo.photos import HELD_BACK, held_back_of_generated
    from dlassets.pipeline.session import Session
    from dlassets.samples.sets import GENERATED, refuse_unknown

    source = images or GENERATED
    refuse_unknown(source)
    settings = with_own_lake(load_settings(), source)
    _ = Session(settings).engine  # what it lacks is an error now, and not when there are photos
    from dlassets.demo.loop import run_demo

    with ended_by_sigterm():
        with taken_by(settings, source):
            folder, taken = _images(source, settings, classes, per_class)
        _say(
            f"{source}: {taken.understood}", *taken.not_taken_in, f"They go into the lake {Lake.at(settings.root).root}"
        )
        held_back = held_back_of_generated(per_class) if source == GENERATED else HELD_BACK
        run_demo(settings, folder, console(), not_taken_in=taken.not_taken_in, held_back=held_back)
    _print_how_to_look(settings)


@click.command()
@click.argument("source", default="generated", type=os.path.expanduser)
@click.argument("folder", type=PathHere(path_type=Path, file_okay=False))
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
    from dlassets.samples.one_set import files_in, filled_from
    from dlassets.samples.sets import refuse_unknown, set_of
    from dlassets.samples.sets import samples as make

    refuse_unknown(source, checksum)
    set_, record = set_of(source, seed), str(folder / ".dlassets-set")
    with filled_from(set_, folder, record, lambda: any(files_in(folder)), "Choose an empty folder."), bars() as report:
        taken = make(
            source, folder, classes=classes, per_class=per_class, seed=seed, checksum=checksum, progress=report.count
        )
    _say(taken.understood, *taken.not_taken_in, f"{taken.photos:,} photos in {folder}")


@click.command()
@click.option("--pages-port", type=click.IntRange(1, 65_535), default=4000, show_default=True)
@click.option("--dagster-port", type=click.IntRange(1, 65_535), default=3000, show_default=True)
@click.option("--mlflow-port", type=click.IntRange(1, 65_535), default=5000, show_default=True)
@click.option("--tensorboard", is_flag=True, help="TensorBoard as well, which shows the curves of trainings.")
@click.option("--tensorboard-port", type=click.IntRange(1, 65_535), default=6006, show_default=True)
def dev(pages_port: int, dagster_port: int, mlflow_port: int, tensorboard: bool, tensorboard_port: int) -> None:
    """Start the lake's pages and Dagster's and MLflow's UI, on this machine alone; Ctrl-C stops all of them."""
    from dlassets.cli.servers import Ports, serve
    from dlassets.extras import TENSORBOARD, require

    settings, ports = load_settings(), Ports(pages_port, dagster_port, mlflow_port, tensorboard_port)
    if tensorboard:
        require(TENSORBOARD, "dlassets dev --tensorboard")
    sys.exit(serve(settings, ports, tensorboard=tensorboard))


def _images(source: str, settings: Settings, classes: int, per_class: int) -> tuple[Path, Taken]:
    """Return a folder of class folders, the user's own or one made for the demo, and what it has."""
    from dlassets.demo.own_lake import GIVEN, IMAGES, demo_images
    from dlassets.demo.photos import as_it_stands, has_class_folders
    from dlassets.samples.sets import GENERATED
    from dlassets.samples.sets import samples as make

    if Path(source).is_dir() and has_class_folders(Path(source)):
        return Path(source), as_it_stands(Path(source), settings.ingest.formats)
    folder = demo_images(Lake.at(settings.root), IMAGES if source == GENERATED else GIVEN)
    with bars() as report:
        return folder, make(source, folder, classes=classes, per_class=per_class, progress=report.count)


def _say(*lines: str) -> None:
    for line in lines:
        console().print(line, highlight=False, markup=False, soft_wrap=True)


def _print_how_to_look(settings: Settings) -> None:
    from dlassets.demo.own_lake import program

    _say("", "Look at this lake, its models, photos and mistakes, and at the runs in Dagster's and MLflow's UIs:")
    _say(f"  DLASSETS_ROOT={shlex.quote(Lake.at(settings.root).root)} {program()} dev")
