"""What both engines ask of a Delta log before they write, and what its refusals mean."""

from __future__ import annotations

import json
import os
import re
import threading
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from dlassets.engines.base import COMMIT_FIELD, Commit, Engine, Maintained
from dlassets.errors import ConflictError, DlassetsError
from dlassets.storage.files import listed
from dlassets.storage.stores import advice, cached_filesystem_of, filesystem_of

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from dlassets.engines.schema import Table

# What Delta on Spark and delta-rs call commits that change no row.
CARE = frozenset({"OPTIMIZE", "VACUUM START", "VACUUM END", "ADD COLUMN", "ADD COLUMNS", "SET TBLPROPERTIES"})
# What Delta on Spark names, in the parameters of a commit, the columns that rows were laid out by; delta-rs does not.
Z_ORDER_FIELD = "zOrderBy"

# Who opens a table reads the newest checkpoint and every commit since: ten, as with Delta on Spark, and not a hundred.
COMMITS_PER_CHECKPOINT = 10

# Versions that were read lately, each with its commit; and the newest of each table as it was last seen.
_held: dict[tuple[str, int], tuple[tuple[int, int], DeltaTable]] = {}
_newest: dict[str, int] = {}
_remembering = threading.Lock()
_VERSIONS_A_TABLE, _VERSIONS_IN_ALL = 2, 32

# delta-rs keeps what a write has freed for ten seconds, some hundreds of MB: its allocator is told, before it is
# imported, to give it back within one.
os.environ.setdefault("_RJEM_MALLOC_CONF", "background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0")

# What is said of a data file alone.
_DAMAGE = r"parquet|Invalid base64"
_DATA_FILE = r"[^\s'\"(\[]*[\w=.-]+\.parquet\b"
_UNREADABLE = r"while scanning data|Failed to fetch metadata|\.parquet\b.*(?:not found|No such file)"

# Of what a library says, which may go on for pages.
_SHOWN = 200

Result = TypeVar("Result")
Value = TypeVar("Value")


def open_table(
    uri: str, version: int | None = None, opened: Callable[[str], DeltaTable] | None = None, tries: int = 3
) -> DeltaTable:
    """Return the table, at its newest version by default, which is opened by `opened` where that is given.

    Raises deltalake's TableNotFoundError where there is none, DlassetsError where its storage cannot be read, or its
    log is damaged.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    try:
        delta = opened(uri) if opened is not None and version is None else DeltaTable(uri, version=version)
    except TableNotFoundError:
        raise
    except DeltaError as error:
        raise damaged_log(uri, error) from error
    except OSError as error:
        # delta-rs repeats a request that a store refuses, and not one whose answer breaks off.
        if tries > 1 and "reading a body" in str(error):
            return open_table(uri, version, opened, tries - 1)
        raise DlassetsError(f"The table at {uri} cannot be read: {advice(uri, error)}") from error
    if (emptied := _emptied_commit(uri, int(delta.version()))) is not None:
        raise damaged_log(uri, f"{emptied} is empty")
    return delta


def damaged_log(uri: str, said: object) -> DlassetsError:
    """Return the error for a table whose log is damaged, in words that hold for either engine."""
    within = re.search(r"(\S+)/_delta_log", str(said))
    place = uri or (within[1] if within else "")
    return DlassetsError(
        f"The log of the table at {place} cannot be read: {first_line(said)}. A commit or checkpoint in its _delta_log "
        "is gone, cut short or another's: restore that folder from a copy. The data files beside it are as they were."
    )


def refuse_lost_log(uri: str) -> None:
    """Raise DlassetsError where there are a table's data files and no log: a new one would have none of their rows."""
    filesystem, folder = filesystem_of(uri)

    def has(ending: str, within: str = "") -> bool:
        return any(info.path.endswith(ending) for info in listed(filesystem, f"{folder}{within}", recursive=True))

    # In this order: who makes the table at this moment writes a commit first, and its data then.
    if has(".parquet") and not has(".json", "/_delta_log"):
        raise damaged_log(uri, "there are data files, and no commit")


def damaged_data(uri: str, said: object) -> DlassetsError:
    """Return the error for a data file that is gone or damaged, in words that hold for either engine.

    It names the file, and the table, as far as what was said or else `uri` does.
    """
    found = re.search(_DATA_FILE, str(said))
    file = found[0] if found else ""
    within = re.search(r"/tables/(\w+)", f"{file}{uri}")
    name = within[1] if within else "TABLE"
    return DlassetsError(
        f"A data file of {name if within else 'a table'} is gone or damaged: {f'{file}: ' if file else ''}"
        f"{first_line(said)}. Restore the file from a copy, or the table to a version without it (`dlassets history "
        f"{name}`, then `dlassets restore {name} --version N`): what is lacking then is made anew."
    )


def tells_of_damage(error: Exception) -> bool:
    """Whether Arrow, DuckDB or delta-rs says of a data file that it is gone or damaged."""
    return not isinstance(error, DlassetsError) and re.search(_DAMAGE, str(error), re.IGNORECASE) is not None


def first_line(said: object) -> str:
    """Return the beginning of what a library says, which may go on for pages."""
    return (str(said).strip().splitlines() or [""])[0][:_SHOWN].rstrip(".")


def _emptied_commit(uri: str, version: int) -> str | None:
    """Return the name of a commit that a version is made of and that has no bytes, which delta-rs reads as no change.

    So a power cut leaves a file that was just written; nobody writes one. Those before a checkpoint are not looked at.
    """
    import pyarrow.fs as pafs

    filesystem, folder = cached_filesystem_of(uri)
    if not isinstance(filesystem, pafs.LocalFileSystem):  # a store puts a file in place whole
        return None
    names = [f"{number:020}" for number in range(version, max(version - COMMITS_PER_CHECKPOINT, -1), -1)]
    paths = [f"{folder}/_delta_log/{name}{kind}" for name in names for kind in (".json", ".checkpoint.parquet")]
    infos = filesystem.get_file_info(paths)
    for name, commit, checkpoint in zip(names, infos[::2], infos[1::2], strict=True):
        if commit.is_file and not commit.size:
            return f"{name}.json"
        if checkpoint.is_file:
            break
    return None


def read_table(uri: str, version: int | None = None, opened: Callable[[str], DeltaTable] | None = None) -> DeltaTable:
    """Return the table as `open_table` does, to be read and never to be written with: opened once a version.

    Whether that is still what the log has (its commit as it was, and no next one where the newest is asked for) costs
    a look at two names, and not at the whole log. The newest is opened by `opened`, where that is given.
    """
    wanted = _newest.get(uri) if version is None else version
    held = None if wanted is None else _held.get((uri, wanted))
    if held is not None and wanted is not None:
        commit, delta = held
        if commit == _commit_at(uri, wanted) and (version is not None or _commit_at(uri, wanted + 1) is None):
            return delta
    delta = open_table(uri, version, opened)
    hold(uri, delta, newest=version is None)
    return delta


def hold(uri: str, delta: DeltaTable, *, newest: bool = True) -> None:
    """Have `read_table` return this table, with which nothing more may be written then."""
    version = int(delta.version())
    commit = _commit_at(uri, version)
    if commit is None:  # made from a checkpoint, of a log that has been shortened
        return
    remember(_held, (uri, version), (commit, delta))
    if newest:
        _newest[uri] = version


def remember(known: dict[tuple[str, int], Value], version: tuple[str, int], value: Value) -> None:
    """Keep what is known of a version (a place and its number): of the last two of a table, since logs are large."""
    with _remembering:
        known.pop(version, None)
        known[version] = value
        of_table = [each for each in known if each[0] == version[0]]
        for old in [*of_table[:-_VERSIONS_A_TABLE], *list(known)[:-_VERSIONS_IN_ALL]]:
            known.pop(old, None)


def is_newest(uri: str, version: int) -> bool:
    """Whether the log has a commit of this version, and no next one."""
    return _commit_at(uri, version) is not None and _commit_at(uri, version + 1) is None


def _commit_at(uri: str, version: int) -> tuple[int, int] | None:
    """Return what tells the commit of a version from another's of that name: when it was written, and its size."""
    filesystem, folder = cached_filesystem_of(uri)
    try:
        info = filesystem.get_file_info(f"{folder}/_delta_log/{version:020}.json")
    except OSError:  # opening the table says why
        return None
    return (info.mtime_ns, info.size) if info.is_file else None


def commits(uri: str, version: int) -> Iterator[dict[str, Any]]:
    """Yield what each commit up to this version says of itself and its `version`, newest first, as far as the log goes.

    Read from the log's files: delta-rs's own history of an older version lists newer commits as well, and numbers them
    wrongly; so does that of the newest one while another run commits. Raises DlassetsError where one is damaged: what
    it said may be what a model was made of.
    """
    filesystem, folder = filesystem_of(uri)
    for number in range(version, -1, -1):
        name = f"{number:020}.json"
        try:
            with filesystem.open_input_file(f"{folder}/_delta_log/{name}") as file:
                said = _said_by(file.read())
        except FileNotFoundError:
            return
        except ValueError as error:
            raise damaged_log(uri, f"{name}: {error}") from error
        yield {"operation": "unknown", "timestamp": 0, **said, "version": number}


def landed(uri: str, before: int, commit: Commit) -> dict[str, Any] | None:
    """Return what the log has of this commit after version `before`, as `commits` does; None where it is not there."""
    after = int(read_table(uri).version())
    since = islice(commits(uri, after), after - before)
    return next((entry for entry in since if entry.get(COMMIT_FIELD) == commit.message), None)


def _said_by(commit: bytes) -> dict[str, Any]:
    """Return what a commit's file says of itself. Raises ValueError where that is damaged."""
    first, *others = commit.splitlines() or [b""]
    json.loads(first)
    return next((json.loads(line)["commitInfo"] for line in (first, *others) if b'"commitInfo"' in line), {})


def refuse_overtaken(delta: DeltaTable, commit: Commit) -> None:
    """delta-rs refuses a writer on a stale snapshot alone, so what a fresh one says is looked at first."""
    transaction = commit.transaction
    last = delta.transaction_version(transaction.app_id) if transaction else None
    if transaction and last is not None and last >= transaction.version:
        raise ConflictError(
            f"Another run wrote batch {last} of {transaction.app_id} to {delta.table_uri} before this one's "
            f"{transaction.version}. Nothing of this batch was written; run it again."
        )


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Say in this project's errors what delta-rs says of a write that lost, or that storage did not take."""
    from deltalake.exceptions import CommitFailedError, DeltaError

    try:
        yield
    except CommitFailedError as error:
        raise ConflictError(
            f"Another run changed {uri} at the same moment ({error}). Nothing was written; run it again."
        ) from error
    except (OSError, DeltaError) as error:
        # What storage says (no space left, say) comes as an error of delta-rs's own, among others that are not so.
        is_storage = isinstance(error, OSError) or re.search(r"Generic (?!DeltaTable)\w+ error|os error", str(error))
        if re.search(_UNREADABLE, str(error)) or (tells_of_damage(error) and not is_storage):
            raise damaged_data(uri, error) from error
        if not is_storage:
            raise
        raise DlassetsError(
            f"{uri} could not be written: {advice(uri, error)} Then run again: what was committed before stands."
        ) from error


def z_ordered_by(commit: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns that a commit of the history laid all rows out by; none where it did something else."""
    said = commit.get(Z_ORDER_FIELD) or commit.get("operationParameters", {}).get(Z_ORDER_FIELD)
    return tuple(json.loads(said)) if said else ()


def past_maintenance(uri: str, write: Callable[[], Result]) -> Result:
    """Run `write`, and again where it lost to commits that changed no row: what was planned still holds then."""
    while True:
        before = read_table(uri).version()
        try:
            return write()
        except ConflictError:
            now = read_table(uri).version()
            since = list(islice(commits(uri, now), now - before))
            if not since or any(commit["operation"] not in CARE for commit in since):
                raise


def maintained(
    uri: str, hours: float, keep_versions: Collection[int], compact: Callable[[], None] = lambda: None
) -> Maintained:
    """Run `compact`, then delete files that no version of the last `hours` and none of `keep_versions` needs.

    delta-rs deletes for both engines, since Spark's VACUUM cannot keep versions. A file that no version names and that
    is as old, such as a killed write left, goes as well.
    """
    before = sizes_of(read_table(uri))
    compact()
    after = open_table(uri)

    def vacuum(*, dry_run: bool) -> list[str]:
        kept = sorted(keep_versions) or None
        return after.vacuum(int(hours), dry_run, enforce_retention_duration=False, full=True, keep_versions=kept)

    with explained(uri):
        # Looked at first: a VACUUM makes two versions, and names files that an earlier one deleted.
        filesystem, folder = filesystem_of(uri)
        infos = filesystem.get_file_info([f"{folder}/{file}" for file in vacuum(dry_run=True)])
        if deleted := [info.size for info in infos if info.is_file]:
            vacuum(dry_run=False)
    now = sizes_of(after)
    files = (len(before), sum(before.values()), len(now), sum(now.values()))
    return Maintained(after.version(), *files, len(deleted), sum(deleted))


class DeltaEngine(Engine):
    """What both engines do alike: delta-rs deletes files for either, since Spark's VACUUM cannot keep versions."""

    def maintain(
        self,
        table: Table,
        uri: str,
        *,
        target_bytes: int = 256 * 2**20,
        z_order: Sequence[str] = (),
        vacuum_hours: float = 168,
        keep_versions: Collection[int] = (),
    ) -> Maintained:
        return maintained(uri, vacuum_hours, keep_versions, lambda: self._compact(table, uri, target_bytes, z_order))

    @abstractmethod
    def _compact(self, table: Table, uri: str, target_bytes: int, z_order: Sequence[str]) -> None:
        """Put small files together, or lay all rows out by `z_order`, as `maintain` says."""


def has_small_files(uri: str, target_bytes: int) -> bool:
    """Whether a partition of the table has two files below the target, which might be one."""
    small = [path.rpartition("/")[0] for path, size in sizes_of(read_table(uri)).items() if size < target_bytes]
    return len(small) > len(set(small))


def sizes_of(delta: DeltaTable) -> dict[str, int]:
    """Return the files of a version, as the log names them, and the bytes of each."""
    import pyarrow as pa

    actions = pa.table(delta.get_add_actions(flatten=True))
    return dict(zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True))
