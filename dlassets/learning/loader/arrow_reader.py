"""Row groups read by threads of pyarrow: where Petastorm is not installed, and as it reads them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dlassets.errors import DlassetsError
from dlassets.learning.loader.parquet import IN_FLIGHT, Columns, RowGroup, RowGroups

if TYPE_CHECKING:
    import pyarrow as pa


@contextmanager
def read_by_arrow(
    source: RowGroups, places: Sequence[int], columns: Sequence[str], threads: int
) -> Iterator[Iterator[Columns]]:
    """Give the columns of the row groups at these places, in their order. See `row_groups.read_row_groups`."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="arrow")
    try:
        yield _in_order(pool, source, places, columns, most=threads * IN_FLIGHT)
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor, source: RowGroups, places: Sequence[int], columns: Sequence[str], most: int
) -> Iterator[Columns]:
    due: deque[Future[Columns]] = deque()
    for place in places:
        due.append(pool.submit(_read, source, source.groups[place], columns))
        if len(due) == most:
            yield due.popleft().result()
    while due:
        yield due.popleft().result()


def _read(source: RowGroups, group: RowGroup, columns: Sequence[str]) -> Columns:
    table = group.read(columns, source.schema)
    return {column: _values(table[column], f"Column {column} of {source.uri}") for column in columns}


def _values(column: pa.ChunkedArray, what: str) -> npt.NDArray[Any]:
    """Return a column's values, (N,), or (N, length) of lists. Raises DlassetsError where those make no rectangle."""
    import pyarrow as pa

    values = column.combine_chunks()
    found: npt.NDArray[Any]
    if not pa.types.is_list(values.type):
        found = values.to_pandas().to_numpy()
        return found
    if values.null_count:
        raise DlassetsError(f"{what} has rows without a list. Choose rows that all have one.")
    lengths = sorted(set(np.diff(values.offsets).tolist()))
    if len(lengths) > 1:
        raise DlassetsError(f"{what} has lists of {lengths[0]} to {lengths[-1]} values. Choose rows of one length.")
    found = values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1)
    return found
