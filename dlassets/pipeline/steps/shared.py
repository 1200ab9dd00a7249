"""What steps of several stages take: tables that a kernel makes of images, and what is said of what went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Written
from dlassets.engines.schema import Table
from dlassets.errors import some_of
from dlassets.lakehouse.tables import DELETED_FILES, LABELED_IMAGES, QUARANTINED_FILES, RAW_IMAGES
from dlassets.pipeline.report import Report
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Made, Reads

if TYPE_CHECKING:
    from dlassets.engines.base import Snapshot
    from dlassets.lakehouse.derived import Derivation


# Of warnings that are alike.
MOST_SAID = 5


def images_of(read: Reads) -> dict[str, Snapshot]:
    """Return the tables that images are chosen from."""
    tables = (RAW_IMAGES, DELETED_FILES, QUARANTINED_FILES, LABELED_IMAGES)
    return read.named(*(table for table in tables if table in read))


def derived(
    session: Session, read: Reads, derivation: Derivation, report: Report, what: str, **parameters: Any
) -> Made:
    """Fill a table that a kernel makes of images; warn, by name, of those that it could not be made of."""
    from dlassets.lakehouse.derived import derive, images_without

    table, inputs, photos = derivation.table, images_of(read), session.photos(read[RAW_IMAGES])
    provenance = read.provenance(**parameters)
    written = derive(photos, session.lake, derivation, inputs, provenance.as_dict(), report.progress(what))
    tell_of_failed(written, table, report)
    if written.left_out:
        now = {**inputs, QUARANTINED_FILES.name: session.pin(QUARANTINED_FILES)}
        paths = images_without(session.engine, read.own(table), derivation, now)["path"].to_pylist()
        report.warning(
            f"{table.name} has no row of {written.left_out} photos, whose bytes are gone, damaged or cannot be read "
            f"now: {some_of(paths, MOST_SAID)}. All others are in. Replace these files, or delete them; `dlassets "
            "verify` tells which are damaged."
        )
    return Made(provenance, {table.name: written}, parameters)


def tell_of_failed(written: Written, table: Table, report: Report) -> None:
    if written.failed:
        report.warning(
            f"{table.name} could not be made of {len(written.failed)} photos: {some_of(written.failed, MOST_SAID)}. "
            "They are quarantined, and all others are in. `dlassets quarantine list --reason failed` says why."
        )
