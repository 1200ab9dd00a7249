"""Files of a landing zone in a folder of this machine: listed, and the names that are no text carried as text.

Names are the bytes that the file system gives. Text is made of them as UTF-8 and in no other way: two spellings of one
character (NFC and NFD) stay two names.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from stat import S_ISDIR, S_ISREG

# A byte that is not UTF-8 is carried as this sign and two hexadecimal digits: 80 to FF, since smaller ones are text.
_SIGN = "‰"
_CARRIED = re.compile(rf"{_SIGN}([89A-F][0-9A-F])")
# What must be carried so: such bytes, and a sign that stands before two such digits in the name itself.
_TO_CARRY = re.compile(rf"[\udc80-\udcff]|{_SIGN}(?=[89A-F][0-9A-F])")
_SURROGATES = 0xDC00
_HIDDEN = "._"
# What a link that leads nowhere says, besides that nothing is there.
_LEADS_NOWHERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


@dataclass(frozen=True)
class _Folder:
    path: str
    relative: str
    identity: tuple[int, int]  # device and inode
    parent: _Folder | None

    def is_within(self, identity: tuple[int, int]) -> bool:
        folder: _Folder | None = self
        while folder is not None:
            if folder.identity == identity:
                return True
            folder = folder.parent
        return False


def list_local(folder: str, failures: list[OSError]) -> Iterator[tuple[str, int, int]]:
    """Yield path within `folder`, time of the last change (nanoseconds) and size of every file below it, in no order.

    Paths are text, as `decode_path` makes it. Links are followed, to files and to folders, but not into a folder that
    the way there leads through; a link that leads nowhere is left out, as is what is no regular file. Names that begin
    with a dot or an underscore are hidden, and hidden folders not entered. What vanishes meanwhile is left out. What
    cannot be listed below is added to `failures`, since it must not look empty; raises OSError where `folder` itself
    cannot be.
    """
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
            for entry in entries:
                name = entry.name
                status = None if name[0] in _HIDDEN else _status(entry, failures)
                if status is None:
                    continue
                relative = current.relative + (name if name.isascii() else decode_path(os.fsencode(name)))
                if S_ISREG(status.st_mode):
                    yield relative, status.st_mtime_ns, status.st_size
                elif S_ISDIR(status.st_mode) and not current.is_within(_identity(status)):
                    waiting.append(_Folder(entry.path, relative + "/", _identity(status), current))


def local_state(path: str) -> tuple[int, int] | None:
    """Return time of the last change (nanoseconds) and size of a file; None where there is no regular file.

    `path` is text as `decode_path` makes it. Raises OSError where the system will not say.
    """
    try:
        status = os.stat(encode_path(path))  # noqa: PTH116 (a Path knows no bytes)
    except OSError as error:
        if error.errno not in _LEADS_NOWHERE:
            raise
        return None
    return (status.st_mtime_ns, status.st_size) if S_ISREG(status.st_mode) else None


def _status(entry: os.DirEntry[str], failures: list[OSError]) -> os.stat_result | None:
    try:
        return entry.stat()
    except OSError as error:
        if error.errno not in _LEADS_NOWHERE:
            failures.append(error)
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
