"""A deployment for tests: `dlassets up` in a folder of its own, commands on it, and `down` at the end."""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dlassets.deployment.programs import programs
from dlassets.errors import DlassetsError
from dlassets_tests.programs import COMMAND

# Sensors and schedules would do what a test does, beside it.
QUIET = {"DLASSETS_AUTOMATION__SENSORS": "false", "DLASSETS_AUTOMATION__SCHEDULES": "false"}
FEW_PHOTOS = ("--classes", "3", "--per-class", "20")
FEWEST_PHOTOS = ("--classes", "3", "--per-class", "12")


@dataclass(frozen=True)
class Shared:
    """`said` is what `dlassets up` printed."""

    home: Path
    said: str

    @property
    def environment(self) -> dict[str, str]:
        """What a shell has that has read the deployment's file `env`."""
        read = subprocess.run(
            ["bash", "-c", f". {self.home}/env && env -0"], env=plain(), capture_output=True, text=True, check=True
        )
        return dict(line.split("=", 1) for line in read.stdout.split("\0") if line)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Begin a command on it."""
        return subprocess.Popen(
            [*COMMAND, *arguments],
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> str:
        """Run a command on it, which must succeed, and return what it printed."""
        with self.start(*arguments, **environment) as process:
            said, _ = process.communicate()
        assert process.returncode == 0, said
        return said


def plain() -> dict[str, str]:
    """Return this process's variables without those of a lake."""
    ours = ("DLASSETS_", "DAGSTER_HOME", "MLFLOW_", "AWS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {"COLUMNS": "200"}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], env=plain() | QUIET, capture_output=True, text=True, check=False)


def needs_programs() -> None:
    """Skip the test where a program of a deployment is not installed. Where Go can build them, .ci/run builds them."""
    try:
        programs()
    except DlassetsError as error:
        pytest.skip(str(error))


@contextmanager
def brought_up(*options: str) -> Iterator[Shared]:
    """Give a deployment that is up. It is taken down at the end, and its folder removed."""
    needs_programs()
    # PostgreSQL's user must be able to look into it, which pytest's folders forbid.
    with tempfile.TemporaryDirectory(prefix="dlassets-shared-") as made:
        Path(made).chmod(0o755)
        home = Path(made) / "home"
        try:
            up = command("up", "--home", str(home), "--timeout", "600", *options)
            assert up.returncode == 0, up.stdout + up.stderr
            yield Shared(home, up.stdout)
        finally:
            down = command("down", "--home", str(home))
            assert down.returncode == 0, down.stdout + down.stderr


def secrets_in(home: Path, texts: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return which secrets of a deployment stand in which of the texts."""
    import json

    secrets = json.loads((home / "secrets.json").read_text())
    return [(name, where) for name, secret in secrets.items() for where, text in texts.items() if secret in text]
