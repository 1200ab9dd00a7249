"""`dlassets classes`: the numbers and names that labels mean."""

from __future__ import annotations

import datetime as dt
import getpass
from collections.abc import Mapping
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
        _show()


@classes.command("list")
def list_() -> None:
    """Show every class, and what was merged into which."""
    _show()


def _show() -> None:
    settings_and_lake()
    rows = [
        (str(each.label), each.name, ", ".join(each.aliases), _time(each.since), each.said_by, _merged(each))
        for each in _classes().values()
    ]
    show(("label", "name", "before", "since", "said by", "merged"), rows)


def _merged(each: Class) -> str:
    if each.merged_at is None:
        return ""
    return f"into {each.merged_into} by {each.merged_by}, {_time(each.merged_at)}"


def _time(at: dt.datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"


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


@classes.command()
@click.argument("merged", metavar="FROM")
@click.argument("into", metavar="INTO")
def merge(merged: str, into: str) -> None:
    """Have the class FROM be the class INTO from now on: each by its number or its name.

    Folders, lists and answers that say FROM mean INTO then, those of before as well. Its number goes to no other class.
    """
    from dlassets.engines.local import LocalEngine
    from dlassets.lakehouse.classes import merge_classes
    from dlassets.lakehouse.snapshots import pin, replanned
    from dlassets.lakehouse.tables import CLASSES

    _, lake = settings_and_lake()
    known = _classes()
    label, target = (_label_of(text, known) for text in (merged, into))
    now = replanned(lambda: merge_classes(LocalEngine(), pin(lake, CLASSES.name), label, target, getpass.getuser()))
    click.echo(
        f"Class {label} ({known[label].name}) is class {now.label} ({now.name}) from now on. Labels follow once "
        "labeled_images is materialized; models that know both follow with the next training."
    )


def _label_of(text: str, known: Mapping[int, Class]) -> int:
    """Return the number of the class that is called so. Raises UsageError where there is none."""
    found = [each.label for each in known.values() if text in {str(each.label), *each.names}]
    if not found:
        raise click.UsageError(f"{text} is no class: `dlassets classes` shows them.")
    return found[0]


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
