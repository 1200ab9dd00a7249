"""The order of an epoch's rows: a function of the row groups, the seed and the epoch's number, and of nothing else.

The rows of an epoch, row group by row group in an order drawn anew, are cut into a few *logical shards* of one length.
Each batch takes as many rows from every shard. A process of W reads 1/W of the shards, so it reads its own row groups
alone, and the batches of all processes together are the same rows whatever W is. Within a shard rows are shuffled over
a window of several row groups, since a table may be sorted by class.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dlassets.errors import DlassetsError

Rows = npt.NDArray[np.int64]

# Batches are the same rows for any number of processes that divides this.
LOGICAL_SHARDS = 4
# What a window holds in memory at most, unless one row group is larger.
WINDOW_BYTES = 16 * 2**20

# What is drawn for.
_ORDER, _BALANCE, _WINDOW, _ROW = range(1, 5)


@dataclass(frozen=True)
class Sampling:
    """Which rows come in which batch, on which process.

    `batch_size` counts rows of all processes together; `shard` is this process's (rank, world size). With `shuffle` the
    order is another in each epoch, and repeats with `seed`. `balance_by` names a column of labels that are all to occur
    equally often in an epoch, which keeps its length. `compare_with` names a column of the SHA-256 of each photo's
    bytes, `image_id` in the lake's tables: a row whose bytes are damaged is left out of its batch.
    """

    batch_size: int = 32
    shard: tuple[int, int] = (0, 1)
    seed: int = 0
    shuffle: bool = True
    balance_by: str | None = None
    compare_with: str | None = None


# Every row once an epoch, shuffled, in one process.
USUAL_SAMPLING = Sampling()


@dataclass(frozen=True, eq=False)
class Window:
    """Rows of one shard that are read together, from `groups`, and given in an order of their own.

    For each row: its place among all rows of `groups`, its number in the table (as its files lie), and its place in the
    whole epoch, before windows are shuffled.
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

    The last batch has what is left; fewer rows than shards go with the batch before, so that no process ever gets
    nothing, unless there are fewer rows than processes.
    """

    rows: int
    batch_size: int
    shards: int

    def __len__(self) -> int:
        whole, rest = divmod(self.rows, self.batch_size)
        return max(whole + (rest >= self.shards), min(self.rows, 1))

    def offsets(self, shard: int) -> Rows:
        """Return where each step begins among the rows of a shard, and where the last one ends."""
        total = np.minimum(np.arange(len(self) + 1) * self.batch_size, self.rows)
        total[-1] = self.rows
        offsets: Rows = total * (shard + 1) // self.shards - total * shard // self.shards
        return offsets


@dataclass(frozen=True, eq=False)
class Epoch:
    """The order of one epoch's rows, shard by shard. `sizes` are the row groups' rows, `weights` their bytes.

    `drawn` are the numbers of the rows that the epoch has, ascending, where that is not each of them once.
    """

    number: int
    sizes: Sequence[int]
    weights: Sequence[int]
    sampling: Sampling
    drawn: Rows | None = None

    def windows(self, shard: int, shards: int) -> list[Window]:
        """Return the windows of one of so many shards, in their order."""
        windows: list[list[tuple[int, Rows]]] = []
        room = 0
        for group, rows in self._parts(shard, shards):
            if not windows or self.weights[group] > room:
                windows.append([])
                room = WINDOW_BYTES
            windows[-1].append((group, rows))
            room -= self.weights[group]
        return [self._window(parts, shard, place) for place, parts in enumerate(windows)]

    def _parts(self, shard: int, shards: int) -> Iterator[tuple[int, Rows]]:
        """Yield row groups, each with (3, N) of its rows in this shard: their places in it, numbers, and places."""
        starts = np.concatenate([[0], np.cumsum(self.sizes)])
        rows = np.arange(starts[-1]) if self.drawn is None else self.drawn
        bounds = np.searchsorted(rows, starts)  # where each group's rows begin in `rows`
        begin, end = len(rows) * shard // shards, len(rows) * (shard + 1) // shards
        last = 0
        for group in self._shuffled(np.arange(len(self.sizes)), _ORDER).tolist():
            first, last = last, last + int(bounds[group + 1] - bounds[group])
            places = np.arange(max(first, begin), min(last, end))
            if len(places):
                numbers = rows[bounds[group] + places - first]
                yield group, np.stack([numbers - starts[group], numbers, places])

    def _window(self, parts: Sequence[tuple[int, Rows]], shard: int, place: int) -> Window:
        groups = tuple(group for group, _ in parts)
        before = np.cumsum([0, *(self.sizes[group] for group in groups)])
        shifted = [rows + np.array([[base], [0], [0]]) for (_, rows), base in zip(parts, before, strict=False)]
        return Window(groups, *self._shuffled(np.concatenate(shifted, axis=1), _WINDOW, shard, place))

    def _shuffled(self, rows: Rows, *purpose: int) -> Rows:
        """Return the rows, along their last axis, in the order that this epoch has for a purpose."""
        if not self.sampling.shuffle:
            return rows
        return _random(self.sampling.seed, self.number, *purpose).permutation(rows, axis=-1)


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


def _repeated(rows: Rows, share: int, random: np.random.Generator) -> Rows:
    whole, rest = divmod(share, len(rows))
    return np.concatenate([np.repeat(rows, whole), random.permutation(rows)[:rest]])


def row_random(seed: int, epoch: int, place: int) -> np.random.Generator:
    """Return what one row of an epoch may draw from, whoever decodes it, and when."""
    return _random(seed, epoch, _ROW, place)


def _random(seed: int, *parts: int) -> np.random.Generator:
    return np.random.default_rng([abs(seed), int(seed < 0), *parts])  # NumPy takes no sign
