"""A training's curves as TensorBoard reads them: a file of events in a folder, without TensorFlow or torch."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from dlassets.learning.training.job import Event, OnEvent
from dlassets.storage.files import write_whole
from dlassets.storage.lake import local_path
from dlassets.storage.stores import is_object_storage

# As MLflow shows them: a step's beside an epoch's.
_STEP = "step/"


@contextmanager
def curves(folder: str) -> Iterator[OnEvent]:
    """Give what writes the metrics of each step and epoch into a folder, a path or URI. Raises OSError where it cannot.

    A curve has a value at each step or epoch, counted from 0; they are seen as soon as an epoch has ended.
    """
    from tensorboard.compat.proto.event_pb2 import Event as Record
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
    with _written_to(f"{folder}/{name}") as (file, show):
        writer = RecordWriter(file)
        writer.write(Record(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())

        def write(event: Event) -> None:
            prefix = _STEP if event.kind == "step" else ""
            values = [Summary.Value(tag=prefix + name, simple_value=value) for name, value in event.metrics.items()]
            record = Record(wall_time=time.time(), step=event.number - 1, summary=Summary(value=values))
            writer.write(record.SerializeToString())
            if event.kind == "epoch":
                show()

        yield write


@contextmanager
def _written_to(location: str) -> Iterator[tuple[BinaryIO, Callable[[], None]]]:
    """Give a file to write to, and what has others see what was written until then, as the end does."""
    if is_object_storage(location):
        buffer = io.BytesIO()  # an object cannot be added to: it is written anew, of which a training has few

        def show() -> None:
            write_whole(location, buffer.getvalue())

        yield buffer, show
        show()
        return
    path = local_path(location)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        yield file, file.flush
