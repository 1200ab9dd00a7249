"""A lake that was moved or copied: what its MLflow store notes of where files lie is put right, in the store alone.

MLflow notes whole addresses where it can only mean a place beside itself: a copy would train into the original, and a
moved lake would find no model. Everything else of a lake names no place of its own.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

from dlassets.storage.databases import PATIENCE_SECONDS

# Where MLflow notes the address of a file or folder.
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)
_ARTIFACTS = "/mlflow/artifacts"
# An experiment's artifacts, where they lie in a lake that is a folder.
_IN_A_LAKE = re.compile(rf"(file:///.*){_ARTIFACTS}(?:/\d+)?")


def move_in(store: Path, root: Path) -> None:
    """Have the store of the lake at `root` name files there, whichever lake at another place it was written in.

    One look where it does already. It is one transaction: it happens whole, or not at all, and once. Where an address
    is of no lake (an experiment that was given a bucket), it stays. Raises sqlite3.Error where the store cannot be
    written.
    """
    with closing(sqlite3.connect(store, timeout=PATIENCE_SECONDS, isolation_level=None)) as connection:
        if not _former_roots(connection, root):
            return
        connection.execute("BEGIN IMMEDIATE")
        for address in _former_roots(connection, root):  # another process may have done it meanwhile
            _readdress(connection, address, root)
        connection.execute("COMMIT")


def _former_roots(connection: sqlite3.Connection, root: Path) -> list[str]:
    """Return the addresses of the lakes, but for this one, that the store's experiments have their artifacts in."""
    noted = connection.execute("SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location IS NOT NULL")
    addresses = {match[1] for (location,) in noted if (match := _IN_A_LAKE.fullmatch(location))}
    return sorted(address for address in addresses if _path_of(address) != root)


def _path_of(address: str) -> Path:
    return Path(unquote(address.removeprefix("file://")))


def _readdress(connection: sqlite3.Connection, former: str, root: Path) -> None:
    before, after = former + _ARTIFACTS, root.as_uri() + _ARTIFACTS
    for table, column in _noted(connection):
        connection.execute(
            f"UPDATE {table} SET {column} = ? || SUBSTR({column}, ?) "  # noqa: S608 - names of this code
            f"WHERE {column} = ? OR SUBSTR({column}, 1, ?) = ?",
            [after, len(before) + 1, before, len(before) + 1, f"{before}/"],
        )
    for dataset, source in connection.execute("SELECT dataset_uuid, dataset_source FROM datasets").fetchall():
        if (moved := _moved(source, _path_of(former), root)) is not None:
            connection.execute("UPDATE datasets SET dataset_source = ? WHERE dataset_uuid = ?", [moved, dataset])


def _noted(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Yield those of _ADDRESSES that the store's release of MLflow has."""
    for table, column in _ADDRESSES:
        there = connection.execute("SELECT 1 FROM pragma_table_info(?) WHERE name = ?", [table, column])
        if there.fetchone() is not None:
            yield table, column


def _moved(source: str, former: Path, root: Path) -> str | None:
    """Return the source of a dataset, which is JSON, under the other root; None where it was not under the former."""
    try:
        said = json.loads(source)
        within = Path(said["path"].removeprefix("file://")).relative_to(former)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return json.dumps({**said, "path": str(root / within)})
