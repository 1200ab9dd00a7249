"""Files of a landing zone in a folder of this machine: listed, and the names that are no text carried as text.

Names are the bytes that the file system gives. Text is made of them as UTF-8 and in no other way: two spellings of one
character (NFC and NFD) stay two names.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from stat import S_ISDIR, S_ISLNK, S_ISREG

from dlassets.storage.junk import Junk

# A byte that is not UTF-8 is carried as this sign and two hexadecimal digits: 80 to FF, since smaller ones are text.
_SIGN = "‰"
_CARRIED = re.compile(rf"{_SIGN}([89A-F][0-9A-F])")
# What must be carried so: such bytes, and a sign that stands before two such digits in the name itself.
_TO_CARRY = re.compile(rf"[\udc80-\udcff]|{_SIGN}(?=[89A-F][0-9A-F])")
_SURROGATES = 0xDC00
# What a link that leads nowhere says, besides that nothing is there.
_LEADS_NOWHERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


# Time of the last change (nanoseconds) and size of a file. Of a link that may not be followed they are its own, and the
# third is where it leads, with a / behind it where that is a folder.
State = tuple[int, int, str | None]
# The same with the path, before it.
Found = tuple[str, int, int, str | None]


class Links:
    """Where links in a folder may lead: within it, and to the folders that are `allowed`."""

    def __init__(self, folder: str, allowed: Sequence[str] = ()) -> None:
        self.folder = folder
        real = (os.path.realpath(place) for place in (folder, *allowed))
        self._inside, *outside = (place.rstrip("/") + "/" for place in real)
        self._allowed = (self._inside, *outside)
        self._folders: dict[str, str] = {}

    def check(self) -> None:
        """Raise OSError where the folder itself is away."""
        os.stat(self.folder)  # noqa: PTH116 (a Path costs, and knows no bytes)

    def allow(self, target: str) -> bool:
        """Whether a link may lead to this place, which no other link leads on from."""
        return f"{target}/".startswith(self._allowed)

    def is_inside(self, target: str) -> bool:
        """Whether this place is the folder itself or lies in it, and so is found without a link."""
        return f"{target}/".startswith(self._inside)

    def state(self, path: str) -> State | None:
        """Return the state of a file, or of a link on the way to it that may not be followed; None where is no file.

        `path` is text as `decode_path` makes it. Raises OSError where the system will not say.
        """
        try:
            known = os.fsdecode(encode_path(path))
            status = os.lstat(known)
            target, own = self._target(known, status), status
            status = os.stat(known) if S_ISLNK(status.st_mode) else status  # noqa: PTH116
        except OSError as error:
            if error.errno not in _LEADS_NOWHERE:
                raise
            return None
        except ValueError:  # a NUL, which no name has
            return None
        if not self.allow(target) and (S_ISREG(status.st_mode) or S_ISDIR(status.st_mode)):
            return state_of(own, target, status)
        return (status.st_mtime_ns, status.st_size, None) if S_ISREG(status.st_mode) else None

    def _target(self, path: str, status: os.stat_result) -> str:
        if S_ISLNK(status.st_mode):
            return os.path.realpath(path)
        folder, _, name = path.rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return f"{self._folders[folder]}/{name}"


def state_of(own: os.stat_result, target: str, status: os.stat_result) -> State:
    """Return the state of a link that may not be followed, by its own status and by that of where it leads."""
    leads_to = decode_path(os.fsencode(target))
    return own.st_mtime_ns, own.st_size, f"{leads_to.rstrip('/')}/" if S_ISDIR(status.st_mode) else leads_to


@dataclass(frozen=True)
class _Folder:
    path: str
    relative: str
    identity: tuple[int, int]  # device and inode
    parent: _Folder | None
    is_linked: bool = False  # a link leads to it, or to one that it is in

    def is_within(self, identity: tuple[int, int]) -> bool:
        folder: _Folder | None = self
        while folder is not None:
            if folder.identity == identity:
                return True
            folder = folder.parent
        return False

    def is_a_detour(self, status: os.stat_result, target: str, links: Links) -> bool:
        """Whether a link in this folder leads to what is found without it, or to what is neither file nor folder."""
        if not S_ISDIR(status.st_mode):
            return not S_ISREG(status.st_mode)
        return self.is_within(_identity(status)) or (self.is_linked and links.is_inside(target))

    def may_follow(self, status: os.stat_result, target: str, links: Links) -> bool:
        return links.allow(target) and not (self.is_linked and S_ISDIR(status.st_mode))


def list_local(
    folder: str, failures: list[OSError], allowed: Sequence[str] = (), junk: Junk | None = None
) -> Iterator[Found]:
    """Yield path within `folder`, and state, of every file below it, in no order.

    Paths are text, as `decode_path` makes it. Links are followed, to files and to folders, within `folder` and to the
    `allowed` places; one that leads elsewhere is a file with that state. Not followed are links to a folder that the
    way there leads through, and links to folders in a folder that was reached by one: else a few folders that link to
    each other would be a listing without end. A link that leads nowhere is left out, as is what is no regular file.
    Names that are `junk` (by default what is hidden) are left out, and such folders not entered. What vanishes
    meanwhile is left out. What cannot be listed below is added to `failures`, since it must not look empty; raises
    OSError where `folder` itself cannot be.
    """
    links, junk = Links(folder, allowed), junk or Junk()
    waiting = [_Folder(folder, "", _identity(os.stat(folder)), None)]  # noqa: PTH116 (a Path costs, and knows no bytes)
    while waiting:
        current = waiting.pop()
        try:
            entries = os.scandir(current.path)
        except OSError as error:
            if current.parent is None:
                raise
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                failures.append(error)
            continue
        with entries:
            kept = (entry for entry in entries if not junk.leaves_out(entry.name))
            yield from _look_through(kept, current, links, waiting, failures)


def _look_through(
    entries: Iterator[os.DirEntry[str]], current: _Folder, links: Links, waiting: list[_Folder], failures: list[OSError]
) -> Iterator[Found]:
    """Yield the files of one folder, and add the folders in it to those that are `waiting`."""
    for entry in entries:
        name = entry.name
        status = _status(entry, failures)
        if status is None:
            continue
        relative = current.relative + (name if name.isascii() else decode_path(os.fsencode(name)))
        is_link = entry.is_symlink()
        if is_link:
            target = os.path.realpath(entry.path)
            if current.is_a_detour(status, target, links):
                continue
            if not current.may_follow(status, target, links):
                if (own := _own_status(entry)) is not None:
                    yield relative, *state_of(own, target, status)
                continue
        if S_ISREG(status.st_mode):
            yield relative, status.st_mtime_ns, status.st_size, None
        elif S_ISDIR(status.st_mode) and not current.is_within(_identity(status)):
            is_linked = current.is_linked or is_link
            waiting.append(_Folder(entry.path, relative + "/", _identity(status), current, is_linked))


def _status(entry: os.DirEntry[str], failures: list[OSError]) -> os.stat_result | None:
    try:
        return entry.stat()
    except OSError as error:
        if error.errno not in _LEADS_NOWHERE:
            failures.append(error)
        return None


def _own_status(link: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return link.stat(follow_symlinks=False)
    except OSError:  # it has gone meanwhile
        return None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def decode_path(name: bytes) -> str:
    """Return a name, or a path, as text: itself where it is UTF-8, and with the other bytes as ‰ and two digits.

    `encode_path` gives the bytes back, whatever they are.
    """
    return _TO_CARRY.sub(_carry, name.decode("utf-8", "surrogateescape"))


def encode_path(path: str) -> bytes:
    """Return the bytes that `decode_path` made this text of."""
    if _SIGN not in path:
        return path.encode()
    return _CARRIED.sub(lambda match: chr(_SURROGATES + int(match[1], 16)), path).encode("utf-8", "surrogateescape")


def _carry(match: re.Match[str]) -> str:
    return "".join(f"{_SIGN}{byte:02X}" for byte in match[0].encode("utf-8", "surrogateescape"))
