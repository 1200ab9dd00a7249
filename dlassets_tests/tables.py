"""Rows for tests, written as few words: what is not said has a plain default."""

import datetime as dt
import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from dlassets.engines.base import Commit, Engine, Snapshot, Written
from dlassets.engines.local import LocalEngine
from dlassets.lakehouse.classes import update_classes
from dlassets.lakehouse.labels import update_labels
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import TABLES
from dlassets.settings import MaintenanceSettings, Settings
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa

# For a test of either engine whose Spark side is in others' hands: there, each takes seconds.
local_alone = pytest.mark.parametrize("engine", ["local"], indirect=True)

NOON = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)


def image_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def arrow(table: str, *rows: dict[str, Any]) -> "pa.Table":
    """Return rows as this table of the lake has them."""
    import pyarrow as pa

    schema = TABLES[table].schema
    complete = [{field.name: row.get(field.name, _default(field)) for field in schema} for row in rows]
    return pa.Table.from_pylist(complete, schema=schema)


def labelled(name: str, label: int, **more: Any) -> dict[str, Any]:
    """Return a row of labeled_images: a photo in a class folder, to train on."""
    row = {"path": f"labeled/{name}.jpg", "image_id": image_id(name), "label": label, "label_name": f"class {label}"}
    return row | {"source": "folder", "split": "train"} | more


# Shorter than a setting may be: tests cannot wait until a file is a day old.
AT_ONCE = MaintenanceSettings().model_copy(update={"retention_hours": 0})


def put(
    lake: Lake, table: str, *rows: dict[str, Any], engine: Engine | None = None, commit: Commit | None = None
) -> Written:
    """Append rows to a table of the lake: by the local engine unless it is the writing that matters.

    Rows are the same whoever wrote them, and Spark takes a hundred times as long.
    """
    engine = engine or LocalEngine()
    return engine.append(engine.rows(arrow(table, *rows)), TABLES[table], pin(lake, table).uri, commit or Commit())


def pins(lake: Lake, *names: str) -> dict[str, Snapshot]:
    """Return the newest version of each table, by its name."""
    return {name: pin(lake, name) for name in names}


def take_labels(engine: Engine, lake: Lake, settings: Settings) -> Written:
    """Bring the classes, and then the label in force of each image, up to what folders and people say."""
    classes = pins(lake, "raw_images", "deleted_files", "listed_labels", "classes")
    update_classes(engine, classes, settings, Commit())
    tables = pins(lake, *classes, "human_labels", "consensus", "label_requests", "image_profiles", "labeled_images")
    return update_labels(engine, tables, settings, Commit())


def get(engine: Engine, lake: Lake, table: str, columns: str = "*") -> list[dict[str, Any]]:
    """Return the rows of a table, ordered by their text."""
    rows: list[dict[str, Any]] = (
        engine.sql(f"SELECT {columns} FROM {table}", {table: pin(lake, table)}).arrow().to_pylist()
    )
    return sorted(rows, key=repr)


def _default(field: Any) -> Any:
    if field.nullable:
        return None
    defaults: dict[str, Any] = {
        "timestamp[us, tz=UTC]": NOON,
        "date32[day]": NOON.date(),
        "int64": 0,
        "double": 0.0,
        "int32": 0,
        "bool": False,
        "string": "",
        "list<item: string>": [],
    }
    return defaults[str(field.type)]
