"""Labelling by folders: photos are laid out for people, who move them into class folders or fill in a list."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dlassets.errors import DlassetsError
from dlassets.images.decode import viewable
from dlassets.images.folders import class_folder
from dlassets.labeling.batch_folder import show_batch, touched_lists
from dlassets.labeling.formats import how_to_answer, problem, read_answers
from dlassets.labeling.layout import (
    HOW_TO,
    LEFT_ALONE,
    READ_BYTES,
    SHOWN,
    is_photo,
    is_plain,
    refuse_unplain,
    suffix_of,
)
from dlassets.labeling.page_answers import PAGE
from dlassets.labeling.refusal_files import SUFFIX, is_refusal_file, write_refusals
from dlassets.labeling.services import NOTHING_KNOWN, Answer, Batch, Known, LabelingService, Refusal, Standing
from dlassets.lakehouse.tables import FOLDER
from dlassets.storage.files import open_regular, write_where_changed, write_whole
from dlassets.storage.lines import ended_lines
from dlassets.storage.records import READERS, as_text

# The class folders that were made, in the folder of answers.
_CLASSES = ".classes"
# Seconds after which nobody is writing a batch any more that has not come to its place.
_LONGEST_WRITING = 86_400

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FolderService(LabelingService):
    """`<requests>/<batch>/` holds what is asked, `<answers>/` what was answered, in class folders or in files.

    A list that was filled in where it lay, among the requests, is an answer as well.

    A batch is written beside its place and then renamed to it, so where it stands it is whole; what joins it later is
    moved into it, photo by photo. It stays as people leave it: a photo they have moved does not come back. Links are
    not followed.
    """

    name = FOLDER

    def __init__(self, requests: Path, answers: Path) -> None:
        self._requests = requests
        self._answers = answers

    def send(self, batch: Batch, photos: Iterable[tuple[str, bytes]]) -> dict[str, str]:
        refuse_unplain(batch)
        try:
            self._make_class_folders(batch.classes)
            self._lay_out(batch, photos)
            self._clean(batch)
        except OSError as error:
            raise DlassetsError(
                f"The labelling batch {batch.id} could not be written to {self._requests}: {error}. Check that the "
                "place is there, has room and is yours to write, then run again: nothing is sent twice."
            ) from error
        return {request.request_id: f"{batch.id}/{request.request_id}" for request in batch.requests}

    def each_answer(self, known: Known = NOTHING_KNOWN) -> Iterator[Answer]:  # noqa: ARG002 - files say all of it again
        for path in self._files():
            yield from self._read(Path(path))

    def answers_digest(self) -> str:
        states = [(os.fsencode(path), _state(path)) for path in self._files()]
        return hashlib.sha256(repr(states).encode()).hexdigest()[:16] if states else ""

    def photos(self, among: Collection[str] | None = None) -> set[str]:  # noqa: ARG002 - a look finds all
        return {
            path.stem for root in (self._requests, self._answers) for path in root.glob("[!.]*/*") if is_photo(path)
        }

    def show_refusals(self, refusals: Sequence[Refusal]) -> None:
        try:
            write_refusals(self._answers, refusals, filter(is_refusal_file, map(Path, self._walk())))
        except OSError as error:
            raise DlassetsError(
                f"People are not told which of their answers are refused: {error}. Make {self._answers} yours to write."
            ) from error

    def show_standing(self, batches: Iterable[tuple[str, Sequence[Standing]]], state: str) -> None:
        record = self._requests / SHOWN
        if not self._requests.is_dir() or (record.is_file() and record.read_text(errors="replace") == state):
            return
        errors = []
        for batch_id, standings in batches:
            folder = self._requests / batch_id
            if not is_plain(batch_id) or folder.is_symlink() or not folder.is_dir():
                continue  # people have taken it away
            try:
                show_batch(folder, batch_id, standings)
            except OSError as error:
                errors.append(error)
        if errors:
            raise DlassetsError(
                f"{len(errors)} labelling batches do not show what was answered: {errors[0]}. Make {self._requests} "
                "yours to write."
            ) from errors[0]
        write_whole(record, state)

    def show_classes(self, classes: Mapping[int, str]) -> None:
        if not self._requests.is_dir():  # nobody is asked here
            return
        try:
            for batch in self._requests.glob("[!.]*"):
                if not batch.is_symlink() and (batch / HOW_TO).is_file():
                    write_where_changed(batch / HOW_TO, self._how_to(classes, batch))
            self._make_class_folders(classes)
        except OSError as error:
            raise DlassetsError(
                f"People are not shown the classes of now: {error}. Make {self._requests} and {self._answers} yours to "
                "write."
            ) from error

    def _how_to(self, classes: Mapping[int, str], batch: Path) -> bytes:
        return how_to_answer(classes, os.path.relpath(self._answers, batch)).encode()

    def _make_class_folders(self, classes: Mapping[int, str]) -> None:
        """Make a folder for every class, and remove those that were made here for what is none any more, and are empty.

        What lies in one of these is an answer still.
        """
        record, folders = self._answers / _CLASSES, _folders(classes)
        for name in folders:
            (self._answers / name).mkdir(parents=True, exist_ok=True)
        made = _lines(record) if record.is_file() else []
        for name in set(made) - set(folders):
            with suppress(OSError):  # it is in use, or gone
                (self._answers / Path(name).name).rmdir()
        write_where_changed(record, "".join(f"{name}\n" for name in folders).encode())

    def _lay_out(self, batch: Batch, photos: Iterable[tuple[str, bytes]]) -> None:
        folder = self._requests / batch.id
        wanted = {request.request_id for request in batch.requests}
        if folder.exists() and not (wanted := wanted - self.photos()):
            return
        unfinished = folder.with_name(f"{_unfinished(batch)}{uuid.uuid4().hex}")
        try:
            unfinished.mkdir(parents=True)
            files = write_photos(unfinished, wanted, photos)
            if missing := sorted(wanted - files.keys()):
                raise DlassetsError(
                    f"{len(missing)} photos of the labelling batch {batch.id} are missing: {missing[:5]}."
                )
            show_batch(unfinished, batch.id, [Standing(request) for request in batch.requests])
            (unfinished / HOW_TO).write_bytes(self._how_to(batch.classes, folder))
            self._bring(unfinished, folder, files)
        except OSError:
            if wanted - self.photos():  # else another run was first
                raise

    def _bring(self, unfinished: Path, folder: Path, files: Mapping[str, str]) -> None:
        """Bring what was laid out to its place; into a batch that is there, the photos that people do not have yet."""
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            (unfinished / HOW_TO).replace(folder / HOW_TO)
            shown = self.photos()
            for request_id, name in files.items():
                if request_id not in shown:
                    (unfinished / name).rename(folder / name)

    def _clean(self, batch: Batch) -> None:
        """Remove what runs have left that were killed, or overtaken by this one; not what another is writing now."""
        for unfinished in self._requests.glob(f".{batch.id}.*"):
            with suppress(OSError):
                is_same = unfinished.name.startswith(_unfinished(batch))
                if is_same or time.time() - unfinished.stat().st_mtime > _LONGEST_WRITING:
                    shutil.rmtree(unfinished)

    def _files(self) -> Iterator[str]:
        """Every file under the answers that people have put there, and every link; then lists filled in where they lay.

        In a stable order; as text, since a sensor goes through 10,000 of them each half minute.
        """
        yield from (path for path in self._walk() if not path.endswith(SUFFIX) or not is_refusal_file(Path(path)))
        for folder in sorted(self._requests.glob("[!.]*")):
            if not folder.is_symlink():
                yield from map(str, touched_lists(folder))

    def _walk(self) -> Iterator[str]:
        for folder, subfolders, names in os.walk(self._answers, onerror=_raise_unless_gone):
            links = [name for name in subfolders if Path(folder, name).is_symlink()]
            subfolders[:] = sorted(name for name in subfolders if not LEFT_ALONE.fullmatch(name))
            yield from (f"{folder}{os.sep}{name}" for name in sorted(names + links) if not LEFT_ALONE.fullmatch(name))

    def _read(self, path: Path) -> Iterator[Answer]:
        origin = as_text(self._within(path))
        try:
            status = path.lstat()
            seen_at = _time(status.st_ctime_ns)
            if not stat.S_ISREG(status.st_mode):
                message = "is no plain file, and links are not followed: put the file itself there"
                yield replace(problem(origin, message, _time(status.st_mtime_ns)), seen_at=seen_at)
            elif path.suffix.lower() in READERS:
                with open_regular(path) as file:
                    chunks: Iterable[bytes] = iter(lambda: file.read(READ_BYTES), b"")
                    if path.parent == self._answers / PAGE:  # a server may be adding to it
                        chunks = ended_lines(chunks)
                    answers = read_answers(chunks, path.suffix.lower(), origin, _time(status.st_mtime_ns))
                    yield from (replace(answer, seen_at=seen_at) for answer in answers)
            else:
                yield self._moved_photo(path, origin, status)
        except FileNotFoundError:  # moved on while we looked: the next look finds it
            return
        except OSError as error:
            yield problem(origin, f"cannot be read: {error.strerror}", _EPOCH)

    def _within(self, path: Path) -> str:
        """Return where a file lies, seen from the answers: for 10,000 photos, in a tenth of the time of `relpath`."""
        name, root = str(path), f"{self._answers}{os.sep}"
        return name[len(root) :] if name.startswith(root) else os.path.relpath(path, self._answers)

    def _moved_photo(self, path: Path, origin: str, status: os.stat_result) -> Answer:
        # Moving a photo leaves its modification time (when it was sent) as it is: the move itself is the change time.
        moved_at = _time(status.st_ctime_ns)
        if not is_photo(path):
            return problem(origin, "is neither a photo nor a CSV, JSON or JSONL file", moved_at)
        if path.parent == self._answers:
            return problem(origin, "lies in no class folder: move it into one", moved_at)
        return Answer(
            as_text(path.stem),
            as_text(path.parent.name),
            None,
            moved_at,
            origin,
            dated=False,
            file=origin,
            seen_at=moved_at,
            service=self.name,
        )


def _folders(classes: Mapping[int, str]) -> list[str]:
    return [class_folder(label, name) for label, name in sorted(classes.items())]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()


def _unfinished(batch: Batch) -> str:
    """Return what the names of folders begin with in which these requests, and no others, are laid out."""
    ids = sorted(request.request_id for request in batch.requests)
    return f".{batch.id}.{hashlib.sha256(repr(ids).encode()).hexdigest()[:8]}."


def write_photos(folder: Path, wanted: Collection[str], photos: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    """Write the wanted photos; return the name of each one's file, by request id."""
    files = {}
    for request_id, photo in photos:
        if request_id in wanted:
            shown = viewable(photo)
            files[request_id] = request_id + suffix_of(shown)
            (folder / files[request_id]).write_bytes(shown)
    return files


def _state(path: str) -> tuple[int, ...]:
    """Return size and times of a file, that of its last move among them; or why they are not to be had."""
    try:
        status = os.lstat(path)
    except OSError as error:
        return (error.errno or 0,)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _time(nanoseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise DlassetsError(f"The answers cannot be listed: {error}. Make the folder readable.") from error
