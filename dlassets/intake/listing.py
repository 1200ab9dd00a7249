"""Files of a landing zone, on any storage that Arrow reads: listed, looked at, put into batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from dlassets.engines.schema import arrow_type
from dlassets.errors import DlassetsError
from dlassets.storage.junk import Junk
from dlassets.storage.local_files import Found, Links, State, list_local
from dlassets.storage.stores import advice, filesystem_of, is_object_storage

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.fs as pafs

    from dlassets.settings import LandingZone


# So much of a listing is Python's at a time: the rest is Arrow's, in a third of the memory.
_LISTED_AT_ONCE = 2**16
_LEFT_OUT, _UNMATCHED = b"dlassets.left_out", b"dlassets.unmatched"


class PartlyListedError(DlassetsError):
    """Some of a landing zone could not be listed or looked at. `listing` is what could, `gone` are paths of no file."""

    def __init__(self, message: str, listing: pa.Table, gone: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.listing = listing
        self.gone = gone


def list_files(name: str, zone: LandingZone, uri: str) -> pa.Table:
    """Return path, modificationTime, length and leads_to of every file of a zone that its pattern takes in.

    `leads_to` is null but for a link that may not be followed: there it is where the link leads, with a / behind it
    where that is a folder. What is the zone's junk has no row, see `left_out`. Raises DlassetsError where the zone is
    not there or cannot be listed, PartlyListedError where that is so of some folders in it, or it holds more than
    `zone.max_files`. In object storage a folder that nothing lies in is not there, and that is no error.
    """
    filesystem, folder = filesystem_of(uri)
    failed: list[OSError] = []
    junk = Junk(zone.junk)
    if is_object_storage(uri):
        found = _stored(filesystem, folder, junk)
    else:
        found = list_local(folder, failed, zone.links, junk)
    try:
        listing = _listed(name, zone, islice(found, zone.max_files))
        is_full = next(found, None) is not None
    except FileNotFoundError as error:
        raise DlassetsError(
            f"The landing zone {name!r} is not there: {uri}. Create the folder, or change landing.{name}.uri."
        ) from error
    except OSError as error:
        raise DlassetsError(f"The landing zone {name!r} at {uri} cannot be listed: {advice(uri, error)}") from error
    listing = listing.replace_schema_metadata({**(listing.schema.metadata or {}), _LEFT_OUT: str(junk.met)})
    if is_full:
        raise PartlyListedError(
            f"The landing zone {name!r} at {uri} holds more than {zone.max_files:,} files, and no more are looked at: "
            f"raise landing.{name}.max_files, or make several zones of it.",
            listing,
        )
    if failed:
        raise PartlyListedError(_unreadable(name, failed, "folders", "listed"), listing)
    return listing


def _unreadable(name: str, failed: Sequence[OSError], what: str, action: str) -> str:
    return (
        f"{len(failed)} {what} of the landing zone {name!r} cannot be {action}, such as {failed[0].filename}: "
        f"{failed[0].strerror}. Let this user read them, or name them in landing.{name}.junk; all else is "
        "taken in."
    )


def _listed(name: str, zone: LandingZone, found: Iterator[Found]) -> pa.Table:
    import pyarrow as pa

    parts, unmatched = [_listing([])], 0
    while part := list(islice(found, _LISTED_AT_ONCE)):
        # A pattern is about files: of a folder that is left out, nobody knows what it holds.
        chosen = [file for file in part if zone.takes_in(file[0]) or (file[3] or "").endswith("/")]
        parts.append(_listing([(f"{name}/{path}", time, size, target) for path, time, size, target in chosen]))
        unmatched += len(part) - len(chosen)
    return pa.concat_tables(parts).replace_schema_metadata({_UNMATCHED: str(unmatched)})


def left_out(listing: pa.Table) -> int:
    """Return how many files and folders a listing found and left out, as the zone's `junk` says."""
    return int((listing.schema.metadata or {}).get(_LEFT_OUT, 0))


def unmatched(listing: pa.Table) -> int:
    """Return how many files a listing found and left out, as the zone's `pattern` says."""
    return int((listing.schema.metadata or {}).get(_UNMATCHED, 0))


def _stored(filesystem: pafs.FileSystem, folder: str, junk: Junk) -> Iterator[Found]:
    """Yield what `list_local` does, of object storage, where a folder that nothing lies in is not there."""
    import pyarrow.fs as pafs

    try:  # not by `allow_not_found`, to which a missing bucket is empty as well
        infos = filesystem.get_file_info(pafs.FileSelector(folder, recursive=True))
    except FileNotFoundError:
        return
    for info in infos:
        relative = info.path[len(folder) :].removeprefix("/")
        if info.type == pafs.FileType.File and not junk.holds(relative):
            yield relative, info.mtime_ns, info.size, None


def _listing(files: Sequence[Found]) -> pa.Table:
    import pyarrow as pa

    paths, times, lengths, targets = zip(*files, strict=True) if files else ((), (), (), ())
    # Whole milliseconds, since not every storage and engine tells more.
    microseconds = [time // 1_000_000 * 1_000 for time in times]
    return pa.table(
        {
            "path": pa.array(paths, pa.string()),
            "modificationTime": pa.array(microseconds, pa.int64()).cast(arrow_type("timestamp")),
            "length": pa.array(lengths, pa.int64()),
            "leads_to": pa.array(targets, pa.string()),
        }
    )


def stat_files(name: str, uri: str, paths: Sequence[str], links: Sequence[str] = ()) -> tuple[pa.Table, list[str]]:
    """Return what `list_files` would say of these paths within a zone, and those of them where no file is.

    `links` are the folders that links may lead to. Raises DlassetsError where the zone cannot be reached, and
    PartlyListedError where some paths cannot be looked at: they are neither there nor gone.
    """
    filesystem, folder = filesystem_of(uri)
    failed: list[OSError] = []
    try:
        if is_object_storage(uri):
            found = _stored_states(filesystem, folder, paths)
        else:
            found = _local_states(paths, Links(folder, links), failed)
    except OSError as error:
        raise DlassetsError(f"The landing zone {name!r} at {uri} cannot be read: {advice(uri, error)}") from error
    present = _listing([(f"{name}/{path}", *state) for path, state in found.items() if state is not None])
    gone = [f"{name}/{path}" for path, state in found.items() if state is None]
    if failed:
        raise PartlyListedError(_unreadable(name, failed, "files", "looked at"), present, gone)
    return present, gone


def _local_states(paths: Sequence[str], links: Links, failed: list[OSError]) -> dict[str, State | None]:
    """Return the state of each file, None where there is none; one that the system will not tell of is left out."""
    states = {}
    for path in paths:
        try:
            states[path] = links.state(f"{links.folder}/{path}")
        except OSError as error:
            links.check()  # the folder itself may be away
            failed.append(error)
    return states


def _stored_states(filesystem: pafs.FileSystem, folder: str, paths: Sequence[str]) -> dict[str, State | None]:
    """Return the state of each file by its path within the folder; None where there is none."""
    import pyarrow.fs as pafs

    wholes = {path: f"{folder}/{path}" for path in paths}
    # A name with an empty part (a//b) is none that Arrow takes, but a listing has it.
    infos = filesystem.get_file_info([whole for whole in wholes.values() if "//" not in whole])
    states: dict[str, State] = {
        info.path: (info.mtime_ns, info.size, None) for info in infos if info.type == pafs.FileType.File
    }
    for below in {whole.partition("//")[0] for whole in wholes.values() if "//" in whole}:
        found = _stored(filesystem, below, Junk())
        states |= {f"{below}/{path}": (time, size, target) for path, time, size, target in found}
    return {path: states.get(whole) for path, whole in wholes.items()}
