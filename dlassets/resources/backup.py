"""A lake with all that stands beside it, backed up while everything runs, and restored into an empty root.

Tables are taken at versions that they all had at one moment, with the history that their logs have. Databases of sqlite
are copied by sqlite's own backup, PostgreSQL's by pg_dump; other files as they lie.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from dlassets.engines.base import Snapshot
from dlassets.errors import DlassetsError
from dlassets.lakehouse.snapshots import files_of, newest
from dlassets.lakehouse.tables import BOOKS, TABLES
from dlassets.masking import masked
from dlassets.registry.store import store_file, store_uri
from dlassets.resources.instance import has_own_databases, home_of
from dlassets.settings import Settings
from dlassets.storage.backups import Backups, Held, Manifest, Source, is_empty, named, sources_under
from dlassets.storage.databases import PATIENCE_SECONDS
from dlassets.storage.files import files_under, is_there, is_unfinished, read_whole, remove_file, write_whole
from dlassets.storage.lake import Lake, local_path
from dlassets.storage.stores import is_object_storage

DAGSTER, _CONFIG = "dagster/", "dagster.yaml"
# Dumps of databases of PostgreSQL, by whose they are.
_DUMPS = "dumps/"
_OF_MLFLOW, _OF_DAGSTER = f"{_DUMPS}mlflow.pgdump", f"{_DUMPS}dagster.pgdump"
# Lies in a root while a backup is restored to it, and says which.
BEGUN = ".restore-begun"
_LOG = "/_delta_log/"
_ROUNDS = 5
# Folders of a lake that have none, or whose have their own way.
_NO_DATABASES = {"tables", "files", "landing", DAGSTER[:-1]}
_SQLITE = b"SQLite format 3\0"
_DATABASES = (".db", ".sqlite", ".sqlite3")
_JOURNALS = ("-wal", "-shm", "-journal")

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Done:
    """A backup that was made, and the bytes that had to be copied for it."""

    manifest: Manifest
    copied: int


def back_up(settings: Settings, lake: Lake, target: str, progress: Progress) -> Done:
    """Back a lake up to a folder or bucket, and write the manifest last.

    Raises DlassetsError where something of it cannot be read, or the target not be written.
    """
    if Lake.at(target).root == lake.root or Lake.at(target).root.startswith(f"{lake.root}/"):
        raise DlassetsError(f"{target} lies in the lake: it would be gone with it. Name a place elsewhere.")
    backups = Backups(target)
    before = backups.to_build_on()
    with tempfile.TemporaryDirectory(prefix="dlassets-backup-") as scratch:
        pinned, databases, left_out = _one_moment(settings, lake, Path(scratch), before)
        sources = dict(_files(lake, pinned) | databases)
        unchanged = {path: source for path, source in sources.items() if isinstance(source, Held)}
        wanted = {path: source for path, source in sources.items() if isinstance(source, Source)}
        held, copied = backups.copy(wanted, before, lambda done: progress("files", done, len(wanted)))
    if gone := [path for path in wanted if path.startswith("tables/") and path not in held]:
        raise DlassetsError(f"{gone[0]} was deleted while it was copied: run again.")
    made_at = dt.datetime.now(dt.UTC).isoformat()
    versions = {name: snapshot.version for name, snapshot in pinned.items()}
    manifest = Manifest(made_at, dict(sorted((held | unchanged).items())), versions, left_out)
    return Done(replace(manifest, name=backups.add(manifest)), copied)


def _one_moment(
    settings: Settings, lake: Lake, scratch: Path, before: Manifest | None
) -> tuple[dict[str, Snapshot], dict[str, Source | Held], list[str]]:
    """Return tables and databases as they were at one moment: where nothing was committed while these were copied.

    Where something always is, tables are as they were at one moment before: what they name is in the databases.
    """
    for _ in range(_ROUNDS):
        pinned = pinned_tables(lake)
        shutil.rmtree(scratch)
        scratch.mkdir()
        databases, left_out = _databases(settings, lake, scratch, before)
        if pinned_tables(lake) == pinned:
            break
    return pinned, databases, left_out


def pinned_tables(lake: Lake) -> dict[str, Snapshot]:
    """Return each table at the version that it had at one moment: none committed between two looks."""
    while True:
        first, second = _newest(lake), _newest(lake)
        if first == second:
            return first


def _newest(lake: Lake) -> dict[str, Snapshot]:
    found = {name: newest(lake, name) for name in (*TABLES, *BOOKS)}
    return {name: snapshot for name, snapshot in found.items() if snapshot is not None}


def _files(lake: Lake, pinned: Mapping[str, Snapshot]) -> dict[str, Source | Held]:
    """Return the files of a lake but for its databases: of each table, those of the versions up to the pinned one."""
    found: dict[str, Source | Held] = {}
    for name, snapshot in pinned.items():
        found |= _of_table(lake, name, snapshot)
    for path, source in sources_under(lake.root).items():
        top, _, rest = path.partition("/")
        if top not in {"tables", DAGSTER[:-1]} and not rest.startswith(".") and not _is_of_database(source.location):
            found[path] = source
    return found


def _of_table(lake: Lake, name: str, snapshot: Snapshot) -> dict[str, Source]:
    """Return the files of a table that its versions up to this one may need: those of later commits are not."""
    files = sources_under(lake.table(name), f"tables/{name}/")
    log = {path: path.rpartition("/")[2] for path in files if _LOG in path}
    later = {path for path, file in log.items() if not file[:20].isdecimal() or int(file[:20]) > snapshot.version}
    for path in later:
        if path.endswith(".json") and log[path][:20].isdecimal():
            later = later | {f"tables/{name}/{added}" for added in _added_by(files[path].location)}
    needed = {f"tables/{name}/{unquote(file)}" for file in files_of(snapshot)}
    if lost := sorted(needed - files.keys()):
        raise DlassetsError(f"{lost[0]} is gone: see `dlassets doctor`. Nothing was backed up.")
    return {path: source for path, source in files.items() if path in needed or path not in later}


def _added_by(commit: str) -> Iterator[str]:
    for line in read_whole(commit).splitlines():
        if b'"add"' in line and (added := json.loads(line).get("add")):
            yield unquote(added["path"])


def _databases(
    settings: Settings, lake: Lake, scratch: Path, before: Manifest | None
) -> tuple[dict[str, Source | Held], list[str]]:
    """Copy the databases to a folder; return these as sources, and which could not be copied."""
    found: dict[str, Source | Held] = {}
    if not is_object_storage(lake.root):
        own = {
            path: source for path, source in sources_under(lake.root).items() if path.split("/")[0] not in _NO_DATABASES
        }
        found |= {path: _copy_of(each, path, scratch, before) for path, each in own.items() if is_sqlite(each.location)}
    uri = store_uri(settings, lake)
    left_out = []
    if uri.startswith("postgresql"):
        found[_OF_MLFLOW] = dumped(uri, scratch / "mlflow.pgdump")
    elif store_file(uri) is None:
        left_out.append(f"MLflow's store at {masked(uri)}: back that server up by itself")
    home = home_of(lake)
    found |= _of_dagster(home, scratch, before)
    config = home / _CONFIG
    if config.exists() and not has_own_databases(config) and _OF_DAGSTER not in found:
        left_out.append(f"Dagster's databases that {config} names: back their server up by itself")
    return found, left_out


def _of_dagster(home: Path, scratch: Path, before: Manifest | None) -> dict[str, Source | Held]:
    """Return what an instance's folder has, its databases copied, and where they are PostgreSQL's a dump of them."""
    found: dict[str, Source | Held] = {}
    for path, source in sources_under(str(home), DAGSTER).items():
        if is_sqlite(source.location):
            found[path] = _copy_of(source, path, scratch, before)
        elif not path.endswith((*_JOURNALS, ".lock")):
            found[path] = source
    config = home / _CONFIG
    if config.exists() and not has_own_databases(config) and (address := dagsters_postgres(home)):
        found[_OF_DAGSTER] = dumped(address, scratch / "dagster.pgdump")
    return found


def _is_of_database(location: str) -> bool:
    name = location.rpartition("/")[2]
    stem = next((name.removesuffix(end) for end in _JOURNALS if name.endswith(end)), name)
    return stem.endswith(_DATABASES)


def is_sqlite(location: str) -> bool:
    if not location.endswith(_DATABASES):
        return False
    with local_path(location).open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def _copy_of(source: Source, path: str, scratch: Path, before: Manifest | None) -> Source | Held:
    """Return a whole copy of a database of sqlite as a source, or what the backup before holds of it as it is now."""
    database = local_path(source.location)
    wal = database.with_name(f"{database.name}-wal")
    stamp = f"{source.stamp} {wal.stat().st_mtime_ns if wal.exists() and wal.stat().st_size else ''}"
    held = before.files.get(path) if before else None
    if held is not None and held.stamp == stamp:
        return held
    copy = scratch / f"{len(list(scratch.iterdir()))}.db"
    copy_database(database, copy)
    return Source(str(copy), copy.stat().st_size, stamp)


def copy_database(database: Path, target: Path) -> None:
    """Copy a database of sqlite whole while it is used. Raises DlassetsError where it cannot be read."""
    try:
        with (
            closing(sqlite3.connect(database, timeout=PATIENCE_SECONDS)) as live,
            closing(sqlite3.connect(target)) as new,
        ):
            live.backup(new)
    except sqlite3.Error as error:
        raise DlassetsError(f"{database} cannot be backed up: {error}. See `dlassets doctor`.") from error


def dagsters_postgres(home: Path) -> str | None:
    import dagster as dg

    with dg.DagsterInstance.from_config(str(home)) as instance:
        return getattr(instance.run_storage, "postgres_url", None)


@contextmanager
def _postgres(uri: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Give a database's address without its password, and an environment that has it."""
    from sqlalchemy.engine import make_url

    url = make_url(uri).set(drivername="postgresql")
    secret = {"PGPASSWORD": str(url.password)} if url.password else {}
    yield url.set(password=None).render_as_string(hide_password=False), {**os.environ, **secret}


def run_client(program: str, *arguments: str, uri: str) -> None:
    with _postgres(uri) as (address, environment):
        try:
            done = subprocess.run(
                [program, *arguments, "--dbname", address], env=environment, capture_output=True, text=True, check=False
            )
        except FileNotFoundError as error:
            raise DlassetsError(f"{program} is not installed: it comes with PostgreSQL's client programs.") from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it did not say why"])[0]
        raise DlassetsError(f"{program} failed: {said}. See that the server runs and is no newer than {program}.")


def dumped(uri: str, file: Path) -> Source:
    run_client("pg_dump", "--format=custom", "--no-owner", f"--file={file}", uri=uri)
    return Source(str(file), file.stat().st_size, "")


def put_dump_back(file: Path, uri: str) -> None:
    """Restore a dump to a database of PostgreSQL; tables of these names that are there are replaced."""
    options = ("--no-owner", "--clean", "--if-exists", "--single-transaction")
    run_client("pg_restore", *options, str(file), uri=uri)


def restore_backup(settings: Settings, lake: Lake, source: str, progress: Progress) -> Manifest:
    """Restore the newest backup at a place into an empty root, or the one whose manifest is named.

    One that was killed goes on where it is run again.

    The backup is read as a whole first, and a damaged one refused before anything is written. Raises DlassetsError
    where the root, Dagster's folder or a database is not empty.
    """
    backups, name = named(source)
    manifest = backups.required(name)
    _refuse_full(settings, lake, manifest)
    backups.refuse_damaged(manifest, lambda done: progress("files looked at", done, len(manifest.files)))
    write_whole(lake.under(BEGUN), manifest.name)
    home = home_of(lake)

    def place_of(path: str) -> str:
        return str(home / path.removeprefix(DAGSTER)) if path.startswith(DAGSTER) else lake.under(path)

    # A table is there once its log is: what it names lies there by then.
    files = [path for path in manifest.files if not path.startswith(_DUMPS)]
    if (home / _CONFIG).exists():  # which says where Dagster's databases are from now on
        files = [path for path in files if path != f"{DAGSTER}{_CONFIG}"]
    rounds = (
        [path for path in files if _LOG not in path],
        [path for path in files if _LOG in path],
    )
    for paths in rounds:
        backups.put_back(manifest, paths, place_of, functools.partial(_tell, progress, len(paths)))
    for path, uri in _targets_of_dumps(settings, lake, manifest).items():
        with tempfile.TemporaryDirectory(prefix="dlassets-restore-") as scratch:
            backups.put_back(manifest, [path], Lake(scratch).under, lambda _: None)
            put_dump_back(Path(Lake(scratch).under(path)), uri)
    _tidy(lake.root, str(home))
    remove_file(lake.under(BEGUN))
    return manifest


def _tidy(*places: str) -> None:
    """Delete what restores that were killed were writing: the places were empty before the first of them."""
    for place in places:
        for path, info in files_under(place).items():
            if is_unfinished(info.base_name):
                remove_file(f"{place}/{path}")


def _tell(progress: Progress, total: int, done: int) -> None:
    progress("files", done, total)


def _targets_of_dumps(settings: Settings, lake: Lake, manifest: Manifest) -> dict[str, str]:
    """Return the databases that dumps of a backup go to. Raises DlassetsError where the settings name none."""
    found = {}
    if _OF_MLFLOW in manifest.files:
        found[_OF_MLFLOW] = store_uri(settings, lake)
    if _OF_DAGSTER in manifest.files:
        found[_OF_DAGSTER] = dagsters_postgres(home_of(lake)) or ""
    if wrong := [path for path, uri in found.items() if not uri.startswith("postgresql")]:
        raise DlassetsError(
            f"The backup has a database of PostgreSQL ({wrong[0]}): set DLASSETS_MLFLOW__TRACKING_URI, or Dagster's "
            "dagster.yaml, to an empty one that it is restored to."
        )
    return found


def _refuse_full(settings: Settings, lake: Lake, manifest: Manifest) -> None:
    if _OF_MLFLOW in manifest.files and not store_uri(settings, lake).startswith("postgresql"):
        _targets_of_dumps(settings, lake, replace(manifest, files={_OF_MLFLOW: manifest.files[_OF_MLFLOW]}))
    begun = lake.under(BEGUN)
    if is_there(begun):
        if (name := read_whole(begun).decode()) != manifest.name:
            raise DlassetsError(f"Into {lake.root} the backup {name} was being restored: empty it, and run again.")
        return
    for place in (lake.root, str(home_of(lake))):
        if not is_empty(place, but=_CONFIG):
            raise DlassetsError(
                f"{place} is not empty, and nothing of it may be lost: set DLASSETS_ROOT to a folder that is new, and "
                "DAGSTER_HOME too where that is set."
            )


def verify(source: str, progress: Progress) -> Manifest:
    """Read the newest backup at a place as a whole. Raises DlassetsError where it is damaged, or there is none."""
    backups = Backups(source)
    manifest = backups.required()
    backups.refuse_damaged(manifest, lambda done: progress("files looked at", done, len(manifest.files)))
    return manifest
