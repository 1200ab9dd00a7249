"""`dlassets verify`: whether the photos' bytes are still those that were taken in, and the way back where not."""

from __future__ import annotations

import sys

import click

from dlassets.cli.group import bars, settings_and_lake
from dlassets.engines.base import counting

_SHOWN = 20


@click.command()
@click.option("--restore", is_flag=True, help="Put damaged photos back from their landing zone or an older version.")
def verify(*, restore: bool) -> None:
    """Compare every photo's bytes with its image_id, the digest of what was taken in.

    Exit code 1 where a photo is damaged, and not put back.
    """
    from dlassets.engines.local import LocalEngine
    from dlassets.intake.damage import all_paths, damaged, photos_of, put_back

    settings, lake = settings_and_lake()
    # The embedded engine whichever writes the tables: of a damaged file that Spark wrote on this machine, Spark, which
    # has a checksum beside it, reads nothing at all.
    photos = photos_of(LocalEngine(), lake)
    paths = all_paths(photos)
    with bars() as report:
        found = damaged(photos, paths, counting(report.progress("photos compared"), len(paths)))
    click.echo(f"{len(paths):,} photos compared, {len(found):,} damaged.")
    lost = found
    if found and restore:
        done = put_back(photos, settings, found, {"command": "verify --restore"})
        click.echo(f"{len(done.restored):,} put back.")
        lost = done.lost
    for path in lost[:_SHOWN]:
        click.secho(f"damaged: {path}", fg="red", err=True)
    if lost:
        remedy = (
            "They are nowhere as they were: put the files into their landing zones again, or restore the table from a "
            "copy of it."
            if restore
            else "`dlassets verify --restore` puts back what the landing zones or older versions still have."
        )
        click.secho(remedy, err=True)
        sys.exit(1)
