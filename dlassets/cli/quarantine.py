"""`dlassets quarantine`: the files that were refused, and what a person makes of them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from dlassets.cli.group import bars, console, in_one_line, settings_and_lake
from dlassets.errors import DlassetsError
from dlassets.images.validate import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlassets.engines.base import Engine
    from dlassets.intake.quarantine import Refused
    from dlassets.settings import Settings
    from dlassets.storage.lake import Lake

_REASON = click.option("--reason", type=click.Choice([str(reason) for reason in Reason]), help="Of this reason alone.")
_ZONE = click.option("--zone", metavar="NAME", help="Of this landing zone alone.")


@click.group()
def quarantine() -> None:
    """The files that are no usable image, or that a step failed for: list them, look at them again, or drop them.

    A PATTERN is a path (zone/folder/name.jpg) or a glob of paths in quotes, such as 'labeled/*.tif'; * also stands for
    slashes.
    """


@quarantine.command("list")
@click.argument("pattern", required=False)
@_REASON
@_ZONE
@click.option("--all", "everything", is_flag=True, help="Also what was dropped, has gone, or was replaced since.")
@click.option("--json", "as_json", is_flag=True, help="A JSON list, for programs.")
def list_(pattern: str | None, reason: str | None, zone: str | None, *, everything: bool, as_json: bool) -> None:
    """Show what is quarantined, newest first, and how many files for each reason."""
    from dlassets.engines.local import LocalEngine
    from dlassets.intake.quarantine import refused_files

    # The embedded engine whichever writes the tables: a look should not start a JVM.
    settings, lake = settings_and_lake()
    files = refused_files(LocalEngine(), lake, pattern, reason=reason, zone=zone, everything=everything)
    if not files:
        _refuse_unknown(settings, zone)
    if as_json:
        click.echo(json.dumps([_plain(file) for file in files], indent=2))
    else:
        _show(files, everything=everything)


@quarantine.command()
@click.argument("pattern", required=False)
@_REASON
@_ZONE
def retry(pattern: str | None, reason: str | None, zone: str | None) -> None:
    """Look at the files again: after a limit was raised, say, or a permission given. All of them without PATTERN."""
    from dlassets.intake import quarantine as files_of

    settings, lake, engine = opened = _opened()
    files = _chosen(opened, pattern, reason, zone)
    with bars() as report:
        progress = report.progress("files read")
        done = files_of.retry(engine, lake, settings, files, {"command": "quarantine retry"}, progress)
    click.echo(f"{_files(len(files))} looked at again: {done.taken_in} taken in, {done.refused} refused anew.")
    if done.left_to_steps:
        click.echo(f"{_files(done.left_to_steps)} that a step failed for: it tries again when it next runs.")
    if done.missing:
        click.echo(f"{_files(done.missing)} no longer there, or left out by the zone's pattern.")
    if done.refused:
        click.echo("`dlassets quarantine list` says why.")


@quarantine.command()
@click.argument("pattern")
@_REASON
@_ZONE
@click.option("--delete-files", is_flag=True, help="Also delete the files from the landing zone.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(pattern: str, reason: str | None, zone: str | None, *, delete_files: bool, yes: bool) -> None:
    """Note that the files are not wanted: checks no longer warn of them, until other bytes come under their paths."""
    from dlassets.intake import quarantine as files_of

    settings, lake, engine = opened = _opened()
    files = _chosen(opened, pattern, reason, zone)
    if not yes:
        what = f"Delete {_files(len(files))} from the landing zone" if delete_files else f"Drop {_files(len(files))}"
        click.confirm(f"{what} ({_counts(files)})?", abort=True)
    done = files_of.drop(engine, lake, settings, files, {"command": "quarantine drop"}, delete_files=delete_files)
    click.echo(f"{_files(done.dropped)} dropped" + (f", {done.deleted} deleted." if delete_files else "."))
    for path, why in done.kept.items():
        click.secho(f"left as it is: {in_one_line(path)}: {why}", fg="red", err=True)
    if done.kept:
        sys.exit(1)


def _opened() -> tuple[Settings, Lake, Engine]:
    from dlassets.pipeline.session import Session

    settings, lake = settings_and_lake()
    return settings, lake, Session(settings).engine


def _chosen(
    opened: tuple[Settings, Lake, Engine], pattern: str | None, reason: str | None, zone: str | None
) -> list[Refused]:
    from dlassets.intake.quarantine import refused_files

    settings, lake, engine = opened
    if files := refused_files(engine, lake, pattern, reason=reason, zone=zone):
        return files
    _refuse_unknown(settings, zone)
    if not refused_files(engine, lake):
        raise DlassetsError("Nothing is quarantined.")
    raise DlassetsError("Nothing that is quarantined matches. `dlassets quarantine list` shows what there is.")


def _refuse_unknown(settings: Settings, zone: str | None) -> None:
    """Raise SettingsError for a zone that no file is of and that is not declared: that is a slip of the hand."""
    from dlassets.pipeline.zones import zones_of

    zones_of(settings, [zone] if zone else [])


def _show(files: Sequence[Refused], *, everything: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    if not files:
        out.print("Nothing is quarantined, or nothing that matches.")
        return
    table = Table("path", "reason", "detail", "size", "since", *(["state"] if everything else []))
    for column in (table.columns[0], table.columns[2]):
        column.overflow = "fold"
    table.columns[3].justify = "right"
    for file in files:
        reason = f"{file.reason} ({file.stage})" if file.stage else file.reason
        cells = [file.path, reason, file.detail or "", f"{file.length:,}", str(file.load_date)]
        # As text, since a name may look like markup; in one line, since it may hold a line break.
        table.add_row(*(Text(in_one_line(cell)) for cell in [*cells, *([file.state] if everything else [])]))
    out.print(table)
    out.print(f"{_files(len(files))}: {_counts(files)}", highlight=False)


def _counts(files: Sequence[Refused]) -> str:
    from dlassets.intake.quarantine import by_reason

    return ", ".join(f"{count:,} {reason}" for reason, count in by_reason(files).items())


def _files(number: int) -> str:
    return f"{number:,} {'file' if number == 1 else 'files'}"


def _plain(file: Refused) -> dict[str, object]:
    return {
        name: value if value is None or isinstance(value, (str, int)) else value.isoformat()
        for name, value in asdict(file).items()
    }
