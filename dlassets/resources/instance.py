"""Where Dagster keeps its runs and events for a lake."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from dlassets.errors import DlassetsError, SettingsError
from dlassets.lakehouse.tables import CONSENSUS, HUMAN_LABELS
from dlassets.storage.databases import make_once, remedy_of, rows_of
from dlassets.storage.files import write_whole
from dlassets.storage.lake import Lake, local_path

if TYPE_CHECKING:
    import dagster as dg

HOME_VARIABLE = "DAGSTER_HOME"
DEFAULT = Path(__file__).with_name("dagster.yaml")
DATABASES = ("history/runs.db", "history/runs/index.db", "schedules/schedules.db")
_log = logging.getLogger(__name__)
# What these hold once they have been used.
_FILLED = ("runs", "event_logs", "jobs")


def dagster_home(lake: Lake) -> Path:
    """Return Dagster's instance folder, made and configured: DAGSTER_HOME where that is set, else `<root>/dagster`.

    The caller passes it on as DAGSTER_HOME. A dagster.yaml that is there is never touched, and neither is a folder
    named by DAGSTER_HOME that has been used without one. Raises DlassetsError where there can be no such folder.
    """
    home = home_of(lake)
    if warning := other_lake_of(home, lake):
        _log.warning(warning)
    try:
        home.mkdir(parents=True, exist_ok=True)
        config = home / "dagster.yaml"
        is_ours = not os.environ.get(HOME_VARIABLE) or not any(home.iterdir())
        if is_ours and not config.exists():
            write_whole(config, DEFAULT.read_bytes())  # part of one would stand for ever
        if has_own_databases(config):
            make_once(home, DATABASES, _is_whole, _make)
    except (OSError, sqlite3.Error) as error:
        raise DlassetsError(
            f"Dagster's folder {home} cannot be used: {error}. {remedy_of(error)} Or set {HOME_VARIABLE} to another "
            "folder."
        ) from error
    return home


def opened_instance(lake: Lake) -> dg.DagsterInstance:
    """Return the instance of a lake, which is this process's from then on. Raises DlassetsError as `dagster_home`."""
    import dagster as dg

    os.environ[HOME_VARIABLE] = str(dagster_home(lake))
    return dg.DagsterInstance.get()


def home_of(lake: Lake) -> Path:
    """Return where Dagster's instance folder is, or will be. Raises SettingsError where there can be no such folder."""
    if given := os.environ.get(HOME_VARIABLE):
        return Path(given).expanduser().resolve()
    try:
        return local_path(lake.dagster_home)
    except SettingsError as error:
        raise SettingsError(
            f"Dagster's runs and events cannot be kept in {lake.root}: set {HOME_VARIABLE} to a local folder."
        ) from error


def other_lake_of(home: Path, lake: Lake) -> str | None:
    """Return a warning where Dagster's folder is the one in another lake; None where it is this one's, or none's."""
    other = home.parent
    if home.name != Path(lake.dagster_home).name or not (other / "tables").is_dir() or Lake.at(str(other)) == lake:
        return None
    return (
        f"{HOME_VARIABLE} is {home}, which is the lake's at {other}, and this is the one at {lake.root}: its runs, and "
        f"what its sensors have seen, come to lie among the other's. Unset {HOME_VARIABLE}, or set it to "
        f"{lake.dagster_home}."
    )


def has_own_databases(config: Path) -> bool:
    """Whether an instance keeps everything in sqlite in its own folder, as Dagster does unless told otherwise."""
    said = yaml.safe_load(config.read_bytes()) if config.exists() else None
    return not any(name.endswith("storage") for name in said or ())


def _is_whole(database: Path) -> bool:
    """Whether Dagster has made a database to the end, which it numbers last, and once: two that make it at once give it
    two numbers, which Dagster then refuses. One with anything in it is never made anew.
    """
    return rows_of(database, "alembic_version") == 1 or any(rows_of(database, table) for table in _FILLED)


def _make(folder: Path) -> None:
    """Make an instance's databases in an empty folder.

    They say of what other assets can do without that there is nothing yet, or Dagster asks, in red, whether to go on.
    """
    from dagster import AssetMaterialization, DagsterInstance

    nothing_yet = {"changed": "nothing yet: nobody has answered"}
    with DagsterInstance.local_temp(str(folder)) as instance:
        for table in (HUMAN_LABELS, CONSENSUS):
            instance.report_runless_asset_event(AssetMaterialization(table.name, metadata=nothing_yet))
