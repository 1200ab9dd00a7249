"""Row groups read by Petastorm.

Petastorm 0.13.1 was written for a pyarrow and a numpy that are gone. `adapted_petastorm` imports it with what it
misses: its own modules get a `pq` with the old ParquetDataset (as far as they call it) and an `np` with the old names,
while pyarrow and numpy themselves stay as they are for everyone else. It sees row groups alone, by their places in a
list: which files they lie in, on which storage, the row groups know.
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
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from dlassets.errors import DlassetsError
from dlassets.learning.loader.parquet import IN_FLIGHT, Columns, RowGroup, RowGroups

if TYPE_CHECKING:
    import pyarrow as pa


@contextmanager
def read_by_petastorm(
    source: RowGroups, places: Sequence[int], columns: Sequence[str], threads: int
) -> Iterator[Iterator[Columns]]:
    """Give the columns of the row groups at these places, in their order. See `row_groups.read_row_groups`."""
    reader = adapted_petastorm().make_batch_reader(
        [f"file:///{position}" for position in range(len(places))],
        schema_fields=[f"^{re.escape(column)}$" for column in columns],
        workers_count=threads,
        shuffle_row_groups=False,
        filesystem=Plan(source, places),
    )
    try:
        yield _batches(reader, source.uri, columns, len(places))
    finally:
        reader.stop()
        reader.join()


def _batches(reader: Any, uri: str, columns: Sequence[str], count: int) -> Iterator[Columns]:
    for _ in range(count):
        batch = _next(reader, uri)
        found: Columns = {column: getattr(batch, column) for column in columns}
        for column, values in found.items():
            if values.ndim > 1 and values.dtype == object:  # what Petastorm makes of lists with a null among them
                raise DlassetsError(f"Column {column} of {uri} has rows without a list. Choose rows that all have one.")
        yield found


def _next(reader: Any, uri: str) -> Any:
    try:
        return next(reader)
    except RuntimeError as error:
        if "expected to be the same length" not in str(error):
            raise
        raise DlassetsError(f"{uri}: {error}. Choose rows whose lists are of one length.") from error


# ---- what Petastorm misses


class Plan:
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
        return self._group.read(sorted(columns), self._schema)


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
    order, or ends before the last row group. Its DummyPool may wait for ever after the last. And its ventilator, the
    thread that names row groups, looks each 10 ms whether there is room for one more: here it waits until there is.
    """

    def __init__(self, workers_count: int, *_: Any, **__: Any) -> None:
        self.workers_count = workers_count
        self._pool = ThreadPoolExecutor(workers_count, thread_name_prefix="petastorm")
        self._due: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._room = threading.Semaphore(workers_count * IN_FLIGHT)
        self._stopped = False
        self._own = threading.local()

    def start(self, worker_class: Any, worker_args: Any, ventilator: Any) -> None:
        """Let the ventilator begin to name row groups, a few before they are asked for."""
        self._new_worker = functools.partial(worker_class, 0, args=worker_args)
        self._ventilator = ventilator
        ventilator.start()

    def ventilate(self, **row_group: Any) -> None:
        if not self._stopped:
            self._room.acquire()
        if not self._stopped:
            self._due.put(self._pool.submit(self._read, row_group))
        self._ventilator.processed_item()  # for all it counts, there is room

    def get_results(self) -> Any:
        """Return the next row group. Only to be called as often as there are some."""
        due = self._due.get()
        self._room.release()
        return due.result()

    def stop(self) -> None:
        self._stopped = True
        self._room.release()
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
def adapted_petastorm() -> Any:
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
