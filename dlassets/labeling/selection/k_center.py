"""Photos that differ from one another, by their embeddings."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def k_center(vectors: NDArray[np.float32], number: int, known: Iterable[NDArray[np.float32]] = ()) -> NDArray[np.intp]:
    """Return the places of `number` (at most all) of the (photos, features) vectors, each far from those before it.

    The greedy k-center of Gonzalez ("Clustering to minimize the maximum intercluster distance", 1985), as Sener and
    Savarese ask people by it ("Active Learning for Convolutional Neural Networks: A Core-Set Approach", 2018): the next
    one is the farthest from all that were picked and from those in `known`, (some, features) each; with nothing known
    the first is the one farthest from the mean. Distances are of directions: vectors are taken at length 1. Of equally
    far ones it is the first. It holds a copy of `vectors`, and goes through it once for each that is picked.
    """
    directions = _of_length_one(vectors)
    nearest = np.full(len(directions), np.inf, np.float32)
    for part in known:
        if len(part):
            np.minimum(nearest, (1 - directions @ _of_length_one(part).T).min(axis=1), out=nearest)
    if len(directions) and np.isinf(nearest[0]):
        nearest = 1 - directions @ directions.mean(axis=0)
        nearest += 2 - nearest.min()  # farther than any two can be apart: whichever is picked, it counts no more
    picked = np.empty(min(number, len(directions)), np.intp)
    for place in range(len(picked)):
        picked[place] = one = int(nearest.argmax())
        np.minimum(nearest, 1 - directions @ directions[one], out=nearest)
        nearest[picked[: place + 1]] = -np.inf
    return picked


def _of_length_one(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)
