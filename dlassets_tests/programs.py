"""The `dlassets` command as a user runs it, with the lake in its environment: another process, or this one."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from click.testing import CliRunner, Result

from dlassets.cli import main

COMMAND = (sys.executable, "-c", "from dlassets.cli import main; main()")


def dlassets(
    *arguments: str | Path, command: Sequence[str] = COMMAND, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command, or another one, to its end."""
    return dlassets_within(280, *arguments, command=command, **environment)


def dlassets_within(
    seconds: float, /, *arguments: str | Path, command: Sequence[str] = COMMAND, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run it to its end, which is to come within so many seconds."""
    return subprocess.run(
        [*command, *map(str, arguments)],
        env=os.environ | {"COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )


def python(program: str, **environment: str) -> str:
    """Run a program in another process, and return what it prints."""
    done = dlassets(command=(sys.executable, "-c", program), **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def invoke(*arguments: object, answer: str | None = None, **environment: str) -> Result:
    """Run the command in this process, with an answer to what it asks."""
    given = [str(argument) for argument in arguments]
    return CliRunner().invoke(main, given, env={"COLUMNS": "200"} | environment, input=answer)
