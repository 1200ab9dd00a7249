"""Take photos in: landing zones → micro-batches → `raw_images`, and `quarantined_files` for what is no usable image.

What stands in the two tables decides what is new, so a run that was killed, repeated, or lost what it had noted takes
in what is missing and nothing twice. Each commit carries a transaction that refuses all but one of two writers that
planned on the same snapshot.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import (
    REPLACED_AT_ONCE,
    Advance,
    Commit,
    Engine,
    Progress,
    Rows,
    Snapshot,
    Transaction,
    counting,
)
from dlassets.engines.local import LocalEngine
from dlassets.engines.schema import Column, Table, arrow_type, text_column
from dlassets.errors import ConflictError, DlassetsError
from dlassets.images.folders import LabelRule, folder_of
from dlassets.images.validate import Reason, validate_files
from dlassets.intake.events import Manifest
from dlassets.intake.handover import Handover
from dlassets.intake.listing import PartlyListedError, left_out, list_files, stat_files
from dlassets.lakehouse.content import Keeper
from dlassets.lakehouse.snapshots import evolve, pin, replanned, transaction_version
from dlassets.lakehouse.tables import CAPTURE, DELETED_FILES, QUARANTINED_FILES, RAW_IMAGES, raw_images_with
from dlassets.settings import IngestSettings, LandingZone, Settings
from dlassets.storage.files import micro_batches
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa

TRANSACTION = "dlassets/ingest"
_LOOKED_UP_AT_MOST = 10_000
# Columns of new files that are of the tables, and not of the listing.
_OF_TABLES = ["replaces", "tries"]
# A file that could not be read is tried again by the first run after so long, twice as long each time.
_FIRST_WAIT, _LONGEST_WAIT, _MOST_DOUBLINGS = dt.timedelta(minutes=1), dt.timedelta(days=1), 11

# What only a file that is no usable image has a value for.
_REFUSED_COLUMNS = tuple(column for column in QUARANTINED_FILES.columns if column.name not in RAW_IMAGES.names)


@dataclass
class Ingested:
    """What an ingest did. `bad_events` are lines of event files that could not be read; `first_bad` says of one why.

    `zones` are the files taken in by landing zone, `left_out` the files and folders that its listing left out as junk.
    """

    images: int = 0
    replaced: int = 0
    quarantined: int = 0
    deleted: int = 0
    returned: int = 0
    batches: int = 0
    bad_events: int = 0
    first_bad: str | None = None
    zones: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)


def ingest(
    engine: Engine,
    lake: Lake,
    settings: Settings,
    provenance: Mapping[str, Any],
    progress: Progress | None = None,
    zones: Collection[str] | None = None,
    listed_zone: str | None = None,
) -> Ingested:
    """Take in every new or changed file of the landing zones (of all, by default), and record those that are gone.

    `listed_zone` is the one whose sensor has started this run, as the run's ZONE_TAG says: it alone is taken in, by the
    listing that was handed over with it (see `handover`). Raises DlassetsError where a zone, or a part of one, cannot
    be listed, and what a zone failed for otherwise: all else is taken in first.
    """
    done, advance = Ingested(), counting(progress)
    chosen = [listed_zone] if listed_zone is not None else settings.landing if zones is None else zones
    failures = []
    for name in settings.landing:
        if name not in chosen:
            continue
        before = done.images + done.replaced
        try:
            Intake(engine, lake, settings, name, provenance, done, advance).run(was_listed=name == listed_zone)
        except Exception as error:  # noqa: BLE001 - raised again below, once the other zones are in
            failures.append(error)
        done.zones[name] = done.images + done.replaced - before
    if unexpected := [failure for failure in failures if not isinstance(failure, DlassetsError)]:
        for failure in failures:
            if failure is not unexpected[0]:
                unexpected[0].add_note(f"Another landing zone failed as well: {failure}")
        raise unexpected[0]
    if failures:
        kind = ConflictError if all(isinstance(failure, ConflictError) for failure in failures) else DlassetsError
        raise kind("\n".join(map(str, failures))) from failures[0]
    return done


@dataclass
class Intake:
    """A landing zone's way into the tables. `done` counts what was taken in, `advance` is called with files read."""

    engine: Engine
    lake: Lake
    settings: Settings
    name: str
    provenance: Mapping[str, Any]
    done: Ingested = field(default_factory=Ingested)
    advance: Advance | None = None
    # The tables' versions that all files still to be taken in were compared with, moved along by this run's own commits
    # and by no others: what another run has written since may hold any of these files.
    _compared_with: tuple[int, int] = field(default=(-1, -1), init=False)
    # Compares listings with the tables, whatever engine reads and writes the files: a listing is here already, and to
    # Spark this is seconds of work for the sake of a few keys.
    _embedded: LocalEngine = field(default_factory=LocalEngine, init=False)

    @property
    def zone(self) -> LandingZone:
        return self.settings.landing[self.name]

    @property
    def uri(self) -> str:
        return self.lake.zone(self.zone.uri)

    def run(self, *, was_listed: bool = False) -> None:
        """Take in what arrived, found by events where the zone has them, else by listing every file.

        Where it `was_listed` by a sensor, by that listing, if it still holds. Raises PartlyListedError once all else is
        in; where there are events, what could not be looked at is looked at again by the next listing that is due.
        """
        if self.zone.discovery == "listing":
            listing = self.handover(*self.tables()).take() if was_listed else None
            failure = self._take_in_all() if listing is None else self._take_in_listed(listing)
        else:
            failure = self._take_in_events(Manifest.of(self.lake, self.name, self.zone))
        if failure is not None:
            raise failure

    def _take_in_events(self, manifest: Manifest) -> PartlyListedError | None:
        failure = None
        pending = manifest.pending()
        while pending and not pending.bad_lines and not listing_due(manifest, self.settings):
            failure = self._take_in_named(pending.paths) or failure
            manifest.advance(pending.position)
            if not pending.more:
                return failure
            pending = manifest.pending()
        self.done.bad_events += pending.bad_lines
        self.done.first_bad = self.done.first_bad or pending.first_bad
        # A line that cannot be read may have named any file.
        if pending.bad_lines or listing_due(manifest, self.settings):
            # Taken before the listing, so that what happens during it is looked at again.
            position, started = manifest.end(), dt.datetime.now(dt.UTC)
            failure = self._take_in_all() or failure
            manifest.advance(position, listed_at=started)
            manifest.tidy()
        return failure

    def _take_in_all(self) -> PartlyListedError | None:
        """Take in every file of the zone; return why some could not be listed."""
        try:
            listing = list_files(self.name, self.zone, self.uri)
        except PartlyListedError as error:  # what has gone cannot be told then
            self.take_in(error.listing)
            return error
        self.take_in(listing)
        self._count_junk(listing)
        self._record_changes(listing)
        return None

    def _count_junk(self, listing: pa.Table) -> None:
        if number := left_out(listing):
            self.done.left_out[self.name] = number

    def _take_in_listed(self, listing: pa.Table) -> PartlyListedError | None:
        """Take in by a listing that is older than this run: what it says has gone, or is back, is looked at."""
        self.take_in(listing)
        self._count_junk(listing)
        changes = self._changes(pin(self.lake, DELETED_FILES.name), listing)
        return self._take_in_named([self._within(path) for path in changes]) if changes else None

    def _take_in_named(self, paths: Sequence[str]) -> PartlyListedError | None:
        """Take in these files, or record that they are gone; return why some could not be looked at."""
        failure = None
        try:
            present, gone = stat_files(self.name, self.uri, paths, self.zone.links)
        except PartlyListedError as error:
            present, gone, failure = error.listing, [*error.gone], error
        self.take_in(present)
        self._record_changes(present, gone)
        return failure

    def take_in(self, listing: pa.Table) -> None:
        """Take in those of the listed files that are new or changed, in micro-batches."""
        if not listing.num_rows:
            return
        most_files = self.settings.ingest.files_per_batch
        raw, refused = self.tables()
        new = self.new_files(listing, raw, refused)
        self._compared_with = raw.version, refused.version
        # Apart, so that batches without a changed file are plain appends.
        for replaces, most in ((False, most_files), (True, min(most_files, REPLACED_AT_ONCE))):
            for batch in micro_batches(_where(new, "replaces", replaces), most, self.settings.ingest.bytes_per_batch):
                replanned(functools.partial(self._take_in_batch, batch))

    def tables(self) -> tuple[Snapshot, Snapshot]:
        """Return `raw_images`, with the columns that settings ask for, and `quarantined_files`, as they stand."""
        return evolve(self.lake, raw_images_with(self.settings.ingest.capture)), evolve(self.lake, QUARANTINED_FILES)

    def handover(self, raw: Snapshot, refused: Snapshot) -> Handover:
        """Return where a listing lies that is compared with the tables at these versions."""
        return Handover.of(self.lake, self.name, self.zone, (raw, refused, pin(self.lake, DELETED_FILES.name)))

    def new_files(self, listing: pa.Table, raw: Snapshot, refused: Snapshot) -> pa.Table:
        """Return the files that neither table knows as they are now, and whether they take an older row's place.

        With them those that could not be read and are due to be tried again, and how often they were.
        """
        query = """
            SELECT listing.path, listing.modificationTime, listing.length, listing.leads_to,
                raw_images.path IS NOT NULL AS replaces, COALESCE(refused.tries, 0) AS tries
            FROM listing LEFT JOIN raw_images ON raw_images.path = listing.path
            LEFT JOIN refused ON refused.path = listing.path
                AND refused.modificationTime = listing.modificationTime AND refused.length = listing.length
            WHERE (refused.path IS NULL OR refused.retry_at <= now()) AND (raw_images.path IS NULL
                OR raw_images.modificationTime <> listing.modificationTime OR raw_images.length <> listing.length)
            ORDER BY listing.path
        """
        key = ["path", "modificationTime", "length"]
        known = {
            **self._known({"raw_images": raw}, key, listing["path"]),
            **self._known({"refused": refused}, [*key, "tries", "retry_at"], listing["path"]),
        }
        return self._embedded.sql(query, {"listing": self._embedded.rows(listing), **known}).arrow()

    def _known(
        self, tables: Mapping[str, Snapshot], columns: Sequence[str], paths: pa.ChunkedArray
    ) -> Mapping[str, Snapshot | Rows]:
        """Return what tables have of these paths; of many paths all that they have, since a join finds them sooner."""
        if len(paths) > _LOOKED_UP_AT_MOST:
            return tables
        return {name: self._embedded.look_up(table, columns, "path", paths) for name, table in tables.items()}

    def _take_in_batch(self, batch: pa.Table) -> None:
        """Check a batch of files and write it down; compared anew where another run has committed since it was."""
        raw, refused = self.tables()
        alone = self._compared_with == (raw.version, refused.version)
        if not alone:
            batch = self.new_files(batch.drop_columns(_OF_TABLES), raw, refused)
        if not batch.num_rows:
            return
        number = transaction_version(raw, TRANSACTION) + 1
        limits = self.settings.ingest
        tries = {row["path"]: row["tries"] for row in batch.select(["path", "tries"]).to_pylist() if row["tries"]}
        arrival = Arrival(self.name, self.zone, limits, self.lake, f"{self.name}-{number:06d}", tries)
        listed = batch.drop_columns(_OF_TABLES)
        files = self.engine.files(self.name, self.uri, listed, limits.max_file_bytes, self.advance)
        check = functools.partial(check_files, arrival=arrival)
        good, bad = files.map(check, arrival.columns).split_by_null("reason")

        commit = Commit(self.provenance, Transaction(TRANSACTION, number))
        replaced = _where(batch, "replaces", value=True)["path"].to_pylist()
        if replaced:
            paths = good.select(["path"]).arrow()["path"].to_pylist()
            written = self.engine.replace(good, arrival.table, raw.uri, commit, {"path": paths}) if paths else None
            replacing = len({*paths} & {*replaced})
        else:
            written, replacing = self.engine.append(good, arrival.table, raw.uri, commit), 0
        self.done.images += (written.inserted if written else 0) - replacing
        self.done.replaced += replacing
        refusal = Transaction(TRANSACTION, transaction_version(refused, TRANSACTION) + 1)
        write = self.engine.merge if tries else self.engine.append  # of what is tried again there is a row
        not_taken = write(bad, QUARANTINED_FILES, refused.uri, Commit(self.provenance, refusal))

        if alone:
            self._compared_with = (
                written.version if written and written.changed else raw.version,
                not_taken.version if not_taken.changed else refused.version,
            )
        self.done.quarantined += not_taken.inserted
        self.done.batches += 1

    def _record_changes(self, present: pa.Table, gone: Collection[str] | None = None) -> None:
        """Record in `deleted_files` which known paths have gone, and which are back.

        Those of `gone`; where that is not given, `present` are all files of the zone, and what is not there has gone.
        """
        replanned(functools.partial(self._record_planned, present, gone))

    def _record_planned(self, present: pa.Table, gone: Collection[str] | None) -> None:
        import pyarrow as pa

        deleted, now = pin(self.lake, DELETED_FILES.name), dt.datetime.now(dt.UTC)
        rows = [
            {"path": path, "landing": self.name, "deleted_at": deleted_at or now, "returned_at": deleted_at and now}
            for path, deleted_at in self._changes(deleted, present, gone).items()
        ]
        if rows:
            changes = self.engine.rows(pa.Table.from_pylist(rows, schema=DELETED_FILES.schema))
            # delta-rs alone would let two runs insert one path, where it has two quotes in a row.
            transaction = Transaction(TRANSACTION, transaction_version(deleted, TRANSACTION) + 1)
            self.engine.merge(changes, DELETED_FILES, deleted.uri, Commit(self.provenance, transaction))
        returned = sum(row["returned_at"] is not None for row in rows)
        self.done.returned += returned
        self.done.deleted += len(rows) - returned

    def _changes(
        self, deleted: Snapshot, present: pa.Table, gone: Collection[str] | None = None
    ) -> dict[str, dt.datetime | None]:
        """Return the paths that have gone or come back since `deleted` was written, and when the latter had gone."""
        there = present["path"].to_pylist()
        has_gone = "present.path IS NULL" if gone is None else "known.path IN (SELECT path FROM gone)"
        tables = {name: pin(self.lake, name) for name in (RAW_IMAGES.name, QUARANTINED_FILES.name)}
        noted: dict[str, Snapshot] = {DELETED_FILES.name: deleted}
        known: Mapping[str, Snapshot | Rows] = {**tables, **noted}
        if gone is not None:  # no other path can have gone, and what is back was noted
            away, looked_at = (text_column("path", paths)["path"] for paths in (gone, [*there, *gone]))
            known = {
                **self._known(tables, ["path", "landing"], away),
                **self._known(noted, DELETED_FILES.names, looked_at),
            }
        changes = self._embedded.sql(
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
                **known,
                "present": self._embedded.rows(present.select(["path"])),
                "gone": self._embedded.rows(text_column("path", gone or [])),
            },
        ).arrow()
        # What a new pattern, or a link that is no longer followed, leaves out of a listing has not gone.
        closed = tuple(f"{path}/" for path in present.filter(present["leads_to"].is_valid())["path"].to_pylist())
        return {
            path: deleted_at
            for path, deleted_at in zip(changes["path"].to_pylist(), changes["deleted_at"].to_pylist(), strict=True)
            if deleted_at or (self.zone.takes_in(self._within(path)) and not path.startswith(closed))
        }

    def _within(self, path: str) -> str:
        """Return a path as it is within the zone."""
        return path[len(self.name) + 1 :]


def listing_due(manifest: Manifest, settings: Settings) -> bool:
    """Whether a zone with events is to be listed, for those that were missed."""
    since = manifest.listed_at
    return since is None or dt.datetime.now(dt.UTC) - since >= dt.timedelta(minutes=settings.ingest.reconcile_minutes)


@dataclass(frozen=True)
class Arrival:
    """One batch's way in: the zone and its settings, the limits that files keep to, and the lake that they go to."""

    landing: str
    zone: LandingZone
    limits: IngestSettings
    lake: Lake
    batch_id: str
    tries: Mapping[str, int] = field(default_factory=dict)  # how often these paths could not be read before
    load_date: dt.date = field(default_factory=lambda: dt.datetime.now(dt.UTC).date())

    @property
    def table(self) -> Table:
        return raw_images_with(self.limits.capture)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of a checked file: those of the table, and what only a file that is no usable image has."""
        return (*self.table.columns, *_REFUSED_COLUMNS)


def check_files(batch: pa.RecordBatch, arrival: Arrival) -> pa.RecordBatch:
    """Kernel: files validated, hashed and put where their bytes are kept, with where and when they came in."""
    import pyarrow as pa

    limits, rule = arrival.limits, LabelRule.of(arrival.zone)
    checked = validate_files(batch, label_rule=rule, max_file_bytes=limits.max_file_bytes, max_pixels=limits.max_pixels)
    columns = {name: checked[name] for name in checked.schema.names}
    folders = [folder_of(path) for path in checked["path"].to_pylist()]
    columns |= {
        "folder": pa.array(folders, pa.string()),
        "landing": pa.repeat(pa.scalar(arrival.landing), batch.num_rows),
        "load_date": pa.repeat(pa.scalar(arrival.load_date, pa.date32()), batch.num_rows),
        "batch_id": pa.repeat(pa.scalar(arrival.batch_id), batch.num_rows),
        "dropped_at": pa.nulls(batch.num_rows, arrow_type("timestamp")),
        **{name: pa.nulls(batch.num_rows, pa.string()) for name in ("stage", "code_version")},
    }
    columns |= _tried_again(checked, arrival.tries)
    columns |= _captured(arrival.table, checked)
    columns |= Keeper(limits.storage, arrival.lake, arrival.zone.uri).keep(checked)
    return pa.RecordBatch.from_pydict({column.name: columns[column.name] for column in arrival.columns})


def _tried_again(checked: pa.RecordBatch, tries: Mapping[str, int]) -> dict[str, pa.Array]:
    """Return tries, retry_at and detail: what could not be read says nothing of the file, and is tried again later."""
    import pyarrow as pa

    now = dt.datetime.now(dt.UTC)
    rows: list[tuple[int | None, dt.datetime | None, str | None]] = []
    for path, reason, detail in zip(*(checked[name].to_pylist() for name in ("path", "reason", "detail")), strict=True):
        if reason != Reason.UNREADABLE:
            rows.append((None, None, detail))
            continue
        tried = tries.get(path, 0) + 1
        retry_at = now + min(_FIRST_WAIT * 2 ** min(tried - 1, _MOST_DOUBLINGS), _LONGEST_WAIT)
        said = f"{detail} (tried {tried} times, and again after {retry_at:%Y-%m-%d %H:%M} UTC)"
        rows.append((tried, retry_at, said))
    tried_times, retried, details = zip(*rows, strict=True) if rows else ((), (), ())
    return {
        "tries": pa.array(tried_times, pa.int32()),
        "retry_at": pa.array(retried, arrow_type("timestamp")),
        "detail": pa.array(details, pa.string()),
    }


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
