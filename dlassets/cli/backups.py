"""`dlassets backup`: everything of a lake, copied elsewhere while it goes on; and the whole lake back from there."""

from __future__ import annotations

import click

from dlassets.cli.group import bars, settings_and_lake


@click.command()
@click.argument("target")
@click.option("--verify", is_flag=True, help="Read the newest backup there as a whole, and make none.")
@click.option("--keep", type=click.IntRange(min=1), help="Delete all but so many of the newest then; none without it.")
def backup(target: str, *, verify: bool, keep: int | None) -> None:
    """Back the lake up to TARGET, a folder or s3:// URI: tables, files, MLflow's store and Dagster's, while all runs.

    Only what is new since the backups before is copied. A backup that was killed is none; run it again. The way back:
    `dlassets restore --from TARGET`.
    """
    from dlassets.resources import backup as made_by
    from dlassets.storage.backups import Backups

    if verify and keep is not None:
        raise click.UsageError("--verify makes no backup and deletes none: leave --keep out.")
    if verify:
        with bars() as report:
            manifest = made_by.verify(target, report.count)
        click.echo(f"{manifest.name} is whole: {len(manifest.files):,} files, {_size(manifest.bytes)}.")
        return
    settings, lake = settings_and_lake()
    with bars() as report:
        done = made_by.back_up(settings, lake, target, report.count)
    manifest = done.manifest
    holds = f"{len(manifest.tables)} tables, {len(manifest.files):,} files, {_size(manifest.bytes)}"
    click.echo(f"{manifest.name}: {holds}, of which {_size(done.copied)} were copied.")
    for left_out in manifest.left_out:
        click.secho(f"Not in it: {left_out}.", fg="yellow", err=True)
    if keep is not None:
        deleted, freed = Backups(target).thin(keep)
        click.echo(f"{len(deleted)} older backups were deleted, and {_size(freed)} that no other holds.")


def restore_lake(source: str) -> None:
    """Restore the newest backup of a place, or one by its manifest, into the root of the settings, which is empty."""
    from dlassets.resources.backup import restore_backup

    settings, lake = settings_and_lake(is_there=False)
    with bars() as report:
        manifest = restore_backup(settings, lake, source, report.count)
    holds = f"{len(manifest.tables)} tables, {_size(manifest.bytes)}"
    click.echo(f"{lake.root} is as it was at {manifest.made_at[:19]} UTC: {holds}.")
    click.echo("`dlassets doctor` looks at it; then start again what runs on it.")


def _size(count: float) -> str:
    return f"{count / 1e6:,.1f} MB"
