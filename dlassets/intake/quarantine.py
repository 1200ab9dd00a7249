"""Files that were refused: which still are, looking at them again, and noting that they are not wanted.

A row of `quarantined_files` is about one state of one file. It is of today while nothing has come after it: no person
dropped it, no later file under the path was taken in or refused, and the file is not known to have gone. One that was
taken in, and that a step failed for (`stage`), is so until another version of the code has its turn.
"""

from __future__ import annotations

import datetime as dt
import functools
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import REPLACED_AT_ONCE, Commit, Engine, Progress, Transaction
from dlassets.engines.schema import text_column
from dlassets.errors import DlassetsError
from dlassets.intake.events import Manifest
from dlassets.intake.ingest import TRANSACTION, ingest
from dlassets.intake.listing import stat_files
from dlassets.lakehouse.refusals import QUARANTINED, REFUSALS
from dlassets.lakehouse.snapshots import evolve, pin, refuse_no_lake, replanned, transaction_version
from dlassets.lakehouse.tables import QUARANTINED_FILES
from dlassets.settings import LandingZone, Settings
from dlassets.storage.lake import Lake
from dlassets.storage.stores import filesystem_of

if TYPE_CHECKING:
    import pyarrow.fs as pafs

READS = ("quarantined_files", "raw_images", "deleted_files")


@dataclass(frozen=True)
class Refused:
    """A row of `quarantined_files`. `state` is quarantined, dropped, superseded or gone."""

    path: str
    modificationTime: dt.datetime  # noqa: N815 - the table's column
    length: int
    landing: str
    reason: str
    detail: str | None
    load_date: dt.date
    batch_id: str
    dropped_at: dt.datetime | None
    image_id: str | None
    stage: str | None
    code_version: str | None
    state: str

    @property
    def within(self) -> str:
        """The path within its landing zone."""
        return self.path.removeprefix(f"{self.landing}/")


@dataclass(frozen=True)
class Retried:
    """What became of files that were looked at again; `missing` were no longer there, or are not looked at any more.

    `left_to_steps` were taken in long ago: what failed for them tries again when it next runs.
    """

    taken_in: int
    refused: int
    missing: int
    left_to_steps: int = 0


@dataclass(frozen=True)
class Dropped:
    """What became of files that are not wanted. `kept` says why of those that were left, and not dropped either."""

    dropped: int
    deleted: int
    kept: Mapping[str, str] = field(default_factory=dict)


def refused_files(
    engine: Engine,
    lake: Lake,
    pattern: str | None = None,
    *,
    reason: str | None = None,
    zone: str | None = None,
    everything: bool = False,
) -> list[Refused]:
    """Return what is quarantined now, newest first; with `everything` also what was, and its state.

    `pattern` is a path (`<zone>/<path within it>`) or a glob of paths, in which * stands for any text, / as well.
    Raises DlassetsError where the root holds no lake.
    """
    refuse_no_lake(lake)
    rows = engine.sql(
        f"SELECT {', '.join(Refused.__dataclass_fields__)} FROM ({REFUSALS if everything else QUARANTINED}) AS states "  # noqa: S608
        "ORDER BY load_date DESC, SUBSTR(batch_id, LENGTH(landing) + 2) DESC, path, modificationTime DESC",
        {name: pin(lake, name) for name in READS},
    ).arrow()
    files = (Refused(**row) for row in rows.to_pylist())
    return [
        file
        for file in files
        if (pattern is None or file.path == pattern or fnmatchcase(file.path, pattern))
        and (reason is None or file.reason == reason)
        and (zone is None or file.landing == zone)
    ]


def by_reason(files: Iterable[Refused]) -> dict[str, int]:
    """Return how many files have each reason, the most frequent first."""
    return dict(sorted(Counter(file.reason for file in files).items(), key=lambda item: (-item[1], item[0])))


def retry(
    engine: Engine,
    lake: Lake,
    settings: Settings,
    files: Sequence[Refused],
    provenance: Mapping[str, Any],
    progress: Progress | None = None,
) -> Retried:
    """Forget that these files were refused and take their zones in: each is taken in now, or refused anew.

    Killed in between, the next ingest does the rest. Raises DlassetsError where a file's zone is not in the settings.
    """
    zones = _zones_of(files, settings)
    # Said before, for a run that is killed after it forgot them, and after, for a reader that was quicker than that.
    _record_events(lake, zones, files, "created")
    _forget_all(engine, lake, files, provenance)
    _record_events(lake, zones, files, "created")
    ingest(engine, lake, settings, provenance, progress, zones)
    paths = {file.path for file in files}
    refused = {file.path for file in refused_files(engine, lake)} & paths
    query = "SELECT raw_images.path FROM raw_images JOIN tried ON tried.path = raw_images.path"
    tried = engine.rows(text_column("path", paths))
    there = engine.sql(query, {"raw_images": pin(lake, "raw_images"), "tried": tried}).arrow()
    taken_in = {*there["path"].to_pylist()} - refused
    waiting = {file.path for file in files if file.stage} & taken_in
    return Retried(len(taken_in - waiting), len(refused), len(paths - taken_in - refused), len(waiting))


def drop(
    engine: Engine,
    lake: Lake,
    settings: Settings,
    files: Sequence[Refused],
    provenance: Mapping[str, Any],
    *,
    delete_files: bool = False,
) -> Dropped:
    """Note that these files are not wanted; with `delete_files`, delete them from their landing zones first.

    A file that cannot be deleted is not dropped either: one that has changed since, that lies outside of its zone by a
    link, or that storage does not let go. Raises DlassetsError where files are to be deleted from a zone that is not in
    the settings.
    """
    import pyarrow as pa

    kept: dict[str, str] = {}
    deleted = 0
    if delete_files:
        zones = _zones_of(files, settings)
        for name, zone in zones.items():
            removed, left = _delete(lake, name, zone, [file for file in files if file.landing == name])
            deleted += removed
            kept |= left
        _record_events(lake, zones, [file for file in files if file.path not in kept], "deleted")
    now = dt.datetime.now(dt.UTC)
    dropped = [{**asdict(file), "dropped_at": now} for file in files if file.path not in kept]
    rows = pa.Table.from_pylist(dropped, schema=QUARANTINED_FILES.schema)
    uri = evolve(lake, QUARANTINED_FILES).uri
    replanned(lambda: engine.merge(engine.rows(rows), QUARANTINED_FILES, uri, Commit(provenance)))
    return Dropped(len(dropped), deleted, kept)


def _zones_of(files: Iterable[Refused], settings: Settings) -> dict[str, LandingZone]:
    names = sorted({file.landing for file in files})
    if unknown := [name for name in names if name not in settings.landing]:
        raise DlassetsError(
            f"These files lie in landing zones that the settings do not have: {', '.join(unknown)}. Put them back "
            f"under `landing`, or choose files of another with --zone ({', '.join(settings.landing) or 'none'})."
        )
    return {name: settings.landing[name] for name in names}


def _record_events(lake: Lake, zones: Mapping[str, LandingZone], files: Sequence[Refused], event: str) -> None:
    """Write events down for the zones that are read by events."""
    for name, zone in zones.items():
        if zone.discovery == "events":
            Manifest.of(lake, name, zone).record([(file.within, event) for file in files if file.landing == name])


def _forget_all(engine: Engine, lake: Lake, files: Sequence[Refused], provenance: Mapping[str, Any]) -> None:
    """Delete the files' rows; planned again where ingest refused others meanwhile."""
    in_order = sorted(files, key=lambda file: file.path)
    for start in range(0, len(files), REPLACED_AT_ONCE):
        replanned(functools.partial(_forget, engine, lake, in_order[start : start + REPLACED_AT_ONCE], provenance))


def _forget(engine: Engine, lake: Lake, files: Sequence[Refused], provenance: Mapping[str, Any]) -> None:
    """Delete the files' rows: other rows of the same paths are written again, all in one commit."""
    import pyarrow as pa

    table = evolve(lake, QUARANTINED_FILES)
    chosen = pa.Table.from_pylist([asdict(file) for file in files], schema=QUARANTINED_FILES.schema)
    key = " AND ".join(f"chosen.{name} = q.{name}" for name in QUARANTINED_FILES.key)
    query = f"""
        SELECT q.* FROM quarantined_files AS q LEFT JOIN chosen ON {key}
        WHERE chosen.path IS NULL AND q.path IN (SELECT path FROM chosen)
    """  # noqa: S608 - the table's key
    others = engine.sql(query, {"quarantined_files": table, "chosen": engine.rows(chosen)})
    # The transaction of ingest, which must not refuse one of these files between the look at the table and this commit.
    commit = Commit(provenance, Transaction(TRANSACTION, transaction_version(table, TRANSACTION) + 1))
    paths = sorted({file.path for file in files})
    engine.replace(others, QUARANTINED_FILES, table.uri, commit, where={"path": paths})


def _delete(lake: Lake, name: str, zone: LandingZone, files: Sequence[Refused]) -> tuple[int, dict[str, str]]:
    """Delete files from a zone; return how many, and of those that were left, why. A file that has gone is neither."""
    uri = lake.zone(zone.uri)
    filesystem, folder = filesystem_of(uri)
    listing, gone = stat_files(name, uri, [file.within for file in files], zone.links)
    now = {row["path"]: (row["modificationTime"], row["length"]) for row in listing.to_pylist()}
    deleted, kept = 0, {}
    for file in files:
        if file.path in gone:
            continue
        if not _is_confined(filesystem, folder, file.within):
            kept[file.path] = f"it does not lie in the landing zone at {uri}"
        elif now[file.path] != (file.modificationTime, file.length):
            kept[file.path] = "it has changed since it was refused"
        else:
            try:
                filesystem.delete_file(f"{folder}/{file.within}")
                deleted += 1
            except (OSError, ValueError) as error:  # a ValueError is of a name that Arrow does not take: with // in it
                kept[file.path] = str(error)
    return deleted, kept


def _is_confined(filesystem: pafs.FileSystem, folder: str, within: str) -> bool:
    """Whether the path, as storage follows it, stays in the folder. Of a link, it is the link that is deleted."""
    if ".." in within.split("/"):
        return False
    if filesystem.type_name != "local":
        return True
    top = os.path.realpath(folder)
    parent = os.path.realpath(os.path.dirname(f"{folder}/{within}"))  # noqa: PTH120 - a path of pyarrow's, as text
    return os.path.commonpath([top, parent]) == top
