"""The supervisor of a deployment, process-compose: started, asked, and stopped with all that it looks after.

It listens on a socket in the deployment's folder, which it and its client name relative to that: a whole path may be
longer than a socket's name can be.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlassets.deployment.home import Home, outside
from dlassets.engines.process_identity import ProcessIdentity
from dlassets.errors import DlassetsError

if TYPE_CHECKING:
    import psutil

_SOCKET = "supervisor.sock"
_MARK = "DEPLOYMENT_HOME"
_ASK_SECONDS, _STOP_SECONDS, _GRACE_SECONDS = 20, 180, 10
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class State:
    """What the supervisor says of a process."""

    name: str
    status: str
    is_ready: bool
    restarts: int
    exit_code: int
    pid: int

    @property
    def is_done(self) -> bool:
        return self.status == "Completed" and self.exit_code == 0


class Supervisor:
    def __init__(self, home: Home, program: Path) -> None:
        self._home, self._program = home, program

    def start(self) -> None:
        """Start it in the background, in a session of its own. Raises DlassetsError where it ends at once."""
        (self._home.folder / _SOCKET).unlink(missing_ok=True)
        command = [*self._command("up"), "--config", self._home.config.name, "--tui=false", "--disable-dotenv"]
        before = os.umask(0o077)
        try:
            process = subprocess.Popen(
                command,
                cwd=self._home.folder,
                env={**outside(), _MARK: self._home.mark},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            os.umask(before)
        if identity := ProcessIdentity.of(process.pid):
            self._identity.write_text(str(identity))
        while self.states() is None:
            if process.poll() is not None:
                raise DlassetsError(f"The supervisor did not start. {end_of(self.log)}")
            time.sleep(_POLL_SECONDS)

    @property
    def log(self) -> Path:
        return self._home.logs / "supervisor.log"

    @property
    def _identity(self) -> Path:
        return self._home.folder / "supervisor.pid"

    @property
    def is_there(self) -> bool:
        """Whether it runs."""
        with suppress(FileNotFoundError):
            identity = ProcessIdentity.parse(self._identity.read_text())
            return identity is not None and identity.is_alive
        return False

    def states(self) -> dict[str, State] | None:
        """Return the state of each process by name; None where it does not answer."""
        asked = self._ask("process", "list", "--output", "json")
        if asked is None:
            return None
        return {state.name: state for state in map(_state, json.loads(asked))}

    def check(self) -> None:
        """Raise DlassetsError where it takes its configuration for none."""
        command = [*self._command("up"), "--config", self._home.config.name, "--dry-run", "--disable-dotenv"]
        done = subprocess.run(
            command, cwd=self._home.folder, env=outside(), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise DlassetsError(f"The supervisor does not take {self._home.config}: {done.stderr}{done.stdout}")

    def stop(self) -> None:
        """Stop every process in order, then the supervisor; what is left of any of them is ended as well."""
        if self.is_there:
            self._ask("down", seconds=_STOP_SECONDS)
            self._await_end()
        end(remains(self._home))
        for left in (self._identity, self._home.folder / _SOCKET):
            left.unlink(missing_ok=True)

    def _await_end(self) -> None:
        deadline = time.monotonic() + _STOP_SECONDS
        while self.is_there and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def _ask(self, *question: str, seconds: float = _ASK_SECONDS) -> str | None:
        if not (self._home.folder / _SOCKET).exists():
            return None
        try:
            done = subprocess.run(
                self._command(*question),
                cwd=self._home.folder,
                env=outside(),
                capture_output=True,
                text=True,
                check=False,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            return None
        return done.stdout if done.returncode == 0 else None

    def _command(self, *words: str) -> list[str]:
        log = str(self.log if words == ("up",) else self._home.logs / "supervisor-client.log")
        return [str(self._program), *words, "--use-uds", "--unix-socket", _SOCKET, "--log-file", log]


def remains(home: Home) -> list[psutil.Process]:
    """Return the processes of a deployment that run, its supervisor and what they have started included."""
    import psutil

    return [process for process in psutil.process_iter() if _is_of(process, home)]


def _is_of(process: psutil.Process, home: Home) -> bool:
    import psutil

    with suppress(psutil.Error, OSError):
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        if process.environ().get(_MARK) == home.mark:
            return True
        # PostgreSQL writes over the environment that others see of its children.
        return str(home.postgres) in process.cmdline()
    return False


def end(processes: Sequence[psutil.Process]) -> None:
    """End processes: those of the database last, kindly first."""
    import psutil

    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGINT if process.name() == "postgres" else signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, timeout=_GRACE_SECONDS)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=_GRACE_SECONDS)


def end_of(log: Path, lines: int = 30) -> str:
    """Return the end of a log, as a message's."""
    try:
        text = log.read_text(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return f"It has written no log ({log})."
    return "\n".join([f"The end of {log}:", *text])


def _state(said: Mapping[str, Any]) -> State:
    return State(
        name=said["name"],
        status=said["status"],
        is_ready=said.get("is_ready") == "Ready",
        restarts=int(said.get("restarts", 0)),
        exit_code=int(said.get("exit_code", 0)),
        pid=int(said.get("pid", 0)),
    )


def waiting(states: Mapping[str, State], once: Sequence[str]) -> Iterator[str]:
    """Yield the names of what is not well yet; of `once`, of what has not done it yet."""
    for name, state in states.items():
        if not (state.is_done if name in once else state.is_ready):
            yield name
