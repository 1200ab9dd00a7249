"""Labelling by the objects of a bucket, laid out as the folders of `labeling.folder` are, for those who look there."""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from dlassets.errors import DlassetsError
from dlassets.images.decode import viewable
from dlassets.labeling.formats import (
    contact_sheet,
    how_to_answer,
    in_order,
    is_refusal_list,
    problem,
    read_answers,
    refusal_list,
    request_list,
)
from dlassets.labeling.layout import (
    HOW_TO,
    LEFT_ALONE,
    LIST,
    LISTS,
    READ_BYTES,
    SHEET,
    SHOWN,
    is_photo,
    is_plain,
    refuse_unplain,
    suffix_of,
)
from dlassets.labeling.refusal_files import SUFFIX
from dlassets.labeling.services import NOTHING_KNOWN, Answer, Batch, Known, LabelingService, Refusal, Request, Standing
from dlassets.lakehouse.tables import FOLDER, OPEN
from dlassets.storage.files import (
    files_under,
    is_there,
    move_file,
    opened,
    read_whole,
    remove_file,
    write_where_changed,
    write_whole,
)
from dlassets.storage.records import READERS, as_text
from dlassets.storage.stores import advice

if TYPE_CHECKING:
    import pyarrow.fs as pafs

# What a store says of when an object was written is to the second: so long may it be written again unseen.
_CLOCK_SECONDS = 2
_BEGINNING = 256
# Of a photo that people have: in its batch, or in the prefix of a class.
_DEPTH = 2


class BucketService(LabelingService):
    """`<requests>/<batch>/` holds what is asked, `<answers>/` what was answered, in class prefixes or in files.

    Every object is written whole and by a name that says what it is of, so what a killed run has left is completed by
    the next. Photos that people have moved stay where they are. There are no links here, and no file is open.
    """

    name = FOLDER

    def __init__(self, requests: str, answers: str) -> None:
        self._requests = requests
        self._answers = answers

    def send(self, batch: Batch, photos: Iterable[tuple[str, bytes]]) -> dict[str, str]:
        refuse_unplain(batch)
        folder = f"{self._requests}/{batch.id}"
        with _explained(f"The labelling batch {batch.id} could not be written", folder):
            wanted = {request.request_id for request in batch.requests} - self.photos()
            for request_id, photo in photos if wanted else ():
                if request_id in wanted:
                    shown = viewable(photo)
                    write_whole(f"{folder}/{request_id}{suffix_of(shown)}", shown)
                    wanted.remove(request_id)
            if wanted:
                raise DlassetsError(
                    f"{len(wanted)} photos of the labelling batch {batch.id} are missing: {sorted(wanted)[:5]}."
                )
            if not is_there(f"{folder}/{SHEET}"):
                self._show(batch.id, [Standing(request) for request in batch.requests])
            write_where_changed(f"{folder}/{HOW_TO}", how_to_answer(batch.classes, self._answers).encode())
        return {request.request_id: f"{batch.id}/{request.request_id}" for request in batch.requests}

    def photos(self, among: Collection[str] | None = None) -> set[str]:  # noqa: ARG002 - a look finds all
        places = (PurePosixPath(name) for root in (self._requests, self._answers) for name in files_under(root))
        return {place.stem for place in places if is_photo(place) and len(place.parts) == _DEPTH}

    def each_answer(self, known: Known = NOTHING_KNOWN) -> Iterator[Answer]:  # noqa: ARG002 - files say all of it again
        with _explained("The answers could not be read", self._answers):
            for location, origin, info in self._files():
                if not self._is_refusal_file(location):
                    yield from self._read(location, origin, info.mtime)

    def answers_digest(self) -> str:
        with _explained("The answers could not be listed", self._answers):
            states = [(origin, info.size, info.mtime_ns) for _, origin, info in self._files()]
        if not states:
            return ""
        newest = max(written for _, _, written in states) / 1e9
        may_change_unseen = datetime.now(UTC) if abs(time.time() - newest) < _CLOCK_SECONDS else None
        return hashlib.sha256(repr((states, may_change_unseen)).encode()).hexdigest()[:16]

    def show_refusals(self, refusals: Sequence[Refusal]) -> None:
        with _explained("People are not told which of their answers are refused", self._answers):
            there = files_under(self._answers)
            told = defaultdict(list)
            for refusal in refusals:
                is_list = refusal.file in there and PurePosixPath(refusal.file).suffix.lower() in READERS
                told[f"{refusal.file}." if is_list else ""].append(refusal)
            written = {self._tell(stem, about, there) for stem, about in told.items()}
            for name in there.keys() - written:
                if self._is_refusal_file(f"{self._answers}/{name}"):
                    remove_file(f"{self._answers}/{name}")

    def show_standing(self, batches: Iterable[tuple[str, Sequence[Standing]]], state: str) -> None:
        record = f"{self._requests}/{SHOWN}"
        with _explained("Labelling batches do not show what was answered", self._requests):
            if is_there(record) and read_whole(record).decode(errors="replace") == state:
                return
            for batch_id, standings in batches:
                if is_plain(batch_id) and files_under(f"{self._requests}/{batch_id}"):  # else people have taken it away
                    self._show(batch_id, standings)
            write_whole(record, state)

    def show_classes(self, classes: Mapping[int, str]) -> None:
        with _explained("People are not shown the classes of now", self._requests):
            for name in files_under(self._requests):
                if PurePosixPath(name).name == HOW_TO:
                    text = how_to_answer(classes, self._answers)
                    write_where_changed(f"{self._requests}/{name}", text.encode())

    def _show(self, batch_id: str, standings: Sequence[Standing]) -> None:
        """Bring a batch up to where its requests stand: what is closed is put aside last, for a killed run's sake."""
        folder = f"{self._requests}/{batch_id}"
        photos = {place.stem: place for place in map(PurePosixPath, files_under(folder)) if is_photo(place)}
        places = {}
        for standing in standings:
            if (photo := photos.get(standing.request.request_id)) is not None:
                aside = "" if standing.status == OPEN else f"{standing.status}/"
                places[standing.request.request_id] = f"{aside}{photo.name}"
        self._list(folder, [s.request for s in in_order(standings) if s.status == OPEN])
        write_where_changed(f"{folder}/{SHEET}", contact_sheet(batch_id, standings, places).encode())
        for request_id, place in places.items():
            if str(photos[request_id]) != place:
                move_file(f"{folder}/{photos[request_id]}", f"{folder}/{place}")

    def _list(self, folder: str, waiting: Sequence[Request]) -> None:
        """List what waits, unless a person has written into the list, which stays as an answer."""
        location = f"{folder}/{LIST}"
        if self._is_touched(location):
            return
        content = request_list(waiting)
        known = self._known_lists(folder) | {_digest(content)}
        write_where_changed(f"{folder}/{LISTS}", "".join(f"{digest}\n" for digest in sorted(known)).encode())
        write_where_changed(location, content)

    def _known_lists(self, folder: str) -> set[str]:
        record = f"{folder}/{LISTS}"
        return set(read_whole(record).decode().split()) if is_there(record) else set()

    def _is_touched(self, location: str) -> bool:
        """Whether a list is there that is not as it was written."""
        folder = location.rpartition("/")[0]
        return is_there(location) and _digest(read_whole(location)) not in self._known_lists(folder)

    def _files(self) -> Iterator[tuple[str, str, pafs.FileInfo]]:
        """Yield what people have put among the answers, then lists that they filled in where they lay.

        Each by where it lies, what people call that place, and what the store says of it; in a stable order.
        """
        for name, info in files_under(self._answers).items():
            if not any(map(LEFT_ALONE.fullmatch, name.split("/"))):
                yield f"{self._answers}/{name}", name, info
        for name, info in files_under(self._requests).items():
            location = f"{self._requests}/{name}"
            if PurePosixPath(name).name == LIST and self._is_touched(location):
                yield location, f"../requests/{name}", info

    def _read(self, location: str, origin: str, written_at: datetime) -> Iterator[Answer]:
        origin, place = as_text(origin), PurePosixPath(origin)
        written_at = written_at.astimezone(UTC)
        if place.suffix.lower() in READERS:
            try:
                with opened(location) as file:
                    chunks = iter(lambda: file.read(READ_BYTES), b"")
                    for answer in read_answers(chunks, place.suffix.lower(), origin, written_at):
                        yield replace(answer, seen_at=written_at)
            except FileNotFoundError:  # taken away while we looked
                return
        elif not is_photo(place):
            yield problem(origin, "is neither a photo nor a CSV, JSON or JSONL file", written_at)
        elif place.parent == PurePosixPath():
            yield problem(origin, "lies in no class folder: move it into one", written_at)
        else:
            name, folder = as_text(place.stem), as_text(place.parent.name)
            yield Answer(name, folder, None, written_at, origin, False, None, origin, written_at, service=self.name)

    def _is_refusal_file(self, location: str) -> bool:
        return location.endswith(SUFFIX) and is_refusal_list(_beginning(location))

    def _tell(self, stem: str, refusals: Sequence[Refusal], there: Collection[str]) -> str:
        """Write what is refused where no answer of a person's lies by that name; return the name."""
        names = (f"{stem}{'' if number == 1 else f'{number}.'}{SUFFIX}" for number in count(1))
        name = next(n for n in names if n not in there or self._is_refusal_file(f"{self._answers}/{n}"))
        write_where_changed(f"{self._answers}/{name}", refusal_list(refusals))
        return name


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _explained(what: str, place: str) -> Iterator[None]:
    """Say of an error of the store what it is that did not work. Raises DlassetsError."""
    try:
        yield
    except OSError as error:
        raise DlassetsError(f"{what}: {advice(place, error)} Nothing is sent twice, and no answer is lost.") from error


def _beginning(location: str) -> bytes:
    with opened(location) as file:
        return bytes(file.read(_BEGINNING))
