"""Read the files of one Delta snapshot through Petastorm, in place: no second copy of the data.

Petastorm 0.13.1 was written for a pyarrow and a numpy that are gone. `_petastorm` imports it with what it misses: its
own modules get a `pq` with the old ParquetDataset (as far as they call it) and an `np` with the old names, while
pyarrow and numpy themselves stay as they are for everyone else.

Partition columns are in a Delta table's log, not in its files: filter on them with `where`.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import numpy as np
import numpy.typing as npt

from dlassets.errors import DlassetsError
from dlassets.lakehouse.lake import is_uri

if TYPE_CHECKING:
    import pyarrow as pa

Where = Sequence[tuple[str, str, Any]]
Columns = dict[str, npt.NDArray[Any]]


def snapshot_files(uri: str, version: int, where: Where | None = None) -> list[str]:
    """Return the URLs of the Parquet files of one version of a Delta table, sorted; nothing in them is quoted.

    `where` keeps whole partitions: (partition column, operator, value), all of which must hold. Raises DlassetsError
    for a table with deletion vectors or column mapping, whose files alone do not say what its rows are.
    """
    from deltalake import DeltaTable

    table = DeltaTable(uri, version=version)
    _refuse_what_files_do_not_say(table, uri)
    partitions = table.metadata().partition_columns
    if others := [column for column, _, _ in where or () if column not in partitions]:
        raise DlassetsError(
            f"{uri} is not partitioned by {', '.join(others)} but by {', '.join(partitions) or 'nothing'}: "
            "`where` can choose partitions alone. Filter the rows after reading them."
        )
    files = table.file_uris(file_pruning_predicate=list(where)) if where else table.file_uris()
    return sorted(_url(file, table.table_uri) for file in files)


def read_columns(
    uri: str, version: int, columns: Sequence[str], where: Where | None = None, *, shard: tuple[int, int] = (0, 1)
) -> Columns:
    """Read columns of all rows (of the shard's rows) into memory, in the order of the sorted files.

    A list column comes as (N, length) in its own type, a string column as (N,) objects (None for null). `shard` is
    (rank, world size): the shards are disjoint, cover every row, and are made of whole row groups, so they differ in
    size. No files or no rows give arrays of no rows, a list column then being (0, 0). Raises DlassetsError for a column
    the files lack, lists of unequal length, and fewer row groups than shards.
    """
    files, schema, row_groups = _with_rows(snapshot_files(uri, version, where))
    _check_columns(columns, schema, uri)
    if not files:
        return _no_rows(columns, uri, version)
    _check_shards(row_groups, shard, uri)
    with _reader(files, columns, shard) as reader:
        batches = [batch._asdict() for batch in reader]
    return {column: np.concatenate([batch[column] for batch in batches]) for column in columns}


def torch_loader(
    uri: str,
    version: int,
    columns: Sequence[str],
    where: Where | None = None,
    *,
    shard: tuple[int, int] = (0, 1),
    batch_size: int = 64,
    epochs: int = 1,
    shuffle: bool = True,
    seed: int = 0,
) -> Any:
    """Return Petastorm's BatchedDataLoader over the shard: an iterable, and context manager, of dicts of tensors.

    Columns are numbers or lists of numbers of one length. The order is a function of the files and `seed`, another in
    each epoch: row groups are shuffled, and rows within each. The last batch may be smaller. Raises DlassetsError as
    `read_columns` does, and where there is no row.
    """
    files, schema, row_groups = _with_rows(snapshot_files(uri, version, where))
    _check_columns(columns, schema, uri)
    if not files:
        raise DlassetsError(f"{uri} version {version} has no rows{f' where {list(where)}' if where else ''}.")
    _check_shards(row_groups, shard, uri)
    reader = _reader(files, columns, shard, epochs, seed if shuffle else None)
    import torch
    from petastorm.pytorch import BatchedDataLoader

    # Copied by torch.tensor: Arrow's memory, which as_tensor would share, is not to be written to.
    return BatchedDataLoader(reader, batch_size=batch_size, transform_fn=torch.tensor)


def _url(file: str, table_uri: str) -> str:
    """Return a file's URL as fsspec reads it: delta-rs quotes the table's part of it (a space is %20), not the rest."""
    root = table_uri.removeprefix("file://")
    path = unquote(root) + file.removeprefix(root) if file.startswith(root) else file
    return path if is_uri(path) else f"file://{path}"


def _reader(
    files: list[str], columns: Sequence[str], shard: tuple[int, int], epochs: int = 1, seed: int | None = None
) -> Any:
    shuffle = seed is not None
    return _petastorm().make_batch_reader(
        [quote(file, safe=":/") for file in files],  # Petastorm takes them apart as URLs
        schema_fields=[f"^{re.escape(column)}$" for column in columns],
        reader_pool_type="dummy",  # the caller's own thread: the order of rows is then certain
        num_epochs=epochs,
        shuffle_row_groups=shuffle,
        shuffle_rows=shuffle,
        seed=None if seed is None else seed + 1,  # to Petastorm a seed of 0 is no seed when it shuffles rows
        cur_shard=shard[0],
        shard_count=shard[1],
        filesystem=_Files(files[0]),
    )


def _refuse_what_files_do_not_say(table: Any, uri: str) -> None:
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


def _with_rows(files: list[str]) -> tuple[list[str], pa.Schema | None, int]:
    """Return the files that have rows, the schema of the first, and the row groups of all of them."""
    import pyarrow.parquet as pq
    from fsspec.core import url_to_fs

    kept, schema, row_groups = [], None, 0
    for file in files:
        fs, path = url_to_fs(file)
        with fs.open(path) as opened:
            metadata = pq.read_metadata(opened)
        if metadata.num_rows:
            kept.append(file)
            schema = schema or metadata.schema.to_arrow_schema()
            row_groups += metadata.num_row_groups
    return kept, schema, row_groups


def _check_columns(columns: Sequence[str], schema: pa.Schema | None, uri: str) -> None:
    if schema is None:
        return
    if missing := [column for column in columns if column not in schema.names]:
        raise DlassetsError(
            f"The files of {uri} have no column {', '.join(missing)}; they have {', '.join(schema.names)}. "
            "A partition column is not in the files: choose its value with `where`."
        )


def _check_shards(row_groups: int, shard: tuple[int, int], uri: str) -> None:
    rank, world_size = shard
    if not 0 <= rank < world_size:
        raise DlassetsError(f"Shard {rank} of {world_size} cannot be: ranks go from 0 to {world_size - 1}.")
    if row_groups < world_size:
        raise DlassetsError(
            f"{uri} has {row_groups} row groups for {world_size} shards, and a shard takes at least one. Use fewer "
            "processes, or write the table with smaller row groups."
        )


def _no_rows(columns: Sequence[str], uri: str, version: int) -> Columns:
    """Return empty arrays of the types the columns would have, as the table's own schema says them."""
    import pyarrow as pa
    from deltalake import DeltaTable

    fields = {field.name: field.type for field in pa.schema(DeltaTable(uri, version=version).schema().to_arrow())}
    if missing := [column for column in columns if column not in fields]:
        raise DlassetsError(f"{uri} has no column {', '.join(missing)}; it has {', '.join(fields)}.")

    def empty(type_: pa.DataType) -> npt.NDArray[Any]:
        if pa.types.is_list(type_):
            return np.empty((0, 0), type_.value_type.to_pandas_dtype())
        return np.empty(0, object if pa.types.is_string(type_) else type_.to_pandas_dtype())

    return {column: empty(fields[column]) for column in columns}


# ---- what Petastorm misses


class _Files:
    """The file system that Petastorm opens its (still quoted) paths on."""

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        self._fs = url_to_fs(url)[0]

    def open(self, path: str) -> Any:
        return self._fs.open(unquote(path))


class _Piece:
    """A file, or one row group of it: what was pyarrow's ParquetDatasetPiece."""

    partition_keys: tuple[()] = ()

    def __init__(self, path: str, open_file_func: Any, row_group: int | None = None, **_: Any) -> None:
        self.path = path
        self.row_group = row_group
        self._open = open_file_func

    def get_metadata(self) -> Any:
        import pyarrow.parquet as pq

        with self._open(self.path) as file:
            return pq.read_metadata(file)

    def read(self, columns: set[str], **_: Any) -> pa.Table:
        import pyarrow.parquet as pq

        with self._open(self.path) as file:
            table = pq.ParquetFile(file).read_row_group(self.row_group, columns=sorted(columns))
        # Petastorm reads the first chunk of a column and takes it for the whole.
        return table.combine_chunks()


class _Dataset:
    """A list of files: what was pyarrow's legacy ParquetDataset, without summary files or partitions."""

    metadata = None
    common_metadata = None
    partitions = None

    def __init__(self, paths: Sequence[str], filesystem: Any, **_: Any) -> None:
        self.paths = paths
        self.fs = filesystem
        self.pieces = [_Piece(path, filesystem.open) for path in paths]


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
    reader.print = _say_nothing
    unischema.np = _view(np, string_=np.bytes_, unicode_=np.str_)
    # The worker casts every string column to `unicode_`: as objects, a null stays None instead of becoming "None".
    worker.np = _view(np, unicode_=np.object_)
    return petastorm


def _say_nothing(*_: Any) -> None:
    """Stand in for Petastorm's print, which would tell of its cache at the end of every read."""


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
