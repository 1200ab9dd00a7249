"""Pin a table's version, create a table, and read what its last commit says of itself. No JVM, on either engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from dlassets.engines.base import COMMIT_FIELD, Snapshot
from dlassets.errors import ConflictError, DlassetsError
from dlassets.lakehouse.lake import Lake, is_uri
from dlassets.lakehouse.tables import TABLES

ATTEMPTS = 5
Result = TypeVar("Result")


def create(lake: Lake, name: str) -> None:
    """Create the table if it is not there: version 0, no rows, readable by delta-rs and Spark alike."""
    from deltalake import DeltaTable

    table, uri = TABLES[name], lake.table(name)
    if DeltaTable.is_deltatable(uri):
        return
    try:
        if not is_uri(uri):
            Path(uri).mkdir(parents=True, exist_ok=True)
        DeltaTable.create(
            uri,
            schema=table.schema,
            mode="ignore",
            partition_by=list(table.partition_by),
            name=name,
            description=table.description,
        )
    except OSError as error:
        raise DlassetsError(
            f"The lake at {lake.root} cannot be written: {error}. Check that the place exists, has room and is "
            "yours to write, or set DLASSETS_ROOT to another."
        ) from error


def pin(lake: Lake, name: str) -> Snapshot:
    """Return the table's newest version, creating the table first if it is not there."""
    from deltalake import DeltaTable

    create(lake, name)
    uri = lake.table(name)
    return Snapshot(name, uri, DeltaTable(uri).version())


def provenance_of(snapshot: Snapshot) -> dict[str, Any]:
    """Return what the newest commit that says anything recorded; empty where none does."""
    from deltalake import DeltaTable

    for entry in DeltaTable(snapshot.uri, version=snapshot.version).history():
        if said := entry.get(COMMIT_FIELD):
            recorded = json.loads(said)
            return recorded if isinstance(recorded, dict) else {}
    return {}


def transaction_version(snapshot: Snapshot, app_id: str) -> int:
    """Return the last version that `app_id` committed to the table, or -1."""
    from deltalake import DeltaTable

    version = DeltaTable(snapshot.uri, version=snapshot.version).transaction_version(app_id)
    return -1 if version is None else version


def replanned(plan_and_write: Callable[[], Result]) -> Result:
    """Run `plan_and_write`; where another run committed first, again, so that it plans on what stands then."""
    for _ in range(ATTEMPTS - 1):
        try:
            return plan_and_write()
        except ConflictError:
            continue
    return plan_and_write()


def row_count(snapshot: Snapshot) -> int:
    """Return how many rows the version has, from the table's log alone."""
    import pyarrow as pa
    from deltalake import DeltaTable

    actions = pa.table(DeltaTable(snapshot.uri, version=snapshot.version).get_add_actions(flatten=True))
    return sum(actions["num_records"].to_pylist())
