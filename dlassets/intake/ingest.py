"""Take photos in: landing zones → micro-batches → `raw_images`, and `quarantined_files` for what is no usable image.

What stands in the two tables decides what is new, so a run that was killed, repeated, or lost what it had noted takes
in what is missing and nothing twice. Each commit carries a transaction that refuses all but one of two writers that
planned on the same snapshot.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import REPLACED_AT_ONCE, Commit, Engine, Snapshot, Transaction, counting
from dlassets.engines.local import LocalEngine
from dlassets.engines.schema import Table, arrow_type
from dlassets.errors import ConflictError, DlassetsError
from dlassets.images.folders import folder_of
from dlassets.images.validate import validate_files
from dlassets.intake.events import Manifest
from dlassets.intake.listing import PartlyListedError, list_files, look_at
from dlassets.lakehouse.content import Keeper
from dlassets.lakehouse.snapshots import evolve, pin, replanned, transaction_version
from dlassets.lakehouse.tables import CAPTURE, DELETED_FILES, QUARANTINED_FILES, RAW_IMAGES, raw_images_with
from dlassets.settings import LandingZone, Settings
from dlassets.storage.files import micro_batches
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa

    from dlassets.engines.base import Advance, Progress

TRANSACTION = "dlassets/ingest"

# What only a file that is no usable image has a value for.
_FOUND = tuple(column for column in QUARANTINED_FILES.columns if column.name not in RAW_IMAGES.names)


@dataclass
class Ingested:
    """What an ingest did. `bad_events` are lines of event files that could not be read; `first_bad` says of one why."""

    images: int = 0
    replaced: int = 0
    quarantined: int = 0
    deleted: int = 0
    returned: int = 0
    batches: int = 0
    bad_events: int = 0
    first_bad: str | None = None
    zones: dict[str, int] = field(default_factory=dict)


def ingest(
    engine: Engine,
    lake: Lake,
    settings: Settings,
    provenance: Mapping[str, Any],
    progress: Progress | None = None,
    zones: Collection[str] | None = None,
) -> Ingested:
    """Take in every new or changed file of the landing zones (of all, by default), and note those that are gone.

    Raises DlassetsError where a zone, or a part of one, cannot be listed: all else is taken in first.
    """
    done, advance = Ingested(), counting(progress)
    problems = []
    for name, zone in settings.landing.items():
        if zones is not None and name not in zones:
            continue
        before = done.images + done.replaced
        try:
            Intake(engine, lake, settings, name, zone, provenance, done, advance).run()
        except DlassetsError as error:  # raised again below, once the other zones are in
            problems.append(error)
        done.zones[name] = done.images + done.replaced - before
    if problems:
        kind = ConflictError if all(isinstance(problem, ConflictError) for problem in problems) else DlassetsError
        raise kind("\n".join(map(str, problems))) from problems[0]
    return done


@dataclass
class Intake:
    """One landing zone's way into the tables. `done` counts what was taken in, `advance` is told of files read."""

    engine: Engine
    lake: Lake
    settings: Settings
    name: str
    zone: LandingZone
    provenance: Mapping[str, Any]
    done: Ingested
    advance: Advance | None = None
    # The tables' versions that all files still to be taken in were compared with, moved along by this run's own commits
    # and by no others: what another run has written since may hold any of these files.
    _compared_with: tuple[int, int] = field(default=(-1, -1), init=False)
    # Compares listings with the tables, whatever engine reads and writes the files: a listing is here already, and to
    # Spark this is seconds of work for the sake of a few keys.
    _embedded: LocalEngine = field(default_factory=LocalEngine, init=False)

    @property
    def uri(self) -> str:
        return self.lake.zone(self.zone.uri)

    def run(self) -> None:
        """Take in what arrived, found by events where the zone has them, else by listing every file."""
        if self.zone.discovery == "listing":
            self._take_in_all()
            return
        manifest = Manifest.of(self.lake, self.name, self.zone)
        pending = manifest.pending()
        self.done.bad_events += pending.bad_lines
        self.done.first_bad = self.done.first_bad or pending.first_bad
        # A line that cannot be read may have named any file.
        if pending.bad_lines or listing_due(manifest, self.settings):
            # Taken before the listing, so that what happens during it is looked at again.
            position, started = manifest.end(), dt.datetime.now(dt.UTC)
            self._take_in_all()
            manifest.advance(position, listed_at=started)
            manifest.tidy()
        elif pending:
            present, gone = look_at(self.name, self.uri, pending.paths)
            self.take_in(present)
            self._note(present, gone)
            manifest.advance(pending.position)

    def _take_in_all(self) -> None:
        try:
            listing = list_files(self.name, self.zone, self.uri)
        except PartlyListedError as error:  # what has gone cannot be told then
            self.take_in(error.listing)
            raise
        self.take_in(listing)
        self._note(listing)

    def take_in(self, listing: pa.Table) -> None:
        """Take in those of the listed files that are new or changed, in micro-batches."""
        if not listing.num_rows:
            return
        most_files, most_bytes = self.settings.ingest.files_per_batch, self.settings.ingest.bytes_per_batch
        raw, refused = self._pinned()
        new = self._new(listing, raw, refused)
        self._compared_with = raw.version, refused.version
        # Apart, so that batches without a changed file are plain appends.
        for replaces, most in ((False, most_files), (True, min(most_files, REPLACED_AT_ONCE))):
            for batch in micro_batches(_where(new, "replaces", replaces), most, most_bytes):
                replanned(functools.partial(self._take_in_batch, batch))

    def _pinned(self) -> tuple[Snapshot, Snapshot]:
        """Return `raw_images`, with the columns that settings ask for, and `quarantined_files`."""
        return evolve(self.lake, self._table), pin(self.lake, QUARANTINED_FILES.name)

    @functools.cached_property
    def _table(self) -> Table:
        return raw_images_with(self.settings.ingest.capture)

    def _new(self, listing: pa.Table, raw: Snapshot, refused: Snapshot) -> pa.Table:
        """Return the files that neither table knows as they are now, and whether they take an older row's place."""
        return self._embedded.sql(
            """
            SELECT listing.path, listing.modificationTime, listing.length, raw_images.path IS NOT NULL AS replaces
            FROM listing LEFT JOIN raw_images ON raw_images.path = listing.path
            LEFT JOIN refused ON refused.path = listing.path
                AND refused.modificationTime = listing.modificationTime AND refused.length = listing.length
            WHERE refused.path IS NULL AND (raw_images.path IS NULL
                OR raw_images.modificationTime <> listing.modificationTime OR raw_images.length <> listing.length)
            ORDER BY listing.path
            """,
            {"listing": self._embedded.rows(listing), "raw_images": raw, "refused": refused},
        ).arrow()

    def _take_in_batch(self, batch: pa.Table) -> None:
        """Check a batch of files and write it down; compared anew where another run has committed since it was."""
        raw, refused = self._pinned()
        alone = self._compared_with == (raw.version, refused.version)
        if not alone:
            batch = self._new(batch.drop_columns("replaces"), raw, refused)
        if not batch.num_rows:
            return
        table = self._table
        number = transaction_version(raw, TRANSACTION) + 1
        limit = self.settings.ingest.max_file_bytes
        files = self.engine.files(self.name, self.uri, batch.drop_columns("replaces"), limit, self.advance)
        checked = files.map(self._kernel(number), (*table.columns, *_FOUND))
        good, bad = checked.split_by_null("reason")

        commit = Commit(self.provenance, Transaction(TRANSACTION, number))
        replaced = _where(batch, "replaces", value=True)["path"].to_pylist()
        if replaced:
            paths = good.select(["path"]).arrow()["path"].to_pylist()
            written = self.engine.replace(good, table, raw.uri, commit, where={"path": paths}) if paths else None
            replacing = len({*paths} & {*replaced})
        else:
            written = self.engine.append(good, table, raw.uri, commit)
            replacing = 0
        self.done.images += (written.inserted if written else 0) - replacing
        self.done.replaced += replacing
        refusal = Transaction(TRANSACTION, transaction_version(refused, TRANSACTION) + 1)
        not_taken = self.engine.append(bad, QUARANTINED_FILES, refused.uri, Commit(self.provenance, refusal))

        if alone:
            self._compared_with = (
                written.version if written and written.changed else raw.version,
                not_taken.version if not_taken.changed else refused.version,
            )
        self.done.quarantined += not_taken.inserted
        self.done.batches += 1

    def _kernel(self, number: int) -> Any:
        limits = self.settings.ingest
        return functools.partial(
            check_files,
            table=self._table,
            landing=self.name,
            batch_id=f"{self.name}-{number:06d}",
            load_date=dt.datetime.now(dt.UTC).date(),
            label_rule=self.zone.label_rule if self.zone.labelled else None,
            max_file_bytes=limits.max_file_bytes,
            max_pixels=limits.max_pixels,
            keeper=Keeper(limits.storage, self.lake, self.zone.uri),
        )

    def _note(self, present: pa.Table, gone: Collection[str] | None = None) -> None:
        """Note in `deleted_files` which known paths have gone, and which are back.

        Those of `gone`; where that is not given, `present` are all files of the zone, and what is not there has gone.
        """
        replanned(functools.partial(self._note_planned, present, gone))

    def _note_planned(self, present: pa.Table, gone: Collection[str] | None) -> None:
        import pyarrow as pa

        deleted = pin(self.lake, DELETED_FILES.name)
        has_gone = "present.path IS NULL" if gone is None else "known.path IN (SELECT path FROM gone)"
        changed = self._embedded.sql(
            f"""
            WITH known AS (
                SELECT path FROM raw_images WHERE landing = '{self.name}'
                UNION SELECT path FROM quarantined_files WHERE landing = '{self.name}'
            ), noted AS (
                SELECT * FROM deleted_files WHERE landing = '{self.name}' AND returned_at IS NULL
            )
            SELECT known.path, CAST(NULL AS TIMESTAMP) AS deleted_at FROM known
            LEFT JOIN present ON present.path = known.path LEFT JOIN noted ON noted.path = known.path
            WHERE {has_gone} AND noted.path IS NULL
            UNION ALL SELECT noted.path, noted.deleted_at FROM noted JOIN present ON present.path = noted.path
            """,  # noqa: S608 - a zone's name is checked, the rest is constant
            {
                "raw_images": pin(self.lake, "raw_images"),
                "quarantined_files": pin(self.lake, "quarantined_files"),
                "deleted_files": deleted,
                "present": self._embedded.rows(present.select(["path"])),
                "gone": self._embedded.rows(pa.table({"path": pa.array(gone or [], pa.string())})),
            },
        ).arrow()
        now = dt.datetime.now(dt.UTC)
        rows = [
            {
                "path": row["path"],
                "landing": self.name,
                "deleted_at": row["deleted_at"] or now,
                "returned_at": row["deleted_at"] and now,
            }
            for row in changed.to_pylist()
            if row["deleted_at"] or self._takes_in(row["path"])
        ]
        if rows:
            noted = self.engine.rows(pa.Table.from_pylist(rows, schema=DELETED_FILES.schema))
            # delta-rs alone would let two runs insert one path, where it has two quotes in a row.
            note = Transaction(TRANSACTION, transaction_version(deleted, TRANSACTION) + 1)
            self.engine.merge(noted, DELETED_FILES, deleted.uri, Commit(self.provenance, note))
        returned = sum(row["returned_at"] is not None for row in rows)
        self.done.returned += returned
        self.done.deleted += len(rows) - returned

    def _takes_in(self, path: str) -> bool:
        """Whether a listing looks at the path at all: what a new pattern leaves out has not gone."""
        return self.zone.takes_in(path[len(self.name) + 1 :])


def listing_due(manifest: Manifest, settings: Settings) -> bool:
    """Whether a zone with events is to be listed, for those that were missed."""
    since = manifest.listed_at
    return since is None or dt.datetime.now(dt.UTC) - since >= dt.timedelta(minutes=settings.ingest.reconcile_minutes)


def check_files(
    batch: pa.RecordBatch,
    *,
    table: Table,
    landing: str,
    batch_id: str,
    load_date: dt.date,
    label_rule: str | None,
    max_file_bytes: int,
    max_pixels: int,
    keeper: Keeper,
) -> pa.RecordBatch:
    """Kernel: files validated, hashed and put where their bytes are kept, with where and when they came in."""
    import pyarrow as pa

    checked = validate_files(batch, label_rule=label_rule, max_file_bytes=max_file_bytes, max_pixels=max_pixels)
    columns = {name: checked[name] for name in checked.schema.names}
    folders = [folder_of(path) for path in checked["path"].to_pylist()]
    columns |= {
        "folder": pa.array(folders, pa.string()),
        "landing": pa.repeat(pa.scalar(landing), batch.num_rows),
        "load_date": pa.repeat(pa.scalar(load_date, pa.date32()), batch.num_rows),
        "batch_id": pa.repeat(pa.scalar(batch_id), batch.num_rows),
        "dropped_at": pa.nulls(batch.num_rows, arrow_type("timestamp")),
    }
    columns |= _captured(table, checked)
    columns |= keeper.keep(checked)
    return pa.RecordBatch.from_pydict({column.name: columns[column.name] for column in (*table.columns, *_FOUND)})


def _captured(table: Table, checked: pa.RecordBatch) -> dict[str, pa.Array]:
    """Return what cameras wrote down, for those columns of it that the table has; null for what is no image."""
    import pyarrow as pa

    wanted = [column for column in CAPTURE if column.name in table.names]
    if not wanted:
        return {}
    from dlassets.images.capture import capture

    pairs = zip(checked["content"], checked["reason"], strict=True)
    rows = [{} if reason.is_valid else capture(content.as_py()) for content, reason in pairs]
    return {c.name: pa.array([row.get(c.name) for row in rows], table.schema.field(c.name).type) for c in wanted}


def _where(table: pa.Table, column: str, value: bool) -> pa.Table:
    import pyarrow.compute as pc

    return table.filter(pc.equal(table[column], value))


@dataclass(frozen=True)
class Waiting:
    """The files of a landing zone that no run has taken in yet, None where only a listing can say how many.

    `digest` names exactly these files: it is another one when more have come.
    """

    uri: str
    files: int | None
    digest: str


def waiting_files(lake: Lake, settings: Settings, name: str) -> Waiting:
    """Return what waits in a zone, without a JVM on either engine; of one with events, from its manifest alone.

    Raises DlassetsError where the zone is not there or cannot be listed.
    """
    zone = settings.landing[name]
    if zone.discovery == "events":
        return _waiting_events(lake, settings, name, zone)
    intake = Intake(LocalEngine(), lake, settings, name, zone, {}, Ingested())
    listing = list_files(name, zone, intake.uri)
    new = intake._new(listing, *intake._pinned())  # noqa: SLF001 - its own module
    return Waiting(intake.uri, new.num_rows, _digest(new.to_pydict()))


def _waiting_events(lake: Lake, settings: Settings, name: str, zone: LandingZone) -> Waiting:
    manifest = Manifest.of(lake, name, zone)
    uri = lake.zone(zone.uri)
    if listing_due(manifest, settings):
        # Asked for once a period: a listing that failed is tried again, and not at every look.
        period = int(dt.datetime.now(dt.UTC).timestamp() / (settings.ingest.reconcile_minutes * 60))
        return Waiting(uri, None, _digest(("listing", manifest.listed_at, period)))
    pending = manifest.pending()
    files = None if pending.bad_lines else len(pending.paths)
    return Waiting(uri, files, _digest({name: [*mark] for name, mark in sorted(pending.position.items())}))


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]
