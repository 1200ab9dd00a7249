"""An upgrade on a copy: of the stores and of the tables' logs, in a folder and databases that are deleted then.

Data files are not copied: the copy of a lake in a folder has links to them, which nothing here follows to write. Of a
lake in a bucket the logs alone are copied.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

from dlassets.engines.base import Snapshot
from dlassets.errors import DlassetsError
from dlassets.lakehouse.snapshots import files_of, newest, row_count
from dlassets.masking import masked
from dlassets.registry.store import store_file
from dlassets.resources.backup import Progress, copy_database, dumped, pinned_tables, put_dump_back
from dlassets.resources.instance import DATABASES, HOME_VARIABLE, has_own_databases
from dlassets.resources.upgrade import Change, Stores, changes, dagster_databases, upgrade
from dlassets.settings import Settings
from dlassets.storage.backups import sources_under
from dlassets.storage.files import read_whole, write_whole
from dlassets.storage.lake import Lake, is_local, local_path

# A database of PostgreSQL's for the time of a rehearsal is called as the one it is a copy of, and this.
SUFFIX = "_rehearsal"
_ADDRESS = "REHEARSAL_DAGSTER_URL"
_CHECK_SECONDS = 600


@dataclass(frozen=True)
class Rehearsal:
    """What an upgrade of the copy changed, how many seconds each part took, and what was wrong afterwards."""

    changes: tuple[Change, ...]
    seconds: Mapping[str, float]
    findings: tuple[str, ...]
    looked_at: str


def rehearse(settings: Settings, lake: Lake, progress: Progress) -> Rehearsal:
    """Copy, upgrade the copy, and look at it: rows, tables, databases by `dlassets doctor`, and each model version.

    Raises DlassetsError where anything is of a newer release, or cannot be copied.
    """
    live = Stores.of(settings, lake)
    seconds: dict[str, float] = {}
    wanted = changes(live)

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        began = time.monotonic()
        progress("rehearsal", len(seconds), 3)
        yield
        seconds[what] = time.monotonic() - began

    with tempfile.TemporaryDirectory(prefix="dlassets-rehearsal-") as scratch, ExitStack() as copies:
        with timed("copied"):
            pinned = pinned_tables(lake)
            copy = copies.enter_context(_copied(settings, live, pinned, Path(scratch)))
        with timed("upgraded"):
            upgrade(copy)
        with timed("looked at"):
            findings = [
                *(f"Still to do: {each.what} {each.now}." for each in changes(copy)),
                *_rows(pinned, copy.lake),
                *_doctor(copy, is_whole=is_local(lake.root)),
            ]
            models, versions = _models(settings, copy)
    rows = "rows and logs" if not is_local(lake.root) else "rows, logs and data files"
    return Rehearsal(
        tuple(wanted),
        seconds,
        (*findings, *models),
        f"{rows} of {len(pinned)} tables, the databases, {versions} versions of models",
    )


@contextmanager
def _copied(settings: Settings, live: Stores, pinned: Mapping[str, Snapshot], scratch: Path) -> Iterator[Stores]:
    """Give the copy's stores, in a folder that is empty, and databases that are dropped at the end."""
    lake = Lake.at(str(scratch / "lake"))
    for name, table in pinned.items():
        _copy_table(table, Path(lake.table(name)))
    for zone in settings.landing.values():
        if not Path(place := lake.zone(zone.uri)).is_absolute() or place.startswith(lake.root):
            Path(place).mkdir(parents=True, exist_ok=True)
    (temporary := scratch / "databases").mkdir()
    with ExitStack() as databases:
        mlflow = live.mlflow
        if (file := store_file(live.mlflow)) is not None:
            if file.exists():
                copy_database(file, scratch / "mlflow.db")
                mlflow = f"sqlite:///{scratch / 'mlflow.db'}"
        elif live.mlflow.startswith("postgresql"):
            mlflow = databases.enter_context(_copied_postgres(live.mlflow, temporary))
        home = scratch / "dagster"
        _copy_home(live.dagster, home)
        if has_own_databases(home / "dagster.yaml"):
            for name in DATABASES:
                if (live.dagster / name).exists():
                    (home / name).parent.mkdir(parents=True, exist_ok=True)
                    copy_database(live.dagster / name, home / name)
        else:
            databases.enter_context(_dagster_on_postgres(live, home, temporary))
        yield Stores(lake, mlflow, home)


def _copy_table(table: Snapshot, target: Path) -> None:
    """Copy a table's log up to this version, and link the data files that it has where they lie in a folder."""
    for path, source in sources_under(f"{table.uri}/_delta_log").items():
        if not path[:20].isdecimal() or int(path[:20]) <= table.version:
            write_whole(str(target / "_delta_log" / path), read_whole(source.location))
    if not is_local(table.uri):
        return
    for name in map(unquote, files_of(table)):
        link = target / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(local_path(table.uri) / name)


def _copy_home(home: Path, target: Path) -> None:
    target.mkdir()
    if (config := home / "dagster.yaml").exists():
        (target / "dagster.yaml").write_bytes(config.read_bytes())


@contextmanager
def _copied_postgres(uri: str, temporary: Path) -> Iterator[str]:
    """Give a copy of a database of PostgreSQL, on the same server, for this long."""
    from sqlalchemy import NullPool, create_engine, text
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import DBAPIError

    url = make_url(uri)
    name = f"{url.database}{SUFFIX}"
    server = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    quoted = server.dialect.identifier_preparer.quote(name)

    def run(*statements: str) -> None:
        with server.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))

    try:
        run(f"DROP DATABASE IF EXISTS {quoted}", f"CREATE DATABASE {quoted}")  # the first, where one was killed
    except DBAPIError as error:
        reason = masked(str(error.orig).strip().splitlines()[0])
        raise DlassetsError(
            f"The database {name} for the rehearsal cannot be made: {reason}. Give the user the right (ALTER ROLE "
            f"{url.username} CREATEDB), or wait where another rehearsal runs; or restore a backup elsewhere, and run "
            "`dlassets upgrade` there."
        ) from error
    try:
        copy = url.set(database=name).render_as_string(hide_password=False)
        put_dump_back(Path(dumped(uri, temporary / f"{name}.pgdump").location), copy)
        yield copy
    finally:
        run(f"DROP DATABASE IF EXISTS {quoted} WITH (FORCE)")


@contextmanager
def _dagster_on_postgres(live: Stores, home: Path, temporary: Path) -> Iterator[None]:
    """Have the copy of an instance's folder name a copy of its database, by a variable: it has a password."""
    (address,) = dagster_databases(live.dagster).values() or (None,)
    if address is None:  # whoever keeps it upgrades it: see not_upgraded
        (home / "dagster.yaml").unlink()
        yield
        return
    config = yaml.safe_load((home / "dagster.yaml").read_bytes())
    kept = {name: value for name, value in config.items() if not name.endswith("storage")}
    storage: dict[str, Any] = {"postgres": {"postgres_url": {"env": _ADDRESS}}}
    (home / "dagster.yaml").write_text(yaml.safe_dump(kept | {"storage": storage}))
    with _copied_postgres(address, temporary) as copy:
        os.environ[_ADDRESS] = copy
        try:
            yield
        finally:
            del os.environ[_ADDRESS]


def _rows(pinned: Mapping[str, Snapshot], lake: Lake) -> Iterator[str]:
    for name, before in pinned.items():
        after = newest(lake, name)
        there, kept = row_count(before), 0 if after is None else row_count(after)
        if there != kept:
            yield f"The table {name} has {kept:,} rows after it, and had {there:,}."


def _doctor(copy: Stores, *, is_whole: bool) -> Iterator[str]:
    """Yield what `dlassets doctor` says of the copy, in a process of its own: this one's stores are the lake's."""
    program = [sys.executable, "-m", "dlassets", "doctor", *(["--only=tables"] if is_whole else [])]
    program += ["--only=MLflow's store", "--only=Dagster's databases"]
    environment = os.environ | {
        "DLASSETS_ROOT": copy.lake.root,
        "DLASSETS_MLFLOW__TRACKING_URI": copy.mlflow,
        "DLASSETS_ENGINE": "local",
        HOME_VARIABLE: str(copy.dagster),
    }
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False, timeout=_CHECK_SECONDS)
    if done.returncode:
        yield from (line.strip() for line in done.stderr.splitlines() if line.strip())


def _models(settings: Settings, copy: Stores) -> tuple[list[str], int]:
    """Load each registered version from the copy of the store; return what cannot be, and how many there are."""
    from dlassets.registry.lifecycle import load_package, registered_versions
    from dlassets.registry.store import existing_client

    there = settings.mlflow.model_copy(update={"tracking_uri": copy.mlflow})
    client = existing_client(settings.model_copy(update={"mlflow": there}))
    if client is None:
        return [], 0
    findings, versions = [], registered_versions(client, settings.registry.model_name)
    for version in versions:
        try:
            load_package(client, f"models:/{version.name}/{version.version}", version.source, {})
        except DlassetsError as error:
            findings.append(str(error))
    return findings, len(versions)
