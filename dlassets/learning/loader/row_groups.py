"""Read the row groups of one Delta snapshot in place: no second copy of the data.

Petastorm reads them where it is installed. It asks for pyspark, and for an old setuptools, so the local engine cannot
ask for it: without it threads of pyarrow read the same rows in the same order, behind the same functions.

Which row groups there are, in which files and on which storage, is known here, and every footer is read once. Partition
columns are in a Delta table's log, not in its files: filter on them with `where`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from dlassets.engines.delta_log import open_table
from dlassets.engines.processors import processors
from dlassets.errors import DlassetsError
from dlassets.extras import PETASTORM, installed
from dlassets.learning.loader.arrow_reader import read_by_arrow
from dlassets.learning.loader.parquet import Columns, RowGroup, RowGroups
from dlassets.learning.loader.petastorm_reader import read_by_petastorm
from dlassets.storage.lake import is_uri
from dlassets.storage.stores import advice, filesystem_of

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.fs as pafs
    import pyarrow.parquet as pq
    from deltalake import DeltaTable

Where = Sequence[tuple[str, str, Any]]

_FOOTERS_AT_ONCE = 16


def row_groups(uri: str, version: int, where: Where | None = None) -> RowGroups:
    """Return the row groups of one version of a Delta table, its files in order of their URLs, which quote nothing.

    `where` keeps whole partitions: (partition column, operator, value), all of which must hold. Raises DlassetsError
    for a table with deletion vectors or column mapping, whose files alone do not say what its rows are.
    """
    import pyarrow as pa

    table = open_table(uri, version)
    files = _files(table, uri, where)
    partitions = table.metadata().partition_columns
    schema = pa.schema([field for field in pa.schema(table.schema().to_arrow()) if field.name not in partitions])
    filesystem = filesystem_of(files[0] if files else uri)[0]  # one for all: each has connections of its own
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool, _explaining(uri):
        footers = list(pool.map(functools.partial(_footer, filesystem), files))
    groups = (
        RowGroup(file, number, footer.row_group(number).num_rows, footer, filesystem)
        for file, footer in zip(files, footers, strict=True)
        for number in range(footer.num_row_groups)
    )
    return RowGroups(uri, schema, tuple(group for group in groups if group.rows))


def read_columns(
    uri: str,
    version: int,
    columns: Sequence[str],
    where: Where | None = None,
    *,
    shard: tuple[int, int] = (0, 1),
    order_by: str | None = None,
) -> Columns:
    """Read columns of all rows (of the shard's rows) into memory, in the order of the sorted files, or of a column.

    A list column comes as (N, length) in its own type, a string column as (N,) objects (None for null). `shard` is
    (rank, world size): the shards are disjoint, cover every row, and are made of whole row groups, so they differ in
    size. `order_by` is a column of text. Memory is that of the arrays, and of a few row groups. No files or no rows
    give arrays of no rows, a list column then being (0, 0). Raises DlassetsError for a column the files lack, lists of
    unequal length, and fewer row groups than shards.
    """
    source = row_groups(uri, version, where)
    check_columns(source, columns if order_by is None else [*columns, order_by])
    if not source.groups:
        return _no_rows(source.schema, columns)
    check_shard(shard)
    rank, world_size = shard
    if len(source.groups) < world_size:
        raise DlassetsError(
            f"{uri} has {len(source.groups)} row groups for {world_size} shards, and a shard takes at least one. "
            "Use fewer processes, or write the table with smaller row groups."
        )
    groups = range(len(source.groups))[rank::world_size]
    places = np.arange(sum(source.groups[group].rows for group in groups))
    if order_by is not None:
        with read_row_groups(source, groups, [order_by]) as read:
            keys = np.concatenate([batch[order_by] for batch in read]).astype(str)
        places[np.argsort(keys, kind="stable")] = np.arange(len(keys))
    with read_row_groups(source, groups, columns, threads=processors()) as read:
        return _placed(read, places, uri)


def _placed(batches: Iterator[Columns], places: npt.NDArray[np.int64], uri: str) -> Columns:
    """Put the rows of all batches where `places` has them: each is written once, to where it stays."""
    found: Columns = {}
    start = 0
    for batch in batches:
        rows = len(next(iter(batch.values())))
        for column, values in batch.items():
            if column not in found:
                found[column] = np.empty((len(places), *values.shape[1:]), values.dtype)
            elif values.shape[1:] != found[column].shape[1:]:
                raise DlassetsError(f"Column {column} of {uri} has lists of {values.shape[1:]} and of others.")
            elif values.dtype != found[column].dtype:  # a null among its numbers makes them others
                found[column] = found[column].astype(np.result_type(values, found[column]))
            found[column][places[start : start + rows]] = values
        start += rows
    return found


@contextmanager
def read_row_groups(
    source: RowGroups, places: Sequence[int], columns: Sequence[str], *, threads: int = 1
) -> Iterator[Iterator[Columns]]:
    """Give the columns of the row groups at these places of `source.groups`, in their order.

    So many `threads` read ahead, three row groups each. Raises DlassetsError, while reading, where storage fails or the
    lists of a column differ in length.
    """
    reader = read_by_petastorm if installed(PETASTORM) else read_by_arrow
    with reader(source, places, columns, threads) as read:
        yield _explained(read, source.uri)


def check_columns(source: RowGroups, columns: Sequence[str]) -> None:
    """Raise DlassetsError for a column that the files do not have."""
    names = source.schema.names
    if missing := [column for column in columns if column not in names]:
        raise DlassetsError(
            f"The files of {source.uri} have no column {', '.join(missing)}; they have {', '.join(names)}. "
            "A partition column is not in the files: choose its value with `where`."
        )


def _explained(read: Iterator[Columns], uri: str) -> Iterator[Columns]:
    with _explaining(uri):
        yield from read


@contextmanager
def _explaining(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DlassetsError(f"The files of {uri} cannot be read: {advice(uri, error)}") from error


def _files(table: DeltaTable, uri: str, where: Where | None) -> list[str]:
    _check_protocol(table, uri)
    partitions = table.metadata().partition_columns
    if others := [column for column, _, _ in where or () if column not in partitions]:
        raise DlassetsError(
            f"{uri} is not partitioned by {', '.join(others)} but by {', '.join(partitions) or 'nothing'}: "
            "`where` can choose partitions alone. Filter the rows after reading them."
        )
    files = table.file_uris(file_pruning_predicate=list(where)) if where else table.file_uris()
    return sorted(_url(file, table.table_uri) for file in files)


def _url(file: str, table_uri: str) -> str:
    """Return a file's URL as Arrow reads it: delta-rs quotes the table's part of it (a space is %20), not the rest."""
    root = table_uri.removeprefix("file://")
    path = unquote(root) + file.removeprefix(root) if file.startswith(root) else file
    return path if is_uri(path) else f"file://{path}"


def _footer(filesystem: pafs.FileSystem, file: str) -> pq.FileMetaData:
    import pyarrow.parquet as pq

    with filesystem.open_input_file(filesystem_of(file)[1]) as opened:
        return pq.read_metadata(opened)


def _check_protocol(table: DeltaTable, uri: str) -> None:
    settings = table.metadata().configuration
    features = table.protocol().reader_features or []
    if "deletionVectors" in features:
        raise DlassetsError(
            f"{uri} may hold deletion vectors, which no reader of its files sees. On Spark, run "
            f"ALTER TABLE delta.`{uri}` SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'false'), then "
            f"REORG TABLE delta.`{uri}` APPLY (PURGE), then ALTER TABLE delta.`{uri}` DROP FEATURE deletionVectors."
        )
    if "columnMapping" in features or settings.get("delta.columnMapping.mode", "none") != "none":
        raise DlassetsError(
            f"{uri} maps its columns to other names in its files, which no reader of its files sees. On Spark, run "
            f"ALTER TABLE delta.`{uri}` SET TBLPROPERTIES ('delta.columnMapping.mode' = 'none') and "
            f"ALTER TABLE delta.`{uri}` DROP FEATURE columnMapping, or write the table anew without it."
        )


def check_shard(shard: tuple[int, int]) -> None:
    """Raise DlassetsError for a (rank, world size) that cannot be."""
    rank, world_size = shard
    if not 0 <= rank < world_size:
        raise DlassetsError(f"Shard {rank} of {world_size} cannot be: ranks go from 0 to {world_size - 1}.")


def _no_rows(schema: pa.Schema, columns: Sequence[str]) -> Columns:
    """Return empty arrays of the types the columns would have."""
    import pyarrow as pa

    def empty(type_: pa.DataType) -> npt.NDArray[Any]:
        if pa.types.is_list(type_):
            return np.empty((0, 0), type_.value_type.to_pandas_dtype())
        return np.empty(0, object if pa.types.is_string(type_) else type_.to_pandas_dtype())

    return {column: empty(schema.field(column).type) for column in columns}
