"""The rows that models learn from and are tested on, of one pinned version of `training_set`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dlassets.engines.base import Snapshot
from dlassets.errors import DlassetsError
from dlassets.lakehouse.tables import TEST, TRAIN, VALIDATION
from dlassets.learning.loader.row_groups import read_columns

# The place of a label that is no class.
UNKNOWN = -1


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
    read = read_columns(training_set.uri, training_set.version, columns, [("split", "=", split)], shard=shard)
    order = np.argsort(read["image_id"].astype(str), kind="stable")
    found = read["features"][order] if features else np.empty((len(order), 0))
    return Examples(
        paths=list(read["path"][order]),
        image_ids=list(read["image_id"][order]),
        labels=read["label"][order].astype(np.int64),
        names=list(read["label_name"][order]),
        features=np.ascontiguousarray(found, dtype=np.float32),
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
        if unusable := [
            path for path, row in zip(rows.paths, rows.features, strict=True) if not np.isfinite(row).all()
        ]:
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


def targets_of(labels: NDArray[np.int64], classes: Sequence[int]) -> NDArray[np.int64]:
    """Return each label's place in `classes`, or UNKNOWN."""
    places = {label: place for place, label in enumerate(classes)}
    return np.array([places.get(label, UNKNOWN) for label in labels.tolist()], dtype=np.int64)
