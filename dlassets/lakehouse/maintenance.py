"""Care of a table: small files put together, rows laid out, what nothing needs any more deleted, its log kept short.

What a registered model version was trained from stays readable, and so does what a reader of the last
`maintenance.retention_hours` may read.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlassets.engines.base import Engine, Maintained, Snapshot
from dlassets.engines.delta_log import (
    COMMITS_PER_CHECKPOINT,
    explained,
    maintained,
    open_table,
    read_table,
    z_ordered_by,
)
from dlassets.engines.schema import Table
from dlassets.errors import ConflictError, DlassetsError
from dlassets.lakehouse.snapshots import (
    at_version,
    brought_up,
    commits,
    evolve,
    files_of,
    pin,
    recorded,
    replanned,
    time_of,
)
from dlassets.lakehouse.tables import RAW_IMAGES
from dlassets.settings import MaintenanceSettings
from dlassets.storage.files import listed
from dlassets.storage.lake import Lake
from dlassets.storage.stores import filesystem_of

if TYPE_CHECKING:
    import pyarrow.fs as pafs

# Laying rows out rewrites all of them, so it waits until so much is new since the last time.
Z_ORDER_SHARE = 0.2


@dataclass(frozen=True)
class Care:
    """What was done to a table. `kept` are the versions that models need, `lost` those of them that were gone before.

    `postponed` says that other runs wrote all the time, so that its files are still as many.

    `log_files_deleted` are commits and checkpoints that no version that can still be read needs.
    """

    files: Maintained
    changed: bool
    z_ordered: bool
    postponed: bool
    checkpointed: bool
    log_files_deleted: int
    kept: tuple[int, ...]
    lost: tuple[int, ...]


def maintain(
    engine: Engine, lake: Lake, table: Table, settings: MaintenanceSettings, needed: Collection[int] = ()
) -> Care:
    """Care for a table as far as it needs it; one that needs nothing gets no new version.

    `needed` are versions that must stay readable (see `history.needed_versions`). Where another run's write comes in
    between, it stands, and putting files together is planned again; in the end it waits for the next time.
    """
    before = replanned(lambda: brought_up(lake, table))
    kept = tuple(version for version in sorted(needed) if at_version(before, version))
    is_due = False

    def plan_and_run() -> Maintained:
        nonlocal is_due
        columns = settings.z_order.get(table.name, ())
        is_due = z_order_is_due(evolve(lake, table), columns)
        return engine.maintain(
            table,
            before.uri,
            target_bytes=settings.target_file_bytes,
            z_order=columns if is_due else (),
            vacuum_hours=settings.retention_hours,
            keep_versions=kept,
        )

    try:
        files, postponed = replanned(plan_and_run), False
    except ConflictError:
        files, postponed = maintained(before.uri, settings.retention_hours, kept), True
    after = evolve(lake, table)
    return Care(
        files,
        changed=files.version > before.version,
        z_ordered=is_due and not postponed,
        postponed=postponed,
        checkpointed=write_checkpoint(after),
        log_files_deleted=shorten_log(after, settings.retention_hours, kept),
        kept=kept,
        lost=tuple(sorted(set(needed) - set(kept))),
    )


def sweep_files(lake: Lake, hours: float) -> tuple[int, int]:
    """Delete photos kept as files that no version of `raw_images` which can still be read names.

    What killed writes left goes with them. A file of the last `hours` stays, since its row may be on its way, and so
    does one that is older than the table: it was another's, that was moved away. Call it after `maintain`, when the
    table's own files are those of the versions that somebody needs. Returns how many were deleted, and their bytes.
    """
    filesystem, folder = filesystem_of(lake.files)
    made = read_table(pin(lake, RAW_IMAGES.name).uri).metadata().created_time or 0
    cutoff = dt.datetime.now(dt.UTC) - dt.timedelta(hours=hours)

    def old(infos: Sequence[pafs.FileInfo]) -> list[pafs.FileInfo]:
        files = (info for info in infos if info.is_file)
        return [info for info in files if info.mtime <= cutoff and info.mtime.timestamp() * 1000 >= made]

    there = old(listed(filesystem, folder, recursive=True))
    if not there:
        return 0, 0
    named = {f"{folder}/{location.removeprefix('files/')}" for location in _locations(lake, cutoff)}
    unnamed = [info.path for info in there if info.path not in named]
    # Looked at again: a photo that comes back meanwhile is given a new time.
    deleted = [info for path in unnamed for info in old([filesystem.get_file_info(path)])]
    for info in deleted:
        filesystem.delete_file(info.path)
    return len(deleted), sum(info.size for info in deleted)


def _locations(lake: Lake, cutoff: dt.datetime) -> Iterator[str]:
    """Yield where each row's bytes are that any file of `raw_images` has, of its older versions too."""
    import pyarrow as pa
    import pyarrow.dataset as pads
    import pyarrow.fs as pafs

    filesystem, folder = filesystem_of(lake.table(RAW_IMAGES.name))
    schema = pa.schema([RAW_IMAGES.schema.field("location")])
    for info in filesystem.get_file_info(pafs.FileSelector(folder, recursive=True)):
        if not info.is_file or not info.path.endswith(".parquet") or "/_delta_log/" in info.path:
            continue
        try:
            found = pads.dataset(info.path, schema, "parquet", filesystem)
            for batch in found.to_batches():
                yield from batch["location"].drop_null().to_pylist()
        except pa.ArrowInvalid as error:
            if info.mtime <= cutoff:  # a younger one is being written, and so are its photos
                raise DlassetsError(
                    f"{info.path} is damaged, so which photos it names cannot be told, and none was deleted. Restore "
                    "that file."
                ) from error


def z_order_is_due(table: Snapshot, columns: Sequence[str]) -> bool:
    """Whether a fifth of the table's bytes were written since its rows were last laid out by these columns."""
    files = files_of(table)
    if not columns or not files:
        return False
    laid_out = next((c["version"] for c in commits(table) if z_ordered_by(c) == tuple(columns)), -1)
    then = at_version(table, laid_out)
    old = files_of(then) if then else {}
    new = sum(size for name, size in files.items() if name not in old)
    return new >= Z_ORDER_SHARE * sum(files.values())


def write_checkpoint(table: Snapshot) -> bool:
    """Write a checkpoint where the last is ten commits old; return whether it was."""
    last = max(_checkpoints(_log(table)[2]), default=-1)
    if table.version - last < COMMITS_PER_CHECKPOINT:
        return False
    with explained(table.uri):
        open_table(table.uri, table.version).create_checkpoint()
    return True


def shorten_log(table: Snapshot, hours: float, kept: Collection[int]) -> int:
    """Delete the part of the log that neither a version of the last `hours` nor one of `kept` is read from.

    Delta's own cleaning knows ages alone, so it is switched off on these tables (`snapshots.PROPERTIES`). Returns how
    many files were deleted, oldest first: killed in between, the rest is as whole as before.
    """
    cutoff = dt.datetime.now(dt.UTC) - dt.timedelta(hours=hours)
    first = next((commit["version"] for commit in commits(table) if time_of(commit) <= cutoff), 0)
    needed = min(_recorded_version(table, version) for version in (first, table.version, *kept))
    filesystem, folder, names = _log(table)
    start = max((version for version in _checkpoints(names) if version <= needed), default=0)
    old = sorted(name for name in names if int(name[:20]) < start)
    for name in old:
        filesystem.delete_file(f"{folder}/{name}")
    return len(old)


def _recorded_version(table: Snapshot, version: int) -> int:
    """Return the newest commit up to a version that recorded what its rows were made of."""
    snapshot = at_version(table, version)
    if snapshot is None:
        return version
    return next((commit["version"] for commit in commits(snapshot) if recorded(commit)), version)


def _log(table: Snapshot) -> tuple[pafs.FileSystem, str, list[str]]:
    """Return where the log lies, and its commits and checkpoints; each begins with its version in twenty digits."""
    import pyarrow.fs as pafs

    filesystem, folder = filesystem_of(f"{table.uri}/_delta_log")
    infos = filesystem.get_file_info(pafs.FileSelector(folder))
    return filesystem, folder, [info.base_name for info in infos if re.match(r"\d{20}\.", info.base_name)]


def _checkpoints(names: Collection[str]) -> list[int]:
    """Return the versions of whole checkpoints; one in parts may lack some."""
    return [int(name[:20]) for name in names if name[20:] == ".checkpoint.parquet"]
