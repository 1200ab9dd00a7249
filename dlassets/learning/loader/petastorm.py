"""Read the files of one Delta snapshot through Petastorm, in place: no second copy of the data.

Petastorm 0.13.1 was written for a pyarrow and a numpy that are gone. `_petastorm` imports it with what it misses: its
own modules get a `pq` with the old ParquetDataset (as far as they call it) and an `np` with the old names, while
pyarrow and numpy themselves stay as they are for everyone else. It sees row groups alone, by their places in a list:
which files they lie in, on which storage, is known here, and every footer is read once.

Partition columns are in a Delta table's log, not in its files: filter on them with `where`.
"""

from __future__ import annotations

import functools
import queue
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from dlassets.engines.delta_log import open_table
from dlassets.errors import DlassetsError
from dlassets.storage.lake import is_uri
from dlassets.storage.stores import advice, filesystem_of

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.fs as pafs
    import pyarrow.parquet as pq
    from deltalake import DeltaTable

Where = Sequence[tuple[str, str, Any]]
Columns = dict[str, npt.NDArray[Any]]

_FOOTERS_AT_ONCE = 16


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

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Return those of the columns that the file has."""
        import pyarrow.parquet as pq

        with self.filesystem.open_input_file(filesystem_of(self.file)[1]) as opened:
            return pq.ParquetFile(opened, metadata=self.footer).read_row_group(self.number, columns=list(columns))


@dataclass(frozen=True, eq=False)
class RowGroups:
    """All row groups of one version of a table, file by file; `schema` is that of its files, by the table's log."""

    uri: str
    schema: pa.Schema
    groups: tuple[RowGroup, ...]

    @property
    def rows(self) -> int:
        return sum(group.rows for group in self.groups)


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
    with read_row_groups(source, groups, columns) as read:
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
    """Give the columns of the row groups at these places of `source.groups`, in their order, by Petastorm's reader.

    So many `threads` read ahead, three row groups each. Raises DlassetsError, while reading, where storage fails or the
    lists of a column differ in length.
    """
    with _explaining(source.uri):
        reader = _petastorm().make_batch_reader(
            [f"file:///{position}" for position in range(len(places))],
            schema_fields=[f"^{re.escape(column)}$" for column in columns],
            workers_count=threads,
            shuffle_row_groups=False,
            filesystem=_Plan(source, places),
        )
    try:
        yield _batches(reader, source.uri, columns, len(places))
    finally:
        reader.stop()
        reader.join()


def check_columns(source: RowGroups, columns: Sequence[str]) -> None:
    """Raise DlassetsError for a column that the files do not have."""
    names = source.schema.names
    if missing := [column for column in columns if column not in names]:
        raise DlassetsError(
            f"The files of {source.uri} have no column {', '.join(missing)}; they have {', '.join(names)}. "
            "A partition column is not in the files: choose its value with `where`."
        )


def _batches(reader: Any, uri: str, columns: Sequence[str], count: int) -> Iterator[Columns]:
    for _ in range(count):
        with _explaining(uri):
            batch = next(reader)
        found: Columns = {column: getattr(batch, column) for column in columns}
        for column, values in found.items():
            if values.ndim > 1 and values.dtype == object:  # what Petastorm makes of lists with a null among them
                raise DlassetsError(f"Column {column} of {uri} has rows without a list. Choose rows that all have one.")
        yield found


@contextmanager
def _explaining(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DlassetsError(f"The files of {uri} cannot be read: {advice(uri, error)}") from error
    except RuntimeError as error:
        if "expected to be the same length" not in str(error):
            raise
        raise DlassetsError(f"{uri}: {error}. Choose rows whose lists are of one length.") from error


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
            f"{uri} may hold deletion vectors, which Petastorm does not see. On Spark, run "
            f"ALTER TABLE delta.`{uri}` SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'false'), then "
            f"REORG TABLE delta.`{uri}` APPLY (PURGE), then ALTER TABLE delta.`{uri}` DROP FEATURE deletionVectors."
        )
    if "columnMapping" in features or settings.get("delta.columnMapping.mode", "none") != "none":
        raise DlassetsError(
            f"{uri} maps its columns to other names in its files, which Petastorm does not see. On Spark, run "
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


# ---- what Petastorm misses


class _Plan:
    """The file system that Petastorm opens paths on: each is the place of a row group in a list."""

    def __init__(self, source: RowGroups, places: Sequence[int]) -> None:
        self.schema = source.schema
        self._groups = [source.groups[place] for place in places]

    def open(self, path: str) -> tuple[RowGroup, pa.Schema]:
        return self._groups[int(path.removeprefix("/"))], self.schema


class _Piece:
    """A row group, taken for a file of one or for that one: what was pyarrow's ParquetDatasetPiece."""

    partition_keys: tuple[()] = ()

    def __init__(self, path: str, open_file_func: Any, **_: Any) -> None:
        self.path = path
        self._group, self._schema = open_file_func(path)

    def get_metadata(self) -> Any:
        return SimpleNamespace(num_row_groups=1, schema=SimpleNamespace(to_arrow_schema=lambda: self._schema))

    def read(self, columns: set[str], **_: Any) -> pa.Table:
        import pyarrow as pa

        names = sorted(columns)
        table = self._group.read(names)
        for name in names:
            if name not in table.column_names:  # the file is older than the column
                table = table.append_column(name, pa.nulls(table.num_rows, self._schema.field(name).type))
        # Petastorm reads the first chunk of a column and takes it for the whole.
        return table.combine_chunks()


class _Dataset:
    """A list of row groups: what was pyarrow's legacy ParquetDataset, without summary files or partitions."""

    metadata = None
    common_metadata = None
    partitions = None

    def __init__(self, paths: Sequence[str], filesystem: Any, **_: Any) -> None:
        self.paths = paths
        self.fs = filesystem
        self.pieces = [_Piece(path, filesystem.open) for path in paths]


class _Pool:
    """Threads that read row groups, and give them in their order: what Petastorm's ThreadPool is meant to be.

    That one takes a worker which waits for its next row group for one that has none left: now and then it changes the
    order, or ends before the last row group. Its DummyPool may wait for ever after the last.
    """

    def __init__(self, workers_count: int, *_: Any, **__: Any) -> None:
        self.workers_count = workers_count
        self._pool = ThreadPoolExecutor(workers_count, thread_name_prefix="petastorm")
        self._due: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._own = threading.local()

    def start(self, worker_class: Any, worker_args: Any, ventilator: Any) -> None:
        """Let the ventilator, a thread of Petastorm's, begin to name row groups, a few before they are asked for."""
        self._new_worker = functools.partial(worker_class, 0, args=worker_args)
        self._ventilator = ventilator
        ventilator.start()

    def ventilate(self, **row_group: Any) -> None:
        self._due.put(self._pool.submit(self._read, row_group))

    def get_results(self) -> Any:
        """Return the next row group. Only to be called as often as there are some."""
        result = self._due.get().result()
        self._ventilator.processed_item()
        return result

    def stop(self) -> None:
        self._ventilator.stop()

    def join(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _read(self, row_group: dict[str, Any]) -> Any:
        """Return what this thread's worker publishes."""
        if not hasattr(self._own, "worker"):
            self._own.published = []
            self._own.worker = self._new_worker(self._own.published.append)
        self._own.worker.process(**row_group)
        return self._own.published.pop()


@functools.cache
def _petastorm() -> Any:
    """Import Petastorm, adapted, and return it."""
    import pyarrow.parquet as pq

    with _modules_that_pyarrow_dropped():
        import petastorm
        import petastorm.arrow_reader_worker as worker
        from petastorm import reader, unischema
        from petastorm.etl import dataset_metadata
    parquet = _view(pq, ParquetDataset=_Dataset, ParquetDatasetPiece=_Piece)
    for module in (reader, worker, dataset_metadata):
        module.pq = parquet
    worker.ParquetFile = lambda opened: opened  # its piece then opens it again
    reader.ThreadPool = _Pool
    reader.print = lambda *_: None  # it would tell of its cache at the end of every read
    unischema.np = _view(np, string_=np.bytes_, unicode_=np.str_)
    # The worker casts every string column to `unicode_`: as objects, a null stays None instead of becoming "None".
    worker.np = _view(np, unicode_=np.object_)
    return petastorm


def _view(module: ModuleType, **names: Any) -> ModuleType:
    """Return a module that has everything `module` has, and `names` besides."""
    view = ModuleType(module.__name__)
    view.__dict__.update(names)
    view.__getattr__ = functools.partial(getattr, module)  # type: ignore[method-assign]
    return view


@contextmanager
def _modules_that_pyarrow_dropped() -> Iterator[None]:
    """Let `from pyarrow.filesystem import LocalFileSystem` and its like succeed, for the time of an import."""
    dropped = {"pyarrow.filesystem": "LocalFileSystem", "pyarrow.hdfs": "HadoopFileSystem"}
    for name, class_name in dropped.items():
        stand_in = ModuleType(name)
        setattr(stand_in, class_name, type(class_name, (), {}))
        sys.modules[name] = stand_in
    try:
        yield
    finally:
        for name in dropped:
            del sys.modules[name]
