"""Files of a landing zone, on any storage that Arrow reads: listed, looked at, put into batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dlassets.engines.schema import arrow_type
from dlassets.errors import DlassetsError
from dlassets.storage.files import is_hidden
from dlassets.storage.local_files import list_local, local_state
from dlassets.storage.stores import advice, filesystem_of, is_object_storage

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.fs as pafs

    from dlassets.settings import LandingZone


class PartlyListedError(DlassetsError):
    """Some folders of a landing zone could not be listed. `listing` is what could."""

    def __init__(self, message: str, listing: pa.Table) -> None:
        super().__init__(message)
        self.listing = listing


def list_files(name: str, zone: LandingZone, uri: str) -> pa.Table:
    """Return path, modificationTime and length of every file of a zone that its pattern takes in.

    Raises DlassetsError where the zone is not there or cannot be listed, PartlyListedError where that is so of some
    folders in it. In object storage a folder that nothing lies in is not there, and that is no error.
    """
    filesystem, folder = filesystem_of(uri)
    failed: list[OSError] = []
    found = _stored(filesystem, folder) if is_object_storage(uri) else list_local(folder, failed)
    try:
        listing = _listing([(f"{name}/{path}", time, size) for path, time, size in found if zone.takes_in(path)])
    except FileNotFoundError as error:
        raise DlassetsError(
            f"The landing zone {name!r} is not there: {uri}. Create the folder, or change landing.{name}.uri."
        ) from error
    except OSError as error:
        raise DlassetsError(f"The landing zone {name!r} at {uri} cannot be listed: {advice(uri, error)}") from error
    if failed:
        raise PartlyListedError(
            f"{len(failed)} folders of the landing zone {name!r} cannot be listed, such as {failed[0].filename}: "
            f"{failed[0].strerror}. Let this user read them, or hide them by a name that begins with a dot; all else "
            "is taken in.",
            listing,
        )
    return listing


def _stored(filesystem: pafs.FileSystem, folder: str) -> Iterator[tuple[str, int, int]]:
    """Yield what `list_local` does, of object storage, where a folder that nothing lies in is not there."""
    import pyarrow.fs as pafs

    try:  # not by `allow_not_found`, to which a missing bucket is empty as well
        infos = filesystem.get_file_info(pafs.FileSelector(folder, recursive=True))
    except FileNotFoundError:
        return
    for info in infos:
        relative = info.path[len(folder) :].removeprefix("/")
        if info.type == pafs.FileType.File and not is_hidden(relative):
            yield relative, info.mtime_ns, info.size


def _listing(files: Sequence[tuple[str, int, int]]) -> pa.Table:
    import pyarrow as pa

    paths, times, lengths = zip(*files, strict=True) if files else ((), (), ())
    # Whole milliseconds, since not every storage and engine tells more.
    microseconds = [time // 1_000_000 * 1_000 for time in times]
    return pa.table(
        {
            "path": pa.array(paths, pa.string()),
            "modificationTime": pa.array(microseconds, pa.int64()).cast(arrow_type("timestamp")),
            "length": pa.array(lengths, pa.int64()),
        }
    )


def stat_files(name: str, uri: str, paths: Sequence[str]) -> tuple[pa.Table, list[str]]:
    """Return what `list_files` would say of these paths within a zone, and those of them where no file is.

    Raises DlassetsError where the zone cannot be reached.
    """
    filesystem, folder = filesystem_of(uri)
    wholes = [f"{folder}/{path}" for path in paths]
    try:
        found = _stored_states(filesystem, wholes) if is_object_storage(uri) else [*map(local_state, wholes)]
    except OSError as error:
        raise DlassetsError(f"The landing zone {name!r} at {uri} cannot be read: {advice(uri, error)}") from error
    files = [(f"{name}/{path}", *state) for path, state in zip(paths, found, strict=True) if state is not None]
    gone = [f"{name}/{path}" for path, state in zip(paths, found, strict=True) if state is None]
    return _listing(files), gone


def _stored_states(filesystem: pafs.FileSystem, paths: Sequence[str]) -> list[tuple[int, int] | None]:
    """Return time of the last change (nanoseconds) and size of each file; None where there is none."""
    import pyarrow.fs as pafs

    # A name with an empty part (a//b) is none that Arrow takes, but a listing has it.
    infos = filesystem.get_file_info([path for path in paths if "//" not in path])
    states = {info.path: (info.mtime_ns, info.size) for info in infos if info.type == pafs.FileType.File}
    for folder in {path.partition("//")[0] for path in paths if "//" in path}:
        states |= {f"{folder}/{path}": (time, size) for path, time, size in _stored(filesystem, folder)}
    return [states.get(path) for path in paths]
