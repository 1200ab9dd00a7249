"""Requests as data: what was answered is written down on this machine before it is sent, and merged into a table.

Each server has a folder of its own, which it locks for as long as it lives, with numbered segments in it. A request is
one frame of a segment: its length, its checksum, its rows and its photos. A segment that is sealed no one writes any
more; one of a server that has died counts as sealed, and what a kill left of its last frame was never answered.

A segment is merged by one commit to `served_requests`, which names it: an application transaction of Delta, of which
a table takes each number of a folder once. So one that was committed by a run that was killed before it had deleted the
file is not committed again.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import io
import json
import logging
import os
import re
import struct
import threading
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from dlassets.engines.base import Commit, Engine, Transaction, Written
from dlassets.errors import DlassetsError, SettingsError
from dlassets.images import heif
from dlassets.images.kinds import SUFFIXES
from dlassets.lakehouse.snapshots import pin, replanned, transaction_version
from dlassets.lakehouse.tables import SERVED_REQUESTS
from dlassets.scoring.online import Served
from dlassets.settings import Settings
from dlassets.storage.files import is_there, sync_folder, write_whole
from dlassets.storage.lake import Lake, local_path
from dlassets.storage.stores import is_object_storage

if TYPE_CHECKING:
    import pyarrow as pa

MERGE_SECONDS = 30.0
# A segment ends there: one is in memory at once when it is merged.
SEGMENT_BYTES = 32 * 2**20

_FRAME = struct.Struct(">II")  # bytes that follow, and their CRC-32
_OPEN, _SEALED, _DAMAGED = ".open", ".segment", ".damaged"
_LOCK = "lock"
_log = logging.getLogger(__name__)


def log_folder(settings: Settings) -> Path:
    """Return where requests are written down. Raises SettingsError where that is no folder of this machine."""
    try:
        return local_path(settings.serving.log_folder or Lake.at(settings.root).under("serving", "ahead"))
    except SettingsError as error:
        raise SettingsError(
            "Requests are written down on this machine first: set serving.log_folder to a local folder, since the lake "
            f"is no folder ({settings.root})."
        ) from error


class RequestLog:
    """A listener of the server that writes down what it is given, and merges it now and then. Safe in many threads.

    What it has returned from is on the disk: neither a kill nor a power cut loses it, until it is merged and as safe as
    the lake's tables are. Requests that come together share one call of fdatasync.
    """

    def __init__(self, settings: Settings, merge_seconds: float = MERGE_SECONDS) -> None:
        self._settings = settings
        self._serving = settings.serving
        if self._serving.label_below is not None:
            _zone_for_people(settings)
        self._folder, self._lock = _own_folder(log_folder(settings))
        self._writing, self._syncing = threading.Lock(), threading.Lock()
        self._segment: _Segment | None = None
        self._number, self._written, self._synced = 0, 0, 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._merge_now_and_then, args=(merge_seconds,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, served: Sequence[Served]) -> None:
        """Write the answers of one request down. Raises DlassetsError where the disk does not take them."""
        frame = _frame(served, log_bytes=self._serving.log_bytes, label_below=self._serving.label_below)
        try:
            with self._writing:
                self._open_segment().write(frame)
                self._written += 1
                number = self._written
            self._sync(number)
        except OSError as error:
            raise DlassetsError(f"Requests cannot be written down in {self._folder}: {error}") from error

    def merge(self) -> Written:
        """Merge what has been written down so far: as the thread does by itself."""
        from dlassets.engines.local import LocalEngine  # whichever the lake's is: no server starts a Spark

        self._seal()
        return merge_served(LocalEngine(), self._settings, {"asset": SERVED_REQUESTS.name})

    def close(self) -> None:
        """Merge what is left, and leave. What cannot be merged now is merged by the next who merges."""
        self._closing.set()
        self._thread.join()
        self._seal()
        self._lock.close()
        self._try_to_merge()

    def _merge_now_and_then(self, seconds: float) -> None:
        while not self._closing.wait(seconds):
            self._try_to_merge()

    def _try_to_merge(self) -> None:
        try:
            self.merge()
        except Exception:  # noqa: BLE001 - whatever it is: what is written down waits, and requests go on
            _log.exception("Requests that are written down in %s are not merged yet.", self._folder)

    def _open_segment(self) -> _Segment:
        if self._segment is not None and self._segment.size >= SEGMENT_BYTES:
            self._seal_segment()
        if self._segment is None:
            self._segment = _Segment(self._folder / f"{self._number:08}{_OPEN}")
            self._number += 1
        return self._segment

    def _sync(self, number: int) -> None:
        """Have the disk keep the frames up to this one; those of others that wait meanwhile are kept with them."""
        with self._syncing:
            if self._synced >= number:
                return
            with self._writing:
                segment, written = self._segment, self._written
                if self._synced >= number:  # it was sealed meanwhile
                    return
                if segment is None:
                    raise OSError("a segment could not be sealed")
                file = os.dup(segment.descriptor)
            try:
                os.fdatasync(file)
            finally:
                os.close(file)
            with self._writing:
                self._synced = max(self._synced, written)  # a segment that was sealed meanwhile has more

    def _seal(self) -> None:
        with self._writing:
            if self._segment is not None:
                self._seal_segment()

    def _seal_segment(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.seal()
            self._synced = self._written


class _Segment:
    """A file that frames are added to, whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, 0
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        sync_folder(path.parent)

    def write(self, frame: bytes) -> None:
        try:
            view = memoryview(frame)
            while view:
                view = view[os.write(self.descriptor, view) :]
        except BaseException:
            # The next frame must not stand behind a part of this one: where that cannot be taken off, in another file.
            whole, self.size = self.size, SEGMENT_BYTES
            os.ftruncate(self.descriptor, whole)
            self.size = whole
            raise
        self.size += len(frame)

    def seal(self) -> None:
        try:
            os.fsync(self.descriptor)
        finally:
            os.close(self.descriptor)
        self.path.rename(self.path.with_suffix(_SEALED))


def merge_served(engine: Engine, settings: Settings, provenance: Mapping[str, Any]) -> Written:
    """Merge every sealed segment on this machine into `served_requests`, each once, and delete it.

    Photos that people are to be asked about are put into the landing zone before. Servers and runs that merge at the
    same time wait for each other. Nothing to merge, no new version.
    """
    lake = Lake.at(settings.root)
    written = Written(pin(lake, SERVED_REQUESTS.name).version, changed=False)
    if settings.serving.log_folder is None and is_object_storage(lake.root):
        return written  # no server can have written anything down
    folder = log_folder(settings)
    if not folder.is_dir():
        return written
    with _locked(folder / _LOCK, wait=True):
        for server in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
            for segment in _segments(server):
                written = written.and_then(_merge_segment(engine, settings, segment, provenance))
    return written


def _segments(server: Path) -> Iterator[Path]:
    """Yield the sealed segments of a server in their order; of one that has died all are, and its folder goes then."""
    with _locked(server / _LOCK, wait=False) as has_died:
        kinds = {_SEALED, *([_OPEN] if has_died else [])}
        yield from sorted(path for path in server.iterdir() if path.suffix in kinds)
        if has_died and {path.name for path in server.iterdir()} <= {_LOCK}:
            (server / _LOCK).unlink(missing_ok=True)
            server.rmdir()


def _merge_segment(engine: Engine, settings: Settings, segment: Path, provenance: Mapping[str, Any]) -> Written:
    lake, number = Lake.at(settings.root), int(segment.stem)
    app_id = f"dlassets/{SERVED_REQUESTS.name}/{segment.parent.name}"
    requests = _Requests.read(segment)

    def append() -> Written:
        table = pin(lake, SERVED_REQUESTS.name)
        if transaction_version(table, app_id) >= number:  # by a run that was killed before it deleted the file
            return Written(table.version, changed=False)
        commit = Commit(provenance, Transaction(app_id, number))
        return engine.append(engine.rows(requests.table), SERVED_REQUESTS, table.uri, commit)

    for image_id, (day, content) in requests.for_people.items():
        _give_to_people(settings, image_id, day, content)
    written = replanned(append)
    if requests.left_over and segment.suffix == _SEALED:
        kept = segment.with_suffix(_DAMAGED)
        _log.warning("%d bytes at the end of %s are damaged; all before them is merged.", requests.left_over, kept)
        segment.rename(kept)
    else:
        segment.unlink()
    return written


@dataclass(frozen=True)
class _Requests:
    """`for_people` are photos by image_id, with the day that they came; `left_over` is what of the file is no frame."""

    rows: list[dict[str, Any]]
    for_people: dict[str, tuple[dt.date, bytes]]
    left_over: int

    @property
    def table(self) -> pa.Table:
        import pyarrow as pa

        return pa.Table.from_pylist(self.rows, schema=SERVED_REQUESTS.schema)

    @classmethod
    def read(cls, segment: Path) -> _Requests:
        rows, for_people, whole = [], {}, 0
        with segment.open("rb") as file:
            for frame in _frames(file):
                whole = file.tell()
                described, _, photos = frame.partition(b"\n")
                for row in json.loads(described):
                    size, is_kept, is_for_people = (row.pop(name) for name in ("size", "is_kept", "is_for_people"))
                    content, photos = photos[:size], photos[size:]
                    received_at = dt.datetime.fromisoformat(row["received_at"])
                    moment = {"received_at": received_at, "received_on": received_at.date()}
                    rows.append({**row, **moment, "content": content if is_kept else None})
                    if is_for_people:
                        for_people[row["image_id"]] = (received_at.date(), content)
        return cls(rows, for_people, segment.stat().st_size - whole)


def _frame(served: Sequence[Served], *, log_bytes: bool, label_below: float | None) -> bytes:
    """Return a request as it is written down: a line of JSON, a row an answer, and the bytes of the photos behind."""
    rows, photos = [], []
    for each in served:
        has_photo = each.role == "champion" and each.content is not None
        is_kept = has_photo and log_bytes
        is_for_people = has_photo and label_below is not None and each.answer["confidence"] < label_below
        content = each.content if each.content is not None and (is_kept or is_for_people) else b""
        photos.append(content)
        rows.append(
            {
                "request_id": each.request_id,
                "model_name": each.model.name,
                "model_version": each.model.version,
                "package": each.model.package,
                "role": each.role,
                "received_at": each.received_at.astimezone(dt.UTC).isoformat(),
                "form": each.form,
                "image_id": each.image_id,
                "predicted_label": each.answer["label"],
                "predicted_name": each.answer["name"],
                **{name: each.answer[name] for name in ("confidence", "margin", "top_k")},
                "seconds": each.seconds,
                "size": len(content),
                "is_kept": is_kept,
                "is_for_people": is_for_people,
            }
        )
    payload = b"\n".join((json.dumps(rows).encode(), b"".join(photos)))
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def _frames(file: BinaryIO) -> Iterator[bytes]:
    """Yield the frames of a segment up to the first that is not whole."""
    while len(head := file.read(_FRAME.size)) == _FRAME.size:
        length, checksum = _FRAME.unpack(head)
        payload = file.read(length)
        if len(payload) < length or zlib.crc32(payload) != checksum:
            return
        yield payload


def _zone_for_people(settings: Settings) -> str:
    """Return where photos are put for people to label. Raises SettingsError where no landing zone takes them."""
    for zone in settings.landing.values():
        if not zone.labelled and re.search(zone.pattern, _place_for_people("0" * 64, dt.date(2026, 1, 1), ".jpg")):
            return Lake.at(settings.root).zone(zone.uri)
    raise SettingsError(
        "serving.label_below needs a landing zone for photos without a label (labelled: false) whose pattern takes "
        f"files such as {_place_for_people('…', dt.date(2026, 1, 1), '.jpg')}."
    )


def _place_for_people(image_id: str, day: dt.date, suffix: str) -> str:
    return f"served/{day}/{image_id}{suffix}"


def _give_to_people(settings: Settings, image_id: str, day: dt.date, content: bytes) -> None:
    """Put a photo into the landing zone, from where it goes as every other: taken in, scored, and asked about."""
    place = f"{_zone_for_people(settings)}/{_place_for_people(image_id, day, _suffix(content))}"
    if not is_there(place):  # one that is written again would be a changed file
        write_whole(place, content)


def _suffix(content: bytes) -> str:
    from PIL import Image

    with suppress(OSError):
        format_ = heif.format_of(content) or Image.open(io.BytesIO(content)).format
        return next((suffix for suffix, name in SUFFIXES.items() if name == format_), "")
    return ""


def _own_folder(folder: Path) -> tuple[Path, BinaryIO]:
    """Make a folder for this server, and lock it: it has its lock when it gets its name, by which others find it.

    One that is killed before that leaves an empty folder whose name begins with a dot.
    """
    name = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:12]}"
    unnamed, named = folder / f".{name}", folder / name
    try:
        unnamed.mkdir(parents=True)
        lock = (unnamed / _LOCK).open("wb")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unnamed.rename(named)
        sync_folder(folder)
    except OSError as error:
        raise DlassetsError(f"Requests cannot be written down in {folder}: {error}") from error
    return named, lock


@contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock, which a killed process gives up. Without `wait`, whether it could be had is what it gives."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
