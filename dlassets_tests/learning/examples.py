"""Examples of a split for tests: points around a centre a class, far enough apart to be told from each other."""

from collections.abc import Sequence

import numpy as np

from dlassets.learning.examples import Examples


def rows(labels: Sequence[int], *, seed: int = 0, features: int = 8, spread: float = 0.5) -> Examples:
    """Examples with these labels: class n lies around n-dependent coordinates, the same for every seed."""
    noise = np.random.default_rng(seed).normal(0, spread, (len(labels), features))
    centres = np.stack([np.random.default_rng(label).normal(0, 1, features) for label in labels])
    names = [f"{place:03}-{seed}" for place in range(len(labels))]
    return Examples(
        paths=[f"labeled/{name}.jpg" for name in names],
        image_ids=names,
        labels=np.array(labels, dtype=np.int64),
        names=[f"class {label}" for label in labels],
        features=(centres + noise).astype(np.float32),
    )
