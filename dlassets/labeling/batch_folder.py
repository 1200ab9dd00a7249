"""A batch as people have it before them: a folder of photos, a list and a contact sheet that follow their answers."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from dlassets.labeling.formats import contact_sheet, in_order, request_list
from dlassets.labeling.layout import LIST, LISTS, READ_BYTES, SHEET, is_photo
from dlassets.labeling.services import Request, Standing
from dlassets.lakehouse.tables import ANSWERED, OPEN, WITHDRAWN
from dlassets.storage.files import open_regular, write_where_changed
from dlassets.storage.records import read_records


def show_batch(folder: Path, batch_id: str, standings: Sequence[Standing]) -> None:
    """Bring a batch's folder up to where its requests stand.

    The list has what waits, the sheet everything. Photos of requests that are closed go into the folder `answered` or
    `withdrawn`, last of all: where a killed run has left them, the next one finds them. Those that are open again,
    since their answer was taken back, come back from there. Raises OSError.
    """
    _bring_back(folder, {s.request.request_id for s in standings if s.status == OPEN})
    lying = _photos(folder)
    aside = {s.request.request_id: s.status for s in standings if s.status != OPEN}
    shown = {id_: f"{aside[id_]}/{name}" if id_ in aside else name for id_, name in lying.items()}
    for status in {*aside.values()}:
        put_aside = _photos(folder / status).items()
        shown |= {id_: f"{status}/{name}" for id_, name in put_aside if aside.get(id_) == status}
    write_list(folder, [s.request for s in in_order(standings) if s.status == OPEN])
    write_where_changed(folder / SHEET, contact_sheet(batch_id, standings, shown).encode())
    for request_id, name in lying.items():
        if request_id in aside:
            _put_aside(folder / name, folder / aside[request_id] / name)


def touched_lists(folder: Path) -> Iterator[Path]:
    """Yield the lists of a batch that a person has changed where they lay."""
    return (path for path in _lists(folder) if _is_touched(path) and not path.is_symlink())


def write_list(folder: Path, waiting: Sequence[Request]) -> None:
    """List what waits, in `requests.csv`; where a person has changed that one, what it lacks in `requests-2.csv`.

    A list that is as it was written is written anew, and removed where nothing is left for it. One that a person has
    changed, or has open, stays.
    """
    listed: set[str] = set()
    current = None
    for path in _lists(folder):
        if _is_touched(path):
            listed |= _request_ids(path)
        elif current is None:
            current = path
        else:
            path.unlink(missing_ok=True)
    rest = [request for request in waiting if request.request_id not in listed]
    if current is None:
        return
    if not rest:
        current.unlink(missing_ok=True)
        return
    content = request_list(rest)
    if not current.exists() or current.read_bytes() != content:
        with (folder / LISTS).open("a") as file:  # before the list: killed in between, it is one more that is known
            file.write(f"{hashlib.sha256(content).hexdigest()}\n")
        write_where_changed(current, content)


def _lists(folder: Path) -> Iterator[Path]:
    """Yield the lists that are there, with the first place that is free among them."""
    free = 0
    for number in count(1):
        path = folder / (LIST if number == 1 else f"requests-{number}.csv")
        free += not (path.exists() or path.is_symlink())
        if free > 1:
            return
        yield path


def _is_touched(path: Path) -> bool:
    """Whether a list is there that is not as it was written, or that LibreOffice has open."""
    if path.is_symlink() or path.with_name(f".~lock.{path.name}#").exists():
        return True
    try:
        digest = hashlib.sha256()
        for chunk in _chunks(path):
            digest.update(chunk)
        return digest.hexdigest() not in path.with_name(LISTS).read_text()
    except OSError:
        return path.exists()


def _request_ids(path: Path) -> set[str]:
    """Return the requests that a list has still, whatever a person has made of it."""
    try:
        entries = read_records(_chunks(path), ".csv", ["request_id"])
        return {str(entry["request_id"]).strip() for _, entry in entries if isinstance(entry, dict)}
    except OSError:
        return set()


def _chunks(path: Path) -> Iterator[bytes]:
    with open_regular(path) as file:
        yield from iter(lambda: file.read(READ_BYTES), b"")


def _photos(folder: Path) -> dict[str, str]:
    """Return the names of the photos that lie in a folder, by request id; none where it is a link to another."""
    if folder.is_symlink():
        return {}
    try:
        photos = [path for path in folder.iterdir() if is_photo(path) and not path.is_symlink()]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {photo.stem: photo.name for photo in sorted(photos)}


def _bring_back(folder: Path, waiting: Collection[str]) -> None:
    """Bring the photos of requests that wait back from where they were put aside."""
    for status in (ANSWERED, WITHDRAWN):
        for request_id, name in _photos(folder / status).items():
            if request_id in waiting:
                _put_aside(folder / status / name, folder / name)


def _put_aside(photo: Path, target: Path) -> None:
    """Move a photo, unless another lies there by that name, a link leads elsewhere, or it has been moved meanwhile."""
    if target.parent.is_symlink():
        return
    with suppress(FileNotFoundError):
        if not target.exists() or (target.is_file() and target.read_bytes() == photo.read_bytes()):
            target.parent.mkdir(exist_ok=True)
            photo.rename(target)
