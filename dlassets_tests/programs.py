"""The `dlassets` command as a user runs it: another process, with the lake in its environment."""

import os
import subprocess
import sys
from pathlib import Path

COMMAND = (sys.executable, "-c", "from dlassets.cli import main; main()")


def dlassets(
    *arguments: str | Path, program: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command, or a `program` that calls it, to its end."""
    command = COMMAND if program is None else (sys.executable, "-c", program)
    return subprocess.run(
        [*command, *map(str, arguments)],
        env=os.environ | {"COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def python(program: str, **environment: str) -> str:
    """Run a program in another process, and return what it prints."""
    done = dlassets(program=program, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout
