"""A call in a process of its own, which ends with who called, or when its time is over.

The process is a new Python: nothing of the caller's, a JVM or a GPU's memory, is in it, and nothing of it stays. What
it reports comes back while it goes on, and so does its result or its error. It is `python -m
dlassets.pipeline.own_process`, with the descriptor of its end of the connection as its argument.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from dlassets.engines.child_processes import python_path
from dlassets.errors import ProcessFailedError, error_from, record_of
from dlassets.masking import learn, learn_variables
from dlassets.pipeline.report import Report

if TYPE_CHECKING:
    from dlassets.learning.training.job import Event


# A process has so long to end by itself.
PATIENCE_SECONDS = 10


class TimedOutError(Exception):
    """The time was over before the call was done; its process is gone."""


@dataclass(frozen=True)
class Call:
    """`function`, of a module that every process can import, is given `arguments` and then a Report.

    Arguments and result are pickled. `secret` is what must be masked there too.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    secret: object = None

    def run(self, report: Report, seconds: float | None = None) -> Any:
        """Return what the function returns; `report` is called in this thread.

        Raises TimedOutError where that takes longer than `seconds`, the function's DlassetsError, and
        ProcessFailedError for what else it raised or where its process was killed.
        """
        until = None if seconds is None else time.monotonic() + seconds
        here, process = self._start()
        try:
            here.send_bytes(pickle.dumps((self.secret, self.function, self.arguments)))
            while True:
                if not here.poll(None if until is None else max(0.0, until - time.monotonic())):
                    raise TimedOutError
                kind, *said = here.recv()
                if kind == "returned":
                    _let_end(process)
                    return said[0]
                if kind == "raised":
                    raise error_from(*said)
                getattr(report, kind)(*said)
        except (EOFError, ConnectionError) as error:
            raise ProcessFailedError(_how_it_ended(process.wait())) from error
        finally:
            _end(process)
            here.close()

    def _start(self) -> tuple[Connection, subprocess.Popen[bytes]]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": python_path(), **self.environment},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for this process: what then becomes of the other it says itself
            )
            return Connection(ours.detach()), process


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"The step's process ended in the middle, with exit code {code}. Its output says why."
    return (
        f"The step's process was killed in the middle ({signal.Signals(-code).name}): most often because the machine "
        "had no memory left. Its output may say why."
    )


def _let_end(process: subprocess.Popen[bytes]) -> None:
    """Wait a little for a process that has done its work: it gives back what it holds of a cluster."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE_SECONDS)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process, unless it has, and what it has started in its session: a JVM deletes its files first."""
    until = time.monotonic() + PATIENCE_SECONDS
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < until:
            process.poll()  # or it would be there for ever
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _Sent(Report):
    """Sends everything to who called."""

    def __init__(self, there: Connection) -> None:
        self._there = there
        self._sending = threading.Lock()

    def send(self, *said: Any) -> None:
        with self._sending:
            self._there.send(said)

    def count(self, what: str, done: int, total: int | None) -> None:
        self.send("count", what, done, total)

    def event(self, event: Event) -> None:
        self.send("event", event)

    def info(self, message: str) -> None:
        self.send("info", message)

    def warning(self, message: str) -> None:
        self.send("warning", message)


def _end_with(caller: Connection) -> None:
    """End this process, and what it has started, when who called is gone: nothing else ends the connection."""
    with suppress(EOFError, OSError):
        caller.recv_bytes()
    os.killpg(0, signal.SIGKILL)


def _answer(there: Connection) -> None:
    sent = _Sent(there)
    secret, function, arguments = pickle.loads(there.recv_bytes())  # noqa: S301 - of who started this process
    learn(secret)
    learn_variables(os.environ)
    threading.Thread(target=_end_with, args=[there], daemon=True).start()
    try:
        sent.send("returned", function(*arguments, sent))
    except Exception as error:  # noqa: BLE001 - it is raised where the call was made
        sent.send("raised", record_of(error))


if __name__ == "__main__":
    _answer(Connection(int(sys.argv[1])))
