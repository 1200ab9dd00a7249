"""Writing requests as the files of another labelling service, with their photos where that is wanted."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlassets.engines.base import Engine, Snapshot
from dlassets.errors import DlassetsError
from dlassets.labeling.exchange.base import FileFormat, ShownRequest, class_name
from dlassets.labeling.folder import write_photos
from dlassets.labeling.formats import turn
from dlassets.labeling.requests import PhotosOf, with_photo
from dlassets.labeling.services import Request
from dlassets.lakehouse.classes import known_classes
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.tables import OPEN
from dlassets.settings import Settings
from dlassets.storage.lake import Lake

# The folder of the photos, in that of the files.
PHOTOS = "photos"


@dataclass(frozen=True)
class Exported:
    """The requests that were written, the files that they stand in, and how many were left out for want of a photo."""

    requests: int
    files: Sequence[Path]
    left_out: int


@dataclass(frozen=True)
class Export:
    """Which open requests are written, and for whom: those of `batches`, of all where there is none.

    `snapshots` has raw_images, deleted_files, quarantined_files, image_profiles, classes and label_requests. With
    `photos` they are copied beside the files, each called as its request. `at` is what stands before a photo's name as
    the service finds it, such as s3://bucket/folder/: else that is where it lies, or came from.
    """

    engine: Engine
    lake: Lake
    settings: Settings
    snapshots: Mapping[str, Snapshot]
    format: FileFormat
    batches: Collection[str] = ()
    photos: bool = False
    at: str | None = None

    def to(self, folder: Path) -> Exported:
        """Write them into a folder, which is new or empty: whole, or not at all.

        Raises DlassetsError where nothing is open, a batch is unknown, or the folder cannot be written.
        """
        rows, left_out = self._open()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DlassetsError(f"{folder} is there and not empty: name another folder.")
        unfinished = folder.with_name(f".{folder.name[:100]}-{uuid.uuid4().hex}")
        try:
            unfinished.mkdir(parents=True)
            written = self._write(unfinished, rows)
            unfinished.replace(folder)
        except OSError as error:
            raise DlassetsError(
                f"{folder} could not be written: {error}. Check that the place is there, has room and is yours to "
                "write, then run again: nothing is half there."
            ) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return Exported(len(written.requests), [folder / name for name in written.files], left_out + written.left_out)

    def _open(self) -> tuple[list[dict[str, Any]], int]:
        """Return the open requests that are asked for whose photo there is, and how many there are without."""
        requests, opened = self.snapshots["label_requests"], self._batch_of_each()
        there = {row["batch_id"] for row in opened}
        if unknown := sorted({*self.batches} - there):
            known = ", ".join(sorted(there)) or "none"
            raise DlassetsError(f"No request of the batch {unknown[0]} is open. Batches with open ones: {known}.")
        wanted = {row["request_id"] for row in opened if not self.batches or row["batch_id"] in self.batches}
        images = {
            name: self.snapshots[name] for name in ("raw_images", "deleted_files", "quarantined_files", "classes")
        }
        found = with_photo(self.engine, images, requests, f"r.status = '{OPEN}'") if wanted else []
        rows = sorted((row for row in found if row["request_id"] in wanted), key=lambda row: turn(_request(row)))
        if not rows:
            raise DlassetsError("No request is open: there is nothing to ask anybody about.")
        return rows, len(wanted) - len(rows)

    def _batch_of_each(self) -> list[dict[str, str]]:
        query = f"SELECT request_id, batch_id FROM label_requests WHERE status = '{OPEN}'"  # noqa: S608 - a constant
        tables = {"label_requests": self.snapshots["label_requests"]}
        return list(self.engine.sql(query, tables).arrow().to_pylist())

    def _write(self, folder: Path, rows: Sequence[dict[str, Any]]) -> _Written:
        requests = {row["request_id"]: _request(row) for row in rows}
        places = {row["request_id"]: self._origin(row["path"]) for row in rows}
        if self.photos:
            (folder / PHOTOS).mkdir()
            copied = write_photos(folder / PHOTOS, requests, PhotosOf(self._photos(), rows))
            places = {id_: f"{self.at or ''}{PHOTOS}/{name}" for id_, name in copied.items()}
        sizes = self._sizes()
        shown = [
            ShownRequest(requests[row["request_id"]], places[row["request_id"]], *sizes.get(row["image_id"], ()))
            for row in rows
            if row["request_id"] in places
        ]
        known = known_classes(self.engine, self.snapshots["classes"])
        classes = {label: class_name(label, known) for label in known}
        files = self.format.write(shown, classes)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return _Written(shown, [*files], len(rows) - len(shown))

    def _photos(self) -> Photos:
        return Photos(self.engine, self.lake, self.snapshots["raw_images"])

    def _origin(self, path: str) -> str:
        """Return where the photo of a path of the lake lies for others: as `at` says, else where it was taken in."""
        if self.at is not None:
            return f"{self.at}{path}"
        name, _, within = path.partition("/")
        zone = self.settings.landing.get(name)
        return path if zone is None else f"{self.lake.zone(zone.uri).rstrip('/')}/{within}"

    def _sizes(self) -> dict[str, tuple[int, int]]:
        """Return width and height of the photos that are asked about, where they are known."""
        query = f"""
            SELECT DISTINCT p.image_id, p.width, p.height FROM image_profiles AS p
            JOIN label_requests AS r ON r.image_id = p.image_id
            WHERE r.status = '{OPEN}' AND p.width IS NOT NULL AND p.height IS NOT NULL
        """  # noqa: S608 - a constant
        tables = {name: self.snapshots[name] for name in ("image_profiles", "label_requests")}
        rows = self.engine.sql(query, tables).arrow().to_pylist()
        return {row["image_id"]: (row["width"], row["height"]) for row in rows}


@dataclass(frozen=True)
class _Written:
    requests: Sequence[ShownRequest]
    files: Sequence[str]
    left_out: int


def _request(row: Mapping[str, Any]) -> Request:
    return Request(**{name: row[name] for name in Request.__dataclass_fields__})
