"""Where a model is worse than elsewhere: by class, by the image's size and brightness, by the label's source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dlassets.errors import DlassetsError
from dlassets.learning.evaluation.evaluate import Evaluation, wilson_interval

if TYPE_CHECKING:
    import pyarrow as pa

# Each row's value, and the order in which values are listed.
_Dimension = tuple[list[str], Sequence[str]]

CLASS, SIZE, BRIGHTNESS, UNKNOWN = "class", "short side", "brightness", "unknown"
# Fewer rows than these say little: even with half of them right, the interval is wider than a third.
FEW = 30
# Below 256 pixels a photo is enlarged before the backbone sees it.
_SIZES = (256, 512, 1024)
_SIZE_NAMES = ("below 256", "256 to 511", "512 to 1023", "1024 and more")
# Thirds of the luminance's range, 0 to 255: the same on every day and for every model.
_BRIGHTNESSES = (85.0, 170.0)
_BRIGHTNESS_NAMES = ("dark", "medium", "bright")


@dataclass(frozen=True)
class Slice:
    """The rows whose `dimension` has `value`; `interval` of their accuracy is at 95%.

    `p_value` is the probability of so few right ones among them, or fewer, were the evaluation's right ones spread over
    its rows by chance (Fisher's exact test, 1935, one-sided).
    """

    dimension: str
    value: str
    rows: int
    right: int
    interval: tuple[float, float]
    p_value: float

    @property
    def accuracy(self) -> float:
        return self.right / self.rows

    @property
    def has_few(self) -> bool:
        """Whether it has too few rows to say much."""
        return self.rows < FEW


@dataclass(frozen=True)
class Group:
    """The rows whose `dimension` has `value`: (rows,), true of those."""

    dimension: str
    value: str
    inside: NDArray[np.bool_]

    def __str__(self) -> str:
        return f"{self.dimension}: {self.value}"


def slices(evaluation: Evaluation, attributes: pa.Table | None = None) -> list[Slice]:
    """Return the evaluation's slices by class and by what `attributes` says of its images, a row an image_id.

    Width and height (pixels) become buckets of the shorter side, brightness (0 to 255) becomes dark (below 85), medium
    and bright (170 and more); any further column of strings, such as source, is taken as it is. Images that are not in
    `attributes`, or of which it says nothing, are `unknown`. Raises DlassetsError where an image has several rows.
    """
    return [_slice(group, evaluation.right) for group in groups(evaluation, attributes)]


def groups(evaluation: Evaluation, attributes: pa.Table | None = None) -> list[Group]:
    """Return which of the evaluation's rows are in each slice that has any; see `slices`."""
    names = dict(zip(evaluation.labels, evaluation.names, strict=True))
    dimensions: dict[str, _Dimension] = {
        CLASS: ([names[label] for label in evaluation.truth.tolist()], list(names.values()))
    }
    if attributes is not None:
        dimensions |= _dimensions(_of_rows(evaluation, attributes))
    return [
        group
        for dimension, (values, order) in dimensions.items()
        for value in dict.fromkeys((*order, UNKNOWN))
        if (group := Group(dimension, value, np.array(values) == value)).inside.any()
    ]


def significantly_worse(candidates: Sequence[Slice], level: float = 0.05) -> list[Slice]:
    """Return the slices that are worse than the rest, likeliest first.

    Among many slices some look bad by chance: with Holm's correction (1979), the probability that any is named without
    being worse is at most `level`.
    """
    ranked = sorted(candidates, key=lambda each: each.p_value)
    corrected = holm([each.p_value for each in ranked])
    return [each for each, p_value in zip(ranked, corrected, strict=True) if p_value <= level]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values as they are once it counts how many there are (Holm, 1979).

    The probability that any of those at most `level` is so by chance alone is at most `level`.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values, float)[order] * factors), 1)
    return [float(p_value) for p_value in corrected]


def _of_rows(evaluation: Evaluation, attributes: pa.Table) -> pa.Table:
    """Return the attributes of each row, in the evaluation's order, without their image_id; null where not known."""
    image_ids = attributes["image_id"].to_pylist()
    places = {image_id: place for place, image_id in enumerate(image_ids)}
    if len(places) < len(image_ids):
        raise DlassetsError(
            f"There are {len(image_ids)} rows of attributes for {len(places)} images. Give one row an image_id."
        )
    import pyarrow as pa

    rows = pa.array([places.get(image_id) for image_id in evaluation.image_ids], pa.int64())
    return attributes.drop_columns("image_id").take(rows)


def _dimensions(attributes: pa.Table) -> dict[str, _Dimension]:
    """Return the dimensions that the columns give."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found: dict[str, _Dimension] = {}
    if {"width", "height"} <= set(attributes.column_names):
        short = pc.min_element_wise(attributes["width"], attributes["height"], skip_nulls=False)
        found[SIZE] = _bucketed(short, _SIZES, _SIZE_NAMES), _SIZE_NAMES
    if "brightness" in attributes.column_names:
        found[BRIGHTNESS] = _bucketed(attributes["brightness"], _BRIGHTNESSES, _BRIGHTNESS_NAMES), _BRIGHTNESS_NAMES
    for field in attributes.schema:
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            values = attributes[field.name].fill_null(UNKNOWN).to_pylist()
            found[field.name] = values, sorted(set(values) - {UNKNOWN})
    return found


def _bucketed(column: pa.ChunkedArray, bounds: Sequence[float], names: Sequence[str]) -> list[str]:
    return [
        UNKNOWN if value is None else names[int(np.searchsorted(bounds, value, side="right"))]
        for value in column.to_pylist()
    ]


def _slice(group: Group, is_right: NDArray[np.bool_]) -> Slice:
    from scipy.stats import hypergeom

    rows, right = int(group.inside.sum()), int(is_right[group.inside].sum())
    p_value = float(hypergeom.cdf(right, len(is_right), is_right.sum(), rows))
    return Slice(group.dimension, group.value, rows, right, wilson_interval(right, rows), p_value)
