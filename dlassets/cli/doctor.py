"""`dlassets doctor`: what is wrong with a lake and what stands beside it, each with what to do. It mends nothing."""

from __future__ import annotations

import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

import click

from dlassets.cli import elsewhere
from dlassets.cli.group import settings_and_lake
from dlassets.errors import DlassetsError, SettingsError, some_of
from dlassets.resources.instance import DATABASES, HOME_VARIABLE, has_own_databases, home_of
from dlassets.settings import Settings
from dlassets.storage.databases import explained_databases, remedy_of
from dlassets.storage.lake import Lake, local_path

# With less, a write, or the unpacking of an archive, may end midway.
_ROOM_BYTES = 10**9
_SHOWN = 3

Finding = str
Check = Callable[[Settings, Lake], Iterator[Finding]]


@click.command()
@click.option("--only", multiple=True, metavar="THING", help="This alone, as it is called there; may be repeated.")
def doctor(only: tuple[str, ...]) -> None:
    """Look at everything that a lake needs, and say what is wrong and what to do. Exit code 1 where anything is.

    The photos' own bytes are compared by `dlassets verify`.
    """
    if unknown := [name for name in only if name not in _CHECKS]:
        raise click.UsageError(f"There is no {unknown[0]!r} to look at. There are: {', '.join(_CHECKS)}.")
    settings, lake = settings_and_lake(is_there=False)
    wrong = 0
    for name, look in _CHECKS.items():
        if only and name not in only:
            continue
        findings = list(_found(look, settings, lake))
        wrong += len(findings)
        click.echo(f"{name}: {'well' if not findings else f'{len(findings)} found'}")
        for finding in findings:
            click.secho(f"  {finding}", fg="red", err=True)
    if wrong:
        sys.exit(1)


def _found(look: Check, settings: Settings, lake: Lake) -> Iterator[Finding]:
    try:
        with explained_databases():
            yield from look(settings, lake)
    except DlassetsError as error:
        yield str(error)


def _is_there(_: Settings, lake: Lake) -> Iterator[Finding]:
    from dlassets.lakehouse.snapshots import refuse_no_lake

    refuse_no_lake(lake)
    yield from ()


def _places(_: Settings, lake: Lake) -> Iterator[Finding]:
    folders = [(_temporary_folder(), "TMPDIR")]
    # What is kept in object storage is looked at by the others.
    with suppress(SettingsError):
        folders.append((local_path(lake.root), "DLASSETS_ROOT"))
    with suppress(SettingsError):
        folders.append((home_of(lake), HOME_VARIABLE))
    for folder, variable in folders:
        there = next(each for each in (folder, *folder.parents) if each.exists())
        if not os.access(there, os.W_OK):
            yield f"{folder} cannot be written: see whose {there} is, or set {variable} to another folder."
        elif (room := shutil.disk_usage(there).free) < _ROOM_BYTES:
            yield (
                f"{folder} has room for {room / 1e6:.0f} MB alone: delete something there, let maintenance do so, or "
                f"set {variable} to another folder."
            )


def _temporary_folder() -> Path:
    """Return the folder for temporary files that is meant: Python takes another where that one is full."""
    return Path(next(filter(None, map(os.environ.get, ("TMPDIR", "TEMP", "TMP"))), "/tmp"))  # noqa: S108


def _tables(_: Settings, lake: Lake) -> Iterator[Finding]:
    from dlassets.lakehouse.tables import BOOKS, TABLES

    for name in (*TABLES, *BOOKS):
        try:
            yield from _table(name, lake.table(name))
        except DlassetsError as error:
            yield str(error)


def _table(name: str, uri: str) -> Iterator[Finding]:
    from deltalake.exceptions import TableNotFoundError

    from dlassets.engines.delta_log import commits, open_table, refuse_lost_log, sizes_of

    try:
        delta = open_table(uri)
    except TableNotFoundError:  # nothing has been written to it yet
        refuse_lost_log(uri)
        return
    files = {unquote(path): size for path, size in sizes_of(delta).items()}
    if broken := _broken(uri, files):
        yield (
            f"{name} lacks {len(broken)} of its {len(files)} data files, or they are damaged: "
            f"{some_of(broken, _SHOWN)}. Restore them from a copy, or the table to a version without them: `dlassets "
            f"history {name}`, then `dlassets restore {name} --version N`."
        )
    deque(commits(uri, delta.version()), maxlen=0)  # those before a checkpoint are opened by nobody else


def _broken(uri: str, files: Mapping[str, int]) -> list[str]:
    """Return those of a table's data files, given with their sizes, that are not there as they were written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dlassets.storage.files import listed
    from dlassets.storage.stores import filesystem_of

    filesystem, folder = filesystem_of(uri)
    infos = listed(filesystem, folder, recursive=True)
    there = {info.path.removeprefix(f"{folder}/"): info.size for info in infos if info.is_file}

    def is_whole(file: str, size: int) -> bool:
        try:
            return there.get(file) == size and pq.read_metadata(f"{folder}/{file}", filesystem=filesystem) is not None
        except (OSError, pa.ArrowException):
            return False

    return [file for file, size in files.items() if not is_whole(file, size)]


def _landing_zones(settings: Settings, lake: Lake) -> Iterator[Finding]:
    import pyarrow.fs as pafs

    from dlassets.storage.stores import advice, filesystem_of

    for name, zone in settings.landing.items():
        uri = lake.zone(zone.uri)
        try:
            filesystem, folder = filesystem_of(uri)
            if filesystem.get_file_info(folder).type != pafs.FileType.Directory:
                yield f"The landing zone {name} is not there: make {uri}, or change landing.{name}.uri."
        except OSError as error:
            yield f"The landing zone {name} at {uri} cannot be reached: {advice(uri, error)}"


def _mlflow(settings: Settings, lake: Lake) -> Iterator[Finding]:
    from dlassets.registry.release import refuse_other_release
    from dlassets.registry.store import store_file, store_uri

    if (file := store_file(store_uri(settings, lake))) is None:
        yield from elsewhere.mlflow_server(settings)
    elif file.exists():  # else the first run makes it
        yield from (damage := list(_damage_of(file)))
        if not damage:
            refuse_other_release(store_uri(settings, lake))


def _dagster(_: Settings, lake: Lake) -> Iterator[Finding]:
    home = home_of(lake)
    if not has_own_databases(home / "dagster.yaml"):
        yield from elsewhere.dagster_server(home)
        return
    for name in DATABASES:
        if (home / name).exists():
            yield from _damage_of(home / name)
    yield from elsewhere.of_another_release(home)


def _damage_of(database: Path) -> Iterator[Finding]:
    import sqlite3
    from contextlib import closing

    if not os.access(database, os.W_OK) or not os.access(database.parent, os.W_OK):
        yield f"{database} cannot be written: see whose it and its folder are."
        return
    try:
        with closing(sqlite3.connect(database)) as connection:
            (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            connection.execute("BEGIN IMMEDIATE")  # whether it can be written to
            connection.rollback()
    except sqlite3.DatabaseError as error:
        yield f"{database} cannot be used: {error}. {remedy_of(error)}"
        return
    if said != "ok":
        yield f"{database} is damaged ({said}): restore it from a copy."


def _models(settings: Settings, lake: Lake) -> Iterator[Finding]:
    from deltalake.exceptions import TableNotFoundError

    from dlassets.engines.delta_log import open_table
    from dlassets.lakehouse.tables import TRAINING_SET
    from dlassets.pipeline.session import Session
    from dlassets.registry.lineage import needed_versions

    try:
        open_table(lake.table(TRAINING_SET.name))
    except TableNotFoundError:  # and so there is no model
        return
    session = Session(settings)
    needed_versions(session.engine, lake, session.mlflow.client)
    yield from ()


def _alerts(settings: Settings, lake: Lake) -> Iterator[Finding]:
    from dlassets.alerts.channels import channels_of
    from dlassets.alerts.outbox import read_alerts
    from dlassets.engines.local import LocalEngine
    from dlassets.lakehouse.tables import ALERT_GIVEN_UP

    if not settings.alerts.are_on:
        return
    if given_up := len(read_alerts(LocalEngine(), lake, ALERT_GIVEN_UP)):
        yield f"{given_up} alerts were given up: see `dlassets alerts list`, and send them by `dlassets alerts send`."
    channels_of(settings.alerts)


_CHECKS: dict[str, Check] = {
    "bucket": elsewhere.bucket,
    "lake": _is_there,
    "room and rights": _places,
    "landing zones": _landing_zones,
    "tables": _tables,
    "MLflow's store": _mlflow,
    "Dagster's databases": _dagster,
    "Spark": elsewhere.spark,
    "models that the tables name": _models,
    "alerts": _alerts,
}
