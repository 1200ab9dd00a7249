"""A row group of a Parquet file, and all those of one version of a table: what the readers are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from dlassets.storage.stores import filesystem_of

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.fs as pafs
    import pyarrow.parquet as pq

# Row groups a thread that are being read, or wait to be taken: as many as Petastorm itself would have.
IN_FLIGHT = 4

Columns = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class RowGroup:
    """A row group of a Parquet file: `number` counts from 0 within its file, and `rows` is never 0."""

    file: str
    number: int
    rows: int
    footer: pq.FileMetaData
    filesystem: pafs.FileSystem

    def bytes_of(self, columns: Sequence[str]) -> int:
        """Return what these columns take in memory, about."""
        footer = self.footer.row_group(self.number)
        chunks = (footer.column(place) for place in range(footer.num_columns))
        chosen = (chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] in columns)
        return sum(chunk.total_uncompressed_size for chunk in chosen)

    def read(self, columns: Sequence[str], schema: pa.Schema) -> pa.Table:
        """Return the columns, each in one chunk; one that is younger than the file is null, of its type in `schema`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self.filesystem.open_input_file(filesystem_of(self.file)[1]) as opened:
            table = pq.ParquetFile(opened, metadata=self.footer).read_row_group(self.number, columns=list(columns))
        for name in columns:
            if name not in table.column_names:
                table = table.append_column(name, pa.nulls(table.num_rows, schema.field(name).type))
        return table.combine_chunks()


@dataclass(frozen=True, eq=False)
class RowGroups:
    """All row groups of one version of a table, file by file; `schema` is that of its files, by the table's log."""

    uri: str
    schema: pa.Schema
    groups: tuple[RowGroup, ...]

    @property
    def rows(self) -> int:
        return sum(group.rows for group in self.groups)
