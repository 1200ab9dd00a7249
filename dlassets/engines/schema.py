"""What a table is to an engine: its columns, key and partitions. Types are named as Spark SQL names them.

This module stays light (no pyarrow at import), since Dagster's definitions read tables each time a code location loads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    description: str
    nullable: bool = True


@dataclass(frozen=True)
class Table:
    """`key` is unique in the table. A `wide` table holds image bytes: stored uncompressed and never merged into.

    `row_group` is the most rows of a Parquet row group: small where rows are large, or where readers share a file.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partition_by: tuple[str, ...] = ()
    wide: bool = False
    row_group: int | None = None

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def schema(self) -> pa.Schema:
        """The table's Arrow schema."""
        import pyarrow as pa

        return pa.schema([pa.field(c.name, arrow_type(c.type), nullable=c.nullable) for c in self.columns])

    @property
    def matched(self) -> str:
        """SQL for whether the rows `target` and `source` have the same key; null is the same as null."""
        return " AND ".join(
            f"target.{column.name} {'IS NOT DISTINCT FROM' if column.nullable else '='} source.{column.name}"
            for column in self.columns_named(*self.key)
        )

    @property
    def has_vectors(self) -> bool:
        """Whether a row holds an embedding: far larger than the rest of it, and of numbers that hardly repeat."""
        return any(column.type == "array<float>" for column in self.columns)

    def columns_named(self, *names: str) -> tuple[Column, ...]:
        by_name = {column.name: column for column in self.columns}
        return tuple(by_name[name] for name in names)


def schema_of(columns: Iterable[Column]) -> pa.Schema:
    """Return the Arrow schema of rows that may lack any value."""
    import pyarrow as pa

    return pa.schema([pa.field(column.name, arrow_type(column.type)) for column in columns])


def text_column(name: str, values: Iterable[str]) -> pa.Table:
    """Return a table of one column of text."""
    import pyarrow as pa

    return pa.table({name: pa.array(values, pa.string())})


def arrow_type(name: str) -> pa.DataType:
    """Return the Arrow type of a Spark SQL type name. Raises KeyError for one this lake does not use."""
    import pyarrow as pa

    plain = {
        "string": pa.string(),
        "binary": pa.binary(),
        "boolean": pa.bool_(),
        "int": pa.int32(),
        "bigint": pa.int64(),
        "float": pa.float32(),
        "double": pa.float64(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }
    if match := re.fullmatch(r"array<(.+)>", name):
        return pa.list_(arrow_type(match[1]))
    if match := re.fullmatch(r"struct<(.+)>", name):
        fields = (field.split(":", 1) for field in match[1].split(","))
        return pa.struct([pa.field(field, arrow_type(type_)) for field, type_ in fields])
    return plain[name]
