"""What a file's parent folder says: its name, and by a zone's rule the label."""

from __future__ import annotations

import re

_BIGINT = range(-(2**63), 2**63)


def folder_of(path: str) -> str:
    """Return the name of the parent folder in `<zone>/<path within it>`; empty at the zone's top."""
    return path.split("/")[-2] if path.count("/") > 1 else ""


def folder_label(folder: str, rule: re.Pattern[str]) -> tuple[int, str | None] | None:
    """Return the label (a bigint) and the name, if any, that `rule` finds in a folder's name; None for no label."""
    match = rule.match(folder)
    if match is None:
        return None
    try:
        label = int(match["label"])
    except (TypeError, ValueError):  # the group took no part, or is no whole number
        return None
    return (label, match.groupdict().get("name")) if label in _BIGINT else None
