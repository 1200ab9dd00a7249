"""The resizing that a network's photos go through, bicubic with antialiasing, twice: by torch, and without it.

Both give the same bytes: torch's integers are what `by_numpy` computes with (weights of 16 bits, first along rows, then
along columns, each rounded to a byte). torch takes a third of the time, and of large pictures a tenth; to import it
takes seconds and some 500 MB.
"""

from __future__ import annotations

import functools
import itertools
import sys
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

# Keys' cubic, as Pillow and torch have it where they antialias.
_A, _REACH = -0.5, 2.0
_WEIGHT_LIMIT, _MOST_BITS = 2**15, 22
# Of float32, and so of what a product of these adds up exactly.
_EXACT = 2**24
# Pixels are taken for -128 to 127 in between, so that less adds up.
_ZERO = 128
# Outputs that are computed together, of the pixels that any of them needs, and numbers of rows: few enough for a cache.
_TOGETHER, _NUMBERS = 8, 2**19
# Photos of a process that are resized before importing torch would have paid: it saves a millisecond or two of each.
FEW = 500
_resized = itertools.count()


class _Block(NamedTuple):
    """The outputs `first` to `last` are `weights`, (outputs, pixels), by the pixels `low` to `high`."""

    first: int
    last: int
    low: int
    high: int
    weights: npt.NDArray[np.floating]


class _Plan(NamedTuple):
    """How lines of pixels become shorter or longer: sums of blocks, and `bias` (outputs,) that is added to them."""

    blocks: tuple[_Block, ...]
    bias: npt.NDArray[np.floating]

    def numbers(self, pixels: Pixels) -> npt.NDArray[np.floating]:
        numbers = pixels.astype(self.bias.dtype)
        numbers -= _ZERO
        return numbers


def resize(pixels: Pixels, side: int) -> Pixels:
    """Return (height, width, 3) as (side, side, 3): by torch where it is there, or has enough to do in this process."""
    by = by_torch if "torch" in sys.modules or next(_resized) >= FEW else by_numpy
    return by(pixels, side)


def by_torch(pixels: Pixels, side: int) -> Pixels:
    """Return (height, width, 3) as (side, side, 3)."""
    import torch

    with torch.inference_mode():
        # torch warns of arrays that cannot be written, such as Pillow's.
        image = torch.from_numpy(np.require(pixels, requirements="W")).permute(2, 0, 1)[None]
        resized = torch.nn.functional.interpolate(image, size=(side, side), mode="bicubic", antialias=True)
        shown: Pixels = resized[0].permute(1, 2, 0).numpy()
        return shown


def by_numpy(pixels: Pixels, side: int) -> Pixels:
    """Return what `by_torch` does, without torch."""
    return _columns(_rows(pixels, side), side).reshape(side, side, 3)


def _rows(pixels: Pixels, side: int) -> Pixels:
    """Return (height, width, 3) as (height, side * 3)."""
    height, width, channels = pixels.shape
    flat = pixels.reshape(height, width * channels)
    if width == side:
        return flat
    # BLAS takes half the time where both factors lie by rows.
    plan = _plan(width, side, channels, "F")
    resized = np.empty((height, side * channels), np.uint8)
    step = max(1, _NUMBERS // flat.shape[1])
    for top in range(0, height, step):
        rows = plan.numbers(flat[top : top + step])
        sums = np.empty((len(rows), side * channels), rows.dtype)
        for block in plan.blocks:
            np.matmul(rows[:, block.low : block.high], block.weights.T, out=sums[:, block.first : block.last])
        resized[top : top + step] = _bytes(sums, plan.bias)
    return resized


def _columns(flat: Pixels, side: int) -> Pixels:
    """Return (height, anything) as (side, anything)."""
    if len(flat) == side:
        return flat
    plan = _plan(len(flat), side, 1, "C")
    rows = plan.numbers(flat)
    sums = np.empty((side, flat.shape[1]), rows.dtype)
    for block in plan.blocks:
        np.matmul(block.weights, rows[block.low : block.high], out=sums[block.first : block.last])
    return _bytes(sums, plan.bias[:, None])


def _bytes(sums: npt.NDArray[np.floating], bias: npt.NDArray[np.floating]) -> Pixels:
    sums += bias
    np.clip(sums, 0, 255, out=sums)
    return sums.astype(np.uint8)


@functools.lru_cache(32)
def _plan(pixels: int, outputs: int, channels: int, order: Literal["C", "F"]) -> _Plan:
    """Return how lines of pixels, whose channels stand side by side, are resized; the order is of the weights."""
    weights, bits = _weights(pixels, outputs)
    exact = np.float32 if _ZERO * np.abs(weights).sum(axis=1).max() < _EXACT else np.float64
    blocks = []
    for first in range(0, outputs, _TOGETHER):
        part = weights[first : first + _TOGETHER]
        used = np.flatnonzero(part.any(axis=0))
        low, high = int(used[0]), int(used[-1]) + 1
        spread: npt.NDArray[np.floating] = np.kron(part[:, low:high] / 2**bits, np.eye(channels)).astype(exact, order)
        last = first + len(part)
        blocks.append(_Block(channels * first, channels * last, channels * low, channels * high, spread))
    # A half, since what becomes a byte is cut off: this rounds it.
    bias = np.repeat(weights.sum(axis=1) * _ZERO / 2**bits + 0.5, channels)
    return _Plan(tuple(blocks), bias.astype(exact))


def _weights(pixels: int, outputs: int) -> tuple[npt.NDArray[np.int64], int]:
    """Return (outputs, pixels) weights as torch rounds them, and of how many bits their ones are."""
    scale = pixels / outputs
    reach = _REACH * max(scale, 1.0)
    shares = np.zeros((outputs, pixels))
    for place in range(outputs):
        centre = scale * (place + 0.5)
        low, high = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), pixels)
        kernel = _cubic((np.arange(low, high, dtype=np.float64) - centre + 0.5) / max(scale, 1.0))
        shares[place, low:high] = kernel / np.cumsum(kernel)[-1]  # summed up one by one, as torch does
    bits, most = 0, shares.max()
    while bits < _MOST_BITS and int(0.5 + most * 2 ** (bits + 1)) < _WEIGHT_LIMIT:
        bits += 1
    scaled = shares * 2**bits
    return np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int64), bits


def _cubic(distance: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    x = np.abs(distance)
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _A
    return np.where(x < 1, near, np.where(x < _REACH, far, 0.0))
