"""Pin a table's version, create or extend a table, read what its commits say of themselves. No JVM on either engine."""

from __future__ import annotations

import datetime as dt
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dlassets.engines import delta_log
from dlassets.engines.base import COMMIT_FIELD, COMMIT_NAME, Snapshot
from dlassets.engines.delta_log import CARE, COMMITS_PER_CHECKPOINT, explained, open_table, read_table, refuse_lost_log
from dlassets.engines.schema import Column, Table, schema_of
from dlassets.errors import ConflictError, DlassetsError
from dlassets.lakehouse.tables import TABLES
from dlassets.storage.files import listed
from dlassets.storage.lake import Lake, is_uri
from dlassets.storage.stores import advice, filesystem_of

if TYPE_CHECKING:
    from deltalake import DeltaTable

ATTEMPTS = 5
# A log that cleans itself forgets the versions models were trained on: `maintenance` cleans it, and knows those.
PROPERTIES = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.checkpointInterval": str(COMMITS_PER_CHECKPOINT),
}
_SQL_NAMES = {"byte": "tinyint", "short": "smallint", "integer": "int", "long": "bigint"}
_REMEDY = (
    "Nothing was written. Rename or drop that column with the tool that made it, or move the table's folder away: it "
    "is then made anew."
)
Result = TypeVar("Result")


def refuse_no_lake(lake: Lake) -> None:
    """Raise DlassetsError where the root holds no table: a look at one that is not there would make it."""
    with _reached(lake):
        filesystem, folder = filesystem_of(lake.table(""))
        is_there = bool(listed(filesystem, folder.rstrip("/")))
    if not is_there:
        raise DlassetsError(
            f"There is no lake at {lake.root}: nothing was taken in there yet. Set DLASSETS_ROOT to the lake's root, "
            "or put photos into its landing zones and run ingest_pipeline."
        )


def pin(lake: Lake, name: str) -> Snapshot:
    """Return the table's newest version, having created it or brought it up to its definition where need be."""
    return evolve(lake, TABLES[name])


def newest(lake: Lake, name: str) -> Snapshot | None:
    """Return the table's newest version as it stands, None where it has not been made. Nothing is made or added."""
    from deltalake.exceptions import TableNotFoundError

    uri = lake.table(name)
    try:
        return Snapshot(name, uri, read_table(uri).version())
    except TableNotFoundError:
        return None


def evolve(lake: Lake, table: Table) -> Snapshot:
    """Return the newest version of the table with every column that `table` has, adding those it lacks.

    That is one commit to the log alone: no row is rewritten, and older rows have null there. Columns that only the
    table has are kept. Raises DlassetsError, before anything is written, where a column cannot be what `table` says.
    """
    return Snapshot(table.name, lake.table(table.name), ready_table(lake, table).version())


def ready_table(lake: Lake, table: Table, opened: Callable[[str], DeltaTable] | None = None) -> DeltaTable:
    """Return what `evolve` does as delta-rs has it, to be read and never to be written with. See `read_table`."""
    from deltalake.exceptions import TableNotFoundError

    uri = lake.table(table.name)

    def ready() -> DeltaTable:
        with _reached(lake):
            try:
                delta = read_table(uri, opened=opened)
            except TableNotFoundError:
                _create(uri, table)
                delta = read_table(uri, opened=opened)
        if lacking := _lacking(table, delta.schema().to_json()):
            _add(open_table(uri, delta.version()), lacking)
            delta = read_table(uri, opened=opened)
        return delta

    return replanned(ready)


def lacking(lake: Lake, table: Table) -> tuple[list[str], list[str]]:
    """Return the columns and properties that a table which is there has not got yet. Nothing is written.

    Raises DlassetsError as `evolve` does.
    """
    delta = read_table(lake.table(table.name))
    columns = [column.name for column in _lacking(table, delta.schema().to_json())]
    return columns, sorted(_properties_lacking(delta))


def brought_up(lake: Lake, table: Table) -> Snapshot:
    """Return the table as it was before, having given it the columns and properties that new ones have.

    Raises DlassetsError as `evolve` does.
    """
    now = evolve(lake, table)
    delta = open_table(now.uri)
    if wanted := _properties_lacking(delta):
        with explained(now.uri):
            delta.alter.set_table_properties(wanted)
    return now


def _properties_lacking(delta: DeltaTable) -> dict[str, str]:
    there = delta.metadata().configuration
    return {name: value for name, value in PROPERTIES.items() if there.get(name) != value}


def _create(uri: str, table: Table) -> None:
    """Create the table: version 0, no rows, readable by delta-rs and Spark alike.

    Raises DlassetsError where data files lie there already: it would have none of their rows.
    """
    from deltalake import DeltaTable

    refuse_lost_log(uri)
    if not is_uri(uri):
        Path(uri).mkdir(parents=True, exist_ok=True)
    DeltaTable.create(
        uri,
        schema=table.schema,
        mode="ignore",
        partition_by=list(table.partition_by),
        name=table.name,
        description=table.description,
        configuration={**PROPERTIES},
    )


@contextmanager
def _reached(lake: Lake) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DlassetsError(
            f"The lake at {lake.root} cannot be written: {advice(lake.root, error)} Or set DLASSETS_ROOT to another."
        ) from error


@functools.lru_cache(maxsize=256)
def _lacking(table: Table, schema: str) -> tuple[Column, ...]:
    """Return the columns that a table of this schema (Delta's JSON) lacks. Raises DlassetsError as `evolve` does."""
    fields = {field["name"]: field for field in json.loads(schema)["fields"]}
    spelled = {name.lower(): name for name in fields}
    for column in table.columns:
        found = spelled.get(column.name.lower(), column.name)
        if found != column.name:
            raise DlassetsError(
                f"Table {table.name} has a column {found}, which Spark does not tell from {column.name}, and that must "
                f"be a {column.type}. {_REMEDY}"
            )
        if found in fields and (type_ := _sql_type(fields[found]["type"])) != column.type:
            raise DlassetsError(
                f"Column {found} of table {table.name} is of type {type_} there, and must be {column.type}. {_REMEDY}"
            )
        if found in fields and column.nullable and not fields[found]["nullable"]:
            raise DlassetsError(
                f"Column {found} of table {table.name} is NOT NULL there, and must take null. Let it: ALTER TABLE … "
                f"ALTER COLUMN {found} DROP NOT NULL."
            )
    for name in fields.keys() - set(table.names):
        if not fields[name]["nullable"]:
            raise DlassetsError(
                f"Table {table.name} has a further column {name} that is NOT NULL, and what dlassets writes has no "
                f"value for it. Let it be null (ALTER TABLE … ALTER COLUMN {name} DROP NOT NULL), or drop it."
            )
    return tuple(column for column in table.columns if column.name not in fields)


def _sql_type(type_: Any) -> str:
    """Return Spark SQL's name of a type in a Delta schema's JSON."""
    if isinstance(type_, str):
        return _SQL_NAMES.get(type_, type_)
    if type_["type"] == "array":
        return f"array<{_sql_type(type_['elementType'])}>"
    if type_["type"] == "map":
        return f"map<{_sql_type(type_['keyType'])},{_sql_type(type_['valueType'])}>"
    fields = ",".join(f"{field['name']}:{_sql_type(field['type'])}" for field in type_["fields"])
    return f"struct<{fields}>"


def _add(delta: DeltaTable, columns: Sequence[Column]) -> None:
    """Add columns, all in one commit. Rows that are there have no value in them, so they take null."""
    from deltalake import Schema

    with explained(delta.table_uri):
        delta.alter.add_columns(Schema.from_arrow(schema_of(columns)).fields)


def at_version(table: Snapshot, version: int) -> Snapshot | None:
    """Return a version of the table, or None where its log does not have it (any more).

    Only a commit that is not there counts as gone: what cannot be read for another reason may still be needed.
    """
    filesystem, folder = filesystem_of(table.uri)
    commit = filesystem.get_file_info(f"{folder}/_delta_log/{version:020}.json")
    return replace(table, version=version) if commit.is_file else None


def commits(snapshot: Snapshot) -> Iterator[dict[str, Any]]:
    """Yield the commits up to this version, newest first, as far as the table's log goes back."""
    return delta_log.commits(snapshot.uri, snapshot.version)


def time_of(commit: Mapping[str, Any]) -> dt.datetime:
    return dt.datetime.fromtimestamp(commit["timestamp"] / 1000, dt.UTC)


def recorded(commit: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a commit says of itself but for its name; nothing where another tool's words are no JSON."""
    try:
        said = json.loads(commit.get(COMMIT_FIELD) or "{}")
    except json.JSONDecodeError:
        return {}
    return {key: value for key, value in said.items() if key != COMMIT_NAME} if isinstance(said, dict) else {}


def provenance_of(snapshot: Snapshot) -> dict[str, Any]:
    """Return what the newest commit that says anything recorded; empty where none does."""
    return next((said for commit in commits(snapshot) if (said := recorded(commit))), {})


def settled(snapshot: Snapshot) -> Snapshot:
    """Return the version that first had these very rows: care of a table makes versions too, but no rows."""
    changed = (commit["version"] for commit in commits(snapshot) if commit["operation"] not in CARE)
    return replace(snapshot, version=next(changed, snapshot.version))


def transaction_version(snapshot: Snapshot, app_id: str) -> int:
    """Return the last version that `app_id` committed to the table, or -1."""
    version = read_table(snapshot.uri, snapshot.version).transaction_version(app_id)
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
    return rows_in(read_table(snapshot.uri, snapshot.version))


def rows_in(delta: DeltaTable) -> int:
    """Return how many rows a table has that is open already."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return int(pc.sum(pa.table(delta.get_add_actions(flatten=True))["num_records"]).as_py() or 0)


def files_of(snapshot: Snapshot) -> dict[str, int]:
    """Return the files of the version, as the log names them, and the bytes of each."""
    return delta_log.sizes_of(read_table(snapshot.uri, snapshot.version))
