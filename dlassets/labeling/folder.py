"""Labelling by folders: photos are laid out for people, who move them into class folders or fill in a list."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dlassets.errors import DlassetsError
from dlassets.images.decode import viewable
from dlassets.images.folders import class_folder
from dlassets.labeling.formats import (
    contact_sheet,
    how_to_answer,
    problem,
    read_answers,
    request_list,
)
from dlassets.labeling.services import Answer, Batch, LabelingService
from dlassets.storage.files import open_regular
from dlassets.storage.records import READERS, as_text

_BEGINNINGS = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG\r\n\x1a\n": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\x00": ".tif",
    b"MM\x00*": ".tif",
    b"RIFF": ".webp",
}
_OTHER_PHOTO = ".img"
_PHOTO_SUFFIXES = {*_BEGINNINGS.values(), _OTHER_PHOTO, ".jpeg", ".tiff"}

# What file managers and editors leave behind, files still being copied, and what a batch brings with it.
_LEFT_ALONE = re.compile(r"(?i)[._~].*|thumbs\.db|desktop\.ini|readme\.txt|index\.html")

READ_BYTES = 2**20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FolderService(LabelingService):
    """`<requests>/<batch>/` holds what is asked, `<answers>/` what was answered, in class folders or in files.

    A batch is written beside its place and then renamed to it, so where it stands it is whole. It stays as people leave
    it: a photo they have moved does not come back. Links are not followed.
    """

    name = "folder"

    def __init__(self, requests: Path, answers: Path) -> None:
        self._requests = requests
        self._answers = answers

    def send(self, batch: Batch, photos: Iterable[tuple[str, bytes]]) -> dict[str, str]:
        for name in (batch.id, *(request.request_id for request in batch.requests)):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
                raise DlassetsError(f"{name!r} cannot be a file's name: use letters, digits, '.', '_' and '-'.")
        try:
            for label, name in batch.classes.items():
                (self._answers / class_folder(label, name)).mkdir(parents=True, exist_ok=True)
            if not (self._requests / batch.id).exists():
                self._lay_out(batch, photos)
        except OSError as error:
            raise DlassetsError(
                f"The labelling batch {batch.id} could not be written to {self._requests}: {error}. Check that the "
                "place is there, has room and is yours to write, then run again: nothing is sent twice."
            ) from error
        for unfinished in self._requests.glob(f".{batch.id}.*"):  # of this run or of another, killed or overtaken
            shutil.rmtree(unfinished, ignore_errors=True)
        return {request.request_id: f"{batch.id}/{request.request_id}" for request in batch.requests}

    def each_answer(self) -> Iterator[Answer]:
        for path in self._files():
            seen_at = _seen_at(path)
            yield from (replace(answer, seen_at=seen_at) for answer in self._read(path))

    def answers_digest(self) -> str:
        states = [(os.fsencode(path), _state(path)) for path in self._files()]
        return hashlib.sha256(repr(states).encode()).hexdigest()[:16] if states else ""

    def photos(self) -> set[str]:
        return {
            path.stem
            for root in (self._requests, self._answers)
            for path in root.glob("*/*")
            if path.suffix.lower() in _PHOTO_SUFFIXES
        }

    def _lay_out(self, batch: Batch, photos: Iterable[tuple[str, bytes]]) -> None:
        folder = self._requests / batch.id
        unfinished = folder.with_name(f".{batch.id}.{uuid.uuid4().hex}")
        unfinished.mkdir(parents=True)
        try:
            self._fill(unfinished, batch, photos)
            unfinished.rename(folder)
        except OSError:
            if not folder.exists():  # else another run was first
                raise

    def _fill(self, folder: Path, batch: Batch, photos: Iterable[tuple[str, bytes]]) -> None:
        files: dict[str, str] = {}
        for request_id, photo in photos:
            shown = viewable(photo)
            files[request_id] = request_id + _suffix(shown)
            (folder / files[request_id]).write_bytes(shown)
        if missing := [request.request_id for request in batch.requests if request.request_id not in files]:
            raise DlassetsError(f"{len(missing)} photos of the labelling batch {batch.id} are missing: {missing[:5]}.")
        unsure_first = sorted(batch.requests, key=lambda request: (request.confidence, request.request_id))
        (folder / "requests.csv").write_bytes(request_list(unsure_first))
        (folder / "index.html").write_text(contact_sheet(batch.id, unsure_first, files), encoding="utf-8")
        (folder / "README.txt").write_text(
            how_to_answer(batch.classes, os.path.relpath(self._answers, self._requests / batch.id)), encoding="utf-8"
        )

    def _files(self) -> Iterator[Path]:
        """Every file under the answers, and every link, in a stable order."""
        for folder, subfolders, names in os.walk(self._answers, onerror=_raise_unless_gone):
            links = [name for name in subfolders if Path(folder, name).is_symlink()]
            subfolders[:] = sorted(name for name in subfolders if not _LEFT_ALONE.fullmatch(name))
            yield from (Path(folder, name) for name in sorted(names + links) if not _LEFT_ALONE.fullmatch(name))

    def _read(self, path: Path) -> Iterator[Answer]:
        origin = as_text(path.relative_to(self._answers))
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                message = "is no plain file, and links are not followed: put the file itself there"
                yield problem(origin, message, _time(status.st_mtime_ns))
            elif path.suffix.lower() in READERS:
                with open_regular(path) as file:
                    chunks = iter(lambda: file.read(READ_BYTES), b"")
                    yield from read_answers(chunks, path.suffix.lower(), origin, _time(status.st_mtime_ns))
            else:
                yield self._moved_photo(path, origin, status)
        except FileNotFoundError:  # moved on while we looked: the next look finds it
            return
        except OSError as error:
            yield problem(origin, f"cannot be read: {error.strerror}", _EPOCH)

    def _moved_photo(self, path: Path, origin: str, status: os.stat_result) -> Answer:
        # Moving a photo leaves its modification time (when it was sent) as it is: the move itself is the change time.
        moved_at = _time(status.st_ctime_ns)
        if path.suffix.lower() not in _PHOTO_SUFFIXES:
            return problem(origin, "is neither a photo nor a CSV, JSON or JSONL file", moved_at)
        if path.parent == self._answers:
            return problem(origin, "lies in no class folder: move it into one", moved_at)
        return Answer(as_text(path.stem), as_text(path.parent.name), None, moved_at, origin, dated=False, file=origin)


def _suffix(photo: bytes) -> str:
    return next((suffix for start, suffix in _BEGINNINGS.items() if photo.startswith(start)), _OTHER_PHOTO)


def _state(path: Path) -> tuple[int, ...]:
    """Return size and times of a file, that of its last move among them; or why they are not to be had."""
    try:
        status = path.lstat()
    except OSError as error:
        return (error.errno or 0,)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _seen_at(path: Path) -> datetime | None:
    """Return when the file system saw a file change or arrive, which nobody can set; None where it is gone."""
    try:
        return _time(path.lstat().st_ctime_ns)
    except OSError:
        return None


def _time(nanoseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise DlassetsError(f"The answers cannot be listed: {error}. Make the folder readable.") from error
