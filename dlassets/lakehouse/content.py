"""Where photos' bytes are kept, in three forms: in the table, as files of the lake, or where they arrived.

`raw_images.location` says of each row where its bytes are, so one lake may hold rows of all three forms: null where
they stand in `content`, else a path within the lake's root, or a URI.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dlassets.engines.base import Advance, Engine, Kernel, Rows, Snapshot
from dlassets.engines.schema import Column
from dlassets.errors import DlassetsError
from dlassets.images.digest import image_id_of
from dlassets.lakehouse.refusals import FAILED
from dlassets.storage.files import read_whole, why_unread, write_whole
from dlassets.storage.lake import Lake, is_uri, local_path
from dlassets.storage.stores import advice, concerns_one_file, is_object_storage

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger(__name__)

# SQL over `raw_images` and `deleted_files`: the rows whose bytes are still to be had.
REACHABLE = """
    SELECT raw_images.path, raw_images.image_id FROM raw_images
    LEFT JOIN deleted_files ON deleted_files.path = raw_images.path AND deleted_files.returned_at IS NULL
    WHERE deleted_files.path IS NULL OR raw_images.location IS NULL OR raw_images.location LIKE 'files/%'
"""

# SQL over `raw_images`, `deleted_files` and `quarantined_files`: those of them that no step has failed for.
USABLE = f"SELECT path, image_id FROM ({REACHABLE}) AS reachable WHERE image_id NOT IN ({FAILED})"  # noqa: S608 - constants


@dataclass(frozen=True)
class Keeper:
    """Puts the bytes of arriving photos where the setting `ingest.storage` says. `zone` is the landing zone's URI."""

    storage: Literal["table", "files", "landing"]
    lake: Lake
    zone: str

    def keep(self, checked: pa.RecordBatch) -> dict[str, pa.Array]:
        """Return the columns content and location for checked files; written where they are kept as files.

        `checked` has path, content, image_id and reason. What is no usable image is kept nowhere.
        """
        import pyarrow as pa

        rows = checked.num_rows
        if self.storage == "table":
            return {"content": checked["content"], "location": pa.nulls(rows, pa.string())}
        names = ("path", "content", "image_id", "reason")
        locations = [
            None if reason.is_valid else self._kept(path.as_py(), content, image_id.as_py())
            for path, content, image_id, reason in zip(*(checked[name] for name in names), strict=True)
        ]
        return {"content": pa.nulls(rows, pa.binary()), "location": pa.array(locations, pa.string())}

    def _kept(self, path: str, content: pa.BinaryScalar, image_id: str) -> str:
        if self.storage == "files":
            location = f"files/{image_id[:2]}/{image_id}"
            self._write(self.lake.under(location), content.as_py())
            return location
        folder = self.zone if is_uri(self.zone) or self.zone.startswith("/") else f"landing/{self.zone}"
        return f"{folder.rstrip('/')}/{path.split('/', 1)[1]}"

    @staticmethod
    def _write(target: str, data: bytes) -> None:
        """Write a file named by its bytes: one that is there has them. Asking a store for it costs as much.

        One that is there is given a new time, so that maintenance leaves it alone until it has its row.
        """
        try:
            if not is_object_storage(target):
                with suppress(OSError):  # not there, or of another user: then it is written
                    os.utime(local_path(target))
                    return
            write_whole(target, data)
        except OSError as error:
            raise DlassetsError(f"The photo {target} cannot be written: {advice(target, error)}") from error


def map_images(
    engine: Engine,
    lake: Lake,
    raw_images: Snapshot,
    paths: Rows,
    kernel: Kernel,
    returns: Sequence[Column],
    advance: Advance | None = None,
) -> Rows:
    """Run `kernel` over path, image_id and content of these paths' images, wherever the bytes are kept.

    An image whose bytes have gone, cannot be read just now, or are no longer those that were taken in (a bit of the
    file was flipped, or another photo stands there), has no row: see `intake.damage`. What `kernel` raises for one ends
    the work on all, but for that of `failures.attempted`.
    """
    columns = ("path", "image_id", "content", "location")
    return engine.map(raw_images, columns, paths, functools.partial(_filled, lake, kernel), returns, advance)


def _filled(lake: Lake, kernel: Kernel, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Kernel: `kernel`, on rows that have all their bytes, as they were taken in."""
    import pyarrow as pa

    contents = [
        _read(lake, location.as_py()) if location.is_valid else content.as_buffer()
        for content, location in zip(batch["content"], batch["location"], strict=True)
    ]
    is_whole = [
        content is not None and image_id_of(content) == image_id
        for content, image_id in zip(contents, batch["image_id"].to_pylist(), strict=True)
    ]
    if batch["location"].null_count < batch.num_rows:
        found = pa.array(contents, pa.binary())
        batch = batch.set_column(batch.schema.get_field_index("content"), "content", found)
    if not all(is_whole):  # rarely so, and a filter copies every byte
        batch = batch.filter(pa.array(is_whole, pa.bool_()))
    return kernel(batch.drop_columns(["location"]))


def _read(lake: Lake, location: str) -> bytes | None:
    try:
        return read_whole(location if is_uri(location) or location.startswith("/") else lake.under(location))
    except FileNotFoundError:
        return None
    except OSError as error:
        if not concerns_one_file(error):
            raise
        _log.warning("%s is left out for now: %s", location, why_unread(error))
        return None
