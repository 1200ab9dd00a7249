"""What the processes of one training and whoever started them let each other know: through files of one folder.

A folder is what a process on another machine reaches as well, a path or URI. Nothing in it is pickled, and each file
is there whole or not at all.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from dlassets.errors import DlassetsError, error_from, record_of
from dlassets.learning.training.job import Event, Job, OnEvent, Trained
from dlassets.storage.files import listed, read_bytes, write_whole
from dlassets.storage.junk import is_hidden
from dlassets.storage.stores import filesystem_of

# Events of so many seconds go into one file: a step may take a thousandth of one.
TOGETHER = 0.2

_log = logging.getLogger(__name__)

_JOB, _FAILURE, _EVENTS, _STARTS, _RESULT = "job.json", "failure.json", "events", "starts", "trained"


class Exchange:
    """As long as the job is in the folder, the training is wanted: its processes look, and end where it is gone."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._files, self._path = filesystem_of(folder)
        self._files_read = 0  # of events

    # ---- for whoever starts the training

    def open(self, job: Job) -> None:
        for name in (_EVENTS, _STARTS):
            self._files.create_dir(f"{self._path}/{name}", recursive=True)
        self._put(_JOB, job.to_json())

    def stop(self) -> None:
        """Have all processes end soon, wherever they are."""
        if self.is_wanted:
            self._files.delete_file(f"{self._path}/{_JOB}")

    def delete(self) -> None:
        self._files.delete_dir(self._path)

    def events(self) -> Iterator[Event]:
        """Yield what rank 0 has reported since the last call."""
        while (lines := self._get(_events(self._files_read))) is not None:
            self._files_read += 1
            for line in lines.splitlines():
                yield Event(**json.loads(line))

    def raise_failure(self) -> None:
        """Raise the error that a process ended with, if any wrote one down: see `error_from`."""
        if (text := self._get(_FAILURE)) is not None:
            raise error_from(json.loads(text))

    @property
    def has_failed(self) -> bool:
        return self._has(_FAILURE)

    @property
    def starts(self) -> int:
        """How often rank 0 has begun."""
        return len(self._names(_STARTS))

    def trained(self) -> Trained | None:
        try:
            return Trained.load(f"{self.folder}/{_RESULT}")
        except FileNotFoundError:
            return None

    # ---- for the training's processes

    def job(self) -> Job:
        """Raises DlassetsError where this process does not see what the one that started it wrote."""
        if (text := self._get(_JOB)) is None:
            raise DlassetsError(
                f"A process of this training finds no {_JOB} in {self.folder}. Put the lake where every machine that "
                "trains reaches it by the same path or URI (DLASSETS_ROOT), or set training.compute.processes to 1."
            )
        return Job.from_json(text)

    @property
    def is_wanted(self) -> bool:
        return self._has(_JOB)

    def begin(self) -> int:
        """Note that rank 0 begins; return how often it has."""
        number = self.starts + 1
        self._put(f"{_STARTS}/{number}", "")
        return number

    def fail(self, error: Exception) -> None:
        """Have whoever started the training raise this error."""
        self._put(_FAILURE, json.dumps(record_of(error)))

    def finish(self, trained: Trained) -> None:
        trained.save(f"{self.folder}/{_RESULT}")

    @contextmanager
    def reporting(self) -> Iterator[OnEvent]:
        """Give what takes rank 0's events. They are written by a thread: the training does not wait for storage."""
        waiting: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        writer = threading.Thread(target=self._write_events, args=(waiting,), daemon=True)
        writer.start()
        try:
            yield waiting.put
        finally:
            waiting.put(None)
            writer.join()

    def _write_events(self, waiting: queue.SimpleQueue[Event | None]) -> None:
        number = len(self._names(_EVENTS))
        done = threading.Event()  # set by none but to wait on
        while (event := waiting.get()) is not None:
            done.wait(TOGETHER)
            events = [event]
            while not waiting.empty():
                if (another := waiting.get()) is None:
                    waiting.put(None)
                    break
                events.append(another)
            try:
                self._put(_events(number), "".join(f"{json.dumps(asdict(event))}\n" for event in events))
            except OSError as error:  # of progress alone: what is learned does not hang on it
                _log.warning("Events of the training could not be written to %s: %s", self.folder, error)
            else:
                number += 1

    # ---- files

    def _has(self, name: str) -> bool:
        import pyarrow.fs as pafs

        return bool(self._files.get_file_info(f"{self._path}/{name}").type != pafs.FileType.NotFound)

    def _get(self, name: str) -> str | None:
        try:
            return read_bytes(self._files, f"{self._path}/{name}").decode()
        except FileNotFoundError:
            return None

    def _put(self, name: str, text: str) -> None:
        # Where whoever started the training has deleted the folder, a process that is late does not make it anew.
        write_whole(f"{self.folder}/{name}", text, make_folders=False)

    def _names(self, folder: str) -> list[str]:
        names = [info.base_name for info in listed(self._files, f"{self._path}/{folder}") if info.is_file]
        return [name for name in names if not is_hidden(name)]  # which is still being written


def _events(number: int) -> str:
    return f"{_EVENTS}/{number:09}.jsonl"
