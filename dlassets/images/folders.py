"""What a folder's name means: the label and the name of a class."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from dlassets.settings import LABEL_RULE

_BIGINT = range(-(2**63), 2**63)


class FolderClass(NamedTuple):
    """The class that a folder's name says."""

    label: int
    name: str | None


def folder_of(path: str) -> str:
    """Return the name of the parent folder in `<zone>/<path within it>`; empty at the zone's top."""
    return path.split("/")[-2] if path.count("/") > 1 else ""


@functools.lru_cache(maxsize=1024)  # each file of a folder asks
def class_of_folder(folder: str, rule: str = LABEL_RULE) -> FolderClass | None:
    """Return the class in a folder's name by `rule`, a pattern with a group `label`; None where no bigint is in it."""
    match = re.match(rule, folder)
    if match is None:
        return None
    try:
        label = int(match["label"])
    except (TypeError, ValueError):  # the group took no part, or is no whole number
        return None
    return FolderClass(label, match.groupdict().get("name")) if label in _BIGINT else None


def class_folder(label: int, name: str | None) -> str:
    """Return the name of a class's folder, such as 002.hat."""
    safe = "".join("_" if c in "/\\" or not c.isprintable() else c for c in name or "").strip(" .")
    return f"{label:03d}.{safe}" if safe and safe != str(label) else f"{label:03d}"
