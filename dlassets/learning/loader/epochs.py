"""The order of an epoch's rows: a function of the row groups, the seed and the epoch's number, and of nothing else.

The rows of an epoch, row group by row group in an order drawn anew, are cut into a few *logical shards* of one length.
Each batch takes as many rows from every shard. A process of W reads 1/W of the shards, so it reads its own row groups
alone, and the batches of all processes together are the same rows whatever W is. Within a shard rows are shuffled over
a window of several row groups, since a table may be sorted by class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dlassets.errors import DlassetsError

if TYPE_CHECKING:
    Rows = npt.NDArray[np.int64]

# Batches are the same rows for any number of processes that divides this.
LOGICAL_SHARDS = 4
# What a window holds in memory at most, unless one row group is larger.
WINDOW_BYTES = 16 * 2**20

# What is drawn for.
_ORDER, _BALANCE, _WINDOW, _ROW = range(1, 5)


@dataclass(frozen=True, eq=False)
class Window:
    """Rows of one shard that are read together, from `groups`, and given in an order of their own.

    For each row to be given: its place among all rows of `groups`, its number in the table (as its files lie), and its
    place in the whole epoch, before windows are shuffled.
    """

    groups: tuple[int, ...]
    local: Rows
    numbers: Rows
    places: Rows

    def __len__(self) -> int:
        return len(self.local)


@dataclass(frozen=True)
class Steps:
    """How the rows of an epoch are shared out: `rows` in batches of `batch_size` of all `shards` together.

    The last batch has what is left; fewer rows than shards go with the batch before, so that no process is ever given
    nothing, unless there are fewer rows than processes.
    """

    rows: int
    batch_size: int
    shards: int

    def __len__(self) -> int:
        whole, rest = divmod(self.rows, self.batch_size)
        return max(whole + (rest >= self.shards), min(self.rows, 1))

    def given(self, shard: int) -> Rows:
        """Return how many rows of a shard are given after each number of steps, from 0 to all of them."""
        total = np.minimum(np.arange(len(self) + 1) * self.batch_size, self.rows)
        total[-1] = self.rows
        given: Rows = total * (shard + 1) // self.shards - total * shard // self.shards
        return given


def logical_shards(batch_size: int, world_size: int) -> int:
    """Return into how many shards an epoch is cut; each batch takes at least one row from every one of them.

    Raises DlassetsError where a batch cannot be parted evenly among the processes.
    """
    if batch_size < 1 or batch_size % world_size:
        raise DlassetsError(
            f"A batch of {batch_size} rows cannot be parted evenly among {world_size} processes. Choose a batch size "
            f"that is a multiple of {world_size}."
        )
    shards = math.lcm(min(LOGICAL_SHARDS, 2 ** int(math.log2(batch_size))), world_size)
    return shards if shards <= batch_size else world_size


def balanced(labels: npt.NDArray[np.int64], seed: int, epoch: int) -> Rows:
    """Return as many row numbers as there are labels, ascending, in which every label occurs equally often, to one row.

    Each row of a rare label is repeated equally often, to one; of a frequent one some rows are left out, others in each
    epoch.
    """
    random = _random(seed, epoch, _BALANCE)
    classes, members = np.unique(labels, return_inverse=True)
    drawn = [
        _repeated(np.flatnonzero(members == place), share, random)
        for place, share in enumerate(np.diff(len(labels) * np.arange(len(classes) + 1) // len(classes)))
    ]
    return np.sort(np.concatenate(drawn)) if drawn else np.empty(0, np.int64)


def windows_of(
    shard: int,
    shards: int,
    *,
    sizes: Sequence[int],
    weights: Sequence[int],
    seed: int,
    epoch: int,
    shuffle: bool = True,
    drawn: Rows | None = None,
) -> list[Window]:
    """Return the windows of one shard, in their order. `sizes` are the row groups' rows, `weights` their bytes.

    `drawn` are the numbers of the rows that the epoch has, ascending, where that is not each of them once.
    """
    starts = np.concatenate([[0], np.cumsum(sizes)])
    rows = np.arange(starts[-1]) if drawn is None else drawn
    bounds = np.searchsorted(rows, starts)  # where each group's rows begin in `rows`
    order = _random(seed, epoch, _ORDER).permutation(len(sizes)) if shuffle else np.arange(len(sizes))
    ends = np.cumsum(np.diff(bounds)[order])
    begin, end = len(rows) * shard // shards, len(rows) * (shard + 1) // shards
    windows: list[Window] = []
    held: list[tuple[int, Rows, Rows]] = []

    def close() -> None:
        if held:
            random = _random(seed, epoch, _WINDOW, shard, len(windows)) if shuffle else None
            windows.append(_window(held, starts, random))
            held.clear()

    for group, last in zip(order.tolist(), ends.tolist(), strict=True):
        first = last - (bounds[group + 1] - bounds[group])
        some = np.arange(max(first, begin), min(last, end))
        if not len(some):
            continue
        if sum(weights[one] for one, _, _ in held) + weights[group] > WINDOW_BYTES:
            close()
        held.append((group, rows[bounds[group] + some - first], some))
    close()
    return windows


def _window(held: Sequence[tuple[int, Rows, Rows]], starts: Rows, random: np.random.Generator | None) -> Window:
    """Put the rows of row groups together: (group, their numbers in the table, their places in the epoch)."""
    groups = tuple(group for group, _, _ in held)
    before = np.cumsum([0, *(starts[group + 1] - starts[group] for group in groups)])
    local = np.concatenate(
        [numbers - starts[group] + base for (group, numbers, _), base in zip(held, before, strict=False)]
    )
    numbers = np.concatenate([numbers for _, numbers, _ in held])
    places = np.concatenate([places for _, _, places in held])
    order = np.arange(len(local)) if random is None else random.permutation(len(local))
    return Window(groups, local[order], numbers[order], places[order])


def _repeated(rows: Rows, share: int, random: np.random.Generator) -> Rows:
    whole, rest = divmod(share, len(rows))
    return np.concatenate([np.repeat(rows, whole), random.permutation(rows)[:rest]])


def row_random(seed: int, epoch: int, place: int) -> np.random.Generator:
    """Return what one row of an epoch may draw from, whoever decodes it, and when."""
    return _random(seed, epoch, _ROW, place)


def _random(seed: int, *parts: int) -> np.random.Generator:
    return np.random.default_rng([abs(seed), int(seed < 0), *parts])  # NumPy takes no sign
