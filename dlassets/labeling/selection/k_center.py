"""Photos that differ from one another, by their embeddings."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def k_center(vectors: NDArray[np.float32], number: int, known: Iterable[NDArray[np.float32]] = ()) -> NDArray[np.intp]:
    """Return the places of `number` (at most all) of the (photos, features) vectors, each far from those before it.

    The greedy k-center of Gonzalez ("Clustering to minimize the maximum intercluster distance", 1985), as Sener and
    Savarese ask people by it ("Active Learning for Convolutional Neural Networks: A Core-Set Approach", 2018): the next
    one is the farthest from all that were picked and from those in `known`, (some, features) each; of equally far
    ones it is the first, and so with nothing known it begins with the first of all.

    Distances are between directions from the mean, each feature measured by its spread, as a head takes features; both
    are those of `vectors`. It holds a copy of them, and goes through it once for each that is picked.
    """
    if not len(vectors):
        return np.empty(0, np.intp)
    mean, spread = vectors.mean(axis=0), vectors.std(axis=0)
    scale = np.where(spread > 0, spread, 1).astype(np.float32)
    directions = _of_length_one((vectors - mean) / scale)
    nearest = np.full(len(directions), np.inf, np.float32)
    for part in known:
        if len(part):
            others = _of_length_one((part - mean) / scale)
            np.minimum(nearest, (1 - directions @ others.T).min(axis=1), out=nearest)
    picked = np.empty(min(number, len(directions)), np.intp)
    for place in range(len(picked)):
        picked[place] = one = int(nearest.argmax())
        np.minimum(nearest, 1 - directions @ directions[one], out=nearest)
        nearest[one] = -np.inf
    return picked


def _of_length_one(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)
