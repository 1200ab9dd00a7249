"""`dlassets upgrade`: a lake that an earlier release made, brought to this one's; first on a copy, to see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from dlassets import __version__
from dlassets.cli.group import bars, settings_and_lake, show
from dlassets.errors import DlassetsError

if TYPE_CHECKING:
    from dlassets.resources.upgrade import Change


@click.command()
@click.argument("target", required=False)
@click.option("--rehearse", is_flag=True, help="On a copy, which is deleted then; the lake stays as it is.")
def upgrade(target: str | None, *, rehearse: bool) -> None:
    """Bring a lake of an earlier release to this one: tables, MLflow's store and Dagster's databases.

    First the lake is backed up to TARGET, a folder or s3:// URI, as `dlassets backup` does. Stop what uses the lake.
    One that was killed goes on where it is run again. With --rehearse all is done on a copy, and that is looked at.
    """
    from dlassets.resources import upgrade as made_by

    settings, lake = settings_and_lake()
    stores = made_by.Stores.of(settings, lake)
    for left in made_by.not_upgraded(stores):
        click.secho(f"Not upgraded here: {left}.", fg="yellow", err=True)
    if rehearse:
        _rehearse()
        return
    if target is None:
        if not made_by.changes(stores):
            click.echo(_nothing(lake.root))
            return
        raise click.UsageError("Name a place for the backup that is made first, or --rehearse.")
    with bars() as report:
        done = made_by.upgrade_lake(settings, lake, target, report.count)
    if done is None:
        click.echo(_nothing(lake.root))
        return
    _show(done.changes)
    click.echo(f"{lake.root} is of this release, {__version__}. `dlassets doctor` looks at it; then start all again.")
    click.echo(
        "The way back, with the release of before, into an empty root (and empty databases of PostgreSQL): dlassets "
        f"restore --from {done.place.rstrip('/')}/backups/{done.backup}"
    )


def _rehearse() -> None:
    from dlassets.resources.rehearsal import rehearse

    settings, lake = settings_and_lake()
    with bars() as report:
        done = rehearse(settings, lake, report.count)
    if done.changes:
        _show(done.changes)
    else:
        click.echo(_nothing(lake.root))
    for what, seconds in done.seconds.items():
        click.echo(f"{what}: {seconds:.1f} s")
    for finding in done.findings:
        click.secho(finding, fg="red", err=True)
    if done.findings:
        raise DlassetsError(
            f"The copy is not well after it, in {len(done.findings)} things. The lake itself was not touched: put "
            "these right there, where they are of before the upgrade too, and rehearse again."
        )
    click.echo(f"The copy was well: {done.looked_at}.")


def _nothing(root: str) -> str:
    return f"{root} is of this release, {__version__}: nothing to upgrade."


def _show(changes: Sequence[Change]) -> None:
    show(("what", "now", "then"), [(each.what, each.now, each.then) for each in changes])
