"""Batches of tensors from a pinned version of a Delta table: read by Petastorm, decoded by threads, in a certain order.

Nothing is copied to another place or format first. What an epoch's batches are is a function of the table's files, the
seed and the epoch's number (`epochs`): a training can go on from a step, and processes share batches without talking.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from dlassets.errors import DlassetsError
from dlassets.learning.loader.decoded import Cache
from dlassets.learning.loader.decoding import Decoder, Transform, decode_to_tensor
from dlassets.learning.loader.epochs import Steps, Window, balanced, logical_shards, windows_of
from dlassets.learning.loader.petastorm import (
    Columns,
    RowGroups,
    check_columns,
    check_shard,
    read_row_groups,
    row_groups,
)

if TYPE_CHECKING:
    import torch

    from dlassets.learning.loader.decoding import Function
    from dlassets.learning.loader.epochs import Rows

    Batch = dict[str, torch.Tensor | list[Any]]

Item = TypeVar("Item")

# Threads of Petastorm's that read row groups ahead, and batches that are being decoded while one is used.
_READERS = 2
_BATCHES_AHEAD = 3

__all__ = ["Cache", "Loader", "Transform", "decode_to_tensor", "torch_loader"]


def torch_loader(
    table: str,
    version: int,
    split: str | None,
    columns: Sequence[str],
    transform: Transform | Function | None = None,
    *,
    batch_size: int = 32,
    shard: tuple[int, int] = (0, 1),
    seed: int = 0,
    workers: int | None = None,
    cache: Cache | None = None,
    shuffle: bool = True,
    balance_by: str | None = None,
) -> Loader:
    """Return a loader of the rows of one version of a Delta table, at a path or URI; with `split`, of that partition.

    Numbers come as tensors (N,), lists of numbers of one length as (N, length), strings as lists. A column of bytes is
    taken for photos, and comes as what `transform` makes of them: `decode_to_tensor()` by default, or any function of
    bytes and a generator, which is the row's own in that epoch. `workers` threads decode, one a core by default, so
    what `transform` does should leave Python's lock alone for most of its time.

    `batch_size` counts rows of all processes together; `shard` is this process's (rank, world size). With `shuffle` the
    order is another in each epoch, and repeats with `seed`. `balance_by` names a column of labels that are all to occur
    equally often in an epoch, which keeps its length. Raises DlassetsError for a table that cannot be read so, columns
    it lacks, no rows, fewer rows than processes, and a batch that cannot be parted among them.
    """
    check_shard(shard)
    found = row_groups(table, version, None if split is None else [("split", "=", split)])
    which = f"{table} version {version}" + ("" if split is None else f", split {split},")
    check_columns(found, columns if balance_by is None else [*columns, balance_by])
    if not found.groups:
        raise DlassetsError(f"{which} has no rows.")
    if found.rows < shard[1]:
        raise DlassetsError(f"{which} has {found.rows} rows for {shard[1]} processes. Use fewer processes.")
    return Loader(
        found,
        tuple(columns),
        Decoder(found, transform or decode_to_tensor(), seed, workers or os.cpu_count() or 1, cache),
        batch_size=batch_size,
        shard=shard,
        seed=seed,
        shuffle=shuffle,
        balance_by=balance_by,
    )


class Loader:
    """An iterable of batches, an epoch each time: dicts by column. Made by `torch_loader`.

    Iterating begins the epoch at its first batch, or where `load_state_dict` says; at its end the next epoch is due.
    """

    def __init__(
        self,
        found: RowGroups,
        columns: tuple[str, ...],
        decoder: Decoder,
        *,
        batch_size: int,
        shard: tuple[int, int],
        seed: int,
        shuffle: bool,
        balance_by: str | None,
    ) -> None:
        rank, world_size = shard
        shards = logical_shards(batch_size, world_size)
        # Unshuffled, one process reads the rows in the order of the files.
        self._steps = Steps(found.rows, batch_size, shards if shuffle else world_size)
        mine = self._steps.shards // world_size
        self._shards = range(rank * mine, (rank + 1) * mine)
        self._found, self._columns, self._decoder = found, columns, decoder
        self._seed, self._shuffle = seed, shuffle
        self._labels = None if balance_by is None else _labels(found, balance_by)
        self._weights = [group.bytes_of(columns) for group in found.groups]
        self._epoch, self._step, self._first = 0, 0, 0

    def __len__(self) -> int:
        """Return the steps of an epoch: as many on every process."""
        return len(self._steps)

    @property
    def rows(self) -> int:
        """The rows of an epoch, of all processes together."""
        return self._steps.rows

    def set_epoch(self, epoch: int) -> None:
        """Make this epoch the next to be iterated, from its start, unless it is the one that is to be gone on with."""
        if epoch != self._epoch:
            self.load_state_dict({"epoch": epoch, "step": 0})

    def state_dict(self) -> dict[str, int]:
        """Return the epoch, and how many of its batches were given."""
        if self._step == len(self):
            return {"epoch": self._epoch + 1, "step": 0}
        return {"epoch": self._epoch, "step": self._step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on there when next iterated: what was given before is neither decoded nor, as far as may be, read."""
        epoch, step = state["epoch"], state["step"]
        if epoch < 0 or not 0 <= step <= len(self):
            raise DlassetsError(
                f"There is no step {step} of epoch {epoch}: an epoch of {self.rows} rows has {len(self)} steps here. "
                "Go on with the table version and the batch size that the state was made with."
            )
        self._epoch, self._step, self._first = epoch, step, step

    def __iter__(self) -> Iterator[Batch]:
        epoch, first, self._first = self._epoch, self._first, 0
        self._step = first
        with closing(self._batches(epoch, first)) as batches:
            for batch in batches:
                self._step += 1
                yield batch
        if self._epoch == epoch:
            self.load_state_dict({"epoch": epoch + 1, "step": 0})

    def _batches(self, epoch: int, first: int) -> Generator[Batch]:
        """Read windows ahead and decode batches ahead; yield the batches as they are due."""
        schedule = self._schedule(epoch, first)
        windows = list(dict.fromkeys(window for step in schedule for window, _ in step))
        held: dict[Window, Columns] = {}
        due: deque[Callable[[], Batch]] = deque()
        with self._read(windows) as read, self._decoder.started() as pool:
            for step in schedule:
                while not all(window in held for window, _ in step):
                    held.update([next(read)])
                due.append(self._begun(pool, epoch, step, held))
                for window, part in step:
                    if part.stop == len(window):
                        del held[window]
                if len(due) > _BATCHES_AHEAD:
                    yield due.popleft()()
            while due:
                yield due.popleft()()

    def _schedule(self, epoch: int, first: int) -> list[list[tuple[Window, slice]]]:
        """Return which parts of which windows each step takes, from step `first` on."""
        drawn = None if self._labels is None else balanced(self._labels, self._seed, epoch)
        schedule: list[list[tuple[Window, slice]]] = [[] for _ in range(len(self) - first)]
        for shard in self._shards:
            windows = windows_of(
                shard,
                self._steps.shards,
                sizes=[group.rows for group in self._found.groups],
                weights=self._weights,
                seed=self._seed,
                epoch=epoch,
                shuffle=self._shuffle,
                drawn=drawn,
            )
            for step, parts in zip(schedule, _parts(windows, self._steps.given(shard)[first:]), strict=True):
                step.extend(parts)
        return schedule

    @contextmanager
    def _read(self, windows: Sequence[Window]) -> Iterator[Iterator[tuple[Window, Columns]]]:
        """Give the windows with the columns of all rows of their row groups, as many read ahead as there are shards."""
        places = [group for window in windows for group in window.groups]
        columns = sorted(self._columns)
        with (
            read_row_groups(self._found, places, columns, threads=_READERS) as groups,
            _ahead(_put_together(windows, groups, columns), len(self._shards)) as read,
        ):
            yield read

    def _begun(
        self, pool: ThreadPoolExecutor, epoch: int, step: Sequence[tuple[Window, slice]], held: dict[Window, Columns]
    ) -> Callable[[], Batch]:
        """Begin to decode a batch; return what waits for it."""
        numbers = np.concatenate([window.numbers[part] for window, part in step])
        places = np.concatenate([window.places[part] for window, part in step])
        finished: dict[str, Callable[[], torch.Tensor | list[Any]]] = {}
        for column in self._columns:
            values = np.concatenate([held[window][column][window.local[part]] for window, part in step])
            if self._decoder.takes(column):
                finished[column] = self._decoder.begun(pool, column, values, numbers, places, epoch)
            else:
                finished[column] = partial(self._decoder.plain, column, values)
        return lambda: {column: finish() for column, finish in finished.items()}


def _labels(found: RowGroups, column: str) -> Rows:
    with read_row_groups(found, range(len(found.groups)), [column]) as groups:
        labels = np.concatenate([columns[column] for columns in groups])
    if labels.dtype.kind not in "iuOb" or any(label is None for label in labels):
        raise DlassetsError(
            f"Column {column} of {found.uri} has no label for some rows: rows cannot be balanced by it."
        )
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _parts(windows: Sequence[Window], given: Rows) -> Iterator[list[tuple[Window, slice]]]:
    """Yield which parts of a shard's windows each step takes. `given` counts the rows that were given before."""
    ends = np.cumsum([len(window) for window in windows])
    for begin, end in zip(given[:-1].tolist(), given[1:].tolist(), strict=True):
        parts = []
        while begin < end:
            place = int(np.searchsorted(ends, begin, side="right"))
            window, start = windows[place], int(ends[place]) - len(windows[place])
            parts.append((window, slice(begin - start, min(end - start, len(window)))))
            begin = min(end, int(ends[place]))  # noqa: PLW2901 - what is left of the step
        yield parts


def _put_together(
    windows: Sequence[Window], groups: Iterator[Columns], columns: Sequence[str]
) -> Iterator[tuple[Window, Columns]]:
    for window in windows:
        parts = [next(groups) for _ in window.groups]
        yield window, {column: np.concatenate([part[column] for part in parts]) for column in columns}


@contextmanager
def _ahead(items: Iterator[Item], count: int) -> Iterator[Iterator[Item]]:
    """Give the items, the next `count` of them already being made by a thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="read") as pool:
        end = object()

        def due() -> Iterator[Item]:
            coming: deque[Future[Any]] = deque(pool.submit(next, items, end) for _ in range(count))
            while (item := coming.popleft().result()) is not end:
                coming.append(pool.submit(next, items, end))
                yield item

        try:
            yield due()
        finally:
            pool.shutdown(cancel_futures=True)
