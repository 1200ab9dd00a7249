"""Hints: files that say nothing but that it is worth looking now. Whoever looks does so anyway, only later."""

from __future__ import annotations

import hashlib

from dlassets.storage.files import read_whole


def hint_in(location: str) -> str:
    """Return what changes with each hint that is left in a file; empty text where there was none."""
    try:
        return hashlib.sha256(read_whole(location)).hexdigest()[:16]
    except FileNotFoundError:
        return ""
