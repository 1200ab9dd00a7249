"""Bytes of files, on any storage that Arrow reads: read, and written whole or not at all."""

from __future__ import annotations

import errno
import filecmp
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from dlassets.errors import DlassetsError
from dlassets.storage.local_files import encode_path
from dlassets.storage.stores import advice, cached_filesystem_of, concerns_one_file, is_object_storage, one_line

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.fs as pafs

# The column that says why a file could not be read; null where it could.
READ_ERROR = "read_error"
# So often is a folder listed in which others come and go meanwhile.
_LOOKS = 20
# So much of a file's name stands in that of the hidden one it is written as: any name is too long for twice itself.
_NAME_SHOWN = 48
_UNFINISHED = re.compile(r"\..*-[0-9a-f]{32}", re.DOTALL)


def write_whole(
    location: str | Path, data: bytes | str, *, executable: bool = False, make_folders: bool = True
) -> None:
    """Write a file in one step, in place of any that is there: who looks finds it whole, or not at all.

    `location` is a path or URI. Its folders are made where they lack, unless told otherwise; text becomes UTF-8. Raises
    OSError where storage refuses it, and leaves nothing behind then; only a killed process leaves the hidden file it
    was writing beside it, `.<the name's first 48 characters>-<32 hex digits>`.
    """
    content = data.encode() if isinstance(data, str) else data
    if isinstance(location, str) and is_object_storage(location):
        filesystem, path = cached_filesystem_of(location)
        with filesystem.open_output_stream(path, compression=None) as stream:  # an object is there once it is closed
            stream.write(content)
        return
    target = location if isinstance(location, Path) else _local(location)
    if make_folders:
        target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished(target)
    try:
        unfinished.write_bytes(content)
        if executable:
            unfinished.chmod(0o755)
        unfinished.replace(target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write_where_changed(location: str | Path, data: bytes) -> bool:
    """Write a file as `write_whole` does, unless it is there and has these bytes; return if it did."""
    if isinstance(location, str) and is_object_storage(location):
        is_same = is_there(location) and read_whole(location) == data
    else:
        is_same = _has_bytes(location if isinstance(location, Path) else _local(location), data)
    if not is_same:
        write_whole(location, data)
    return not is_same


def _has_bytes(path: Path, data: bytes) -> bool:
    try:
        return not path.is_symlink() and path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False


def write_lines_where_changed(location: str, lines: Iterable[bytes]) -> bool:
    """Write a file of any length as `write_whole` does, unless it is there and has these bytes; return if it did.

    Lines of a file in object storage are in memory at once. Raises OSError as `write_whole` does, and whatever making
    the lines raises; nothing is left behind then.
    """
    if is_object_storage(location):
        return write_where_changed(location, b"".join(lines))
    path = _local(location)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished(path)
    try:
        with unfinished.open("wb") as file:
            file.writelines(lines)
        if path.is_file() and not path.is_symlink() and filecmp.cmp(unfinished, path, shallow=False):
            unfinished.unlink()
            return False
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return True


def _unfinished(target: Path) -> Path:
    """Return the hidden name beside its place that a file has until it is whole."""
    return target.with_name(f".{target.name[:_NAME_SHOWN]}-{uuid.uuid4().hex}")


def is_unfinished(name: str) -> bool:
    """Whether a file is called as one is that a killed process was writing."""
    return _UNFINISHED.fullmatch(name) is not None


def sync_folder(folder: Path) -> None:
    """Have the disk keep which files a folder has. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def listed(filesystem: pafs.FileSystem, folder: str, recursive: bool = False) -> list[pafs.FileInfo]:
    """Return what lies in a folder, or below it: nothing where it is not there.

    Raises FileNotFoundError where folders come and go for as long as this looks.
    """
    import pyarrow.fs as pafs

    selector = pafs.FileSelector(folder, allow_not_found=True, recursive=recursive)
    for _ in range(_LOOKS - 1):
        # Arrow fails where a folder is made between its looking for it and its saying that there is none.
        with suppress(FileNotFoundError):
            return list(filesystem.get_file_info(selector))
    return list(filesystem.get_file_info(selector))


def files_under(location: str) -> dict[str, pafs.FileInfo]:
    """Return the files of a folder at a path or URI, at any depth, by their paths within it, in a stable order."""
    filesystem, folder = cached_filesystem_of(location)
    found = {info.path[len(folder) + 1 :]: info for info in listed(filesystem, folder, recursive=True) if info.is_file}
    return dict(sorted(found.items()))


def is_there(location: str) -> bool:
    """Whether a path or URI is that of a file."""
    filesystem, path = cached_filesystem_of(location)
    return bool(filesystem.get_file_info(path).is_file)


def move_file(location: str, target: str) -> None:
    """Move a file within one storage, by paths or URIs; folders are made where they lack. Raises OSError."""
    filesystem, path = cached_filesystem_of(location)
    _, place = cached_filesystem_of(target)
    if not is_object_storage(target):
        filesystem.create_dir(place.rpartition("/")[0])
    filesystem.move(path, place)


def remove_folder(location: str) -> None:
    """Delete a folder at a path or URI with all that lies in it, if it is there. Raises OSError."""
    filesystem, path = cached_filesystem_of(location)
    with suppress(FileNotFoundError):
        filesystem.delete_dir(path)


def remove_file(location: str) -> None:
    """Delete a file at a path or URI, if it is there. Raises OSError."""
    filesystem, path = cached_filesystem_of(location)
    with suppress(FileNotFoundError):
        filesystem.delete_file(path)


def read_whole(location: str) -> bytes:
    """Return a file's bytes, of a path or URI. Raises OSError as `read_bytes`."""
    return read_bytes(*cached_filesystem_of(location))


def _local(location: str) -> Path:
    return Path(os.fsdecode(encode_path(location.removeprefix("file://"))))


def read_files(
    filesystem: pafs.FileSystem, folder: str, files: pa.RecordBatch, skip: int, most_bytes: int
) -> pa.RecordBatch:
    """Add `content` and `read_error` to a listing whose paths, less `skip` characters, lie in `folder`.

    `content` is null where a file cannot be read, for which `read_error` says why in one line; where it is larger than
    `most_bytes`; and for a link that may not be followed (its `leads_to`, where the listing has that column, is not
    null). A file that has gone has no row. Of one that has grown, as much comes as was listed. Raises DlassetsError
    where the storage, and not a file of it, is what fails.
    """
    import pyarrow as pa

    paths, lengths = files["path"].to_pylist(), files["length"].to_pylist()
    if "leads_to" in files.schema.names and files["leads_to"].null_count < files.num_rows:
        links = files["leads_to"].is_valid().to_pylist()
    else:
        links = [False] * len(paths)
    # Read to where Arrow keeps them, so that no byte is copied.
    room = pa.allocate_buffer(sum(length for length in lengths if length <= most_bytes))
    view = memoryview(room).cast("B")
    ends, readable, kept = [0], [], []
    errors: list[str | None] = []
    for path, length, is_link in zip(paths, lengths, links, strict=True):
        start, size, said = ends[-1], None, None
        try:
            if length <= most_bytes and not is_link:
                size = _read_into(view[start : start + length], filesystem, f"{folder}/{path[skip:]}")
            kept.append(True)
        except FileNotFoundError:
            kept.append(False)
        except (OSError, ValueError) as error:  # a ValueError is of a name that Arrow does not take: with // in it
            if isinstance(error, OSError) and not concerns_one_file(error):
                where = f"{filesystem.type_name}://{folder}"
                raise DlassetsError(f"{path} could not be read: {advice(where, error)}") from error
            kept.append(True)
            said = why_unread(error)
        readable.append(size is not None)
        errors.append(said)
        ends.append(start + (size or 0))
    buffers = [pa.array(readable).buffers()[1], pa.array(ends, pa.int32()).buffers()[1], room]
    content = pa.Array.from_buffers(pa.binary(), len(paths), buffers)
    columns = {**dict(zip(files.schema.names, files.columns, strict=True)), "content": content}
    batch = pa.RecordBatch.from_pydict({**columns, READ_ERROR: pa.array(errors, pa.string())})
    return batch if all(kept) else batch.filter(pa.array(kept))


def why_unread(error: Exception) -> str:
    """Return what was said of a file that cannot be read, in one line, and without the path that its row has."""
    return one_line(str((isinstance(error, OSError) and error.strerror) or error))


def _read_into(view: memoryview, filesystem: pafs.FileSystem, path: str) -> int:
    """Fill `view` with the beginning of a file, and return how much of it that took. Raises OSError as `read_bytes`."""
    import pyarrow.fs as pafs

    if not isinstance(filesystem, pafs.LocalFileSystem):
        with _opened(filesystem, path) as file:
            return _filled(view, file.readinto)
    # No file object: of a small file it is a quarter of the time, in which no other thread's Python runs.
    descriptor = _descriptor(encode_path(path))
    try:
        return _filled(view, lambda rest: os.readv(descriptor, (rest,)))
    finally:
        os.close(descriptor)


def _filled(view: memoryview, read: Callable[[memoryview], int]) -> int:
    """Fill `view` by a function that reads some of it at a time, and return how much that had."""
    size = 0
    while size < len(view) and (more := read(view[size:])):
        size += more
    return size


def opened(location: str) -> Any:
    """Open a file at a path or URI to read from; the caller closes it. Raises OSError as `read_bytes`."""
    return _opened(*cached_filesystem_of(location))


def read_bytes(filesystem: pafs.FileSystem, path: str) -> bytes:
    """Return a file's bytes. Raises OSError where it cannot be read, FileNotFoundError where it is not there."""
    with _opened(filesystem, path) as file:
        return bytes(file.read())


def _opened(filesystem: pafs.FileSystem, path: str) -> Any:
    import pyarrow.fs as pafs

    if isinstance(filesystem, pafs.LocalFileSystem):  # half the time that Arrow's way takes for a photo
        return os.fdopen(_descriptor(encode_path(path)), "rb", buffering=0)  # the caller closes
    return filesystem.open_input_file(path)


def open_regular(path: Path) -> BinaryIO:
    """Open a file that is no link, and nothing else than a file. Raises OSError."""
    return os.fdopen(_descriptor(str(path), os.O_NOFOLLOW), "rb", buffering=0)


def _descriptor(path: str | bytes, flags: int = 0) -> int:
    """Open a regular file of this machine. What has taken its place (a pipe, a device) might never begin or end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | flags)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(number, "no regular file", path)


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
