"""A training's curves as TensorBoard reads them: a file of events in a folder, without TensorFlow or torch."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dlassets.learning.training.job import Event, OnEvent

# As MLflow shows them: a step's beside an epoch's.
_STEP = "step/"


@contextmanager
def curves(folder: Path) -> Iterator[OnEvent]:
    """Give what writes the metrics of each step and epoch into a folder that is made. Raises OSError where it cannot.

    A curve has a value at each step or epoch, counted from 0; they are seen as soon as an epoch has ended.
    """
    from tensorboard.compat.proto.event_pb2 import Event as Record
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder.mkdir(parents=True, exist_ok=True)
    name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
    with (folder / name).open("wb") as file:
        writer = RecordWriter(file)
        writer.write(Record(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())

        def write(event: Event) -> None:
            prefix = _STEP if event.kind == "step" else ""
            values = [Summary.Value(tag=prefix + name, simple_value=value) for name, value in event.metrics.items()]
            record = Record(wall_time=time.time(), step=event.number - 1, summary=Summary(value=values))
            writer.write(record.SerializeToString())
            if event.kind == "epoch":
                file.flush()

        yield write
