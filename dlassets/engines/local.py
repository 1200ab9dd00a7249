"""The embedded engine: DuckDB reads, Arrow streams, delta-rs writes. No JVM, memory bounded by small batches."""

from __future__ import annotations

import atexit
import functools
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import COMMIT_FIELD, Commit, Rows, Snapshot, Written
from dlassets.engines.delta_log import (
    Z_ORDER_FIELD,
    DeltaEngine,
    damaged_data,
    explained,
    hold,
    landed,
    open_table,
    past_maintenance,
    read_table,
    refuse_overtaken,
    tells_of_damage,
)
from dlassets.engines.processors import processors
from dlassets.engines.schema import Column, Table, schema_of
from dlassets.errors import DlassetsError
from dlassets.storage.files import READ_ERROR, micro_batches, read_files
from dlassets.storage.stores import filesystem_of, is_object_storage

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as pads
    from deltalake import CommitProperties
    from duckdb import DuckDBPyConnection

    from dlassets.engines.base import Advance, Kernel, PandasFunction
    from dlassets.engines.columns import TableColumns

# Rows of a step through image bytes: at some 30 kB to 10 MB a photo, more would be gigabytes in flight.
BATCH_ROWS = 64
# Rows of a step through a join, or a map, which are keys and embeddings.
NARROW_ROWS = 512
SQL_BATCH_ROWS = 4096
# What is read of a column at a time, where a row group has more of it.
READ_BYTES = 4 * 2**20
# Files that one thread reads and checks in one step: each step has a cost of its own, which small files would feel.
PART_FILES, PART_BYTES = 512, 2 * 2**20
WORKERS = processors()
# Files of this machine that are smaller on average are read and checked by one thread: nearly all that is done for each
# is Python, for which two would wait in turns (27 µs a file of 1 kB by one thread, 49 by two; of 9 kB 128 and 98).
SMALL_FILE_BYTES = 4 * 2**10


class LocalRows(Rows):
    """Parts of work and the function that turns each into a record batch, run in order by a few `threads`.

    A `map` only composes functions, so a file is read, checked and hashed by one thread without waiting for another.
    Rows made of a stream can be gone through once; those of a table, as often as one likes.
    """

    def __init__(
        self, schema: pa.Schema, parts: Iterable[Any], compute: Callable[[Any], pa.RecordBatch], threads: int = WORKERS
    ) -> None:
        self.schema = schema
        self._parts = parts
        self._compute = compute
        self._threads = threads

    @classmethod
    def of(cls, table: pa.Table) -> LocalRows:
        return cls(table.schema, table.to_batches(max_chunksize=BATCH_ROWS), _same)

    def batches(self) -> Iterator[pa.RecordBatch]:
        with explained_files():
            yield from self._computed()

    def _computed(self) -> Iterator[pa.RecordBatch]:
        if self._compute is _same:
            yield from self._parts
            return
        with ThreadPoolExecutor(self._threads) as pool:
            pending: deque[Any] = deque()
            for part in self._parts:
                pending.append(pool.submit(self._compute, part))
                if len(pending) > 2 * self._threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    def arrow(self) -> pa.Table:
        import pyarrow as pa

        table = pa.Table.from_batches(self.batches(), schema=self.schema)
        self._parts, self._compute = table.to_batches(), _same
        return table

    def map(self, kernel: Kernel, columns: Sequence[Column]) -> LocalRows:
        schema, compute = schema_of(columns), self._compute
        return LocalRows(schema, self._parts, lambda part: kernel(compute(part)).cast(schema), self._threads)

    def select(self, columns: Sequence[str]) -> LocalRows:
        return LocalRows.of(self.arrow().select(list(columns)))

    def split_by_null(self, column: str) -> tuple[LocalRows, LocalRows]:
        """As Rows.split_by_null, in one pass: where the rows are a stream, the first of the two is one as well.

        The second gathers, on the way, what is left out of the first; they are supposed to be few.
        """
        others: list[pa.RecordBatch] = []

        def null() -> Iterator[pa.RecordBatch]:
            for batch in self.batches():
                missing = batch[column].is_null()
                if missing.true_count < batch.num_rows:  # rarely so, and a filter copies every byte
                    others.append(batch.filter(batch[column].is_valid()))
                    yield batch.filter(missing)
                else:
                    yield batch

        first = LocalRows(self.schema, null(), _same)

        def rest() -> Iterator[pa.RecordBatch]:
            first.arrow()  # goes through what nobody has gone through yet
            yield from others

        return first, LocalRows(self.schema, rest(), _same)

    def count(self) -> int:
        return int(self.arrow().num_rows)


class LocalEngine(DeltaEngine):
    """delta-rs, DuckDB and Arrow, in this process."""

    name = "local"

    def rows(self, table: pa.Table) -> LocalRows:
        return LocalRows.of(table)

    def sql(self, query: str, tables: Mapping[str, Snapshot | Rows]) -> LocalRows:
        from dlassets.engines.columns import columns_of

        connection = _duckdb().cursor()  # with names of its own
        for name, source in tables.items():
            connection.register(name, columns_of(source) if isinstance(source, Snapshot) else source.arrow())
        with explained_files():
            reader = connection.sql(query).to_arrow_reader(SQL_BATCH_ROWS)
        return LocalRows(reader.schema, reader, _same)

    def look_up(self, snapshot: Snapshot, columns: Sequence[str], key: str, wanted: pa.ChunkedArray) -> LocalRows:
        """Return these columns of the rows whose `key` is among `wanted`: a query looks at every row, this at few."""
        import pyarrow as pa
        import pyarrow.dataset as pads

        from dlassets.engines.columns import columns_of

        dataset = columns_of(snapshot)
        kind = dataset.schema.field(key).type
        # One array, which has its type where it has no values: what is in no chunk at all has none.
        few = wanted.cast(kind).combine_chunks()
        if not len(few):
            return LocalRows.of(pa.schema([dataset.schema.field(name) for name in columns]).empty_table())
        # Cast: what delta-rs's MERGE wrote is string_view, and to its least and greatest values Arrow compares no text.
        among = pads.field(key).cast(kind).isin(few)
        with explained_files():
            return LocalRows.of(dataset.scanner(columns, filter=among).to_table())

    def join(self, rows: Rows, snapshot: Snapshot, on: Sequence[str], columns: Sequence[str]) -> LocalRows:
        """As Engine.join: DuckDB, which knows nothing of a snapshot's size, would hold that in memory."""
        import pyarrow as pa

        from dlassets.engines.columns import columns_of

        dataset, (held,) = columns_of(snapshot), rows.arrow().combine_chunks().to_batches() or [None]
        schema = pa.schema([*rows.arrow().schema, *(dataset.schema.field(name) for name in columns)])
        places = {} if held is None else {key: place for place, key in enumerate(_keys(held, on))}

        def compute(batch: pa.RecordBatch) -> pa.RecordBatch:
            found = pa.array([places.get(key) for key in _keys(batch, on)], pa.int64())
            if found.null_count:
                batch, found = batch.filter(found.is_valid()), found.drop_null()
            beside = [column.take(found) for column in held.columns]
            return pa.RecordBatch.from_arrays([*beside, *(batch[name] for name in columns)], schema=schema)

        wanted = rows.arrow()[on[0]].combine_chunks()
        return LocalRows(schema, _matching(dataset, [*on, *columns], on[0], wanted, NARROW_ROWS), compute)

    def map(
        self,
        snapshot: Snapshot,
        columns: Sequence[str],
        keys: Rows,
        kernel: Kernel,
        returns: Sequence[Column],
        advance: Advance | None = None,
    ) -> LocalRows:
        import pyarrow as pa

        from dlassets.engines.columns import columns_of

        key, wanted = keys.arrow().column_names[0], keys.arrow().column(0).combine_chunks()
        schema, dataset = schema_of(returns), columns_of(snapshot)
        has_bytes = any(pa.types.is_binary(dataset.schema.field(name).type) for name in columns)

        def compute(batch: pa.RecordBatch) -> pa.RecordBatch:
            result = kernel(batch).cast(schema)
            if advance is not None:
                advance(batch.num_rows)
            return result

        rows = BATCH_ROWS if has_bytes else NARROW_ROWS
        return LocalRows(schema, _matching(dataset, columns, key, wanted, rows), compute)

    def append(self, rows: Rows, table: Table, uri: str, commit: Commit) -> Written:
        return _once(uri, commit, lambda: _write(rows, table, uri, commit, mode="append"))

    def replace(
        self, rows: Rows, table: Table, uri: str, commit: Commit, where: Mapping[str, Sequence[str]] | None = None
    ) -> Written:
        predicate = " AND ".join(f"{name} IN ({_literals(values)})" for name, values in (where or {}).items())
        options = {"mode": "overwrite", "predicate": predicate or None}
        return _once(uri, commit, lambda: _write(rows, table, uri, commit, **options))

    def merge(self, rows: Rows, table: Table, uri: str, commit: Commit) -> Written:
        return _once(uri, commit, lambda: past_maintenance(uri, lambda: _merge(rows, table, uri, commit)))

    def _compact(self, table: Table, uri: str, target_bytes: int, z_order: Sequence[str]) -> None:
        from deltalake import CommitProperties

        optimize, properties = open_table(uri).optimize, writer_properties(table)
        with explained(uri):
            if z_order:
                said = CommitProperties(custom_metadata={Z_ORDER_FIELD: json.dumps(list(z_order))})
                optimize.z_order(z_order, None, target_bytes, writer_properties=properties, commit_properties=said)
            else:
                # One at a time where rows are large: memory is of what is being rewritten.
                tasks = 1 if table.wide else None
                optimize.compact(None, target_bytes, tasks, writer_properties=properties)

    def files(
        self, name: str, uri: str, listing: pa.Table, most_bytes: int, advance: Advance | None = None
    ) -> LocalRows:
        import pyarrow as pa

        filesystem, folder = filesystem_of(uri)

        def read(files: pa.RecordBatch) -> pa.RecordBatch:
            batch = read_files(filesystem, folder, files, len(name) + 1, most_bytes)
            if advance is not None:
                advance(files.num_rows)
            return batch

        schema = listing.schema.append(pa.field("content", pa.binary())).append(pa.field(READ_ERROR, pa.string()))
        parts = micro_batches(listing, PART_FILES, PART_BYTES)
        alone = _is_small(listing) and not is_object_storage(uri)  # to wait for a store keeps no other thread waiting
        threads = 1 if alone else WORKERS
        return LocalRows(schema, (part.combine_chunks().to_batches()[0] for part in parts), read, threads)

    def apply_in_pandas(
        self,
        snapshot: Snapshot,
        function: PandasFunction,
        columns: Sequence[str],
        returns: Sequence[Column],
        key: str,  # noqa: ARG002 - rows need no grouping to be taken part by part
        groups: int,
    ) -> LocalRows:
        import pyarrow as pa

        dataset, schema = dataset_of(snapshot), schema_of(returns)
        rows = max(1, -(-dataset.count_rows() // groups))
        scanner = dataset.scanner(list(columns), batch_size=rows, batch_readahead=2, fragment_readahead=1)

        def compute(batch: pa.RecordBatch) -> pa.RecordBatch:
            return pa.RecordBatch.from_pandas(function(batch.to_pandas()), schema, preserve_index=False)

        return LocalRows(schema, (batch for batch in scanner.to_batches() if batch.num_rows), compute)


@functools.cache
def _duckdb() -> DuckDBPyConnection:
    """Return this process's DuckDB, which takes 10 ms to open."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    # delta-rs's MERGE writes string_view columns, which Arrow cannot compare with a filter pushed into the scan, by way
    # of a common table expression too. And what simplifies outer joins (2.0.0) forgets, of
    # `LEFT JOIN b ON … AND b.y IS NULL WHERE b.x IS NULL`, that b.y is null.
    connection.execute("SET GLOBAL disabled_optimizers = 'filter_pushdown,cte_filter_pusher,outer_join_simplification'")
    atexit.register(_duckdb.cache_clear)  # or its binding complains, at length, of what is left at the end
    return connection


@contextmanager
def explained_files() -> Iterator[None]:
    """Say in this project's error what Arrow and DuckDB say of a table's data file that is gone or damaged."""
    import duckdb
    import pyarrow as pa

    from dlassets.engines.columns import table_with

    try:
        yield
    except (OSError, pa.ArrowInvalid, duckdb.Error) as error:
        if not tells_of_damage(error):
            raise
        raise damaged_data(table_with(error), error) from error


def _same(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch


def _is_small(listing: pa.Table) -> bool:
    """Whether its files are below SMALL_FILE_BYTES, on average."""
    return bool(sum(listing["length"].to_pylist()) < SMALL_FILE_BYTES * listing.num_rows)


def dataset_of(snapshot: Snapshot) -> pads.Dataset:
    """Return all columns of a table version, to be read from its data files."""
    from dlassets.engines.columns import columns_of

    return columns_of(snapshot).whole


def _keys(batch: pa.RecordBatch, on: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    return zip(*(batch[name].to_pylist() for name in on), strict=True)


def _matching(
    dataset: TableColumns, columns: Sequence[str], key: str, wanted: pa.Array, rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """Stream the rows whose key is wanted: the key column first, and bytes only from row groups that hold one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not len(wanted):
        return
    schema = dataset.schema
    for fragment in dataset.fragments_with(key, wanted):
        found = pc.is_in(fragment.to_table(schema=schema, columns=[key])[key], value_set=wanted).combine_chunks()
        start, groups, parts = 0, [], []
        for group in fragment.row_groups:
            if (part := found.slice(start, group.num_rows)).true_count:
                groups.append(group.id)
                parts.append(part)
            start += group.num_rows
        if groups:
            chosen, start = pa.concat_arrays(parts), 0
            for batch in _decoded(fragment, groups, columns, schema, rows):
                mask = chosen.slice(start, batch.num_rows)
                start += batch.num_rows
                if mask.true_count == len(mask):  # a filter copies every byte
                    yield batch
                elif mask.true_count:
                    yield batch.filter(mask)


def _decoded(
    fragment: pads.ParquetFileFragment, groups: Sequence[int], columns: Sequence[str], schema: pa.Schema, rows: int
) -> Iterator[pa.RecordBatch]:
    """Stream row groups of a file, so many rows in memory at a time: a dataset's scanner decodes whole row groups.

    Columns that the file does not have are its partition's, or null: they are younger than it.
    """
    import pyarrow as pa
    import pyarrow.dataset as pads
    import pyarrow.parquet as pq

    there = [name for name in columns if name in fragment.physical_schema.names]
    partition = pads.get_partition_keys(fragment.partition_expression)
    with fragment.open() as opened:
        file = pq.ParquetFile(opened, metadata=fragment.metadata, buffer_size=READ_BYTES, pre_buffer=False)
        for batch in file.iter_batches(rows, groups, there, use_threads=False):
            of_file = {name: batch[name] for name in there}
            arrays = [
                of_file[field.name].cast(field.type)
                if field.name in of_file
                else pa.repeat(pa.scalar(partition.get(field.name), field.type), batch.num_rows)
                for field in map(schema.field, columns)
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=pa.schema(list(map(schema.field, columns))))


def _once(uri: str, commit: Commit, write: Callable[[], Written]) -> Written:
    """Run `write`; where it fails, and its commit is in the log all the same, it did not.

    delta-rs repeats a PUT whose answer got lost, is refused, and takes its own commit for another's.
    """
    seen = read_table(uri)
    refuse_overtaken(seen, commit)
    try:
        return write()
    except DlassetsError:
        if (entry := landed(uri, seen.version(), commit)) is None:
            raise
        done = entry["operationMetrics"]
        inserted = done.get("num_target_rows_inserted", done.get("num_added_rows", 0))
        return Written(entry["version"], inserted, done.get("num_target_rows_updated", 0))


def _write(rows: Rows, table: Table, uri: str, commit: Commit, **options: Any) -> Written:
    """Stream the rows into the table; nothing is committed where an append has none."""
    import pyarrow as pa
    from deltalake import write_deltalake

    written = 0
    raised: list[BaseException] = []

    def stream() -> Iterator[pa.RecordBatch]:
        nonlocal written
        try:
            for batch in chain(first, batches):
                written += batch.num_rows
                yield batch.select(table.names).cast(table.schema)
        except BaseException as error:
            raised.append(error)
            raise

    batches = (batch for batch in rows.batches() if batch.num_rows)
    first = list(islice(batches, 1))
    if not first and options["mode"] == "append":
        return Written(read_table(uri).version(), changed=False)
    delta = open_table(uri)
    refuse_overtaken(delta, commit)
    with _as_raised(raised), explained(uri):
        write_deltalake(
            delta,
            pa.RecordBatchReader.from_batches(table.schema, stream()),
            writer_properties=writer_properties(table),
            commit_properties=_commit_properties(commit),
            schema_mode="merge",  # columns that the table alone has take null
            **{name: value for name, value in options.items() if value is not None},
        )
    hold(uri, delta)
    return Written(delta.version(), inserted=written)


@contextmanager
def _as_raised(raised: Sequence[BaseException]) -> Iterator[None]:
    """Raise what the source of a write raised as it was: through delta-rs it comes as a text in an error of its own."""
    try:
        yield
    except Exception:
        if raised:
            raise raised[0] from None
        raise


def _merge(rows: Rows, table: Table, uri: str, commit: Commit) -> Written:
    delta = open_table(uri)
    refuse_overtaken(delta, commit)
    source = rows.arrow().select(table.names).cast(table.schema)
    if not source.num_rows:
        return Written(delta.version(), changed=False)
    with explained(uri):
        metrics = (
            delta.merge(
                source,
                predicate=table.matched,
                source_alias="source",
                target_alias="target",
                writer_properties=writer_properties(table),  # else files of a table differ by what last wrote them
                commit_properties=_commit_properties(commit),
                streamed_exec=False,  # the source is in memory, and its range of keys tells which files to read
            )
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .execute()
        )
    return Written(delta.version(), metrics["num_target_rows_inserted"], metrics["num_target_rows_updated"])


def writer_properties(table: Table) -> Any:
    from deltalake import ColumnProperties, WriterProperties

    # Hardly a number of an embedding comes twice: a dictionary of them takes more room than they do, and most of the
    # time of writing and reading them.
    plain = ColumnProperties(dictionary_enabled=False) if table.has_vectors else None
    return WriterProperties(
        compression="UNCOMPRESSED" if table.wide else "ZSTD",
        max_row_group_size=table.row_group or 128 * 1024,
        default_column_properties=plain,
    )


def _commit_properties(commit: Commit) -> CommitProperties:
    from deltalake import CommitProperties
    from deltalake import Transaction as DeltaTransaction

    transaction = commit.transaction
    return CommitProperties(
        custom_metadata={COMMIT_FIELD: commit.message},
        app_transactions=[DeltaTransaction(transaction.app_id, transaction.version)] if transaction else None,
    )


def _literals(values: Sequence[str]) -> str:
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)
