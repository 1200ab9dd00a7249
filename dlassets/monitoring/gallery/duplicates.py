"""Which files look alike: how many groups there are, and the largest to be shown."""

from __future__ import annotations

from dataclasses import dataclass

from dlassets.engines.base import Engine, Rows
from dlassets.engines.schema import text_column
from dlassets.images.near_duplicates import groups
from dlassets.monitoring.gallery.queries import SHOWN, Row, queried

GROUPS, GROUP_THUMBNAILS = 24, 6


@dataclass(frozen=True)
class NearDuplicates:
    """`across_classes` are groups with more than one label; `shown` has a section for each of the largest groups."""

    groups: int
    files: int
    across_classes: int
    shown: list[Row]


def near_duplicates(engine: Engine, images: Rows) -> NearDuplicates:
    """Group files, not images, so that the same bytes under two paths are a group as well."""
    query = "SELECT path, label, perceptual_hash FROM images WHERE perceptual_hash IS NOT NULL ORDER BY path"
    hashed = engine.sql(query, {"images": images}).arrow()
    paths = hashed["path"].to_pylist()
    found = groups(paths, hashed["perceptual_hash"].to_numpy())
    grouped = {path for group in found for path in group}
    labels = {path: label.as_py() for path, label in zip(paths, hashed["label"], strict=True) if path in grouped}
    several = [len({labels[path] for path in group} - {None}) > 1 for group in found]
    chosen = [path for group in found[:GROUPS] for path in group[:GROUP_THUMBNAILS]]
    query = f"SELECT {SHOWN} FROM images JOIN chosen ON path = chosen_path"  # noqa: S608 - constants
    rows = queried(engine, {"images": images, "chosen": engine.rows(text_column("chosen_path", chosen))}, query)
    by_path = {row["path"]: row for row in rows}
    shown: list[Row] = []
    for group, across in zip(found[:GROUPS], several, strict=False):
        pictures = [by_path[path] for path in group[:GROUP_THUMBNAILS]]
        shown.append({"name": f"{len(group)} files", "total": len(group), "several": across, "rows": pictures})
    return NearDuplicates(len(found), len(grouped), sum(several), shown)
