"""Batches of tensors from a pinned version of a Delta table: decoded by threads, in a certain order.

Nothing is copied to another place or format first. What an epoch's batches are is a function of the table's files, the
seed and the epoch's number (`epochs`): a training can go on from a step, and processes share batches without talking.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from dlassets.engines.processors import processors
from dlassets.errors import DlassetsError
from dlassets.learning.loader.decoding import Decoder, Drawn, Transform, decode_to_tensor
from dlassets.learning.loader.epochs import (
    USUAL_SAMPLING,
    Epoch,
    Rows,
    Sampling,
    Steps,
    Window,
    balanced,
    logical_shards,
)
from dlassets.learning.loader.parquet import Columns, RowGroups
from dlassets.learning.loader.row_groups import check_columns, check_shard, read_row_groups, row_groups

if TYPE_CHECKING:
    import torch

    from dlassets.learning.loader.decoding import Function

    Batch = dict[str, torch.Tensor | list[Any]]
# Of each shard of this process, the windows that a batch takes rows of, and which.
Step = Sequence[tuple[Window, slice]]
Item = TypeVar("Item")

# Threads that read row groups ahead, and batches that are being decoded while one is used.
_READERS = 2
_BATCHES_AHEAD = 3


def torch_loader(
    table: str,
    version: int,
    split: str | None,
    columns: Sequence[str],
    transform: Transform | Function | None = None,
    sampling: Sampling = USUAL_SAMPLING,
    workers: int | None = None,
) -> Loader:
    """Return a loader of the rows of one version of a Delta table, at a path or URI; with `split`, of that partition.

    Numbers come as tensors (N,), lists of numbers of one length as (N, length), strings as lists. A column of bytes is
    taken for photos, and comes as what `transform` makes of them: `decode_to_tensor()` by default, or any function of
    bytes and a generator, which is the row's own in that epoch. `sampling` is which rows come in which batch. `workers`
    threads decode, one a processor by default, so what `transform` does should leave Python's lock alone for most of
    its time.

    Raises DlassetsError for a table that cannot be read so, columns it lacks, no rows, fewer rows than processes, a
    batch that cannot be parted among them, and more than one column of photos that are to be compared.
    """
    check_shard(sampling.shard)
    source = row_groups(table, version, None if split is None else [("split", "=", split)])
    which = f"{table} version {version}" + ("" if split is None else f", split {split},")
    further = [name for name in (sampling.balance_by, sampling.compare_with) if name is not None]
    check_columns(source, [*columns, *further])
    if not source.groups:
        raise DlassetsError(f"{which} has no rows.")
    if source.rows < sampling.shard[1]:
        raise DlassetsError(f"{which} has {source.rows} rows for {sampling.shard[1]} processes. Use fewer processes.")
    decoder = Decoder(source, transform or decode_to_tensor(), sampling.seed, workers or processors())
    if sampling.compare_with is not None and len(photos := [*filter(decoder.is_photos, columns)]) > 1:
        raise DlassetsError(f"{sampling.compare_with} is the digest of one column. Ask for one of {', '.join(photos)}.")
    return Loader(source, columns, decoder, sampling)


class Loader:
    """An iterable of batches, an epoch each time: dicts by column. Made by `torch_loader`.

    Iterating begins the epoch at its first batch, or where `load_state_dict` says; at its end the next epoch is due.
    A batch comes with fewer rows, perhaps none, where some are damaged: every process has as many batches all the same.
    """

    def __init__(self, source: RowGroups, columns: Sequence[str], decoder: Decoder, sampling: Sampling) -> None:
        rank, world_size = sampling.shard
        shards = logical_shards(sampling.batch_size, world_size)
        # Unshuffled, one process reads the rows in the order of the files.
        self._steps = Steps(source.rows, sampling.batch_size, shards if sampling.shuffle else world_size)
        mine = self._steps.shards // world_size
        self._shards = range(rank * mine, (rank + 1) * mine)
        self._source, self._columns, self._decoder, self._sampling = source, tuple(columns), decoder, sampling
        self._labels = None if sampling.balance_by is None else _labels(source, sampling.balance_by)
        self._sizes = [group.rows for group in source.groups]
        self._weights = [group.bytes_of(columns) for group in source.groups]
        self._epoch, self._step, self._first = 0, 0, 0

    def __len__(self) -> int:
        """Return the steps of an epoch: as many on every process."""
        return len(self._steps)

    @property
    def rows(self) -> int:
        """The rows of an epoch, of all processes together."""
        return self._steps.rows

    @property
    def damaged(self) -> list[str]:
        """What this process has left out so far since its bytes are not those that `compare_with` says: paths."""
        return self._decoder.damaged

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
        columns = sorted({*self._columns, *filter(None, [self._sampling.compare_with])})
        places = [group for window in windows for group in window.groups]
        with (
            read_row_groups(self._source, places, columns, threads=_READERS) as groups,
            # As many windows are read ahead as there are shards.
            _prefetched(_by_window(windows, groups, columns), len(self._shards)) as read,
            self._decoder.threads() as pool,
        ):
            for step in schedule:
                while not all(window in held for window, _ in step):
                    held.update([next(read)])
                due.append(self._decode(pool, epoch, step, held))
                for window, part in step:
                    if part.stop == len(window):
                        del held[window]
                if len(due) > _BATCHES_AHEAD:
                    yield due.popleft()()
            while due:
                yield due.popleft()()

    def _schedule(self, epoch: int, first: int) -> list[Step]:
        """Return which parts of which windows each step takes, from step `first` on."""
        drawn = None if self._labels is None else balanced(self._labels, self._sampling.seed, epoch)
        order = Epoch(epoch, self._sizes, self._weights, self._sampling, drawn)
        count, offsets = self._steps.shards, self._steps.offsets
        of_shards = [_parts(order.windows(shard, count), offsets(shard)[first:]) for shard in self._shards]
        return [list(chain.from_iterable(parts)) for parts in zip(*of_shards, strict=True)]

    def _decode(
        self, pool: ThreadPoolExecutor, epoch: int, step: Step, held: dict[Window, Columns]
    ) -> Callable[[], Batch]:
        """Begin to decode a batch; return what waits for it."""
        numbers = np.concatenate([window.numbers[part] for window, part in step])
        places = np.concatenate([window.places[part] for window, part in step])

        def values_of(column: str) -> Any:
            return np.concatenate([held[window][column][window.local[part]] for window, part in step])

        compare_with = self._sampling.compare_with
        drawn = Drawn(numbers, places, epoch, None if compare_with is None else values_of(compare_with))
        results: dict[str, Callable[[], torch.Tensor | list[Any]]] = {}
        for column in self._columns:
            if self._decoder.is_photos(column):
                results[column] = self._decoder.decode(pool, column, values_of(column), drawn)
            else:
                results[column] = partial(self._decoder.convert, column, values_of(column))

        def decoded() -> Batch:
            batch = {column: result() for column, result in results.items()}
            damaged = self._decoder.are_damaged(numbers)
            return {column: _taken(values, ~damaged) for column, values in batch.items()} if damaged.any() else batch

        return decoded


def _taken(values: torch.Tensor | list[Any], chosen: npt.NDArray[np.bool_]) -> torch.Tensor | list[Any]:
    """Return the rows that are chosen."""
    if isinstance(values, list):
        return [value for value, is_chosen in zip(values, chosen, strict=True) if is_chosen]
    return values[np.flatnonzero(chosen)]


def _labels(source: RowGroups, column: str) -> Rows:
    with read_row_groups(source, range(len(source.groups)), [column]) as groups:
        labels = np.concatenate([columns[column] for columns in groups])
    if labels.dtype.kind not in "iuOb" or any(label is None for label in labels):
        raise DlassetsError(
            f"Column {column} of {source.uri} has no label for some rows: rows cannot be balanced by it."
        )
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _parts(windows: Sequence[Window], offsets: Rows) -> Iterator[Step]:
    """Yield which parts of a shard's windows each step takes; see `Steps.offsets`."""
    ends = np.cumsum([len(window) for window in windows])
    for begin, end in pairwise(offsets.tolist()):
        parts = []
        while begin < end:
            place = int(np.searchsorted(ends, begin, side="right"))
            window, start = windows[place], int(ends[place]) - len(windows[place])
            parts.append((window, slice(begin - start, min(end - start, len(window)))))
            begin = min(end, int(ends[place]))  # noqa: PLW2901 - what is left of the step
        yield parts


def _by_window(
    windows: Sequence[Window], groups: Iterator[Columns], columns: Sequence[str]
) -> Iterator[tuple[Window, Columns]]:
    """Yield the windows with the columns of all rows of their row groups."""
    for window in windows:
        parts = [next(groups) for _ in window.groups]
        yield window, {column: np.concatenate([part[column] for part in parts]) for column in columns}


@contextmanager
def _prefetched(items: Iterator[Item], count: int) -> Iterator[Iterator[Item]]:
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
