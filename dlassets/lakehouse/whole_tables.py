"""Tables whose rows are a function of other tables, and few enough to be compared whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlassets.engines.base import Commit, Engine, Snapshot, Written
from dlassets.engines.schema import Table


def replace_where_changed(
    engine: Engine, table: Table, current: Snapshot, rows: Sequence[Mapping[str, Any]], commit: Commit
) -> Written:
    """Put the rows in place of those that are there, where any differs, in whatever order; else no new version."""
    import pyarrow as pa

    made = pa.Table.from_pylist(list(rows), schema=table.schema)
    query = f"SELECT {', '.join(table.names)} FROM {table.name}"  # noqa: S608 - the table's own columns
    stand = engine.sql(query, {table.name: current}).arrow()
    if sorted(stand.to_pylist(), key=repr) == sorted(made.to_pylist(), key=repr):
        return Written(current.version, changed=False)
    return engine.replace(engine.rows(made), table, current.uri, commit)
