"""Work in processes of their own, which begin with everything imported and may be killed at any moment.

Whoever begins them works on nothing itself: a fork must not share a connection, or a pool of threads, with its parent.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlassets.errors import DlassetsError


@dataclass(frozen=True)
class Ended:
    """How it ended: with a value, with an error, or killed by a signal (then it has neither)."""

    code: int
    value: Any = None
    error: str = ""
    is_ours: bool = False

    @property
    def is_well(self) -> bool:
        return self.code == 0


class Forked:
    """One piece of work that goes on. What it prints is added to `log`, or goes where the parent's goes."""

    def __init__(self, work: Callable[..., Any], *arguments: Any, log: Path | None = None) -> None:
        self._answer, theirs = os.pipe()
        self._pid = os.fork()
        if self._pid:
            os.close(theirs)
            return
        os.close(self._answer)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _run(work, arguments, theirs, log)

    def wait(self, seconds: float) -> None:
        """Wait so long, or until it has ended."""
        select.select([self._answer], [], [], seconds)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; one that has ended takes no notice."""
        os.kill(self._pid, number)

    def end(self) -> Ended:
        with os.fdopen(self._answer, "rb") as opened:
            said = opened.read()
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return Ended(code, **pickle.loads(said)) if said else Ended(code)


def done(work: Callable[..., Any], *arguments: Any, log: Path | None = None) -> Ended:
    """Run it to its end."""
    return Forked(work, *arguments, log=log).end()


def _run(work: Callable[..., Any], arguments: tuple[Any, ...], answer: int, log: Path | None) -> None:
    code, said = 1, {}
    try:
        if log is not None:
            with log.open("ab") as opened:
                os.dup2(opened.fileno(), sys.stdout.fileno())
                os.dup2(opened.fileno(), sys.stderr.fileno())
        said = {"value": work(*arguments)}
        code = 0
    except KeyboardInterrupt:
        code = 130
    except BaseException as error:  # noqa: BLE001 - the parent must not go on in two processes
        said = {"error": f"{type(error).__name__}: {error}", "is_ours": isinstance(error, DlassetsError)}
        traceback.print_exc()
    finally:
        with os.fdopen(answer, "wb") as opened_answer:
            opened_answer.write(pickle.dumps(said))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
