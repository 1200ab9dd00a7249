"""What this machine keeps of one user because it can be made again: downloads, converted networks, a Java."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dlassets.storage.files import write_whole

_DIGESTS = ".sha256.json"


def cache_path(*parts: str) -> Path:
    """Return `$XDG_CACHE_HOME/dlassets/<parts>`, by default under `~/.cache`; nothing of it need exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "dlassets", *parts)


def is_whole(folder: Path) -> bool:
    """Whether a folder is there as `keep_folder` made it: a flipped bit of a network would change what it says."""
    try:
        return bool(json.loads((folder / _DIGESTS).read_bytes()) == _digests(folder))
    except (OSError, ValueError):
        return False


def keep_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Have `fill` make a folder of that name beside it, which takes its place: whole, or not at all.

    Several processes may come here at once: the first one's stays, unless it is damaged. Raises OSError where it cannot
    be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as writing:
        made = Path(writing, folder.name)
        fill(made)
        (made / _DIGESTS).write_text(json.dumps(_digests(made)))
        if folder.is_dir() and not is_whole(folder):
            with suppress(FileNotFoundError):  # another process was first
                folder.rename(Path(writing, "damaged"))
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first
                raise


def keep_file(file: Path, data: bytes, at_most: int) -> None:
    """Write a file, or anew, and delete of its folder all but the `at_most` that were written last.

    Raises OSError where it cannot be written.
    """
    write_whole(file, data)
    written: dict[Path, float] = {}
    for path in file.parent.glob("[!.]*"):
        with suppress(FileNotFoundError):  # another process deleted it
            written[path] = path.stat().st_mtime
    for path in sorted(written, key=written.__getitem__, reverse=True)[at_most:]:
        path.unlink(missing_ok=True)


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.iterdir() if path.name != _DIGESTS)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
