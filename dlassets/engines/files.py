"""Files of a landing zone, on any storage that Arrow reads: listed, batched, read. The same for both engines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

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

    Raises DlassetsError where the zone is not there or cannot be listed.
    """
    import pyarrow as pa
    import pyarrow.fs as pafs

    filesystem, folder = filesystem_of(uri)
    try:
        infos = filesystem.get_file_info(pafs.FileSelector(folder, recursive=True))
    except FileNotFoundError as error:
        raise DlassetsError(
            f"The landing zone {name!r} is not there: {uri}. Create the folder, or change landing.{name}.uri."
        ) from error
    except OSError as error:
        raise DlassetsError(f"The landing zone {name!r} at {uri} cannot be listed: {error}") from error
    takes_in = re.compile(zone.pattern).search
    files = []
    for info in infos:
        relative = info.path[len(folder) :].lstrip("/")
        if info.type == pafs.FileType.File and not is_hidden(relative) and takes_in(relative):
            files.append((f"{name}/{relative}", info.mtime_ns // 1_000_000 * 1_000, info.size))
    paths, times, lengths = zip(*files, strict=True) if files else ((), (), ())
    return pa.table(
        {
            "path": pa.array(paths, pa.string()),
            "modificationTime": pa.array(times, pa.int64()).cast(arrow_type("timestamp")),
            "length": pa.array(lengths, pa.int64()),
        }
    )


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


def read_files(filesystem: pafs.FileSystem, folder: str, files: pa.RecordBatch, skip: int) -> pa.RecordBatch:
    """Add `content` to a listing; null where a file cannot be read, and no row for one that has gone meanwhile."""
    import pyarrow as pa

    contents: list[bytes | None] = []
    kept: list[bool] = []
    for path in files["path"].to_pylist():
        try:
            with filesystem.open_input_file(f"{folder}/{path[skip:]}") as stream:
                contents.append(stream.read())
            kept.append(True)
        except FileNotFoundError:
            contents.append(None)
            kept.append(False)
        except OSError:
            contents.append(None)
            kept.append(True)
    batch = pa.RecordBatch.from_arrays(
        [*files.columns, pa.array(contents, pa.binary())], names=[*files.schema.names, "content"]
    )
    return batch if all(kept) else batch.filter(pa.array(kept))


def is_hidden(relative: str) -> bool:
    return any(part.startswith((".", "_")) for part in relative.split("/"))


def filesystem_of(uri: str) -> tuple[pafs.FileSystem, str]:
    import pyarrow.fs as pafs

    filesystem, path = pafs.FileSystem.from_uri(uri.replace("s3a://", "s3://", 1))
    return filesystem, path
