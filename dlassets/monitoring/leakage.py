"""Photos that a model is tested on and has all but learned from: found by their features, which see more than hashes.

It says so and moves nobody. Which side a photo is on is decided before it has features; and those of a backbone that
was taught the classes are nearly the same for all photos of one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dlassets.engines.base import Snapshot
from dlassets.lakehouse.tables import TEST, TRAIN, VALIDATION
from dlassets.lakehouse.training_set import PIXELS
from dlassets.learning.examples import PART_NUMBERS, read_split
from dlassets.learning.features import cached_version

# The cosine of the features of two photos of one scene, at least. With EfficientNet-Lite0 on 1,000 photos of clothing,
# of 499,500 pairs the one that is two takes of one scene has 0.995, and no other more than 0.921; of 100 copies each,
# those at quality 40 (95), brighter (98), darker (100), cropped by 1 % (99) or 3 % a side (74), turned by 2 degrees
# (100) or in a mirror (97) are above it.
COSINE = 0.95

# Photos of the test split that are compared, the same ones each time: with 100,000 others that takes some 10 s.
COMPARED = 2000
SHOWN = 5


class Leaked(NamedTuple):
    """Of how many test photos that were compared how many look like one that was learned from, and a few pairs."""

    compared: int
    photos: int
    examples: list[str]


def leaked(training_set: Snapshot) -> Leaked:
    """Compare test photos with those learned from, by their features. A training set of pixels has none to compare."""
    if cached_version(training_set, TEST) in (None, PIXELS):
        return Leaked(0, 0, [])
    test = read_split(training_set, TEST)
    test = test.taken(np.arange(len(test)) < COMPARED)
    looks = _unit(test.features)
    best, of = np.full(len(test), -1.0), [""] * len(test)
    for learned in (read_split(training_set, side) for side in (TRAIN, VALIDATION)):
        rows = PART_NUMBERS // len(test)
        for start in range(0, len(learned), rows):
            cosines = looks @ _unit(learned.features[start : start + rows]).T
            nearest = cosines.argmax(axis=1)
            for place in np.flatnonzero(cosines.max(axis=1) > best):
                best[place] = cosines[place, nearest[place]]
                of[place] = learned.paths[start + nearest[place]]
    found = np.flatnonzero(best >= COSINE)
    examples = [f"{test.paths[place]} and {of[place]} ({best[place]:.3f})" for place in found[:SHOWN]]
    return Leaked(len(test), len(found), examples)


def _unit(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = (features / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
