"""A lake as it stands, to be looked at: no table is made, and one that is not there has no rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Rows, Snapshot
from dlassets.engines.local import LocalEngine
from dlassets.engines.schema import Column, Table, arrow_type
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.snapshots import newest
from dlassets.lakehouse.tables import IMAGE_PROFILES, RAW_IMAGES
from dlassets.monitoring.gallery.thumbnails import thumbnails_of
from dlassets.settings import Settings
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]

# Types of columns that no page asks for by a query: bytes and embeddings.
_WIDE = {"binary", "array<float>"}
# Of photos with the same bytes so many are tried.
_COPIES = 8


class Reading:
    """One look at a lake: each table at the version that it had when it was first asked for.

    Whichever engine writes the lake, the embedded one reads it here: it answers within milliseconds, and needs no
    Spark. Columns that a table of an earlier release lacks are null.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lake = Lake.at(settings.root)
        self.engine = LocalEngine()
        self._pinned: dict[str, Snapshot | None] = {}

    def asked(self, query: str, tables: Sequence[Table], **beside: pa.Table) -> list[Row]:
        """Return the rows of a query over narrow columns of tables, and of what else it is given by name."""
        read = {table.name: self._rows(table) for table in tables}
        given = {name: self.engine.rows(rows) for name, rows in beside.items()}
        rows: list[Row] = self.engine.sql(query, {**read, **given}).arrow().to_pylist()
        return rows

    def has(self, table: Table) -> bool:
        """Whether the table has been made."""
        return self._newest(table) is not None

    def versions(self, tables: Sequence[Table]) -> tuple[int | None, ...]:
        """Return the version of each table; None of one that has not been made."""
        found = (self._newest(table) for table in tables)
        return tuple(snapshot.version if snapshot else None for snapshot in found)

    def thumbnails(self, image_ids: Collection[str]) -> dict[str, bytes]:
        """Return JPEGs of at most 96 pixels a side by image_id, of the images that have one."""
        profiles = self._newest(IMAGE_PROFILES)
        return thumbnails_of(self.engine, profiles, {*image_ids}) if profiles and image_ids else {}

    def photo(self, paths: Sequence[str]) -> bytes | None:
        """Return the bytes of the first of the paths that has them still; a few are tried."""
        images = self._newest(RAW_IMAGES)
        if images is None:
            return None
        photos = Photos(self.engine, self.lake, images)
        found = (photos.bytes_of([path]).get(path) for path in paths[:_COPIES])
        return next((content for content in found if content is not None), None)

    def _newest(self, table: Table) -> Snapshot | None:
        if table.name not in self._pinned:
            self._pinned[table.name] = newest(self.lake, table.name)
        return self._pinned[table.name]

    def _rows(self, table: Table) -> Snapshot | Rows:
        """Return a table with every narrow column that it is to have, whatever it has."""
        from dlassets.engines.columns import columns_of

        snapshot = self._newest(table)
        columns = [column for column in table.columns if column.type not in _WIDE]
        if snapshot is None:
            return self.engine.rows(_nothing(columns))
        dataset = columns_of(snapshot)
        there = [column for column in columns if column.name in dataset.schema.names]
        if len(there) == len(columns):
            return snapshot
        rows = dataset.scanner([column.name for column in there]).to_table()
        for column in columns:
            if column not in there:
                rows = rows.append_column(column.name, _nulls(rows.num_rows, column))
        return self.engine.rows(rows)


def one_row(**values: str | int | None) -> pa.Table:
    """Return what a person has asked for as a table, for queries: none of it becomes part of their text."""
    import pyarrow as pa

    kinds = {name: pa.int64() if isinstance(value, int) else pa.string() for name, value in values.items()}
    return pa.table({name: pa.array([value], kinds[name]) for name, value in values.items()})


def _nothing(columns: Sequence[Column]) -> pa.Table:
    import pyarrow as pa

    return pa.table({column.name: pa.array([], arrow_type(column.type)) for column in columns})


def _nulls(rows: int, column: Column) -> pa.Array:
    import pyarrow as pa

    return pa.nulls(rows, arrow_type(column.type))
