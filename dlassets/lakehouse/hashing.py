"""Shares of images by hash: a rule that is a function of `image_id` alone, the same on every engine and every day.

An `image_id` is a SHA-256 in hexadecimal, so its digits are uniform and comparing them as text compares numbers. That
is plain SQL, where arithmetic on hexadecimal is not.
"""

from __future__ import annotations

from dlassets.lakehouse.tables import TEST, TRAIN, VALIDATION
from dlassets.settings import SplitSettings

_DIGITS = 8
# Whose turn the digits are: a choice by one place says nothing of one by another. The last place is the demo's.
SPLIT, SAMPLED, AUDITED, SHUFFLED, OVERLAPPED, BAITED = range(6)


def is_below_share(image_id: str, share: float, place: int) -> bool:
    """Return what `below_share` says of one image."""
    return share >= 1 or digits_of(image_id, place) < _bound(share)


def below_share(column: str, share: float, place: int = SPLIT) -> str:
    """Return SQL that is true for `share` (0 to 1) of the images. Another `place` makes an independent choice."""
    return "TRUE" if share >= 1 else f"{digits(column, place)} < '{_bound(share)}'"


def digits(column: str, place: int) -> str:
    """Return SQL for the digits that choices by `place` look at."""
    return f"SUBSTR({column}, {place * _DIGITS + 1}, {_DIGITS})"


def digits_of(image_id: str, place: int) -> str:
    """Return the digits of an image that choices by `place` look at."""
    return image_id[place * _DIGITS : (place + 1) * _DIGITS]


def _bound(share: float) -> str:
    return format(int(share * 16**_DIGITS), f"0{_DIGITS}x")


def split_of(column: str, split: SplitSettings) -> str:
    """Return SQL for the side an image is on: train, validation or test."""
    return (
        f"CASE WHEN {below_share(column, split.train)} THEN '{TRAIN}' "
        f"WHEN {below_share(column, split.train + split.validation)} THEN '{VALIDATION}' ELSE '{TEST}' END"
    )
