"""Photos' bytes to tensors, by threads: a function of the bytes, the seed, the epoch and the photo's place in it.

Decoded photos may be kept between epochs, up to a bound: in memory, or in a file that ends with the process.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dlassets.errors import DlassetsError
from dlassets.images.decode import SIDE, ImageError, View, as_seen
from dlassets.images.digest import image_id_of
from dlassets.learning.loader.epochs import Rows, row_random
from dlassets.learning.loader.parquet import RowGroup, RowGroups

if TYPE_CHECKING:
    import torch

    Function = Callable[[bytes, np.random.Generator], torch.Tensor]

_ROWS_A_TASK = 4

_log = logging.getLogger(__name__)


class UndecodedError(DlassetsError):
    """The bytes of one row are no photo."""


@dataclass(frozen=True)
class Cache:
    """Keep decoded photos: at most so many bytes, in memory, or on disk in a `folder` that is there.

    Worth its room where decoding holds the training up: (3, 224, 224) pixels take 147 KiB. Their bytes are read in each
    epoch all the same. Every process has its own, and nothing is left of it at its end.
    """

    max_bytes: int
    folder: str | None = None


@dataclass(frozen=True)
class Transform:
    """What becomes of a photo's bytes: `decode` them, the same at any time, then `augment`, which may draw.

    With `as_float`, a batch holds as float32 between 0 and 1 what are uint8 pixels. A `cache` keeps what `decode`
    returns, uint8 pixels of one shape.
    """

    decode: Callable[[bytes], torch.Tensor]
    augment: Callable[[torch.Tensor, np.random.Generator], torch.Tensor] | None = None
    as_float: bool = False
    cache: Cache | None = None


def decode_to_tensor(size: int = SIDE, *, as_float: bool = False, cache: Cache | None = None) -> Transform:
    """Return the transform for evaluation: the middle `size` of a photo whose shorter side is 8/7 of that (224 of 256).

    It gives (3, size, size) RGB, resized bicubically with antialiasing, as uint8 or as float32 between 0 and 1.
    """
    return Transform(partial(_middle, size=size), as_float=as_float, cache=cache)


class Decoded:
    """The pixels of the table's first rows, as many as there is room for, filled as they are first asked for."""

    def __init__(self, cache: Cache, rows: int, like: torch.Tensor) -> None:
        """Make room for photos like this one. Raises DlassetsError where the folder has none."""
        if str(like.dtype) != "torch.uint8":
            raise DlassetsError(f"a cache keeps uint8 pixels, and decode gives {like.dtype}. Convert them in augment")
        self._room = min(rows, cache.max_bytes // like.numel())
        if self._room < rows:
            _log.warning(
                "The cache of decoded photos has room for %d of %d; all of them would take %.1f GiB.",
                self._room,
                rows,
                rows * like.numel() / 2**30,
            )
        self._filled = np.zeros(rows, bool)
        self._pixels = _tensor((self._room, *like.shape), cache.folder)

    def get(self, number: int, decode: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return the pixels of row `number`, from `decode` where they are not kept; they are not to be written to."""
        if number >= self._room:
            return decode()
        kept = self._pixels[number]
        if not self._filled[number]:
            kept.copy_(decode())
            self._filled[number] = True
        return kept


def _tensor(shape: tuple[int, ...], folder: str | None) -> torch.Tensor:
    import torch

    if folder is None or not shape[0]:
        return torch.empty(shape, dtype=torch.uint8)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)))  # a full disk is better met now
            return torch.from_numpy(np.memmap(file, np.uint8, "r+", shape=shape))
    except OSError as error:
        raise DlassetsError(
            f"there is no room for the cache of decoded photos in {folder}: {error}. Name another folder, or give it "
            "fewer bytes"
        ) from error


@dataclass(frozen=True, eq=False)
class Drawn:
    """Rows of an epoch: their numbers in the table, their places in the epoch of this number.

    `digests` are the SHA-256 that their photos' bytes must have, where those are compared.
    """

    numbers: Rows
    places: Rows
    epoch: int
    digests: Any | None = None


class Decoder:
    """Makes tensors of columns: threads decode photos into the batch's own memory, pinned where there is a GPU.

    A row's bytes are compared with their digest before they are first decoded. To compare them in every epoch again
    would cost 2 to 7% of loading (60 kB to 3 MB a photo).
    """

    def __init__(self, source: RowGroups, transform: Transform | Function, seed: int, workers: int) -> None:
        import torch

        self._source, self._seed, self._workers = source, seed, workers
        if not isinstance(transform, Transform):  # a function that decodes as well
            transform = Transform(lambda content: content, transform)  # type: ignore[arg-type, return-value]
        self._transform = transform
        self._pin = torch.cuda.is_available()
        self._starts = np.cumsum([0, *(group.rows for group in source.groups)])
        self._shapes: dict[str, tuple[torch.Size, torch.dtype]] = {}
        self._decoded: dict[str, Decoded] = {}
        self._is_whole = np.zeros(source.rows, bool)
        self._damaged: dict[int, str] = {}

    @property
    def damaged(self) -> list[str]:
        """The rows that are damaged or do not decode so far: by path, or by where they lie where the table has none."""
        return sorted(self._damaged.values())

    def are_damaged(self, numbers: Rows) -> npt.NDArray[np.bool_]:
        """Tell which of these rows, all of them decoded by now, have no photo for being damaged."""
        return np.isin(numbers, list(self._damaged))

    @contextmanager
    def threads(self) -> Iterator[ThreadPoolExecutor]:
        """Give threads that decode, each computing alone: many photos at once, not one by many threads."""
        import torch

        barrier = threading.Barrier(self._workers)

        def alone(_: int) -> None:
            torch.set_num_threads(1)
            torch.get_num_threads()  # a thread takes the number over when it first asks
            barrier.wait()  # so each thread takes one of these

        before = torch.get_num_threads()
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="decode")
        try:
            list(pool.map(alone, range(self._workers)))
            torch.set_num_threads(before)  # those threads keep theirs; it is the default of threads to come
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)

    def is_photos(self, column: str) -> bool:
        from pyarrow import types

        type_ = self._source.schema.field(column).type
        return bool(types.is_binary(type_) or types.is_large_binary(type_))

    def convert(self, column: str, values: Any) -> torch.Tensor | list[Any]:
        """Return numbers as a tensor, and strings as a list. Raises DlassetsError for what is neither."""
        import torch

        if values.dtype == object:
            return list(values)
        try:
            tensor = torch.from_numpy(values)
        except TypeError as error:
            raise DlassetsError(f"Column {column} has no numbers or strings ({values.dtype}): leave it out.") from error
        return tensor.pin_memory() if self._pin else tensor

    def decode(self, pool: ThreadPoolExecutor, column: str, contents: Any, drawn: Drawn) -> Callable[[], torch.Tensor]:
        """Begin to decode the photos of some rows; return what waits for it. What is damaged has any pixels at all."""
        import torch

        if column not in self._shapes:
            self._prepare(column, contents, drawn)
        # Of what shape photos are is not known before the first that is whole.
        shape, dtype = self._shapes.get(column, (torch.Size([0]), torch.uint8))
        out = torch.empty((len(contents), *shape), dtype=dtype, pin_memory=self._pin)

        def fill(first: int) -> None:
            for row in range(first, min(first + _ROWS_A_TASK, len(contents))):
                if self._compared(contents, drawn, row):
                    number, place = int(drawn.numbers[row]), int(drawn.places[row])
                    with self._noting(number, drawn):
                        self._fill(column, out[row], contents[row], number, (drawn.epoch, place))

        tasks = [pool.submit(fill, first) for first in range(0, len(contents), _ROWS_A_TASK)]
        return partial(_wait, tasks, out)

    def _compared(self, contents: Any, drawn: Drawn, row: int) -> bool:
        """Whether a row's bytes are those that its digest says."""
        number = int(drawn.numbers[row])
        if drawn.digests is None or self._is_whole[number] or contents[row] is None:
            return True
        if number not in self._damaged and image_id_of(contents[row]) != drawn.digests[row]:
            self._damaged[number] = self._path(number) or self._place(number)
        self._is_whole[number] = number not in self._damaged
        return bool(self._is_whole[number])

    def _prepare(self, column: str, contents: Any, drawn: Drawn) -> None:
        """Learn from the first photo that there is what tensors the transform gives; make room for what is kept."""
        for row in range(len(contents)):
            if self._compared(contents, drawn, row):
                number = int(drawn.numbers[row])
                with self._noting(number, drawn):
                    self._learn_shape(column, contents[row], number)
                    return

    def _learn_shape(self, column: str, content: bytes, number: int) -> None:
        import torch

        with self._naming(column, number):
            pixels = self._transformed(None, content, number, (0, 0))
            if cache := self._transform.cache:
                self._decoded[column] = Decoded(cache, self._source.rows, self._transform.decode(content))
        self._shapes[column] = pixels.shape, torch.float32 if self._transform.as_float else pixels.dtype

    @contextmanager
    def _noting(self, number: int, drawn: Drawn) -> Iterator[None]:
        """Where bytes are compared, leave a photo out that does not decode, as one that is damaged."""
        try:
            yield
        except UndecodedError:
            if drawn.digests is None:
                raise
            self._damaged[number] = self._path(number) or self._place(number)

    def _fill(self, column: str, out: torch.Tensor, content: bytes, number: int, place: tuple[int, int]) -> None:
        import torch

        with self._naming(column, number):
            pixels = self._transformed(self._decoded.get(column), content, number, place)
            if pixels.shape != out.shape:
                raise DlassetsError(
                    f"the transform gives {tuple(pixels.shape)} here and gave {tuple(out.shape)} before. Crop or "
                    "resize to one shape"
                )
            if self._transform.as_float:
                torch.mul(pixels, 1 / 255, out=out)  # in one pass: copying first takes four times as long
            else:
                out.copy_(pixels)

    def _transformed(self, kept: Decoded | None, content: bytes, number: int, place: tuple[int, int]) -> torch.Tensor:
        """Return what the transform makes of a photo; what it draws is a function of `place`: (epoch, place in it)."""
        if content is None:
            raise DlassetsError("there are no bytes")
        decode = partial(self._transform.decode, content)
        pixels = decode() if kept is None else kept.get(number, decode)
        return self._transform.augment(pixels, row_random(self._seed, *place)) if self._transform.augment else pixels

    @contextmanager
    def _naming(self, column: str, number: int) -> Iterator[None]:
        """Say of an error which row it is of."""
        try:
            yield
        except ImageError as error:
            raise UndecodedError(
                f"{column} of {self._row(number)} does not decode: {error}. Delete the row, or write its bytes anew."
            ) from error
        except DlassetsError as error:
            raise DlassetsError(f"{column} of {self._row(number)}: {error}.") from error
        except Exception as error:
            error.add_note(f"This was {column} of {self._row(number)}.")
            raise

    def _row(self, number: int) -> str:
        path, place = self._path(number), self._place(number)
        return f"{path} ({place})" if path else place

    def _path(self, number: int) -> str | None:
        group, row = self._found(number)
        if "path" not in self._source.schema.names:
            return None
        path: str | None = group.read(["path"], self._source.schema)["path"][row].as_py()
        return path

    def _place(self, number: int) -> str:
        group, row = self._found(number)
        return f"row {row} of row group {group.number} of {group.file}"

    def _found(self, number: int) -> tuple[RowGroup, int]:
        """Return the row group of a row, and its place in it."""
        place = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self._source.groups[place], number - int(self._starts[place])


def _middle(content: bytes, size: int) -> torch.Tensor:
    """Return the middle of a photo as (3, size, size) uint8: what is cut off is not resized."""
    import torch

    return torch.from_numpy(as_seen(content, View(size))).permute(2, 0, 1)


def _wait(tasks: Sequence[Future[None]], out: torch.Tensor) -> torch.Tensor:
    for task in tasks:
        task.result()
    return out
