"""A server that does not outlive who started it: `python -m dlassets.web.leash [<python>] <module> <arguments>`.

An absolute path to a Python comes first where the module is another environment's.

Standard input must be a pipe whose other end is held by who starts it and by nobody else, and the process must lead a
group of its own. It becomes that module. A child that stays beside it reads the pipe: at its end, which comes however
the other process ends, it ends the server, kindly first, and then the whole group.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

GRACE_SECONDS = 10
_POLL_SECONDS = 0.05
_STDIN = 0


def run(arguments: list[str]) -> NoReturn:
    server = os.getpid()
    if os.fork() == 0:
        _watch(server)
    os.dup2(os.open(os.devnull, os.O_RDONLY), _STDIN)
    python = arguments.pop(0) if Path(arguments[0]).is_absolute() else sys.executable
    os.execv(python, [python, "-m", *arguments])  # noqa: S606 - no shell, as everywhere


def _watch(server: int) -> NoReturn:
    while os.read(_STDIN, 4096):
        pass
    with suppress(ProcessLookupError):
        os.kill(server, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while os.getppid() == server and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    os.killpg(0, signal.SIGKILL)
    raise SystemExit  # not reached: this process is of the group


if __name__ == "__main__":
    run(sys.argv[1:])
