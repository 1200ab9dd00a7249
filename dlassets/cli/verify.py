"""`dlassets verify`: whether the photos' bytes are still those that were taken in, and the way back where not."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from dlassets.cli.group import bars, settings_and_lake
from dlassets.engines.base import counting

if TYPE_CHECKING:
    from dlassets.intake.damage import Holder
    from dlassets.pipeline.session import Session

_SHOWN = 20


@click.command()
@click.option("--restore", is_flag=True, help="Put damaged photos back from their landing zone or an older version.")
def verify(*, restore: bool) -> None:
    """Compare every photo's bytes with its image_id, the digest of what was taken in.

    So are those that a training set of pixels holds. Exit code 1 where a photo is damaged, and not put back.
    """
    from dlassets.intake.damage import HOLDERS
    from dlassets.pipeline.session import Session

    # The embedded engine whichever writes the tables: of a damaged file that Spark wrote on this machine, Spark, which
    # has a checksum beside it, reads nothing at all.
    settings, _ = settings_and_lake()
    session = Session(settings.model_copy(update={"engine": "local"}))
    lost = [path for holder in HOLDERS for path in _lost(session, holder, restore=restore)]
    if lost:
        remedy = (
            "They are nowhere as they were: put the files into their landing zones again, or restore the table from a "
            "copy of it."
            if restore
            else "`dlassets verify --restore` puts back what the landing zones or older versions still have."
        )
        click.secho(remedy, err=True)
        sys.exit(1)


def _lost(session: Session, holder: Holder, *, restore: bool) -> list[str]:
    """Compare, and put back where that is asked for; say and return what is damaged still."""
    from dlassets.lakehouse.tables import RAW_IMAGES

    photos = session.photos(session.pin(RAW_IMAGES))
    paths = holder.paths(photos)
    with bars() as report:
        lost = holder.damaged(photos, paths, counting(report.progress(f"{holder.name} compared"), len(paths)))
    click.echo(f"{len(paths):,} {holder.name} compared, {len(lost):,} damaged.")
    if lost and restore:
        done = holder.put_back(photos, session.settings, lost, {"command": "verify --restore"})
        click.echo(f"{len(done.restored):,} put back.")
        lost = done.lost
    for path in lost[:_SHOWN]:
        click.secho(f"damaged: {path}", fg="red", err=True)
    return lost
