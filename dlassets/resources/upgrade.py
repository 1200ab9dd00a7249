"""A lake that an earlier release made, brought to this one's: its tables, MLflow's store and Dagster's databases.

What of it is to do is told by what is there alone, so that what was killed goes on where it is run again.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlassets.engines.delta_log import read_table
from dlassets.errors import DlassetsError, some_of
from dlassets.lakehouse.snapshots import brought_up, lacking, newest, replanned
from dlassets.lakehouse.tables import BOOKS, TABLES
from dlassets.masking import masked
from dlassets.registry.release import newer, standing_of, upgrade_store
from dlassets.registry.store import require_driver, store_file, store_uri
from dlassets.resources.backup import Progress, back_up, dagsters_postgres
from dlassets.resources.instance import DATABASES, has_own_databases, home_of
from dlassets.settings import Settings
from dlassets.storage.databases import Standing, standing
from dlassets.storage.files import is_there, read_whole, remove_file, write_whole
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

# Lies in a root while it is upgraded, and says which backup was made before.
BEGUN = ".upgrade-begun"
# What Dagster's daemon says that it is there by; it does so every half minute.
_DAEMON_SECONDS = 60
_SHOWN = 5
# What this project's readers of data files do not see; see loader/row_groups.py.
_UNREADABLE = {"deletionVectors", "columnMapping"}


@dataclass(frozen=True)
class Stores:
    """Where what is upgraded lies: the lake, MLflow's store by its URI, and the folder of Dagster's instance."""

    lake: Lake
    mlflow: str
    dagster: Path

    @classmethod
    def of(cls, settings: Settings, lake: Lake) -> Stores:
        return cls(lake, store_uri(settings, lake), home_of(lake))


@dataclass(frozen=True)
class Change:
    """One thing that an upgrade does: to what, and how it is now and will be."""

    what: str
    now: str
    then: str


@dataclass(frozen=True)
class Upgraded:
    """What an upgrade did, and the backup that was made before it, by its place and name."""

    changes: tuple[Change, ...]
    place: str
    backup: str


def changes(stores: Stores) -> list[Change]:
    """Return what an upgrade would do, none where nothing; all is only looked at.

    Raises DlassetsError where anything was written by a newer release, or cannot be read.
    """
    return [*_of_tables(stores.lake), *_of_mlflow(stores.mlflow), *changes_of_dagster(stores.dagster)]


def not_upgraded(stores: Stores) -> list[str]:
    """Return what whoever keeps it must upgrade."""
    left = []
    if standing_of_mlflow(stores.mlflow) is None and store_file(stores.mlflow) is None:
        left.append(f"MLflow's server at {masked(stores.mlflow)}: its own `mlflow db upgrade`, on its machine")
    config = stores.dagster / "dagster.yaml"
    if not has_own_databases(config) and dagsters_postgres(stores.dagster) is None:
        left.append(f"Dagster's databases that {config} names: `dagster instance migrate`")
    return left


def upgrade(stores: Stores) -> None:
    """Do it. Each part may be run again, whatever became of it before. Raises DlassetsError as `changes` does."""
    for name in tables_there(stores.lake):
        replanned(functools.partial(brought_up, stores.lake, (TABLES | BOOKS)[name]))
    if (mlflow := standing_of_mlflow(stores.mlflow)) is not None and mlflow.is_older:
        upgrade_store(stores.mlflow)
    if dagster_databases(stores.dagster):
        _upgrade_dagster(stores.dagster)


def upgrade_lake(settings: Settings, lake: Lake, target: str, progress: Progress) -> Upgraded | None:
    """Back a lake up, then upgrade it; None where there is nothing to do.

    One that was killed goes on where it is run again, and makes no other backup. Raises DlassetsError, with nothing
    changed, where anything is of a newer release, Dagster's daemon or a run goes on, or the backup fails.
    """
    stores = Stores.of(settings, lake)
    wanted = changes(stores)
    begun = lake.under(BEGUN)
    if not wanted and not is_there(begun):
        return None
    _refuse_in_use(stores.dagster)
    if not is_there(begun):
        made = back_up(settings, lake, target, progress)
        write_whole(begun, json.dumps({"place": target, "backup": made.manifest.name}))
    kept = json.loads(read_whole(begun))
    upgrade(stores)
    remove_file(begun)
    return Upgraded(tuple(wanted), **kept)


def tables_there(lake: Lake) -> list[str]:
    """Return the tables that have been made."""
    return [name for name in (*TABLES, *BOOKS) if newest(lake, name) is not None]


def _of_tables(lake: Lake) -> Iterator[Change]:
    for name in tables_there(lake):
        _refuse_newer_table(lake.table(name), name)
        columns, properties = lacking(lake, (TABLES | BOOKS)[name])
        if columns:
            yield Change(
                f"table {name}", f"lacks {len(columns)} columns", f"has {', '.join(columns)}, null in old rows"
            )
        if properties:
            yield Change(f"table {name}", "keeps its log another way", f"has {', '.join(properties)}")


def _refuse_newer_table(uri: str, name: str) -> None:
    features = set(read_table(uri).protocol().reader_features or ())
    if unreadable := sorted(features & _UNREADABLE):
        raise DlassetsError(
            f"The table {name} uses {' and '.join(unreadable)}, which is not read here. Nothing was changed. Use the "
            f"release of dlassets that wrote it, or drop the feature on Spark: ALTER TABLE delta.`{uri}` DROP FEATURE "
            f"{unreadable[0]}."
        )


def standing_of_mlflow(uri: str) -> Standing | None:
    """As `standing_of`; None too where a store that is a file has not been made."""
    file = store_file(uri)
    if file is not None and not file.exists():
        return None
    require_driver(uri)
    return standing_of(uri)


def _of_mlflow(uri: str) -> Iterator[Change]:
    there = standing_of_mlflow(uri)
    yield from () if there is None else _of_database(f"MLflow's store {masked(uri)}", there)


def changes_of_dagster(home: Path) -> Iterator[Change]:
    """Yield what an upgrade would do to the databases of an instance. Raises DlassetsError as `changes` does."""
    for what, uri in dagster_databases(home).items():
        yield from _of_database(f"Dagster's {what}", standing(uri, _dagsters_scripts()))


def _of_database(what: str, there: Standing) -> Iterator[Change]:
    if there.is_newer:
        raise newer(what, there)
    if there.is_older:
        yield Change(what, f"is of {there.revision}", f"is of {there.newest}")


def dagster_databases(home: Path) -> dict[str, str]:
    """Return the URIs of the databases of an instance that have been made, by what they are called."""
    if has_own_databases(home / "dagster.yaml"):
        return {name: f"sqlite:///{home / name}" for name in DATABASES if (home / name).exists()}
    address = dagsters_postgres(home)
    return {} if address is None else {f"database {masked(address)}": address}


@functools.cache
def _dagsters_scripts() -> ScriptDirectory:
    from alembic.script import ScriptDirectory
    from dagster._core.storage.runs.sqlite import sqlite_run_storage
    from dagster._core.storage.sql import get_alembic_config

    return ScriptDirectory.from_config(get_alembic_config(sqlite_run_storage.__file__))


def _upgrade_dagster(home: Path) -> None:
    """Run Dagster's own migrations, which look at what is there before each change, and so may be run again."""
    import dagster as dg

    said = io.StringIO()  # it draws a bar of its own
    with (
        dg.DagsterInstance.from_config(str(home)) as instance,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        instance.upgrade()


def _refuse_in_use(home: Path) -> None:
    """Raise DlassetsError where Dagster's daemon or a run goes on: what it wrote meanwhile might be lost."""
    from sqlalchemy import NullPool, create_engine, inspect, text

    databases = dagster_databases(home)
    uri = databases.get(DATABASES[0]) or next(iter(databases.values()), None)
    if uri is None:
        return
    # Asked of the tables themselves: Dagster's own way may not know these of an earlier release.
    with create_engine(uri, poolclass=NullPool).connect() as connection:
        if not inspect(connection).has_table("daemon_heartbeats"):
            return
        heard = connection.execute(text("SELECT MAX(timestamp) FROM daemon_heartbeats")).scalar()
        going_on = "SELECT run_id FROM runs WHERE status IN ('STARTING', 'STARTED', 'CANCELING')"
        runs = list(connection.execute(text(going_on)).scalars())
    if heard is not None and _seconds_since(heard) < _DAEMON_SECONDS:
        raise DlassetsError(
            f"Dagster's daemon was heard of {_seconds_since(heard):.0f} seconds ago: stop it, and all else that uses "
            "the lake, and run again in a minute. Nothing was changed."
        )
    if runs:
        raise DlassetsError(
            f"These runs of Dagster go on: {some_of(runs, _SHOWN)}. Wait for them, or end them on its page, and run "
            "again. Nothing was changed."
        )


def _seconds_since(heard: str | dt.datetime) -> float:
    at = heard if isinstance(heard, dt.datetime) else dt.datetime.fromisoformat(heard)
    return (dt.datetime.now(dt.UTC) - (at if at.tzinfo else at.replace(tzinfo=dt.UTC))).total_seconds()
