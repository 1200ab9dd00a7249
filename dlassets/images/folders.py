"""What a folder's name means: a class, by its number, its name or both."""

from __future__ import annotations

import datetime as dt
import functools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dlassets.settings import LABEL_RULE, LandingZone

_BIGINT = range(-(2**63), 2**63)
_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing", "holdout"}
_RANGE = re.compile(r"\d+(?:[._ -]+\d+)+")
_YEAR, _PART_OF_A_YEAR = re.compile(r"(?:19|20|21)\d\d"), re.compile(r"\d{1,2}")
_DATES = ("%Y%m%d", "%Y-%m-%d", "%Y-%m", "%d-%m-%Y")


class FolderClass(NamedTuple):
    """The class that a folder's name says: its number, its name, or both."""

    label: int | None
    name: str | None

    def __str__(self) -> str:
        return ".".join(str(part) for part in self if part is not None)


@dataclass(frozen=True)
class LabelRule:
    """What says a photo's class: the name of its parent folder, or its whole path within the zone.

    `pattern` has a group `label`, `name` or both. It must match a folder's name, and be found in a path.
    """

    pattern: str = LABEL_RULE
    of_path: bool = False

    @classmethod
    def of(cls, zone: LandingZone) -> LabelRule | None:
        """Return a zone's rule; None where its photos' paths say no labels."""
        return cls(zone.label_rule, zone.label_from == "path") if zone.labelled and not zone.has_lists else None

    def class_of(self, path: str) -> FolderClass | None:
        """Return the class of `<zone>/<path within it>`; None without one."""
        if self.of_path:
            return _said(re.search(self.pattern, path.partition("/")[2]))
        return None if self.why_none(path) else class_of_folder(folder_of(path), self.pattern)

    def why_none(self, path: str) -> str | None:
        """Return why a path is of no class, where that is plain to see; None where it may be of one."""
        is_ours = self.pattern == LABEL_RULE and not self.of_path
        return why_no_class(folder_of(path), path.split("/")[1:-2]) if is_ours else None


def folder_of(path: str) -> str:
    """Return the name of the parent folder in `<zone>/<path within it>`; empty at the zone's top."""
    return path.split("/")[-2] if path.count("/") > 1 else ""


@functools.lru_cache(maxsize=1024)  # each file of a folder asks
def class_of_folder(folder: str, rule: str = LABEL_RULE) -> FolderClass | None:
    """Return the class in a folder's name by `rule`, a pattern with a group `label`, `name` or both; None without one.

    By the rule that there is by default, dates, ranges of numbers and the sides of a split are no classes.
    """
    if rule == LABEL_RULE and why_no_class(folder) is not None:
        return None
    return _said(re.match(rule, folder))


def _said(match: re.Match[str] | None) -> FolderClass | None:
    if match is None:
        return None
    said = match.groupdict()
    name = clean(said["name"]) if said.get("name") else None
    try:
        label = None if said.get("label") is None else int(said["label"])
    except ValueError:  # the group holds no whole number
        return None
    if label is None:
        return FolderClass(None, name) if name else None
    return FolderClass(label, name) if label in _BIGINT else None


def is_numbered(folder: str) -> bool:
    """Whether a folder's name says the number of a class."""
    said = class_of_folder(folder)
    return said is not None and said.label is not None


def why_no_class(folder: str, above: Sequence[str] = ()) -> str | None:
    """Return why a folder, in those that are called `above`, is none of a class by its name; None where it may be."""
    if folder.casefold() in _SPLITS:
        return "is a side of a split, not a class"
    if _is_date(folder) or _is_part_of_a_date([*above, folder]):
        return "is a date, not a class"
    if _RANGE.fullmatch(folder):
        return "is a range of numbers, not a class"
    return None


@functools.lru_cache(maxsize=1024)  # as above
def _is_date(folder: str) -> bool:
    plain = re.sub(r"[._ ]", "-", folder)
    for form in _DATES:
        try:
            year = dt.datetime.strptime(plain, form).replace(tzinfo=dt.UTC).year
        except ValueError:
            continue
        return 1900 <= year < 2200  # noqa: PLR2004 - of photos
    return False


def _is_part_of_a_date(folders: Sequence[str]) -> bool:
    """Whether the last of these folders, one in the other, is a month or a day of a year's: 2026/11 or 2026/11/26."""
    last = list(folders[-3:])
    while last and _PART_OF_A_YEAR.fullmatch(last[-1]):
        last.pop()
    return len(last) < len(folders[-3:]) and bool(last) and _YEAR.fullmatch(last[-1]) is not None


def clean(name: str) -> str:
    """Return a class's name as it is kept: one Unicode form, no blanks around it, one at a time within."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def comparable(name: str, *, ignore_case: bool = False) -> str:
    """Return what two names have in common that are one: full and half width are, and case where it is ignored."""
    same = clean(unicodedata.normalize("NFKC", name))
    return clean(unicodedata.normalize("NFKC", same.casefold())) if ignore_case else same


def class_folder(label: int, name: str | None) -> str:
    """Return the name of a class's folder, such as 002.hat."""
    safe = "".join("_" if c in "/\\" or not c.isprintable() else c for c in name or "").strip(" .")
    return f"{label:03d}.{safe}" if safe and safe != str(label) else f"{label:03d}"
