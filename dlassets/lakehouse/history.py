"""What a table was: its versions, which of them a model was trained from, and the way back to one.

No JVM on either engine: a version is a list of files in Delta's log.
"""

from __future__ import annotations

import datetime as dt
import difflib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from dlassets.engines.base import COMMIT_FIELD, Snapshot
from dlassets.engines.delta_log import explained, open_table, read_table
from dlassets.engines.local import BATCH_ROWS, dataset_of, writer_properties
from dlassets.errors import DlassetsError
from dlassets.lakehouse.snapshots import (
    at_version,
    commits,
    files_of,
    newest,
    provenance_of,
    recorded,
    row_count,
    time_of,
)
from dlassets.lakehouse.tables import HUMAN_LABELS, TABLES, TRAINING_SET
from dlassets.storage.files import listed
from dlassets.storage.lake import Lake
from dlassets.storage.stores import filesystem_of

RESTORED_FROM = "restored_from"
_TABLE_ID = "restored_table_id"
# Lies in the folder of a restore that has begun and not ended; Delta passes over what begins with an underscore.
_BEGUN = "_restore_begun"
_FILES_NAMED = 3


@dataclass(frozen=True)
class Version:
    """One commit of a table: `rows` and `bytes` that the table had after it, `bytes_written` by it.

    They are None where the log no longer says.
    """

    version: int
    at: dt.datetime
    operation: str
    rows: int | None
    bytes: int | None
    bytes_written: int | None
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class Restored:
    """`version` is the table's version after it; `changed` is False where it had these very rows already."""

    uri: str
    version: int
    rows: int
    changed: bool = True


def table_of(lake: Lake, name: str) -> Snapshot:
    """Return the table's newest version, without creating it. Raises DlassetsError where there is no such table."""
    if name not in TABLES:
        near = difflib.get_close_matches(name, TABLES, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(TABLES)}."
        raise DlassetsError(f"There is no table {name!r}. {hint}")
    if (table := newest(lake, name)) is None:
        raise DlassetsError(
            f"The table {name} has not been made yet in the lake at {lake.root}. Materialize it first, or set "
            "DLASSETS_ROOT to another lake."
        )
    return table


def history(table: Snapshot, limit: int | None = None) -> Iterator[Version]:
    """Yield the versions of a table, newest first."""
    now: Snapshot | None = table
    after: Mapping[str, int] = files_of(table)
    for commit in islice(commits(table), limit):
        then = at_version(table, commit["version"] - 1) if commit["version"] else None
        before = files_of(then) if then else {}
        is_told = then is not None or commit["version"] == 0
        yield Version(
            commit["version"],
            time_of(commit),
            commit["operation"],
            row_count(now) if now else None,
            sum(after.values()) if now else None,
            sum(after[name] for name in after.keys() - before.keys()) if now and is_told else None,
            recorded(commit),
        )
        now, after = then, before


def lineage(lake: Lake, training_set: int) -> dict[str, set[int]]:
    """Return every version that this version of the training set was made from, its own included.

    Labels of people end the way back: how their questions came about changes nothing in what was learned.
    """
    found: dict[str, set[int]] = defaultdict(set)
    waiting = [(TRAINING_SET.name, training_set)]
    while waiting:
        name, version = waiting.pop()
        if name not in TABLES or version in found[name]:
            continue
        found[name].add(version)
        snapshot = at_version(Snapshot(name, lake.table(name), version), version)
        if name != HUMAN_LABELS.name and snapshot is not None:
            waiting += provenance_of(snapshot).get("inputs", {}).items()
    return dict(found)


def version_at(table: Snapshot, at: dt.datetime) -> int:
    """Return the version the table had at a moment. Raises DlassetsError where it, or its log, does not go so far."""
    earliest = None
    for commit in commits(table):
        earliest = time_of(commit)
        if earliest <= at:
            return int(commit["version"])
    raise DlassetsError(f"The log of {table.name} begins at {earliest:%Y-%m-%d %H:%M:%S} UTC, after the time you name.")


def whole_version(table: Snapshot, version: int, retention_hours: int) -> Snapshot:
    """Return that version of the table. Raises DlassetsError where it is not there, or its files are not any more."""
    snapshot = at_version(table, version)
    if snapshot is None:
        oldest = min(commit["version"] for commit in commits(table))
        raise DlassetsError(f"{table.name} has no version {version}. Its log has {oldest} to {table.version}.")
    if missing := missing_files(snapshot):
        some = ", ".join(missing[:_FILES_NAMED])
        raise DlassetsError(
            f"Version {version} of {table.name} cannot be had any more: {len(missing)} of its files are gone (such as "
            f"{some}). VACUUM deletes files that no version of the last maintenance.retention_hours (now "
            f"{retention_hours}) needs, but for those that registered models were trained from."
        )
    return snapshot


def missing_files(snapshot: Snapshot) -> list[str]:
    """Return the files of the version that are not in storage any more."""
    import pyarrow.fs as pafs

    filesystem, folder = filesystem_of(snapshot.uri)
    names = list(files_of(snapshot))
    found = filesystem.get_file_info([f"{folder}/{name}" for name in names])
    return [name for name, info in zip(names, found, strict=True) if info.type != pafs.FileType.File]


def restore(table: Snapshot, target: Snapshot) -> Restored:
    """Give the table the rows and columns of an older version, as a new version: nothing is deleted.

    What is recorded is what the older version recorded, so that what is built on it (the training set's fingerprint,
    say) holds for its rows. App transactions go on from where they are. Raises ConflictError where another run has
    written since `table` was pinned.
    """
    from deltalake import CommitProperties

    delta = open_table(table.uri, table.version)
    if files_of(table).keys() == files_of(target).keys():
        return Restored(table.uri, table.version, row_count(table), changed=False)
    said = json.dumps({**provenance_of(target), RESTORED_FROM: target.version}, sort_keys=True)
    with explained(table.uri):
        delta.restore(target.version, commit_properties=CommitProperties(custom_metadata={COMMIT_FIELD: said}))
    restored = Snapshot(table.name, table.uri, delta.version())
    return Restored(restored.uri, restored.version, row_count(restored))


def restore_to(target: Snapshot, uri: str) -> Restored:
    """Write a version as a table of its own, in one commit, and leave the live one alone.

    One that was killed can be run again. Raises DlassetsError where something else lies there already.
    """
    import pyarrow.fs as pafs

    filesystem, folder = filesystem_of(uri)
    source = read_table(target.uri, target.version)
    said = {**provenance_of(target), RESTORED_FROM: target.version, _TABLE_ID: str(source.metadata().id)}
    is_begun = filesystem.get_file_info(f"{folder}/{_BEGUN}").type == pafs.FileType.File
    copy = _own_table(target.name, uri, said)
    if copy is None:
        if not is_begun and not _is_empty(filesystem, folder):
            raise DlassetsError(f"{uri} exists already. Name a folder that does not.")
        if isinstance(filesystem, pafs.LocalFileSystem):
            filesystem.create_dir(folder)
        filesystem.open_output_stream(f"{folder}/{_BEGUN}").close()
        copy = _copy(target, uri, source.metadata().partition_columns, said)
    elif not is_begun:
        return Restored(uri, copy.version, row_count(copy), changed=False)
    _tidy(copy, filesystem, folder)
    return Restored(uri, copy.version, row_count(copy))


def _tidy(copy: Snapshot, filesystem: Any, folder: str) -> None:
    """Delete what earlier restores to here had written when they were killed, and at last the sign that one began."""
    left = open_table(copy.uri, copy.version).vacuum(
        retention_hours=0, dry_run=True, enforce_retention_duration=False, full=True
    )
    for name in [*left, _BEGUN]:
        filesystem.delete_file(f"{folder}/{name}")


def _own_table(name: str, uri: str, said: Mapping[str, Any]) -> Snapshot | None:
    """Return the table that lies there, if it is a copy that this was said of and nobody has written to since."""
    from deltalake.exceptions import TableNotFoundError

    try:
        found = Snapshot(name, uri, read_table(uri).version())
    except TableNotFoundError:
        return None
    return found if found.version == 0 and provenance_of(found) == json.loads(json.dumps(said)) else None


def _is_empty(filesystem: Any, folder: str) -> bool:
    import pyarrow.fs as pafs

    kind = filesystem.get_file_info(folder).type
    return kind == pafs.FileType.NotFound or (kind == pafs.FileType.Directory and not listed(filesystem, folder))


def _copy(target: Snapshot, uri: str, partition_columns: list[str], said: Mapping[str, Any]) -> Snapshot:
    from deltalake import CommitProperties, write_deltalake

    table = TABLES[target.name]
    rows = dataset_of(target).scanner(batch_size=BATCH_ROWS, batch_readahead=2, fragment_readahead=1)
    with explained(uri):
        write_deltalake(
            uri,
            rows.to_reader(),
            mode="error",
            partition_by=partition_columns or None,
            name=table.name,
            description=table.description,
            writer_properties=writer_properties(table),
            commit_properties=CommitProperties(custom_metadata={COMMIT_FIELD: json.dumps(said, sort_keys=True)}),
        )
    return Snapshot(target.name, uri, open_table(uri).version())
