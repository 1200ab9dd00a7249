"""Where Dagster keeps its runs and events for a lake."""

from __future__ import annotations

import os
from pathlib import Path

from dlassets.errors import DlassetsError, SettingsError
from dlassets.storage.files import write_whole
from dlassets.storage.lake import Lake, local_path

HOME_VARIABLE = "DAGSTER_HOME"
DEFAULT = Path(__file__).with_name("dagster.yaml")


def dagster_home(lake: Lake) -> Path:
    """Return Dagster's instance folder, made and configured: DAGSTER_HOME where that is set, else `<root>/dagster`.

    The caller passes it on as DAGSTER_HOME. A dagster.yaml that is there is never touched, and neither is a folder
    named by DAGSTER_HOME that has been used without one. Raises DlassetsError where there can be no such folder.
    """
    given = os.environ.get(HOME_VARIABLE)
    home = Path(given).expanduser().resolve() if given else _own_home(lake)
    try:
        home.mkdir(parents=True, exist_ok=True)
        config = home / "dagster.yaml"
        is_ours = not given or not any(home.iterdir())
        if is_ours and not config.exists():
            write_whole(config, DEFAULT.read_bytes())  # part of one would stand for ever
    except OSError as error:
        raise DlassetsError(
            f"Dagster's folder {home} cannot be written: {error}. Set {HOME_VARIABLE} to a folder that can."
        ) from error
    return home


def _own_home(lake: Lake) -> Path:
    try:
        return local_path(lake.dagster_home)
    except SettingsError as error:
        raise SettingsError(
            f"Dagster's runs and events cannot be kept in {lake.root}: set {HOME_VARIABLE} to a local folder."
        ) from error
