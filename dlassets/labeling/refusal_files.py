"""The files that tell people which of their answers are refused, each beside the answers that it is about."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path, PurePosixPath

from dlassets.labeling.formats import is_refusal_list, refusal_list
from dlassets.labeling.services import Refusal
from dlassets.storage.files import open_regular, write_where_changed
from dlassets.storage.records import READERS

# Of a list, mine.csv.refused.csv; of photos and what else lies there, refused.csv.
SUFFIX = "refused.csv"
_LONGEST_NAME = 255 - 20
_BEGINNING = 256


def is_refusal_file(path: Path) -> bool:
    """Whether a file is one of these, which are no answers: by its name, and by how it begins."""
    if not path.name.endswith(SUFFIX):
        return False
    try:
        with open_regular(path) as file:
            return is_refusal_list(file.read(_BEGINNING))
    except OSError:
        return False


def write_refusals(answers: Path, refusals: Sequence[Refusal], there: Iterable[Path]) -> None:
    """Write what is refused now, and remove those of the files that are `there` which tell of what no longer is.

    A file of that name that a person has put there stays, and what would be written to it is written to another.
    """
    by_place: dict[tuple[Path, str], list[Refusal]] = defaultdict(list)
    for refusal in refusals:
        by_place[_place(answers, refusal.file)].append(refusal)
    written = {_write(folder, stem, told) for (folder, stem), told in by_place.items()}
    for path in set(there) - written:
        path.unlink(missing_ok=True)


def _place(answers: Path, file: str) -> tuple[Path, str]:
    """Return the folder of the file that tells of a file's refusals, and what its name begins with."""
    path = PurePosixPath(file)
    folder = answers / path.parent
    is_beside = folder.is_dir() and folder.resolve() == answers.resolve() / path.parent
    if path.suffix.lower() not in READERS or not is_beside:
        return answers, ""
    name = path.name
    if len(name.encode()) + len(SUFFIX) > _LONGEST_NAME:
        name = name.encode()[: _LONGEST_NAME // 2].decode(errors="ignore") + hashlib.sha256(name.encode()).hexdigest()
    return folder, f"{name}."


def _write(folder: Path, stem: str, refusals: Sequence[Refusal]) -> Path:
    for number in count(1):
        path = folder / f"{stem}{'' if number == 1 else f'{number}.'}{SUFFIX}"
        if is_refusal_file(path) or not (path.exists() or path.is_symlink()):
            break
    write_where_changed(path, refusal_list(refusals))
    return path
