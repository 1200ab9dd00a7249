"""The operations an engine offers. Assets and domain code know these alone, never which engine runs them.

`Rows` is a set of rows that an engine holds in its own way (Arrow batches, a Spark DataFrame), perhaps still lazy.
A `Kernel` is a plain picklable function from an Arrow record batch to an Arrow record batch, run by both engines.
"""

from __future__ import annotations

import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from dlassets.engines.schema import Column, Table

Kernel = Callable[["pa.RecordBatch"], "pa.RecordBatch"]
PandasFunction = Callable[["pd.DataFrame"], "pd.DataFrame"]
Advance = Callable[[int], None]
Progress = Callable[[int, int | None], None]  # how many are done, and of how many where that is known

# The Delta commit's own field for what a writer wants to say, read and written by both engines.
COMMIT_FIELD = "userMetadata"
COMMIT_NAME = "commit"

# Values that one `replace` may name. What names them is an expression: it costs the square of their number, and with
# some 50,000 delta-rs ends the process (a stack overflow).
REPLACED_AT_ONCE = 1000


@dataclass(frozen=True)
class Snapshot:
    """One version of one Delta table."""

    name: str
    uri: str
    version: int


@dataclass(frozen=True)
class Transaction:
    """An application transaction of Delta: of two writers with the same `app_id` and `version`, one is refused."""

    app_id: str
    version: int


@dataclass(frozen=True)
class Commit:
    """What a write records of itself in the table's log."""

    provenance: Mapping[str, Any] = field(default_factory=dict)
    transaction: Transaction | None = None
    # Tells it from another run's that says the same.
    name: str = field(default_factory=lambda: uuid.uuid4().hex, compare=False)

    @property
    def message(self) -> str:
        return json.dumps({**self.provenance, COMMIT_NAME: self.name}, sort_keys=True)


@dataclass(frozen=True)
class Written:
    """What a write did. `version` is the table's version after it; `changed` is False where nothing was written.

    `left_out` are rows that wait: the photo that they are made of could not be had. `failed` are paths of photos that
    they could not be made of, and `quarantined` is how many are left out for that, those of earlier runs among them:
    nothing waits for these.
    """

    version: int
    inserted: int = 0
    updated: int = 0
    changed: bool = True
    left_out: int = 0
    failed: Sequence[str] = ()
    quarantined: int = 0

    def and_then(self, later: Written) -> Written:
        """Return what this write and a later one of the same table did together."""
        return Written(
            later.version,
            self.inserted + later.inserted,
            self.updated + later.updated,
            changed=self.changed or later.changed,
            left_out=self.left_out + later.left_out,
            failed=(*self.failed, *later.failed),
            quarantined=self.quarantined + later.quarantined,
        )


@dataclass(frozen=True)
class Maintained:
    """What care of a table did. Before and after are the files of its newest version; deleted are those of none."""

    version: int
    files_before: int
    bytes_before: int
    files_after: int
    bytes_after: int
    files_deleted: int
    bytes_deleted: int


def counting(progress: Progress | None, total: int | None = None) -> Advance:
    """Return an `Advance` that adds up what it is given and passes the sum, and `total`, on to `progress`."""
    done = 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        if progress is not None:
            progress(done, total)

    return advance


class Rows(ABC):
    """Rows that an engine can go on working with."""

    @abstractmethod
    def arrow(self) -> pa.Table:
        """Compute the rows and return them: for narrow rows alone, since they come to this process."""

    @abstractmethod
    def batches(self) -> Iterator[pa.RecordBatch]:
        """Compute the rows and yield them a batch at a time: without ever holding all of them, where the engine can."""

    @abstractmethod
    def map(self, kernel: Kernel, columns: Sequence[Column]) -> Rows:
        """Return what `kernel` makes of the rows, whose columns will be `columns`."""

    @abstractmethod
    def select(self, columns: Sequence[str]) -> Rows:
        """Return these columns alone."""

    @abstractmethod
    def split_by_null(self, column: str) -> tuple[Rows, Rows]:
        """Compute the rows once and return those where `column` is null, and the others."""

    @abstractmethod
    def count(self) -> int:
        """Compute the rows, keep them, and return how many there are."""


class Engine(ABC):
    """Reads and writes the lake's tables. Tables exist before they are written (see `lakehouse.snapshots.pin`)."""

    name: str

    @property
    def shares(self) -> int:
        """How many times what one machine takes in at once this takes: so many cores as a cluster has, else one."""
        return 1

    @abstractmethod
    def rows(self, table: pa.Table) -> Rows:
        """Return `table`, already in this process, as rows of this engine."""

    @abstractmethod
    def sql(self, query: str, tables: Mapping[str, Snapshot | Rows]) -> Rows:
        """Run ANSI SQL over named, pinned snapshots and rows: keys and narrow columns, never image bytes."""

    @abstractmethod
    def join(self, rows: Rows, snapshot: Snapshot, on: Sequence[str], columns: Sequence[str]) -> Rows:
        """Return the rows that have the values of a row of the snapshot in the columns `on`, with its `columns` beside.

        It is for columns that are too large for `sql`, such as embeddings: `rows`, of which no two have the same values
        in `on`, are held in memory, and of the snapshot a few at a time.
        """

    @abstractmethod
    def map(
        self,
        snapshot: Snapshot,
        columns: Sequence[str],
        keys: Rows,
        kernel: Kernel,
        returns: Sequence[Column],
        advance: Advance | None = None,
    ) -> Rows:
        """Run `kernel` over `columns` of the snapshot's rows whose key is in `keys`, rows of that one column.

        Bytes included, memory bounded. `advance` is told how many rows were done since it was last told, where the
        engine can tell.
        """

    @abstractmethod
    def append(self, rows: Rows, table: Table, uri: str, commit: Commit) -> Written:
        """Add the rows; no rows, no new version. Raises ConflictError where `commit.transaction` was overtaken."""

    @abstractmethod
    def merge(self, rows: Rows, table: Table, uri: str, commit: Commit) -> Written:
        """Insert or update by the table's key; no rows, no new version. Narrow tables alone.

        Raises ConflictError as `append` does.
        """

    @abstractmethod
    def replace(
        self, rows: Rows, table: Table, uri: str, commit: Commit, where: Mapping[str, Sequence[str]] | None = None
    ) -> Written:
        """Put the rows in place of those whose columns are among `where`'s values (of all, by default), in one commit.

        `{"path": [...]}` replaces these paths, REPLACED_AT_ONCE of them at most; new rows must be among them too.
        Raises ConflictError as `append` does.
        """

    @abstractmethod
    def maintain(
        self,
        table: Table,
        uri: str,
        *,
        target_bytes: int = 256 * 2**20,
        z_order: Sequence[str] = (),
        vacuum_hours: float = 168,
        keep_versions: Collection[int] = (),
    ) -> Maintained:
        """Compact small files up to `target_bytes`, or lay all rows out by `z_order`; then delete unneeded files.

        Those are files that no version of the last `vacuum_hours`, and none of `keep_versions`, needs. No new version
        where there is nothing to do, but that a `z_order` always rewrites. Raises ConflictError as `append` does.
        """

    @abstractmethod
    def files(self, name: str, uri: str, listing: pa.Table, most_bytes: int, advance: Advance | None = None) -> Rows:
        """Return the files of a landing zone's listing with their bytes, each read when its turn comes.

        The columns are `listing`'s, of which path is `<name>/<path within the zone>`; content, null where a file cannot
        be read or is larger than `most_bytes`; and read_error, which says why it cannot be read. One that has gone
        meanwhile has no row. `advance` is told how many files were read.
        """

    @abstractmethod
    def apply_in_pandas(
        self,
        snapshot: Snapshot,
        function: PandasFunction,
        columns: Sequence[str],
        returns: Sequence[Column],
        key: str,
        groups: int,
    ) -> Rows:
        """Run `function` over all rows' `columns`, in some `groups` parts of like size; which row is in which is open.

        It is for users' own functions; the lake's own tables are made by kernels.
        """
