"""`dlassets labels`: requests to other labelling services' files, and their answers back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlassets.cli.group import PathHere, in_one_line, settings_and_lake
from dlassets.errors import DlassetsError
from dlassets.storage.files import is_there

if TYPE_CHECKING:
    from dlassets.labeling.exchange.base import FileFormat
    from dlassets.labeling.exchange.importing import Imported


class _Format(click.ParamType["FileFormat"]):
    """The name of a format of other services' files."""

    name = "format"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> FileFormat:
        from dlassets.labeling.exchange.registry import FORMATS

        if value not in FORMATS:
            self.fail(f"{value!r} is none of {', '.join(FORMATS)}.", param, context)
        return FORMATS[value]


@click.group()
def labels() -> None:
    """Files of other labelling services: ask with them, and take in what was answered there.

    A format is one of azureml, groundtruth, labelstudio-file, cvat, coco and csv.
    """


@labels.command()
@click.option("--format", "file_format", type=_Format(), required=True, metavar="NAME", help="Whose files to write.")
@click.option("--batch", "batches", multiple=True, metavar="NAME", help="Of this batch alone; may be said repeatedly.")
@click.option("--photos", is_flag=True, help="Copy the photos beside the files, each called as its request.")
@click.option("--at", metavar="PREFIX", help="What stands before a photo's name there, such as s3://bucket/folder/.")
@click.argument("folder", type=PathHere(path_type=Path))
def export(file_format: FileFormat, batches: Sequence[str], folder: Path, at: str | None, *, photos: bool) -> None:
    """Write the open requests into FOLDER, which is new or empty, as files of another labelling service."""
    from dlassets.engines.local import LocalEngine
    from dlassets.labeling.exchange.exporting import Export
    from dlassets.lakehouse.snapshots import pin

    settings, lake = settings_and_lake()
    names = ("raw_images", "deleted_files", "quarantined_files", "image_profiles", "classes", "label_requests")
    snapshots = {name: pin(lake, name) for name in names}
    done = Export(LocalEngine(), lake, settings, snapshots, file_format, batches, photos, at).to(folder)
    where = ", ".join(map(str, done.files))
    click.echo(f"{_number(done.requests, 'request')} written for {file_format.title}: {where}")
    if done.left_out:
        click.echo(f"{_number(done.left_out, 'request')} left out: their photos are not to be had just now.")


@labels.command("import")
@click.argument("files", nargs=-1, required=True, type=PathHere(path_type=Path))
@click.option("--format", "file_format", type=_Format(), metavar="NAME", help="What they are; known by itself else.")
@click.option("--annotator", metavar="NAME", help="Who answered, where a file does not say.")
@click.option("--dry-run", is_flag=True, help="Say what would be taken in, and write nothing.")
def import_(files: Sequence[Path], file_format: FileFormat | None, annotator: str | None, *, dry_run: bool) -> None:
    """Take in the answers of FILES that another labelling service wrote. The same file again changes nothing.

    They are read when labeling_pipeline runs. Exit code 1: something of them cannot be used, and is named.
    """
    from dlassets.engines.local import LocalEngine
    from dlassets.labeling.exchange.importing import Import
    from dlassets.labeling.exchange.resolving import Known
    from dlassets.lakehouse.classes import classes_of
    from dlassets.lakehouse.snapshots import pin

    _, lake = settings_and_lake()
    engine = LocalEngine()
    known = Known(engine, pin(lake, "label_requests"), pin(lake, "raw_images"))
    classes = classes_of(engine, pin(lake, "classes"))
    taking = Import(known, lake.answers, classes, file_format, annotator, dry_run)
    is_whole = True
    for path in files:
        try:
            imported = taking.file(path)
        except DlassetsError as error:
            click.secho(f"error: {error}", fg="red", err=True)
            is_whole = False
            continue
        _tell(imported, dry_run=dry_run)
        is_whole = is_whole and not imported.unusable
    if not is_whole:
        sys.exit(1)


def _tell(imported: Imported, *, dry_run: bool) -> None:
    counts = [_number(imported.answers, "answer")]
    if people := [name for name in imported.annotators if name]:
        counts[0] += f" by {', '.join(people)}" if len(people) < 4 else f" by {len(people)} people"  # noqa: PLR2004 - a line's worth
    told = {
        "skipped": imported.skipped,
        "not answered yet": imported.unanswered,
        "that cannot be used": imported.unusable,
    }
    counts += [f"{count:,} {what}" for what, count in told.items() if count]
    if imported.never_asked:
        counts.append(f"{imported.never_asked:,} about photos that nobody was asked about")
    click.echo(f"{imported.file}, {imported.format.title}: {', '.join(counts)}.")
    for example in imported.examples:
        click.secho(f"  {in_one_line(example)}", fg="red", err=True)
    if more := imported.unusable - len(imported.examples):
        click.secho(f"  and {more:,} more", fg="red", err=True)
    if any("unknown class" in example for example in imported.examples):
        click.secho("  `dlassets classes add` adds a class; its answers count then.", err=True)
    if dry_run:
        click.echo("Nothing was written (--dry-run).")
    elif imported.written:
        click.echo(f"They stand in {imported.target}, and count when labeling_pipeline has run.")
    elif is_there(imported.target):
        click.echo("This file was imported before: nothing has changed.")


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
