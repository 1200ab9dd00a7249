"""A table version's narrow columns, without opening every data file: what SQL reads, and where a key is looked up.

A data file never changes, so what was read of one holds for as long as it is there. The narrow columns (keys, times,
numbers; no bytes, no vectors) of a table's data files are kept in one Parquet file, `<table>/_columns/<version>-…`, and
a reader opens that and the few data files since. Delta passes over a folder that begins so, and it moves with the
table. It is derived: where it is missing, broken, or of other columns, the data files are read, and it is made anew.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

# This module is imported where a query runs.
import pyarrow as pa  # noqa: TID253
import pyarrow.compute as pc  # noqa: TID253
import pyarrow.dataset as pads  # noqa: TID253
import pyarrow.fs as pafs  # noqa: TID253

from dlassets.engines.base import Snapshot
from dlassets.engines.delta_log import is_newest, read_table, remember
from dlassets.storage.files import listed, write_whole
from dlassets.storage.stores import cached_filesystem_of

if TYPE_CHECKING:
    from deltalake import DeltaTable

FOLDER = "_columns"
# What is kept is made anew once so many data files have to be opened beside it, or once those hold so many rows and a
# quarter of what is kept: in all, what is written anew stays in proportion to what came.
MOST_FRESH, FRESH_ROWS = 16, 4096
# Small enough that two threads look through a table of some ten thousand rows.
ROW_GROUP = 2**14
# Who found a file that has been superseded since may still be reading it.
SUPERSEDED = dt.timedelta(minutes=10)
# Names the data file of a row, by its place in the list of them.
FILE = "__file"
_FILES = b"dlassets.files"
_FEATURES_SINCE = 3  # from this reader version on, a table names what its readers must know of
_FORMAT = pads.ParquetFileFormat(default_fragment_scan_options=pads.ParquetFragmentScanOptions(pre_buffer=True))
_KEPT_OPEN = 32
_lately: dict[tuple[str, int], TableColumns] = {}
# Places that took no file of ours: they are not asked again, since that is found out once all is read.
_refused: set[str] = set()


@dataclass(frozen=True)
class Kept:
    """The kept file: its rows are those of `files`, a row's FILE being the place of its file there."""

    name: str
    files: tuple[str, ...]
    fragment: pads.ParquetFileFragment


@dataclass(frozen=True)
class DataFile:
    """What the log says of a data file: its rows, and the values that all of them have."""

    rows: int
    partition: Mapping[str, pa.Scalar]


@dataclass(frozen=True)
class Parts:
    """What a version's narrow columns are read from: what is kept, if anything, and the `fresh` data files beside it.

    `live` tells the version's rows from those of `dead` files, places among the kept, where there are any.
    """

    kept: Kept | None
    fresh: tuple[str, ...]
    dead: tuple[int, ...]
    dataset: pads.Dataset

    @property
    def live(self) -> pads.Expression | None:
        # A data file has no such column, so that it is null there, which is among nothing.
        return ~pads.field(FILE).isin(pa.array(self.dead, pa.int32())) if self.dead else None


class TableColumns(pads.Dataset):  # type: ignore[misc]
    """A table version as a dataset that DuckDB scans: from what is kept where it asks for narrow columns alone."""

    def __init__(self, snapshot: Snapshot, delta: DeltaTable) -> None:
        self._snapshot = snapshot
        self.delta = delta
        self._schema = pa.schema(delta.schema().to_arrow(as_large_types=False))
        filesystem, folder = cached_filesystem_of(snapshot.uri)
        self._files = pafs.SubTreeFileSystem(folder, filesystem)
        self._parts: Parts | None = None
        self._lock = threading.Lock()

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def scanner(self, columns: Sequence[str] | None = None, filter: Any = None, **options: Any) -> pads.Scanner:  # noqa: A002
        """As Dataset.scanner."""
        names = list(self._schema.names if columns is None else columns)
        if not self._is_plain or not set(names) <= set(self._narrow.names):
            return self.whole.scanner(names, filter=filter, **options)
        parts = self._current()
        return parts.dataset.scanner(names, filter=_both(parts.live, filter), **options)

    def fragments_with(self, key: str, wanted: pa.Array) -> Iterator[pads.ParquetFileFragment]:
        """Yield the data files that may hold a row whose `key` is among `wanted`."""
        if not self._is_plain or key not in self._narrow.names:
            yield from self.whole.get_fragments()
            return
        parts = self._current()
        names = set(parts.fresh)
        if parts.kept is not None:
            rows = _both(parts.live, pads.field(key).isin(wanted))
            found = parts.kept.fragment.to_table(schema=self._narrow_with_file, columns=[FILE], filter=rows)
            names |= {parts.kept.files[place] for place in pc.unique(found[FILE]).to_pylist()}
        yield from (self._fragment(name) for name in self._data_files if name in names)

    @cached_property
    def whole(self) -> pads.Dataset:
        """All columns of all files, each of which is opened."""
        # delta-rs's own file system aborts the process at exit, at random: its reader threads outlive Python.
        return self.delta.to_pyarrow_dataset(filesystem=self._files)

    @cached_property
    def _is_plain(self) -> bool:
        """Whether the log alone says which rows there are; what else Delta can do, delta-rs reads or refuses itself."""
        return int(self.delta.protocol().min_reader_version) < _FEATURES_SINCE

    @cached_property
    def _narrow(self) -> pa.Schema:
        return pa.schema([field for field in self._schema if _is_narrow(field.type)])

    @cached_property
    def _narrow_with_file(self) -> pa.Schema:
        return self._narrow.append(pa.field(FILE, pa.int32()))

    @cached_property
    def _data_files(self) -> Mapping[str, DataFile]:
        """The version's data files, by name."""
        actions = pa.table(self.delta.get_add_actions(flatten=True))
        names = [unquote(name) for name in actions["path"].to_pylist()]
        columns = self.delta.metadata().partition_columns
        values = (actions[f"partition.{column}"] for column in columns)
        partitions = zip(*values, strict=True) if columns else ((),) * len(names)
        # Whoever wrote a file may have left out how many rows it has.
        rows = actions["num_records"].to_pylist() if "num_records" in actions.column_names else [None] * len(names)
        return {
            name: DataFile(number or 0, dict(zip(columns, partition, strict=True)))
            for name, number, partition in zip(names, rows, partitions, strict=True)
        }

    def _current(self) -> Parts:
        """Return what to read now, having made what is kept anew where that is due."""
        with self._lock:
            kept = self._newest_kept()
            if self._parts is None or kept is not self._parts.kept:
                self._parts = self._parts_with(kept)
            if self._is_due(self._parts) and is_newest(self._snapshot.uri, self._snapshot.version):
                self._parts = self._parts_with(self._keep(self._parts))
            return self._parts

    def _parts_with(self, kept: Kept | None) -> Parts:
        files = kept.files if kept is not None else ()
        there = set(files)
        dead = tuple(place for place, name in enumerate(files) if name not in self._data_files)
        fresh = tuple(name for name in self._data_files if name not in there)
        fragments = [*([kept.fragment] if kept is not None else []), *map(self._fragment, fresh)]
        return Parts(kept, fresh, dead, pads.FileSystemDataset(fragments, self._narrow_with_file, _FORMAT, self._files))

    def _is_due(self, parts: Parts) -> bool:
        if self._snapshot.uri in _refused:
            return False
        fresh_rows = sum(self._data_files[name].rows for name in parts.fresh)
        kept_rows = parts.kept.fragment.metadata.num_rows if parts.kept is not None else 0
        return (
            len(parts.fresh) >= MOST_FRESH
            or 2 * len(parts.dead) > len(self._data_files) + MOST_FRESH
            or fresh_rows > max(FRESH_ROWS, kept_rows // 4)
        )

    def _fragment(self, name: str) -> pads.ParquetFileFragment:
        values = self._data_files[name].partition.items()
        guarantee = functools.reduce(_both, (_equals(column, value) for column, value in values), None)
        return _FORMAT.make_fragment(name, self._files, guarantee)

    # ---- what is kept

    def _newest_kept(self) -> Kept | None:
        """Return the newest of the kept files that can be read, if any has these columns."""
        # What a killed process was writing has a name that begins with a dot, and comes last.
        for info in sorted(self._listed(), key=lambda info: str(info.base_name), reverse=True):
            if info.base_name.startswith("."):
                return None
            with suppress(OSError, pa.ArrowException, ValueError):
                return _opened(self._snapshot.uri, info.base_name, self._narrow_with_file)
        return None

    def _listed(self) -> list[pafs.FileInfo]:
        return [info for info in listed(self._files, FOLDER) if info.is_file]

    def _keep(self, parts: Parts) -> Kept | None:
        """Write what is kept anew, for this version; return what there was where that cannot be written."""
        try:
            content = self._content(parts)
            name = f"{self._snapshot.version:020}-{hashlib.sha256(content).hexdigest()}"
            write_whole(f"{self._snapshot.uri.rstrip('/')}/{FOLDER}/{name}", content)
            self._delete_superseded(name)
            return _opened(self._snapshot.uri, name, self._narrow_with_file)
        except (OSError, pa.ArrowException):  # a lake that is not ours to write is read as it is
            _refused.add(self._snapshot.uri)
            return parts.kept

    def _content(self, parts: Parts) -> bytes:
        import pyarrow.parquet as pq

        files = tuple(self._data_files)
        places = {name: place for place, name in enumerate(files)}
        schema = self._narrow_with_file.with_metadata({_FILES: json.dumps(files).encode()})
        sink = pa.BufferOutputStream()
        # Most bytes are keys, no two of them alike: a dictionary of them is work for nothing.
        with pq.ParquetWriter(sink, schema, compression="zstd", compression_level=1, use_dictionary=False) as writer:
            for rows in _in_groups(self._rows(parts, places)):
                writer.write_table(rows.cast(schema), ROW_GROUP)
        return bytes(sink.getvalue().to_pybytes())

    def _rows(self, parts: Parts, places: Mapping[str, int]) -> Iterator[pa.Table]:
        """Yield the narrow columns of this version, each row with the place of its data file."""
        moved = pa.array(
            [places.get(name) for name in (parts.kept.files if parts.kept is not None else ())], pa.int32()
        )
        for scanned in parts.dataset.scanner(self._narrow_with_file.names, filter=parts.live).scan_batches():
            rows, place = scanned.record_batch, places.get(scanned.fragment.path)
            found = moved.take(rows[FILE]) if place is None else pa.repeat(pa.scalar(place, pa.int32()), rows.num_rows)
            yield _with_file(pa.table(rows), found)

    def _delete_superseded(self, name: str) -> None:
        """Delete what others have written, or a killed process has begun, before SUPERSEDED."""
        old = dt.datetime.now(dt.UTC) - SUPERSEDED
        for info in self._listed():
            if info.base_name != name and info.mtime < old:
                with suppress(OSError):
                    self._files.delete_file(info.path)


def columns_of(snapshot: Snapshot) -> TableColumns:
    """Return a table version as what DuckDB scans; one that was asked for lately is that of then."""
    delta, known = read_table(snapshot.uri, snapshot.version), (snapshot.uri, snapshot.version)
    found = _lately.get(known)
    if found is None or found.delta is not delta:  # else the table was made anew
        found = TableColumns(snapshot, delta)
        remember(_lately, known, found)
    return found


def table_with(said: object) -> str:
    """Return the URI of the table, of those read lately, that has a data file which is named there; else nothing."""
    tables = {uri: found for (uri, _), found in list(_lately.items())}
    return next((uri for uri, found in tables.items() if any(file in str(said) for file in found._data_files)), "")  # noqa: SLF001


@functools.lru_cache(maxsize=_KEPT_OPEN)
def _opened(uri: str, name: str, schema: pa.Schema) -> Kept:
    """Return a kept file. Raises OSError, ArrowException or ValueError where it is not whole or of other columns."""
    filesystem, folder = cached_filesystem_of(uri)
    path, digest = f"{folder}/{FOLDER}/{name}", hashlib.sha256()
    with filesystem.open_input_stream(path, compression=None) as stream:
        while part := stream.read(2**22):
            digest.update(part)
    if not name.endswith(digest.hexdigest()):
        raise ValueError("not as it was written")
    fragment = _FORMAT.make_fragment(path, filesystem)
    if fragment.physical_schema != schema:
        raise ValueError("of other columns")
    return Kept(name, tuple(json.loads(fragment.metadata.metadata[_FILES])), fragment)


def _is_narrow(type_: pa.DataType) -> bool:
    return not (pa.types.is_nested(type_) or pa.types.is_binary(type_) or pa.types.is_large_binary(type_))


def _both(one: pads.Expression | None, other: pads.Expression | None) -> pads.Expression | None:
    return other if one is None else one if other is None else one & other


def _equals(column: str, value: pa.Scalar) -> pads.Expression:
    return pads.field(column) == value if value.is_valid else pads.field(column).is_null()


def _with_file(rows: pa.Table, places: pa.Array) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(FILE), FILE, places)


def _in_groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield the same rows in tables of a row group or more, so that a thousand small files are not as many groups."""
    some: list[pa.Table] = []
    for table in tables:
        some.append(table)
        if sum(len(one) for one in some) >= ROW_GROUP:
            yield pa.concat_tables(some).combine_chunks()
            some = []
    if some:
        yield pa.concat_tables(some).combine_chunks()
