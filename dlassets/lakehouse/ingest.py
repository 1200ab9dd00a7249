"""Take photos in: landing zones → micro-batches → `raw_images`, and `quarantined_files` for what is no usable image.

Both engines hand their batches to the same `_ingest_batch`. A batch is exactly once: what the two tables already hold
is left out, and the commit carries a transaction that refuses all but one of two writers that planned on the same
snapshot.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Commit, Engine, Rows, Snapshot, Transaction
from dlassets.engines.files import FILE_KEY, list_files
from dlassets.errors import DlassetsError
from dlassets.images.folders import folder_of
from dlassets.images.validate import validate_files
from dlassets.lakehouse.lake import Lake
from dlassets.lakehouse.snapshots import pin, replanned, transaction_version
from dlassets.lakehouse.tables import QUARANTINED_FILES, RAW_IMAGES, Column
from dlassets.settings import IngestSettings, LandingZone, Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from dlassets.engines.base import Report

TRANSACTION = "dlassets/ingest"

_CHECKED = (
    *RAW_IMAGES.columns,
    Column("reason", "string", "Why the file is no usable image; null where it is one."),
    Column("detail", "string", "What exactly was found."),
)


@dataclass
class Ingested:
    """What an ingest did."""

    images: int = 0
    replaced: int = 0
    quarantined: int = 0
    batches: int = 0
    zones: dict[str, int] = field(default_factory=dict)


def ingest(
    engine: Engine,
    lake: Lake,
    settings: Settings,
    provenance: Mapping[str, Any],
    progress: Report | None = None,
) -> Ingested:
    """Take in every new or changed file of every landing zone.

    Raises DlassetsError where a zone cannot be listed: the others are taken in first.
    """
    done = Ingested()
    problems = []
    files_read = 0

    def advance(files: int) -> None:
        nonlocal files_read
        files_read += files
        if progress is not None:
            progress(files_read, None)

    for name, zone in settings.landing.items():
        before = done.images + done.replaced
        try:
            engine.arrivals(
                name,
                zone,
                lake.zone(zone.uri),
                lake.checkpoint(f"ingest-{name}"),
                lambda: known_files(engine, pin(lake, "raw_images"), pin(lake, "quarantined_files")),
                functools.partial(_ingest_batch, engine, lake, name, zone, settings.ingest, provenance, done),
                (settings.ingest.files_per_batch, settings.ingest.bytes_per_batch),
                advance,
            )
        except DlassetsError as error:  # raised again below, once the other zones are in
            problems.append(error)
        done.zones[name] = done.images + done.replaced - before
    if problems:
        raise problems[0]
    return done


def known_files(engine: Engine, raw: Snapshot, quarantined: Snapshot) -> Rows:
    """Return path, modificationTime and length of every file that was taken in or refused."""
    return engine.sql(
        "SELECT path, modificationTime, length FROM raw_images "
        "UNION ALL SELECT path, modificationTime, length FROM quarantined_files",
        {"raw_images": raw, "quarantined_files": quarantined},
    )


def _ingest_batch(
    engine: Engine,
    lake: Lake,
    name: str,
    zone: LandingZone,
    settings: IngestSettings,
    provenance: Mapping[str, Any],
    done: Ingested,
    files: Rows,
) -> None:
    """Check a batch of files and write it down; planned again where another run committed first."""

    def plan_and_write() -> None:
        raw, quarantined = pin(lake, "raw_images"), pin(lake, "quarantined_files")
        number = transaction_version(raw, TRANSACTION) + 1
        kernel = functools.partial(
            _check_files,
            landing=name,
            batch_id=f"{name}-{number:06d}",
            load_date=dt.datetime.now(dt.UTC).date(),
            label_rule=zone.label_rule if zone.labelled else None,
            max_file_bytes=settings.max_file_bytes,
            max_pixels=settings.max_pixels,
        )
        fresh = files.without(known_files(engine, raw, quarantined), FILE_KEY)
        good, bad = fresh.map(kernel, _CHECKED).split_by_null("reason")
        _write_images(engine, raw, good, Commit(provenance, Transaction(TRANSACTION, number)), done)
        refusal = Transaction(TRANSACTION, transaction_version(quarantined, TRANSACTION) + 1)
        done.quarantined += engine.append(bad, QUARANTINED_FILES, quarantined.uri, Commit(provenance, refusal)).inserted

    replanned(plan_and_write)


def _write_images(engine: Engine, raw: Snapshot, good: Rows, commit: Commit, done: Ingested) -> None:
    """Append new files; a batch with changed ones takes the place of their old rows, in one commit either way."""
    paths = good.select(["path"])
    changed = (
        engine.sql(
            "SELECT COUNT(*) AS changed FROM raw_images JOIN batch ON raw_images.path = batch.path",
            {"raw_images": raw, "batch": paths},
        )
        .arrow()["changed"][0]
        .as_py()
    )
    if changed:
        batch = paths.arrow()["path"].to_pylist()
        written = engine.replace(good, RAW_IMAGES, raw.uri, commit, where={"path": batch})
    else:
        written = engine.append(good, RAW_IMAGES, raw.uri, commit)
    done.images += written.inserted - changed
    done.replaced += changed
    done.batches += 1


def _check_files(
    batch: pa.RecordBatch,
    *,
    landing: str,
    batch_id: str,
    load_date: dt.date,
    label_rule: str | None,
    max_file_bytes: int,
    max_pixels: int,
) -> pa.RecordBatch:
    """Kernel: files validated and hashed, with where and when they came in."""
    import pyarrow as pa

    checked = validate_files(batch, label_rule=label_rule, max_file_bytes=max_file_bytes, max_pixels=max_pixels)
    columns = {name: checked[name] for name in checked.schema.names}
    folders = [folder_of(path) for path in checked["path"].to_pylist()]
    columns |= {
        "folder": pa.array(folders, pa.string()),
        "landing": pa.repeat(pa.scalar(landing), batch.num_rows),
        "load_date": pa.repeat(pa.scalar(load_date, pa.date32()), batch.num_rows),
        "batch_id": pa.repeat(pa.scalar(batch_id), batch.num_rows),
    }
    return pa.RecordBatch.from_pydict({column.name: columns[column.name] for column in _CHECKED})


@dataclass(frozen=True)
class Waiting:
    """The files of a landing zone that no run has taken in yet. `digest` names exactly these files."""

    uri: str
    files: int
    digest: str


def waiting_files(lake: Lake, name: str, zone: LandingZone) -> Waiting:
    """Return what waits in a zone: a listing against the tables, without a JVM on either engine.

    Raises DlassetsError where the zone is not there or cannot be listed.
    """
    from dlassets.engines.local import LocalEngine

    uri = lake.zone(zone.uri)
    engine = LocalEngine()
    known = known_files(engine, pin(lake, "raw_images"), pin(lake, "quarantined_files"))
    listing = engine.rows(list_files(name, zone, uri)).without(known, FILE_KEY).arrow().sort_by("path")
    digest = hashlib.sha256(repr(listing.to_pydict()).encode()).hexdigest()[:16]
    return Waiting(uri, listing.num_rows, digest)
