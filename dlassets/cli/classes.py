"""`dlassets classes`: the numbers and names that labels mean."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING

import click

from dlassets.cli.group import settings_and_lake, show

if TYPE_CHECKING:
    from dlassets.lakehouse.classes import Class


@click.group(invoke_without_command=True)
@click.pass_context
def classes(context: click.Context) -> None:
    """Show every class: its number, its names, since when it has them, and who said so.

    Folders of labelled zones name classes by themselves: `012.cat` is class 12, and `cat` has the next free number.
    """
    if context.invoked_subcommand is None:
        settings_and_lake()
        rows = [
            (str(each.label), each.name, ", ".join(each.aliases), f"{each.since:%Y-%m-%d %H:%M}", each.said_by)
            for each in _classes().values()
        ]
        show(("label", "name", "before", "since", "said by"), rows)


@classes.command()
@click.argument("name")
@click.option("--label", type=int, metavar="N", help="Its number; the next free one by default.")
def add(name: str, label: int | None) -> None:
    """Add the class NAME, before there is a photo of it."""
    if label is not None and label in _classes():
        raise click.UsageError(f"{label} is a class already: `dlassets classes rename` gives it another name.")
    _name(name, label)


@classes.command()
@click.argument("label", type=int)
@click.argument("name")
def rename(label: int, name: str) -> None:
    """Give the class of number LABEL another NAME. Folders that have the old one still mean it."""
    if label not in _classes():
        raise click.UsageError(f"{label} is no class: `dlassets classes` shows them.")
    _name(name, label)


def _classes() -> dict[int, Class]:
    from dlassets.engines.local import LocalEngine
    from dlassets.lakehouse.classes import classes_of
    from dlassets.lakehouse.snapshots import pin
    from dlassets.lakehouse.tables import CLASSES

    _, lake = settings_and_lake(is_there=False)
    return classes_of(LocalEngine(), pin(lake, CLASSES.name))


def _name(name: str, label: int | None) -> None:
    from dlassets.engines.local import LocalEngine
    from dlassets.lakehouse.classes import name_class
    from dlassets.lakehouse.snapshots import pin, replanned
    from dlassets.lakehouse.tables import CLASSES

    settings, lake = settings_and_lake(is_there=False)  # a class may be there before anything else is
    said_by, ignore_case = getpass.getuser(), settings.labels.ignore_case

    def write() -> Class:
        return name_class(LocalEngine(), pin(lake, CLASSES.name), name, said_by, label, ignore_case=ignore_case)

    named = replanned(write)
    click.echo(f"Class {named.label} is {named.name}. Photos have it once labeled_images is materialized.")
