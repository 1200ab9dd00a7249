"""Examples of a split and heads on them, for tests."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlassets.learning.examples import Examples
from dlassets.learning.head import Head


def rows(labels: Sequence[int], *, seed: int = 0, features: int = 8, spread: float = 0.5) -> Examples:
    """Examples with these labels: class n lies around n-dependent coordinates, the same for every seed."""
    noise = np.random.default_rng(seed).normal(0, spread, (len(labels), features))
    centres = np.stack([np.random.default_rng(label).normal(0, 1, features) for label in labels])
    return examples(labels, centres + noise, [f"{place:03}-{seed}" for place in range(len(labels))])


def examples(labels: Sequence[int] | NDArray[Any], features: Any, image_ids: list[str] | None = None) -> Examples:
    """Examples with these labels and (rows, features), whose image_ids are 0, 1, … by default."""
    names = image_ids or [str(place) for place in range(len(labels))]
    return Examples(
        paths=[f"labeled/{name}.jpg" for name in names],
        image_ids=names,
        labels=np.array(labels, dtype=np.int64),
        names=[f"class {label}" for label in labels],
        features=np.asarray(features, np.float32),
    )


def head(labels: Sequence[int], weight: Any = None, **changes: Any) -> Head:
    """A head of these classes: by default, one for the class whose place has the largest feature."""
    weight = np.eye(len(labels)) if weight is None else weight
    classes, features = np.shape(weight)
    numbers = {"bias": np.zeros(classes), "mean": np.zeros(features), "scale": np.ones(features)} | changes
    arrays: dict[str, Any] = {name: np.asarray(value, np.float32) for name, value in numbers.items()}
    return Head(
        labels=tuple(labels),
        names=tuple(f"class {label}" for label in labels),
        weight=np.asarray(weight, np.float32),
        **arrays,
    )
