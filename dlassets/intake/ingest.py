"""Take photos in: landing zones → micro-batches → `raw_images`, and `quarantined_files` for what is no usable image.

Lists of labels beside them come the same way, to `listed_labels`.

What stands in the two tables decides what is new, so a run that was killed, repeated, or lost what it had noted takes
in what is missing and nothing twice. Each commit carries a transaction that refuses all but one of two writers that
planned on the same snapshot.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
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
    Written,
    counting,
)
from dlassets.engines.local import LocalEngine
from dlassets.engines.schema import Column, text_column
from dlassets.errors import ConflictError, DlassetsError
from dlassets.images.kinds import formats_on
from dlassets.images.label_lists import ListRule
from dlassets.images.validate import Reason
from dlassets.intake.arrival import LIST_COLUMNS, Arrival, check_files, check_lists
from dlassets.intake.events import Manifest
from dlassets.intake.handover import Handover
from dlassets.intake.listing import PartlyListedError, left_out, list_files, stat_files, unmatched
from dlassets.lakehouse.listed_labels import take_in_lists
from dlassets.lakehouse.snapshots import evolve, pin, replanned, transaction_version
from dlassets.lakehouse.tables import (
    DELETED_FILES,
    LISTED_LABELS,
    QUARANTINED_FILES,
    RAW_IMAGES,
    raw_images_with,
)
from dlassets.settings import LandingZone, Settings
from dlassets.storage.files import micro_batches
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa

TRANSACTION = "dlassets/ingest"
_LOOKED_UP_AT_MOST = 10_000
# Columns of new files that are of the tables, and not of the listing.
_OF_TABLES = ["replaces", "tries"]


@dataclass
class Ingested:
    """What an ingest did. `bad_events` are lines of event files that could not be read; `first_bad` says of one why.

    `lists` of labels were read, with `listed` entries; `bad_lists` says of those that are none why.
    `zones` are the files taken in by landing zone, `left_out` the files and folders that its listing left out as junk,
    `unmatched` the files that its pattern left out.
    """

    images: int = 0
    replaced: int = 0
    quarantined: int = 0
    deleted: int = 0
    returned: int = 0
    batches: int = 0
    lists: int = 0
    listed: int = 0
    bad_events: int = 0
    first_bad: str | None = None
    zones: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    unmatched: dict[str, int] = field(default_factory=dict)
    bad_lists: list[str] = field(default_factory=list)


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
        self._count_left_out(listing)
        self._record_changes(listing)
        return None

    def _count_left_out(self, listing: pa.Table) -> None:
        for counts, number in ((self.done.left_out, left_out(listing)), (self.done.unmatched, unmatched(listing))):
            if number:
                counts[self.name] = number

    def _take_in_listed(self, listing: pa.Table) -> PartlyListedError | None:
        """Take in by a listing that is older than this run: what it says has gone, or is back, is looked at."""
        self.take_in(listing)
        self._count_left_out(listing)
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
        raw, refused = self.tables()
        new = self.new_files(listing, raw, refused)
        self._compared_with = raw.version, refused.version
        lists, new = self._lists_apart(new)
        limits = self.settings.ingest
        for batch in micro_batches(lists, REPLACED_AT_ONCE, limits.bytes_per_batch):
            replanned(functools.partial(self._take_in_lists, batch))
        if not new.num_rows:  # to ask Spark anything starts it
            return
        most_files, most_bytes = (
            self.engine.shares * limit for limit in (limits.files_per_batch, limits.bytes_per_batch)
        )
        # Apart, so that batches without a changed file are plain appends.
        for replaces, most in ((False, most_files), (True, min(most_files, REPLACED_AT_ONCE))):
            for batch in micro_batches(_where(new, "replaces", replaces), most, most_bytes):
                replanned(functools.partial(self._take_in_batch, batch))

    def tables(self) -> tuple[Snapshot, Snapshot]:
        """Return `raw_images`, with the columns that settings ask for, and `quarantined_files`, as they stand."""
        return evolve(self.lake, raw_images_with(self.settings.ingest.capture)), evolve(self.lake, QUARANTINED_FILES)

    def _lists_apart(self, new: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Return the lists of labels among new files, and all others."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if not self.zone.has_lists:
            return new.slice(0, 0), new
        are_lists = pa.array([self.zone.is_list(self._within(path)) for path in new["path"].to_pylist()], pa.bool_())
        return new.filter(are_lists), new.filter(pc.invert(are_lists))

    def handover(self, raw: Snapshot, refused: Snapshot) -> Handover:
        """Return where a listing lies that is compared with the tables at these versions."""
        return Handover.of(self.lake, self.name, self.zone, (raw, refused, pin(self.lake, DELETED_FILES.name)))

    def new_files(self, listing: pa.Table, raw: Snapshot, refused: Snapshot) -> pa.Table:
        """Return the files that no table knows as they are now, and whether they take an older row's place.

        With them those that could not be read and are due to be tried again, and how often they were, and those whose
        format was off and is on by now. Lists of labels are among them.
        """
        on = " OR ".join(f"refused.detail LIKE '{name} %'" for name in sorted(formats_on(self.settings.ingest.formats)))
        query = f"""
            SELECT listing.path, listing.modificationTime, listing.length, listing.leads_to,
                raw_images.path IS NOT NULL AS replaces, COALESCE(refused.tries, 0) AS tries
            FROM listing LEFT JOIN raw_images ON raw_images.path = listing.path
            LEFT JOIN lists ON lists.list_path = listing.path
                AND lists.modificationTime = listing.modificationTime AND lists.length = listing.length
            LEFT JOIN refused ON refused.path = listing.path
                AND refused.modificationTime = listing.modificationTime AND refused.length = listing.length
            WHERE lists.list_path IS NULL AND (refused.path IS NULL OR refused.retry_at <= now()
                OR (refused.reason = '{Reason.FORMAT_OFF}' AND ({on})))
                AND (raw_images.path IS NULL OR raw_images.modificationTime <> listing.modificationTime
                    OR raw_images.length <> listing.length)
            ORDER BY listing.path
        """  # noqa: S608 - names of formats
        key = ["path", "modificationTime", "length"]
        known = {
            **self._known({"raw_images": raw}, key, listing["path"]),
            **self._known({"refused": refused}, [*key, "tries", "retry_at", "reason", "detail"], listing["path"]),
            "lists": self._lists_read(),
        }
        return self._embedded.sql(query, {"listing": self._embedded.rows(listing), **known}).arrow()

    def _lists_read(self) -> Rows:
        """Return the lists of labels of the zone as they were when they were read, by the rule that there is now."""
        import pyarrow as pa
        import pyarrow.compute as pc

        columns, rule = ["list_path", "modificationTime", "length", "rule"], ListRule.of(self.zone)
        if rule is None:
            return self._embedded.rows(pa.schema([LISTED_LABELS.schema.field(name) for name in columns]).empty_table())
        query = f"SELECT DISTINCT {', '.join(columns)} FROM listed_labels WHERE landing = '{self.name}'"  # noqa: S608
        read = self._embedded.sql(query, {LISTED_LABELS.name: pin(self.lake, LISTED_LABELS.name)}).arrow()
        return self._embedded.rows(read.filter(pc.equal(read["rule"], str(rule))))

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
        arrival = self._arrival(batch, number)
        good, bad = self._checked(batch, arrival, check_files, arrival.columns)

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
        not_taken = self._refuse(bad, refused, arrival)
        if alone:
            self._compared_with = (
                written.version if written and written.changed else raw.version,
                not_taken.version if not_taken.changed else refused.version,
            )
        self.done.batches += 1

    def _take_in_lists(self, batch: pa.Table) -> None:
        """Read lists of labels, and put what each says in place of what it said before."""
        raw, refused = self.tables()
        batch = self.new_files(batch.drop_columns(_OF_TABLES), raw, refused)  # but for those another run has read
        rule = ListRule.of(self.zone)
        if rule is None or not batch.num_rows:
            return
        arrival = self._arrival(batch, transaction_version(raw, TRANSACTION) + 1)
        good, bad = self._checked(batch, arrival, check_lists, LIST_COLUMNS)
        files = good.arrow()
        self._forget_refusals(files["path"])
        if files.num_rows:
            table = pin(self.lake, LISTED_LABELS.name)
            transaction = Transaction(TRANSACTION, transaction_version(table, TRANSACTION) + 1)
            commit = Commit(self.provenance, transaction)
            written, problems = take_in_lists(self.engine, table, files.to_pylist(), rule, commit)
            self.done.lists += files.num_rows
            self.done.listed += written.inserted
            self.done.bad_lists += problems
        self._refuse(bad, pin(self.lake, QUARANTINED_FILES.name), arrival)

    def _forget_refusals(self, paths: pa.ChunkedArray) -> None:
        """Delete the refusals of lists that can be read now: what comes later is told by rows of `raw_images` alone."""
        refused = pin(self.lake, QUARANTINED_FILES.name)
        found = self._embedded.look_up(refused, ["path"], "path", paths).arrow()["path"].to_pylist()
        if found:
            transaction = Transaction(TRANSACTION, transaction_version(refused, TRANSACTION) + 1)
            commit, nothing = Commit(self.provenance, transaction), QUARANTINED_FILES.schema.empty_table()
            where = {"path": sorted({*found})}
            self.engine.replace(self.engine.rows(nothing), QUARANTINED_FILES, refused.uri, commit, where)

    def _arrival(self, batch: pa.Table, number: int) -> Arrival:
        tries = {row["path"]: row["tries"] for row in batch.select(["path", "tries"]).to_pylist() if row["tries"]}
        batch_id = f"{self.name}-{number:06d}"
        return Arrival(self.name, self.zone, self.settings.ingest, self.lake, batch_id, tries)

    def _checked(
        self, batch: pa.Table, arrival: Arrival, check: Callable[..., pa.RecordBatch], columns: Sequence[Column]
    ) -> tuple[Rows, Rows]:
        """Return the files of a batch with their bytes, those that are as they should be and the others."""
        listing, most_bytes = batch.drop_columns(_OF_TABLES), arrival.limits.max_file_bytes
        files = self.engine.files(self.name, self.uri, listing, most_bytes, self.advance)
        return files.map(functools.partial(check, arrival=arrival), columns).split_by_null("reason")

    def _refuse(self, bad: Rows, refused: Snapshot, arrival: Arrival) -> Written:
        write = self.engine.merge if arrival.tries else self.engine.append  # of what is tried again there is a row
        transaction = Transaction(TRANSACTION, transaction_version(refused, TRANSACTION) + 1)
        written = write(bad, QUARANTINED_FILES, refused.uri, Commit(self.provenance, transaction))
        self.done.quarantined += written.inserted
        return written

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


def _where(table: pa.Table, column: str, value: bool) -> pa.Table:
    import pyarrow.compute as pc

    return table.filter(pc.equal(table[column], value))
