"""What this machine keeps of one user because it can be made again: downloads, converted networks, a Java."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_path(*parts: str) -> Path:
    """Return `$XDG_CACHE_HOME/dlassets/<parts>`, by default under `~/.cache`; nothing of it need exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "dlassets", *parts)


def keep_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Have `fill` make a folder of that name beside it, which takes its place: whole, or not at all.

    Several processes may come here at once: the first one's stays. Raises OSError where it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as writing:
        made = Path(writing, folder.name)
        fill(made)
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first
                raise
