"""Which files and folders are nobody's photos: what is hidden, and what programs and storage leave beside them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate

_HIDDEN = (".", "_")
_WILD = re.compile(r"[*?\[]")


def is_hidden(relative: str) -> bool:
    """Whether a name on a path begins with a dot or an underscore, as those of unfinished files do."""
    return any(part.startswith(_HIDDEN) for part in relative.split("/"))


class Junk:
    """What is left out of a landing zone: what is hidden, and names by `patterns`, in which * and ? are any text.

    Case says nothing. `met` counts the files and folders that `leaves_out` was asked of and left out.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        folded = [pattern.casefold() for pattern in patterns]
        self._names = {pattern for pattern in folded if not _WILD.search(pattern)}
        # Most patterns are ends of names, which cost far less so: a listing asks for each of its files.
        self._ends = tuple(p[1:] for p in folded if p.startswith("*") and not _WILD.search(p[1:]))
        rest = [p for p in folded if p not in self._names and not (p.startswith("*") and p[1:] in self._ends)]
        self._others = re.compile("|".join(map(translate, rest)) or r"(?!)")
        self.met = 0

    def leaves_out(self, name: str) -> bool:
        """Whether a file or folder of this name, within a folder that is looked through, is left out; counted then."""
        folded = name.casefold()
        is_junk = (
            folded.startswith(_HIDDEN)
            or folded in self._names
            or folded.endswith(self._ends)
            or self._others.fullmatch(folded) is not None
        )
        self.met += is_junk
        return is_junk

    def holds(self, relative: str) -> bool:
        """Whether a path lies in what is left out, or is so itself."""
        return any(self.leaves_out(part) for part in relative.split("/") if part)
