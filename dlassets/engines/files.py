"""Files of a landing zone, on any storage that Arrow reads: listed, batched, read. The same for both engines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlassets.engines.storage import advice, concerns_one_file, filesystem_of, is_object_storage
from dlassets.errors import DlassetsError
from dlassets.lakehouse.tables import arrow_type

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.fs as pafs

    from dlassets.settings import LandingZone

# What tells one state of a file from another: an overwritten file has another time or length.
FILE_KEY = ("path", "modificationTime", "length")


def list_files(name: str, zone: LandingZone, uri: str) -> pa.Table:
    """Return path, modificationTime and length of every file of a zone that its pattern takes in.

    Raises DlassetsError where the zone is not there or cannot be listed. In object storage a folder that nothing lies
    in is not there, and that is no error.
    """
    import pyarrow.fs as pafs

    filesystem, folder = filesystem_of(uri)
    try:
        infos = filesystem.get_file_info(pafs.FileSelector(folder, recursive=True))
    except FileNotFoundError as error:
        if not is_object_storage(uri):
            raise DlassetsError(
                f"The landing zone {name!r} is not there: {uri}. Create the folder, or change landing.{name}.uri."
            ) from error
        infos = []
    except OSError as error:
        raise DlassetsError(f"The landing zone {name!r} at {uri} cannot be listed: {advice(uri, error)}") from error
    files = []
    for info in infos:
        relative = info.path[len(folder) :].removeprefix("/")
        if info.type == pafs.FileType.File and not is_hidden(relative) and zone.takes_in(relative):
            files.append((f"{name}/{relative}", info.mtime_ns, info.size))
    return _listing(files)


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
    import pyarrow.fs as pafs

    filesystem, folder = filesystem_of(uri)
    try:
        infos = filesystem.get_file_info([f"{folder}/{path}" for path in paths])
    except OSError as error:
        raise DlassetsError(f"The landing zone {name!r} at {uri} cannot be read: {advice(uri, error)}") from error
    files, gone = [], []
    for path, info in zip(paths, infos, strict=True):
        if info.type == pafs.FileType.File:
            files.append((f"{name}/{path}", info.mtime_ns, info.size))
        else:
            gone.append(f"{name}/{path}")
    return _listing(files), gone


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

    It is null where a file cannot be read or is larger than `most_bytes`; one that has gone has no row. Raises
    DlassetsError where the storage, and not a file of it, is what fails.
    """
    import pyarrow as pa

    contents: list[bytes | None] = []
    kept: list[bool] = []
    for path, length in zip(files["path"].to_pylist(), files["length"].to_pylist(), strict=True):
        try:
            contents.append(read_bytes(filesystem, f"{folder}/{path[skip:]}") if length <= most_bytes else None)
            kept.append(True)
        except FileNotFoundError:
            contents.append(None)
            kept.append(False)
        except (OSError, ValueError) as error:  # a ValueError is of a name that Arrow does not take: with // in it
            if isinstance(error, OSError) and not concerns_one_file(error):
                where = f"{filesystem.type_name}://{folder}"
                raise DlassetsError(f"{path} could not be read: {advice(where, error)}") from error
            contents.append(None)
            kept.append(True)
    batch = pa.RecordBatch.from_arrays(
        [*files.columns, pa.array(contents, pa.binary())], names=[*files.schema.names, "content"]
    )
    return batch if all(kept) else batch.filter(pa.array(kept))


def read_bytes(filesystem: pafs.FileSystem, path: str) -> bytes:
    """Return a file's bytes. Raises OSError where it cannot be read, FileNotFoundError where it is not there."""
    import pyarrow.fs as pafs

    if isinstance(filesystem, pafs.LocalFileSystem):  # half the time that Arrow's way takes for a photo
        return Path(path).read_bytes()
    with filesystem.open_input_file(path) as stream:
        return bytes(stream.read())


def is_hidden(relative: str) -> bool:
    return any(part.startswith((".", "_")) for part in relative.split("/"))
