"""Photos that look alike: people are asked about one of them at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dlassets.engines.base import Engine, Rows, Snapshot
from dlassets.lakehouse.split_groups import look_alikes
from dlassets.lakehouse.tables import WAITING, WITHDRAWN

if TYPE_CHECKING:
    import pyarrow as pa

_WAITS, _ANSWERED = 2, 1


def one_of_each(
    engine: Engine, found: pa.Table, label_requests: Snapshot, image_profiles: Snapshot, bits: int | None
) -> pa.Table:
    """Return of each group of look-alikes the row that stands first, and none where another of them is asked about.

    That is one whose request waits for its answer and, for rows that are `once_a_group`, one that was answered. Which
    look alike is told as for the split (`bits` is `split.look_alike_bits`); photos without a profile are like no other.
    `found` has image_id and once_a_group, each image once.
    """
    if bits is None or not found.num_rows:
        return found
    query = f"""
        SELECT profiles.image_id, MAX(profiles.perceptual_hash) AS perceptual_hash,
            MAX(CASE WHEN {WAITING} THEN {_WAITS} WHEN status <> '{WITHDRAWN}' THEN {_ANSWERED} ELSE 0 END) AS asked
        FROM image_profiles AS profiles
        LEFT JOIN label_requests ON label_requests.image_id = profiles.image_id
        LEFT JOIN found ON found.image_id = profiles.image_id
        WHERE found.image_id IS NOT NULL OR status <> '{WITHDRAWN}'
        GROUP BY profiles.image_id
    """  # noqa: S608 - constants
    tables: dict[str, Snapshot | Rows] = {"label_requests": label_requests, "image_profiles": image_profiles}
    seen = engine.sql(query, {**tables, "found": engine.rows(found.select(["image_id"]))}).arrow().to_pydict()
    asked = dict(zip(seen["image_id"], seen["asked"], strict=True))
    groups = look_alikes(dict(zip(seen["image_id"], seen["perceptual_hash"], strict=True)), bits)
    return found.filter(_free(found, groups, asked))


def _free(found: pa.Table, groups: Sequence[Sequence[str]], asked: dict[str, int]) -> NDArray[np.bool_]:
    """Return which rows may be asked about, of which each takes its group from those after it."""
    group_of = {image: number for number, group in enumerate(groups) for image in group}
    taken = [max(asked[image] for image in group) for group in groups]
    free = np.ones(found.num_rows, np.bool_)
    rows = zip(found["image_id"].to_pylist(), found["once_a_group"].to_pylist(), strict=True)
    for place, (image, once) in enumerate(rows):
        if (group := group_of.get(image)) is not None:
            free[place] = taken[group] < (_ANSWERED if once else _WAITS)
            taken[group] = _WAITS if free[place] else taken[group]
    return free
