"""Decoded photos kept between epochs, up to a bound: in memory, or in a file that ends with the process."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlassets.errors import DlassetsError

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cache:
    """Keep decoded photos: at most so many bytes, in memory, or on disk in a `folder` that is there.

    Worth its room where decoding holds the training up: (3, 224, 224) pixels take 147 KiB. Their bytes are read in each
    epoch all the same. Every process has its own, and nothing is left of it at its end.
    """

    max_bytes: int
    folder: str | None = None


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
