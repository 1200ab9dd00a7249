"""The rows that models learn from and are tested on, of one pinned version of `training_set`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dlassets.engines.base import Snapshot
from dlassets.errors import DlassetsError
from dlassets.lakehouse.tables import TEST, TRAIN, VALIDATION
from dlassets.learning.loader.row_groups import read_columns

# The place of a label that is no class.
UNKNOWN = -1
# Numbers of features that are worked on at a time, 16 MB: a product of fewer rows takes longer for each.
PART_NUMBERS = 2**22


@dataclass(frozen=True)
class Examples:
    """Examples of one split, ordered by image_id: the order of files must not change what is learned."""

    paths: list[str]
    image_ids: list[str]
    labels: NDArray[np.int64]
    names: list[str]
    features: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.paths)

    def with_features(self, features: Mapping[str, NDArray[np.float32]]) -> Examples:
        """Return those of the rows whose image_id has features, with these."""
        there = self.taken(np.array([image_id in features for image_id in self.image_ids], dtype=bool))
        found = [features[image_id] for image_id in there.image_ids]
        return replace(there, features=np.stack(found)) if found else there

    def without_features(self) -> Examples:
        return replace(self, features=np.empty((len(self), 0), np.float32))

    def taken(self, chosen: NDArray[np.bool_]) -> Examples:
        """Return the rows that are chosen."""
        places = np.flatnonzero(chosen).tolist()
        return Examples(
            paths=[self.paths[place] for place in places],
            image_ids=[self.image_ids[place] for place in places],
            labels=self.labels[places],
            names=[self.names[place] for place in places],
            features=self.features[places],
        )


Splits = Mapping[str, Examples]


def read_split(
    training_set: Snapshot, split: str, shard: tuple[int, int] = (0, 1), *, features: bool = True
) -> Examples:
    """Read one split of a pinned version; `shard` is (rank, world size).

    Without `features`, which a training set of photos does not have, they are (N, 0).
    """
    columns = ["path", "image_id", "label", "label_name", *(["features"] if features else [])]
    where = [("split", "=", split)]
    read = read_columns(training_set.uri, training_set.version, columns, where, shard=shard, order_by="image_id")
    return Examples(
        paths=list(read["path"]),
        image_ids=list(read["image_id"]),
        labels=read["label"].astype(np.int64),
        names=list(read["label_name"]),
        features=np.asarray(read["features"], dtype=np.float32)
        if features
        else np.empty((len(read["path"]), 0), np.float32),
    )


def read_splits(training_set: Snapshot, *, features: bool = True) -> dict[str, Examples]:
    """Read all three splits. Raises DlassetsError where there is too little to learn from."""
    splits = {split: read_split(training_set, split, features=features) for split in (TRAIN, VALIDATION, TEST)}
    if any(not len(rows) for rows in splits.values()):
        counts = ", ".join(f"{split} {len(rows)}" for split, rows in splits.items())
        raise DlassetsError(
            f"There are too few labelled images to learn from: {counts}. Put more photos into the labelled landing "
            "zone: each split needs at least one, and a few dozen a class make a model."
        )
    for split, rows in splits.items():
        if unusable := [rows.paths[row] for row in _not_finite(rows.features)]:
            raise DlassetsError(
                f"{len(unusable)} images of the {split} split have features that are no numbers, such as "
                f"{unusable[0]}. Delete their rows from image_features and materialize it and training_set again."
            )
    if len(classes := set(splits[TRAIN].labels.tolist())) < 2:  # noqa: PLR2004 - telling apart takes two
        raise DlassetsError(
            f"The training split has one class only ({splits[TRAIN].names[0]}, label {classes.pop()}). A classifier "
            "needs two: put photos of another class into the labelled landing zone."
        )
    return splits


def parts_of(rows: int, numbers: int) -> Iterator[slice]:
    """Yield slices that part rows of so many numbers: what is computed of a part stays in the processor's cache."""
    step = max(1, PART_NUMBERS // max(1, numbers))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _not_finite(features: NDArray[np.float32]) -> list[int]:
    """Return the rows that have a number which is none."""
    parts = parts_of(*features.shape)
    return [row for part in parts for row in np.flatnonzero(~np.isfinite(features[part]).all(axis=1)) + part.start]


def targets_of(labels: NDArray[np.int64], classes: Sequence[int]) -> NDArray[np.int64]:
    """Return each label's place in `classes`, or UNKNOWN."""
    places = {label: place for place, label in enumerate(classes)}
    return np.array([places.get(label, UNKNOWN) for label in labels.tolist()], dtype=np.int64)
