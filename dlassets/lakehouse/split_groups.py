"""Photos that belong together, by their looks or by a setting, and so share a side of the split.

Of each group one image's hash decides the side. Which group an image is in is decided when it first has a label, from
the labelled images that stand then, and never again: nobody changes side because of one who came later.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dlassets.engines.base import Engine, Rows, Snapshot
from dlassets.images.near_duplicates import PLAIN, groups, mirrored, nearest
from dlassets.lakehouse.hashing import split_of
from dlassets.lakehouse.tables import LABELED_IMAGES
from dlassets.settings import CAMERA, SplitSettings

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN = 5

# SQL over `labeled_images` for the group of every image that has one. Rows of lakes that know of no groups stand alone.
GROUPS = """
    SELECT image_id, MIN(COALESCE(split_group, image_id)) AS split_group FROM labeled_images GROUP BY image_id
"""


class Straddling(NamedTuple):
    """Photos that belong together and are on two sides of the split: of how many groups, how many, and two of each."""

    groups: int
    photos: int
    examples: list[str]


class Nearness(NamedTuple):
    """How near a group that stands is to an image, the least first: of one value by the setting, then of like looks."""

    bits: int
    place: int
    group: str


def with_groups(engine: Engine, labelled: Rows, tables: Mapping[str, Snapshot], split: SplitSettings) -> Rows:
    """Return rows of `labeled_images` with a group, and by it a side, for those that have no group yet.

    `tables` are raw_images, image_profiles and labeled_images.
    """
    new = _described(
        engine, "SELECT * FROM labelled WHERE split_group IS NULL", {**tables, "labelled": labelled}, split
    )
    if not new.num_rows:
        return labelled
    standing = "SELECT path, image_id, labeled_at, COALESCE(split_group, image_id) AS split_group FROM labeled_images"
    decided = decide(new, _described(engine, standing, tables, split), split.look_alike_bits)
    query = f"""
        SELECT {", ".join(_value(name, split) for name in LABELED_IMAGES.names)}
        FROM labelled LEFT JOIN decided ON decided.image_id = labelled.image_id
    """  # noqa: S608 - constants and shares
    return engine.sql(query, {"labelled": labelled, "decided": engine.rows(decided)})


def straddling(engine: Engine, tables: Mapping[str, Snapshot], split: SplitSettings) -> Straddling:
    """Return what is on two sides though it belongs together: it was on them before that was known, or could be.

    `tables` are raw_images, image_profiles and labeled_images.
    """
    labelled = "SELECT path, image_id, labeled_at, split AS split_group FROM labeled_images"
    rows = _described(engine, labelled, tables, split).to_pylist()
    sides = {row["image_id"]: row["split_group"] for row in rows}
    paths = {row["image_id"]: row["path"] for row in rows}
    apart = [images for images in _together(rows, split.look_alike_bits) if len({sides[image] for image in images}) > 1]
    examples = []
    for one, *others in apart[:SHOWN]:
        other = next(image for image in others if sides[image] != sides[one])
        examples.append(f"{paths[one]} ({sides[one]}) and {paths[other]} ({sides[other]})")
    return Straddling(len(apart), sum(map(len, apart)), examples)


def look_alikes(hashes: Mapping[str, int | None], bits: int | None) -> list[list[str]]:
    """Return the images that look alike, a group each, by their perceptual hashes: as the split takes it, see `decide`.

    Images that look like no other are in none, and where `bits` is None no image is in any.
    """
    rows = [{"image_id": image, "perceptual_hash": looks, "value": None} for image, looks in hashes.items()]
    return [group for group in _together(rows, bits) if len(group) > 1]


def _value(name: str, split: SplitSettings) -> str:
    group = "COALESCE(decided.split_group, labelled.split_group)"
    return {"split": f"{split_of(group, split)} AS split", "split_group": f"{group} AS split_group"}.get(
        name, f"labelled.{name}"
    )


def _described(engine: Engine, images: str, tables: Mapping[str, Any], split: SplitSettings) -> pa.Table:
    """Return path, image_id, split_group, perceptual_hash and value (by the setting): a row a path, oldest first."""
    import pyarrow as pa

    by_camera = split.group_by == CAMERA and _has_column(tables["raw_images"], CAMERA)
    found = engine.sql(
        f"""
        SELECT images.path, images.image_id, images.split_group, profiles.perceptual_hash
            {", raw_images.camera" if by_camera else ""}
        FROM ({images}) AS images
        LEFT JOIN image_profiles AS profiles ON profiles.image_id = images.image_id
        {"LEFT JOIN raw_images ON raw_images.path = images.path" if by_camera else ""}
        ORDER BY images.labeled_at, images.path
        """,  # noqa: S608 - constants
        tables,
    ).arrow()
    if by_camera:
        return found.rename_columns({CAMERA: "value"})
    values: list[str | None] = [None] * found.num_rows
    if split.group_by not in (None, CAMERA):
        matches = (re.search(split.group_by or "", path) for path in found["path"].to_pylist())
        values = [match and match[1] for match in matches]
    return found.append_column("value", pa.array(values, pa.string()))


def _has_column(table: Snapshot, name: str) -> bool:
    from dlassets.engines.delta_log import read_table

    return any(field.name == name for field in read_table(table.uri, table.version).schema().fields)


def decide(new: pa.Table, standing: pa.Table, bits: int | None) -> pa.Table:
    """Return image_id and split_group of the new images, of which each that belongs to a standing group joins it.

    Both have image_id, perceptual_hash and value, the oldest first, `standing` also split_group. Those whose hashes
    differ in no more than `bits`, or that have the same value, belong together. New images that do, be it by a chain of
    others, are in one group: the one that stands nearest to any of them, else that of the oldest of them. Not that of
    the least image_id, which for many images is nearly always on the train side.
    """
    import pyarrow as pa

    rows = new.select(["image_id", "perceptual_hash", "value"]).to_pylist()
    near = _standing_near(rows, standing, bits)
    decided: dict[str, str] = {}
    for members in _together(rows, bits):
        joined = min((near[image] for image in members if image in near), default=None)
        decided |= dict.fromkeys(members, joined.group if joined else members[0])
    return pa.table({"image_id": [*decided], "split_group": [*decided.values()]})


def _standing_near(rows: list[dict[str, Any]], standing: pa.Table, bits: int | None) -> dict[str, Nearness]:
    """Return the standing group that an image belongs to, of those that belong to any."""

    def nearness(bits: int, place: int) -> Nearness:
        return Nearness(bits, place, standing["split_group"][place].as_py())

    values = {row["value"] for row in rows} - {None}
    by_value: dict[str, int] = {}
    for place, value in enumerate(standing["value"].to_pylist() if values else ()):
        by_value.setdefault(value, place)
    found = [(row["image_id"], nearness(-1, by_value[row["value"]])) for row in rows if row["value"] in by_value]
    hashes = standing["perceptual_hash"].fill_null(PLAIN).to_numpy()
    hashed = np.flatnonzero(hashes != PLAIN)
    images, looks = _looks(rows, bits)
    which, differing = nearest(looks, hashes[hashed], bits or 0)
    near_by_looks = np.flatnonzero(which >= 0)
    found += [(images[at], nearness(int(differing[at]), int(hashed[which[at]]))) for at in near_by_looks]
    near: dict[str, Nearness] = {}
    for image, one in found:
        near[image] = min(one, near.get(image, one))
    return near


def _together(rows: list[dict[str, Any]], bits: int | None) -> Iterable[list[str]]:
    """Yield the images of the rows by group, each once and in the order of the rows."""
    images = dict.fromkeys(row["image_id"] for row in rows)
    of_value: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["value"] is not None:
            of_value[row["value"]].append(row["image_id"])
    head = {image: image for image in images}

    def head_of(image: str) -> str:
        while head[image] != image:
            head[image] = head[head[image]]
            image = head[image]
        return image

    for alike in (*groups(*_looks(rows, bits), bits or 0), *of_value.values()):
        for image in alike:
            head[head_of(image)] = head_of(alike[0])
    members: dict[str, list[str]] = defaultdict(list)
    for image in images:
        members[head_of(image)].append(image)
    return members.values()


def _looks(rows: list[dict[str, Any]], bits: int | None) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return each image that has a perceptual hash to be told by, and that hash; then all once more, as in a mirror.

    None where looks do not count.
    """
    if bits is None:
        return [], np.empty(0, np.int64)
    looks = {row["image_id"]: row["perceptual_hash"] for row in rows if row["perceptual_hash"] not in (None, PLAIN)}
    hashes = np.array([*looks.values()], np.int64)
    return [*looks, *looks], np.concatenate([hashes, mirrored(hashes)])
