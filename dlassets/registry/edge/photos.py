"""The photos that a bundle is calibrated, measured and checked with: few of each split, always the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from dlassets.engines.base import Snapshot
from dlassets.errors import DlassetsError
from dlassets.images.decode import ImageError, View, as_seen
from dlassets.images.resampling import Pixels
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.tables import TEST, TRAIN, VALIDATION
from dlassets.learning.examples import Examples, read_split

CALIBRATION, MOST_ROWS = 128, 500
# Of so many test photos the files themselves are kept: a runner is compared on them, and a few go into the bundle.
FILES = 64
# Of a lake's photos so many bytes are held at once.
_TOGETHER = 32


@dataclass(frozen=True)
class Seen:
    """Rows of a split as a network sees them: `views` are (rows, side, side, 3), `files` the first rows' own."""

    rows: Examples
    views: Pixels
    files: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class EdgePhotos:
    """Of the training split what shows the ranges of numbers; of validation and test, rows with their labels."""

    calibration: Seen
    validation: Seen
    test: Seen


def edge_photos(training_set: Snapshot, photos: Photos, view: View) -> EdgePhotos:
    """Read them of one version of the training set. Raises DlassetsError where a split has none that can be read."""
    return EdgePhotos(
        calibration=_seen(training_set, TRAIN, photos, view, CALIBRATION),
        validation=_seen(training_set, VALIDATION, photos, view, MOST_ROWS),
        test=_seen(training_set, TEST, photos, view, MOST_ROWS),
    )


def _seen(training_set: Snapshot, split: str, photos: Photos, view: View, most: int) -> Seen:
    """Return the first rows by image_id, a hash: as good as drawn by chance. Unreadable ones are left out."""
    rows = read_split(training_set, split, features=False)
    rows = rows.taken(np.arange(len(rows)) < most)
    views: dict[str, Pixels] = {}
    files: list[bytes] = []
    for path, content in _bytes_of(photos, rows.paths):
        try:
            views[path] = as_seen(content, view)
        except ImageError:
            continue
        if len(files) < FILES:
            files.append(content)
    if not views:
        raise DlassetsError(
            f"No photo of the {split} split can be read, and a bundle is measured with some. Restore their files, or "
            "materialize training_set again."
        )
    found = rows.taken(np.array([path in views for path in rows.paths]))
    return Seen(found, np.stack([views[path] for path in found.paths]), files)


def _bytes_of(photos: Photos, paths: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the paths in turn, each with its bytes, where there are some."""
    for start in range(0, len(paths), _TOGETHER):
        part = paths[start : start + _TOGETHER]
        contents = photos.bytes_of(part)
        yield from ((path, contents[path]) for path in part if path in contents)
