"""Files of a landing zone, on any storage that Arrow reads: listed, batched, read. The same for both engines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dlassets.engines.local_files import list_local, local_state, on_disk
from dlassets.engines.storage import advice, concerns_one_file, filesystem_of, is_object_storage
from dlassets.errors import DlassetsError
from dlassets.lakehouse.tables import arrow_type

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.fs as pafs

    from dlassets.settings import LandingZone

# What tells one state of a file from another: an overwritten file has another time or length.
FILE_KEY = ("path", "modificationTime", "length")


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


def look_at(name: str, uri: str, paths: Sequence[str]) -> tuple[pa.Table, list[str]]:
    """Return what `list_files` would say of these paths within a zone, and those of them where no file is.

    Raises DlassetsError where the zone cannot be reached.
    """
    filesystem, folder = filesystem_of(uri)
    states = _stored_states if is_object_storage(uri) else _local_states
    try:
        found = states(filesystem, [f"{folder}/{path}" for path in paths])
    except OSError as error:
        raise DlassetsError(f"The landing zone {name!r} at {uri} cannot be read: {advice(uri, error)}") from error
    files = [(f"{name}/{path}", *state) for path, state in zip(paths, found, strict=True) if state is not None]
    gone = [f"{name}/{path}" for path, state in zip(paths, found, strict=True) if state is None]
    return _listing(files), gone


def _stored_states(filesystem: pafs.FileSystem, paths: Sequence[str]) -> list[tuple[int, int] | None]:
    """Return time of the last change (nanoseconds) and size of each file; None where there is none."""
    import pyarrow.fs as pafs

    infos = filesystem.get_file_info(paths)
    return [(info.mtime_ns, info.size) if info.type == pafs.FileType.File else None for info in infos]


def _local_states(_: pafs.FileSystem, paths: Sequence[str]) -> list[tuple[int, int] | None]:
    return [local_state(path) for path in paths]


def micro_batches(listing: pa.Table, most_files: int, most_bytes: int) -> Iterator[pa.Table]:
    start, size = 0, 0
    lengths = listing["length"].to_pylist()
    for position, length in enumerate(lengths):
        if position > start and (position - start == most_files or size + length > most_bytes):
            yield listing.slice(start, position - start)
            start, size = position, 0
        size += length
    if start < len(lengths):
        yield listing.slice(start)


def read_files(
    filesystem: pafs.FileSystem, folder: str, files: pa.RecordBatch, skip: int, most_bytes: int
) -> pa.RecordBatch:
    """Add `content` to a listing whose paths, less `skip` characters, lie in `folder`.

    It is null where a file cannot be read or is larger than `most_bytes`; one that has gone has no row. Of a file that
    has grown, as much comes as was listed. Raises DlassetsError where the storage, and not a file of it, is what fails.
    """
    import pyarrow as pa

    paths, lengths = files["path"].to_pylist(), files["length"].to_pylist()
    # Read to where Arrow keeps them, so that no byte is copied.
    room = pa.allocate_buffer(sum(length for length in lengths if length <= most_bytes))
    view = memoryview(room).cast("B")
    ends, readable, kept = [0], [], []
    for path, length in zip(paths, lengths, strict=True):
        start, size = ends[-1], None
        try:
            if length <= most_bytes:
                size = _read_into(view[start : start + length], filesystem, f"{folder}/{path[skip:]}")
            kept.append(True)
        except FileNotFoundError:
            kept.append(False)
        except (OSError, ValueError) as error:  # a ValueError is of a name that Arrow does not take: with // in it
            if isinstance(error, OSError) and not concerns_one_file(error):
                where = f"{filesystem.type_name}://{folder}"
                raise DlassetsError(f"{path} could not be read: {advice(where, error)}") from error
            kept.append(True)
        readable.append(size is not None)
        ends.append(start + (size or 0))
    buffers = [pa.array(readable).buffers()[1], pa.array(ends, pa.int32()).buffers()[1], room]
    content = pa.Array.from_buffers(pa.binary(), len(paths), buffers)
    batch = pa.RecordBatch.from_arrays([*files.columns, content], names=[*files.schema.names, "content"])
    return batch if all(kept) else batch.filter(pa.array(kept))


def _read_into(view: memoryview, filesystem: pafs.FileSystem, path: str) -> int:
    """Fill `view` with the beginning of a file, and return how much of it that took. Raises OSError as `read_bytes`."""
    with _opened(filesystem, path) as file:
        size = 0
        while size < len(view) and (more := file.readinto(view[size:])):
            size += more
        return size


def read_bytes(filesystem: pafs.FileSystem, path: str) -> bytes:
    """Return a file's bytes. Raises OSError where it cannot be read, FileNotFoundError where it is not there."""
    with _opened(filesystem, path) as file:
        return bytes(file.read())


def _opened(filesystem: pafs.FileSystem, path: str) -> Any:
    import pyarrow.fs as pafs

    if isinstance(filesystem, pafs.LocalFileSystem):  # half the time that Arrow's way takes for a photo
        return open(on_disk(path), "rb", buffering=0)  # noqa: PTH123 - a Path knows no bytes; the caller closes
    return filesystem.open_input_file(path)


def is_hidden(relative: str) -> bool:
    return any(part.startswith((".", "_")) for part in relative.split("/"))
