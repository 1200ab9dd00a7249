"""Ends an ingest at a step of its way: steps are wrapped, and one of them calls `kill` the n-th time."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from dlassets.engines.base import Engine
from dlassets.intake import arrival, ingest
from dlassets.intake.events import Manifest
from dlassets.storage import files
from dlassets.storage.local_files import encode_path

Kill = Callable[[], None]

TABLES = ("raw_images", "quarantined_files", "deleted_files")
COMMITS = tuple(f"{when} the commit to {table}" for table in TABLES for when in ("before", "after"))
# Data files written, log not: by hiding the log from the writer.
WITHIN = tuple(f"within the commit to {table}" for table in TABLES)
STEPS = (
    "a zone listed",
    "a file read",
    "in the kernel",
    *COMMITS,
    *WITHIN,
    "before a rename",  # of the state of events, or of a photo kept as a file
    "before the state of events",
    "after the state of events",
)
# What happens in the process that calls `ingest`, whatever the engine.
DRIVER_STEPS = tuple(step for step in STEPS if step not in {"a file read", "in the kernel", *WITHIN})


class Killed(BaseException):
    """The process would be dead."""


class Death:
    """Kills in process. Whatever catches it, and goes on, dies at its next step."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self) -> None:
        self.came = True
        raise Killed


@contextmanager
def modes_hold() -> Iterator[None]:
    """Have a file that nobody may read be refused to the superuser as well, whom tests often are."""
    real = files._read_into

    def read_into(view: memoryview, filesystem: Any, path: str) -> int:
        if not Path(os.fsdecode(encode_path(path))).stat().st_mode & 0o444:
            raise PermissionError(13, "Permission denied", path)
        return real(view, filesystem, path)

    with mock.patch.object(files, "_read_into", read_into):
        yield


@contextmanager
def killed_at(engine: Engine, step: str, nth: int, kill: Kill | None = None) -> Iterator[Death]:
    """Have whatever runs on `engine` in here die, or call `kill`, when it reaches `step` for the n-th time."""
    death, due = Death(), _nth(nth)

    def reached(now: str) -> None:
        if death.came or (now == step and due()):
            (kill or death)()

    with ExitStack() as patched:
        patched.enter_context(_steps_told(engine, reached))
        if step in WITHIN:
            patched.enter_context(_log_hidden(step.rsplit(maxsplit=1)[-1], due, kill or death))
        yield death


@contextmanager
def at_step(engine: Engine, steps: dict[str, Kill]) -> Iterator[None]:
    """Have each of these steps, whenever it is reached, call what is given for it; not those of WITHIN."""
    with _steps_told(engine, lambda step: steps.get(step, lambda: None)()):
        yield


@contextmanager
def _steps_told(engine: Engine, reached: Callable[[str], None]) -> Iterator[None]:
    with ExitStack() as patched:

        def patch(owner: Any, name: str, before: str = "", after: str = "") -> None:
            real = getattr(owner, name)

            @functools.wraps(real)
            def wrapped(*args: Any, **options: Any) -> Any:
                reached(before)
                result = real(*args, **options)
                reached(after)
                return result

            patched.enter_context(mock.patch.object(owner, name, wrapped))

        patch(ingest, "list_files", after="a zone listed")
        patch(ingest, "stat_files", after="a zone listed")
        patch(files, "_read_into", before="a file read")
        patch(arrival, "validate_files", before="in the kernel")
        patch(Manifest, "advance", "before the state of events", "after the state of events")
        patch(os, "replace", before="before a rename")
        for write in ("append", "replace", "merge"):
            patched.enter_context(mock.patch.object(engine, write, _commits(getattr(engine, write), reached)))
        yield


def _nth(nth: int) -> Callable[[], bool]:
    """Return what is true when called for the n-th time."""
    times = itertools.count(1)  # of which no two threads get the same number
    return lambda: next(times) == nth


def _commits(write: Callable[..., Any], reached: Callable[[str], None]) -> Callable[..., Any]:
    def wrapped(rows: Any, table: Any, *args: Any, **options: Any) -> Any:
        reached(f"before the commit to {table.name}")
        written = write(rows, table, *args, **options)
        if written.changed:
            reached(f"after the commit to {table.name}")
        return written

    return wrapped


@contextmanager
def _log_hidden(table: str, due: Callable[[], bool], kill: Kill) -> Iterator[None]:
    """Have delta-rs write a table's data files and then fail to commit them: the way a killed write ends."""
    import deltalake
    import pyarrow as pa
    from deltalake.table import TableMerger

    write, execute = deltalake.write_deltalake, TableMerger.execute

    def writing(delta: Any, data: Any, **options: Any) -> None:
        folder = Path(delta.table_uri.removeprefix("file://"))
        if folder.name != table or not due():
            return write(delta, data, **options)
        hidden = _Hidden(folder / "_delta_log")

        def batches() -> Iterator[pa.RecordBatch]:
            yield from data
            hidden.hide()

        reader = pa.RecordBatchReader.from_batches(data.schema, batches())
        hidden.fail(lambda: write(delta, reader, **options))
        return kill()

    def merging(merger: Any) -> Any:
        folder = Path(merger._table.table_uri().removeprefix("file://"))
        if folder.name != table or not due():
            return execute(merger)
        hidden = _Hidden(folder / "_delta_log")
        hidden.hide()
        hidden.fail(lambda: execute(merger))
        return kill()

    with mock.patch.object(deltalake, "write_deltalake", writing), mock.patch.object(TableMerger, "execute", merging):
        yield


class _Hidden:
    """A table's log, and a file in its place while it is hidden."""

    def __init__(self, log: Path) -> None:
        self._log, self._away = log, log.with_name("_hidden_log")

    def hide(self) -> None:
        self._log.rename(self._away)
        self._log.touch()

    def fail(self, write: Callable[[], Any]) -> None:
        """Run a write that must fail, and put the log back."""
        try:
            write()
        except Exception:
            if not self._away.exists():
                raise
        else:
            raise AssertionError(f"{self._log} was hidden, and yet written to")
        finally:
            if self._away.exists():
                self._log.unlink()
                self._away.rename(self._log)
