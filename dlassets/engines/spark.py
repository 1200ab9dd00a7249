"""The Spark engine, for where one machine is outgrown: in this process, on a cluster, or through Spark Connect.

Rows are DataFrames and stay where Spark has them. Nothing here touches `sparkContext`, the JVM or RDDs, which Spark
Connect does not have.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from dlassets.engines.base import Commit, Rows, Snapshot, Written
from dlassets.engines.delta_log import (
    DeltaEngine,
    damaged_data,
    damaged_log,
    has_small_files,
    landed,
    past_maintenance,
    read_table,
    refuse_overtaken,
)
from dlassets.engines.only_writer import OnlyWriter
from dlassets.engines.schema import Column, Table
from dlassets.engines.spark_session import (
    LOG_STORE,
    LOG_STORE_JAR,
    driver_of,
    is_conditional,
    jvm_ended,
    jvm_has_ended,
    refuse_unconditional,
    workers_lack,
    works_here,
)
from dlassets.errors import ConflictError, DlassetsError, PassingError, decoded_error, encoded_errors
from dlassets.extras import SPARK, require
from dlassets.storage.files import READ_ERROR, read_files
from dlassets.storage.lake import Lake, is_uri
from dlassets.storage.stores import advice, filesystem_of, on_s3

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as pads
    from deltalake import DeltaTable
    from pyspark.sql import DataFrame, SparkSession

    from dlassets.engines.base import Advance, Kernel, PandasFunction

Part = TypeVar("Part")

# What a JVM that was killed takes to be gone.
_ENDING_SECONDS = 5
# More numbers than any cluster has cores, each of which has some of them.
_RANGE = 1_000_000
# The column that says which part of a listing a file belongs to, and what opening it costs, as bytes.
_PART, _OPENING = "__part", 64 * 2**10


class SparkRows(Rows):
    """A DataFrame, lazy until it is asked for values or written, and from then on kept.

    What was asked for here is kept here: it is handed back to Spark only where it goes on working with it. All else is
    kept where Spark computed it, by a local checkpoint and no cache: Spark drops a cache that reads a table as soon as
    that table is written, and a second write would run the kernels again.
    """

    def __init__(self, frame: DataFrame, *, kept: bool = False, advance: Advance | None = None) -> None:
        self._frame = frame
        self._kept = kept
        self._here: pa.Table | None = None
        self._advance = advance

    @property
    def frame(self) -> DataFrame:
        return self._frame if self._here is None else self.keep()

    def keep(self) -> DataFrame:
        """Compute the rows, once."""
        if self._kept:
            return self._frame
        if self._here is not None:
            self._frame = _as_frame(self._here, self._frame.sparkSession)
        else:
            with explained_spark():
                self._frame = self._frame.localCheckpoint(eager=True)
            if self._advance is not None:
                self._advance(self._frame.count())
        self._kept = True
        return self._frame

    def arrow(self) -> pa.Table:
        if self._here is not None:
            return self._here
        with explained_spark():
            table = self._frame.toArrow()
        if not self._kept:
            self._here = table
            if self._advance is not None:
                self._advance(table.num_rows)
        return table

    def batches(self) -> Iterator[pa.RecordBatch]:
        if self._here is None:  # they may be wide: Spark can lay kept ones on a disk
            self.keep()
        yield from self.arrow().to_batches()

    def map(self, kernel: Kernel, columns: Sequence[Column]) -> SparkRows:
        return SparkRows(_mapped(self.frame, kernel, columns))

    def select(self, columns: Sequence[str]) -> SparkRows:
        return SparkRows(self.frame.select(*columns), kept=self._kept)

    def split_by_null(self, column: str) -> tuple[SparkRows, SparkRows]:
        frame = self.keep()
        null = frame[column].isNull()
        return SparkRows(frame.where(null), kept=True), SparkRows(frame.where(~null), kept=True)

    def count(self) -> int:
        return self.keep().count() if self._here is None else self._here.num_rows


class FileRows(SparkRows):
    """Files of a listing, read only when their turn comes, in the Python that works on them.

    binaryFile could read them as well, but fails all of them for one that it cannot open (no right to read, a colon in
    the name, 2 GB) or that has gone meanwhile.
    """

    def __init__(self, listing: DataFrame, read: Kernel, advance: Advance | None = None) -> None:
        schema = f"{listing.schema.toDDL()}, content BINARY, {READ_ERROR} STRING"
        super().__init__(listing.mapInArrow(_over_batches(read), schema), advance=advance)
        self._listing = listing
        self._read = read

    def map(self, kernel: Kernel, columns: Sequence[Column]) -> SparkRows:
        # In one go, so that the bytes stay where they were read.
        def read_and_run(batch: pa.RecordBatch) -> pa.RecordBatch:
            return kernel(read(batch))

        read = self._read
        return SparkRows(_mapped(self._listing, read_and_run, columns), advance=self._advance)


class SparkEngine(DeltaEngine):
    """Spark SQL and Delta on Spark. `session` is called, and Spark started, when first needed.

    `only_writer` says that nobody else writes what it does meanwhile: on S3 it then writes without a condition too, and
    keeps other drivers that say so from it.
    """

    name = "spark"

    def __init__(self, session: Callable[[], SparkSession], *, only_writer: bool = False) -> None:
        require(SPARK, "The engine spark", "Or set DLASSETS_ENGINE=local, which does without it.")
        self._session = session
        self._is_only_writer = only_writer
        self._leases: dict[str, OnlyWriter] = {}
        self._shares: int | None = None
        # What a MERGE says of itself goes through the session's settings, which its writes share: one at a time.
        self._writing = threading.RLock()

    @property
    def session(self) -> SparkSession:
        return self._session()

    @property
    def shares(self) -> int:
        """As Engine.shares: of Spark on this machine one. A cluster is asked once, by a job."""
        if self._shares is None:
            self._shares = 1 if works_here(self.session) else self._cores()
        return self._shares

    def _cores(self) -> int:
        """Return the cores of the cluster, which a Connect server tells by how it splits a range alone."""
        from pyspark.sql import functions as f

        with explained_spark():
            parts = self.session.range(_RANGE).select(f.spark_partition_id().alias("part"))
            return int(parts.distinct().count())

    def rows(self, table: pa.Table) -> SparkRows:
        return SparkRows(_as_frame(table, self.session), kept=True)

    def sql(self, query: str, tables: Mapping[str, Snapshot | Rows]) -> SparkRows:
        frames: dict[str, Any] = {
            f"t{number}": self._read(source) if isinstance(source, Snapshot) else _frame(source)
            for number, source in enumerate(tables.values())
        }
        # Names of this query alone: temporary views would be everyone's in this session.
        names = ", ".join(f"`{name}` AS (FROM {{t{number}}})" for number, name in enumerate(tables))
        text = query.replace("{", "{{").replace("}", "}}")
        with explained_spark():
            return SparkRows(self.session.sql(f"WITH {names} ({text})" if names else text, **frames))

    def join(self, rows: Rows, snapshot: Snapshot, on: Sequence[str], columns: Sequence[str]) -> SparkRows:
        return SparkRows(_frame(rows).join(self._read(snapshot).select(*on, *columns), list(on)))

    def map(
        self,
        snapshot: Snapshot,
        columns: Sequence[str],
        keys: Rows,
        kernel: Kernel,
        returns: Sequence[Column],
        advance: Advance | None = None,
    ) -> SparkRows:
        """As Engine.map; `advance` is told once, when all rows are done."""
        wanted = _frame(keys)
        (key,) = wanted.columns
        rows = self._read_with(snapshot, key, keys.arrow()[key].combine_chunks())
        rows = rows.join(wanted, key, "left_semi").select(*columns)
        return SparkRows(_mapped(rows, kernel, returns), advance=advance)

    def append(self, rows: Rows, table: Table, uri: str, commit: Commit) -> Written:
        return self._write(rows, table, uri, commit, mode="append")

    def replace(
        self, rows: Rows, table: Table, uri: str, commit: Commit, where: Mapping[str, Sequence[str]] | None = None
    ) -> Written:
        predicate = " AND ".join(f"`{name}` IN ({_literals(values)})" for name, values in (where or {}).items())
        options = {"replaceWhere": predicate} if predicate else {}
        return self._write(rows, table, uri, commit, mode="overwrite", **options)

    def merge(self, rows: Rows, table: Table, uri: str, commit: Commit) -> Written:
        return past_maintenance(uri, lambda: self._merge(rows, table, uri, commit))

    def _compact(self, table: Table, uri: str, target_bytes: int, z_order: Sequence[str]) -> None:
        # Most tables need nothing on most nights, and Spark takes seconds to find that out.
        if not z_order and not has_small_files(uri, target_bytes):
            return
        clustered = f" ZORDER BY ({', '.join(f'`{name}`' for name in z_order)})" if z_order else ""
        sizes = {f"spark.databricks.delta.optimize.{name}FileSize": str(target_bytes) for name in ("min", "max")}
        with self._committing(table, uri, None), _settings(self.session, sizes):
            self.session.sql(f"OPTIMIZE {_identifier(uri)}{clustered}").collect()

    def files(
        self, name: str, uri: str, listing: pa.Table, most_bytes: int, advance: Advance | None = None
    ) -> FileRows:
        read = functools.partial(_read_content, uri, len(name) + 1, most_bytes)
        return FileRows(self._spread(listing), read, advance)

    def _spread(self, listing: pa.Table) -> DataFrame:
        """Return a listing's rows, on a cluster in parts of about as many bytes, one for each of its cores."""
        parts = min(self.shares, listing.num_rows)
        if parts <= 1:
            return self.rows(listing).frame
        frame = _as_frame(listing.append_column(_PART, parts_of(listing, parts)), self.session)
        return frame.repartitionById(parts, _PART).drop(_PART)

    def _merge(self, rows: Rows, table: Table, uri: str, commit: Commit) -> Written:
        delta, source = _opened(uri, commit), _shaped(rows, table)
        if source.isEmpty():
            return Written(delta.version(), changed=False)
        # Column by column, since the table may have more of them than the source: those stay, or are null.
        names = [f"`{name}`" for name in table.names]
        with self._committing(table, uri, commit):
            counts = self.session.sql(
                f"MERGE INTO {_identifier(uri)} AS target USING {{source}} AS source "  # noqa: S608 - names alone
                f"ON {table.matched} "
                f"WHEN MATCHED THEN UPDATE SET {', '.join(f'target.{name} = source.{name}' for name in names)} "
                f"WHEN NOT MATCHED THEN INSERT ({', '.join(names)}) "
                f"VALUES ({', '.join(f'source.{name}' for name in names)})",
                source=source,
            ).collect()
        version = _landed(uri, delta.version(), commit)
        return Written(version, counts[0]["num_inserted_rows"], counts[0]["num_updated_rows"])

    def _read(self, snapshot: Snapshot) -> DataFrame:
        reader = self.session.read.format("delta").option("versionAsOf", snapshot.version)
        with explained_spark(snapshot.uri):
            return reader.load(_spark_uri(snapshot.uri))

    def _read_with(self, snapshot: Snapshot, key: str, wanted: pa.Array) -> DataFrame:
        """Return the rows of the data files that have a wanted key: to Delta a join says nothing of which these are.

        Of a file they are those of its row groups between the least and the greatest of these keys.
        """
        import pyarrow.compute as pc
        from pyspark.sql import functions as f

        from dlassets.engines.columns import columns_of
        from dlassets.engines.local import explained_files

        table, place, columns = self._read(snapshot), _spark_uri(snapshot.uri), columns_of(snapshot)

        def has_one(file: pads.ParquetFileFragment) -> bool:
            keys = file.to_table(schema=columns.schema, columns=[key])[key]
            return bool(pc.any(pc.is_in(keys, value_set=wanted)).as_py())

        with explained_files():
            files = [f"{place}/{file.path}" for file in columns.fragments_with(key, wanted) if has_one(file)]
        if not files:
            return table.where(f.lit(False))
        span = pc.min_max(wanted)
        with explained_spark(snapshot.uri):
            # None of their names is a pattern, whatever signs it has.
            reader = self.session.read.schema(table.schema).options(basePath=place, __globPaths__="false")
            return reader.parquet(*files).where(f.col(f"`{key}`").between(span["min"].as_py(), span["max"].as_py()))

    def _write(self, rows: Rows, table: Table, uri: str, commit: Commit, mode: str, **options: str) -> Written:
        delta, frame = _opened(uri, commit), _shaped(rows, table)
        number = frame.count()
        if not number and mode == "append":
            return Written(delta.version(), changed=False)
        with self._committing(table, uri, commit):
            frame.write.format("delta").mode(mode).options(**options).save(_spark_uri(uri))
        if not number and read_table(uri).version() == delta.version():  # nothing in place of nothing
            return Written(delta.version(), changed=False)
        return Written(_landed(uri, delta.version(), commit), inserted=number)

    @contextmanager
    def _committing(self, table: Table, uri: str, commit: Commit | None) -> Iterator[None]:
        """Have every commit of the session say what `commit` says, in files of the table's kind.

        Raises as `_refuse_two`.
        """
        self._refuse_two(table, uri)
        settings = {"spark.sql.parquet.compression.codec": "uncompressed" if table.wide else "zstd"}
        if table.row_group is not None:
            settings["parquet.block.row.count.limit"] = str(table.row_group)
        if commit is not None:
            settings["spark.databricks.delta.commitInfo.userMetadata"] = commit.message
        if commit is not None and commit.transaction is not None:
            settings["spark.databricks.delta.write.txnAppId"] = commit.transaction.app_id
            settings["spark.databricks.delta.write.txnVersion"] = str(commit.transaction.version)
        with self._writing, _settings(self.session, settings), explained_spark(uri):
            yield

    def _refuse_two(self, table: Table, uri: str) -> None:
        """Raise DlassetsError where the session would commit to S3 whatever another does, and there may be another."""
        from pyspark.sql.utils import is_remote

        if not on_s3(uri) or is_conditional(self.session):
            return
        if not self._is_only_writer:
            refuse_unconditional(self.session, uri)
        root = Lake.of_table(uri, table.name).root
        with self._writing:
            if root not in self._leases:
                self._leases[root] = OnlyWriter(root, driver_of(self.session), is_shared=is_remote())
        self._leases[root].check()

    def apply_in_pandas(
        self,
        snapshot: Snapshot,
        function: PandasFunction,
        columns: Sequence[str],
        returns: Sequence[Column],
        key: str,
        groups: int,
    ) -> SparkRows:
        from pyspark.sql import functions as f

        part = f.pmod(f.xxhash64(f.col(f"`{key}`")), f.lit(groups))
        rows = self._read(snapshot).select(*(f.col(f"`{name}`") for name in columns))
        return SparkRows(rows.groupBy(part).applyInPandas(_with_encoded_errors(function), _ddl(returns)))


def parts_of(listing: pa.Table, parts: int) -> pa.Array:
    """Return which of so many parts each file of a listing belongs to, one after the other: by their bytes."""
    import numpy as np
    import pyarrow as pa

    costs = listing["length"].to_numpy() + _OPENING
    middles = np.cumsum(costs) - costs / 2
    return pa.array(np.minimum(middles * parts // max(int(costs.sum()), 1), parts - 1).astype(np.int32))


def _as_frame(table: pa.Table, session: SparkSession) -> DataFrame:
    from pyspark.sql.pandas.types import from_arrow_schema

    # Spark Connect takes no schema from a table without rows.
    with explained_spark():
        return session.createDataFrame(table, from_arrow_schema(table.schema))


def _frame(rows: Rows) -> DataFrame:
    if not isinstance(rows, SparkRows):
        raise TypeError(f"The spark engine works with its own rows, not with {type(rows).__name__}.")
    return rows.frame


def _mapped(frame: DataFrame, kernel: Kernel, columns: Sequence[Column]) -> DataFrame:
    return frame.mapInArrow(_over_batches(kernel), _ddl(columns))


def _over_batches(kernel: Kernel) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    run = _with_encoded_errors(kernel)
    return lambda batches: map(run, batches)


def _with_encoded_errors(function: Callable[[Part], Part]) -> Callable[[Part], Part]:
    """Return the function for a Python worker, of whose errors Spark gives the text alone."""

    def run(part: Part) -> Part:
        with encoded_errors():
            return function(part)

    return run


def _ddl(columns: Sequence[Column]) -> str:
    return ", ".join(f"`{column.name}` {column.type}" for column in columns)


def _shaped(rows: Rows, table: Table) -> DataFrame:
    """Return the rows, computed once, with the table's columns in order and of its types."""
    from pyspark.sql import functions as f

    if not isinstance(rows, SparkRows):
        raise TypeError(f"The spark engine writes its own rows, not {type(rows).__name__}.")
    return rows.keep().select(*(f.col(f"`{column.name}`").cast(column.type) for column in table.columns))


def _opened(uri: str, commit: Commit) -> DeltaTable:
    """Return the table as it stands before a write. Raises ConflictError where `commit` is overtaken already."""
    delta = read_table(uri)
    refuse_overtaken(delta, commit)
    return delta


def _landed(uri: str, before: int, commit: Commit) -> int:
    """Return the version that a write made after version `before`.

    Delta on Spark skips a write whose transaction is in the log already, and says nothing. Raises ConflictError then:
    the commit that is there is another's.
    """
    if (entry := landed(uri, before, commit)) is not None:
        return int(entry["version"])
    raise ConflictError(
        f"Another run wrote the same batch to {uri} first. Nothing of this one was written; run it again."
    )


def _spark_uri(uri: str) -> str:
    if uri.startswith("s3://"):
        return uri.replace("s3://", "s3a://", 1).rstrip("/")
    return uri.rstrip("/") if is_uri(uri) else f"file://{os.path.normpath(uri)}"


def _identifier(uri: str) -> str:
    return f"delta.`{_spark_uri(uri).replace('`', '``')}`"


def _literals(values: Sequence[str]) -> str:
    # Spark puts a variable's value in place of `${x}`, in a literal too.
    escapes = str.maketrans({"\\": "\\\\", "'": "\\'", "$": "\\u0024"})
    return ", ".join(f"'{value.translate(escapes)}'" for value in values)


@contextmanager
def _settings(session: SparkSession, settings: Mapping[str, str]) -> Iterator[None]:
    """Set them, and put back what was there."""
    before: dict[str, str | None] = {name: session.conf.get(name, None) for name in settings}
    try:
        for name, value in settings.items():
            session.conf.set(name, value)
        yield
    finally:
        for name, earlier in before.items():
            if earlier is None:
                session.conf.unset(name)
            else:
                session.conf.set(name, earlier)


@contextmanager
def explained_spark(uri: str = "") -> Iterator[None]:
    """Say in this project's errors what Spark says, without its pages around it; `uri` is the table it is about."""
    from py4j.protocol import Py4JError, Py4JNetworkError
    from pyspark.errors import PySparkException

    try:
        yield
    except OSError as error:  # of pyspark itself, which hands rows over in files
        raise _refused("", str(error)) from error
    except (PySparkException, Py4JError) as error:
        if (ours := _in_our_words(str(error), uri)) is not None:
            raise ours from error
        # What Java says comes as a Py4JJavaError.
        if type(error) in {Py4JError, Py4JNetworkError} and jvm_has_ended(_ENDING_SECONDS):
            raise jvm_ended() from error
        raise


def _in_our_words(said: str, uri: str) -> Exception | None:
    """Return the error that Spark's pages come down to; None for one that nothing is known of."""
    if (ours := decoded_error(said)) is not None:  # as a worker raised it
        return ours
    if (lack := workers_lack(said)) is not None:
        return lack
    for pattern, error_of in _MEANINGS.items():
        if line := _line_with(pattern, said):
            return error_of(uri, line)
    return None


def _line_with(pattern: str, said: str) -> str | None:
    """Return the first line that has the pattern, without the names of Java's classes at its beginning."""
    line = next((line for line in said.splitlines() if re.search(pattern, line)), None)
    return None if line is None else re.sub(r"^(?:\s|:|Caused by|[\w.$]+(?=: ))*", "", line)


def _overtaken(uri: str, line: str) -> ConflictError:
    return ConflictError(f"Another run changed {uri} at the same moment ({line}). Nothing was written; run it again.")


def _refused(uri: str, line: str) -> DlassetsError:
    if uri:
        return DlassetsError(
            f"{uri} could not be written: {advice(uri, line)} Then run again: what was committed before stands."
        )
    return DlassetsError(
        "Spark cannot read a table, or not keep what it works with, in spark.local.dir (by default /tmp): "
        f"{advice(uri, line)} Then run again: what was committed before stands."
    )


def _without_log_store(uri: str, line: str) -> DlassetsError:
    return DlassetsError(
        f"Spark is told to write to {uri or 'S3'} by {LOG_STORE}, and has no such class ({line}). Give it "
        f"{LOG_STORE_JAR}, by --jars where it is a Spark Connect server."
    )


def _without_storage(uri: str, line: str) -> DlassetsError:
    return DlassetsError(
        f"Spark has nothing that reads {uri or 'this storage'} ({line}). Start it with the jars of that storage, as "
        "docs/ingestion.md says for S3 and a Spark Connect server. Nothing was written."
    )


def _executor_lost(uri: str, line: str) -> PassingError:
    return PassingError(
        f"Spark lost an executor, and with it rows that were computed{f' for {uri}' if uri else ''} ({line}). Run "
        "again: what was committed before stands."
    )


# What a line of Spark's pages means, the first that fits: by its name, since Spark Connect gives it in another class.
_MEANINGS: dict[str, Callable[[str, str], Exception]] = {
    rf"ClassNotFound.*{re.escape(LOG_STORE)}": _without_log_store,
    r"ClassNotFoundException: Class \S+FileSystem not found|No FileSystem for scheme": _without_storage,
    r"CHECKPOINT_RDD_BLOCK_ID_NOT_FOUND|Checkpoint block \S+ not found": _executor_lost,
    r"\[DELTA_(CONCURRENT_|METADATA_CHANGED|PROTOCOL_CHANGED)": _overtaken,
    r"AccessDenied|AWS\w+Exception|No space left|Permission denied|Read-only file system": _refused,
    r"\[DELTA_(\w*LOG|\w*CHECKPOINT|\w*HISTORY|VERSIONS_NOT|STATE_RECOVER)|/_delta_log\b": damaged_log,
    r"\[PATH_NOT_FOUND\].*\.parquet": damaged_data,
    r"\[FAILED_READ_FILE|\[CANNOT_READ_FILE_FOOTER|not a Parquet file|\.parquet\b.*(does not exist|Checksum error)": (
        damaged_data
    ),
    r"IOException|FileSystemException": _refused,
}


def _read_content(uri: str, skip: int, most_bytes: int, files: pa.RecordBatch) -> pa.RecordBatch:
    """Kernel: add their bytes to files of a listing."""
    filesystem, folder = filesystem_of(uri)
    return read_files(filesystem, folder, files, skip, most_bytes)
