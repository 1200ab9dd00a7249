"""A user's own pandas function over a table of the lake: its rows are joined back by their key.

docs/own-columns.md shows the way, with an example that is tested.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlassets.engines.base import Engine, PandasFunction, Rows, Snapshot
from dlassets.engines.schema import Column
from dlassets.errors import DlassetsError
from dlassets.images.digest import image_id_of
from dlassets.lakehouse.snapshots import files_of, row_count

if TYPE_CHECKING:
    import pandas as pd

# The most of a table that one call of the function gets, about: parts are of like size, and none is cut exactly.
PART_ROWS = 4096
PART_BYTES = 64 * 2**20


def apply_in_pandas(
    engine: Engine,
    snapshot: Snapshot,
    function: PandasFunction,
    columns: Sequence[str],
    returns: Sequence[Column],
    key: str = "image_id",
) -> Rows:
    """Return what `function` makes of `columns` and `key` of every row: the columns `returns`, `key` among them.

    `function` takes a DataFrame and returns one, of as many rows as it likes. It is called on parts of some 4,096 rows
    or 64 MB, whichever is fewer, and what it says of a row must not depend on which others are with it. On the engine
    `spark` the parts are groups of `applyInPandas` by a hash of the key, on executors, so the function is pickled; on
    `local` they are batches, in threads of this process. Of `content`, the bytes of photos, damaged ones are in none of
    them. Raises DlassetsError where `returns` lacks the key.
    """
    if key not in {column.name for column in returns}:
        raise DlassetsError(f"Name the key {key!r} among the columns that the function returns: rows are joined by it.")
    wanted = [key, *(name for name in columns if name != key)]
    if "content" in wanted:
        function = functools.partial(_of_whole_photos, function=function, columns=wanted)
        wanted = [*dict.fromkeys([*wanted, "image_id"])]
    bytes_in_all = sum(files_of(snapshot).values())
    parts = max(1, -(-row_count(snapshot) // PART_ROWS), -(-bytes_in_all // PART_BYTES))
    return engine.apply_in_pandas(snapshot, function, wanted, returns, key, parts)


def _of_whole_photos(part: pd.DataFrame, *, function: PandasFunction, columns: Sequence[str]) -> pd.DataFrame:
    """Run a function on the rows whose bytes, where they stand in the table, are those that were taken in."""
    pairs = zip(part["content"], part["image_id"], strict=True)
    is_whole = [content is None or image_id_of(content) == image_id for content, image_id in pairs]
    return function(part.loc[is_whole, list(columns)])
