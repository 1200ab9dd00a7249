"""A place is filled from one set of photos: which is written down before a file of it comes, and no other follows."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from dlassets.errors import DlassetsError
from dlassets.settings import JUNK
from dlassets.storage.files import is_there, read_whole, remove_file, write_whole
from dlassets.storage.junk import Junk
from dlassets.storage.lake import is_local, local_path


@contextmanager
def filled_from(
    set_: str, place: str | Path, record: str, has_photos: Callable[[], bool], advice: str
) -> Iterator[None]:
    """Fill a place from a set, which is written down in the file `record`: no other one may come to lie among it.

    A set that has gained photos is the same set; one of which nothing came, since it could not be read, leaves the
    place to others. Raises DlassetsError, with the `advice`, where another set was written down, or the place
    `has_photos` and none was.
    """
    is_first = _claim(set_, place, record, has_photos, advice)
    try:
        yield
    except DlassetsError:
        if is_first and not has_photos():
            remove_file(record)
        raise


def files_in(folder: Path) -> Iterator[PurePosixPath]:
    """Yield the files of a folder, at any depth, that are neither hidden nor junk, by their paths within it."""
    junk = Junk(JUNK)
    for path in folder.rglob("*"):
        relative = PurePosixPath(path.relative_to(folder).as_posix())
        if path.is_file() and not junk.holds(str(relative)):
            yield relative


def _claim(set_: str, place: str | Path, record: str, has_photos: Callable[[], bool], advice: str) -> bool:
    """Write the set down unless it is; return whether it was not."""
    # Looked at first: whoever brings photos has written the record before.
    is_filled = has_photos()
    try:
        is_first = not is_filled and _write_once(record, set_)
        there = read_whole(record).decode().strip() if is_there(record) else None
    except OSError as error:
        raise DlassetsError(f"{record} could not be written: {error}. Put that right and run again.") from error
    if there == set_:
        return is_first
    holds = f"is filled from another set, {there}" if there else "holds photos, and of what set is written down nowhere"
    raise DlassetsError(
        f"{place} {holds}: {set_} would be mixed into it, so nothing was moved. {advice} If it is the same set, which "
        f"lay elsewhere then, write {set_} into {record}."
    )


def _write_once(location: str, text: str) -> bool:
    """Write a file that is not there, whole; return whether it was not. Of two at once, one does, but in a bucket."""
    if is_there(location):
        return False
    if not is_local(location):
        write_whole(location, f"{text}\n")
        return True
    record = local_path(location)
    record.parent.mkdir(parents=True, exist_ok=True)
    unfinished = record.with_name(f".{record.name}-{uuid.uuid4().hex}")
    try:
        unfinished.write_text(f"{text}\n", encoding="utf-8")
        os.link(unfinished, record)
    except FileExistsError:
        return False
    except PermissionError:  # what storage without hard links says
        write_whole(record, f"{text}\n")
    finally:
        unfinished.unlink(missing_ok=True)
    return True
