"""The pages of one lake, and Dagster's and MLflow's user interfaces: started, awaited and stopped together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote
from urllib.request import ProxyHandler, build_opener

import click
import yaml

from dlassets.errors import DlassetsError
from dlassets.masking import without_secrets
from dlassets.registry.store import opened_store
from dlassets.resources.code_location import LOCATION
from dlassets.resources.instance import HOME_VARIABLE, dagster_home
from dlassets.settings import Settings, UiSettings
from dlassets.storage.lake import Lake
from dlassets.web.ports import HOST, free_ports

POLL_SECONDS = 0.25
HEARTBEAT_SECONDS = 10
GRACE_SECONDS = 20
TAIL_LINES = 30
_TENSORBOARD = "tensorboard"  # which is started where it is asked for

# The servers are on this machine: a proxy that the environment names must not be asked for them.
_direct = build_opener(ProxyHandler({}))


class ServerError(DlassetsError):
    """A server ended by itself or never answered."""


@dataclass(frozen=True)
class Ports:
    """Where each server is to listen, if it is started; a taken port gives way to the next free one."""

    pages: int = 4000
    dagster: int = 3000
    mlflow: int = 5000
    tensorboard: int = 6006


@dataclass(frozen=True)
class Server:
    """A running server. It leads a process group of its own, so that nothing it started outlives it."""

    name: str
    address: str
    probe: str
    process: subprocess.Popen[bytes]
    log: Path

    def answers(self) -> bool:
        try:
            with _direct.open(self.address + self.probe, timeout=2) as reply:
                return bool(reply.status == HTTPStatus.OK)
        except (OSError, HTTPException):
            return False

    def check(self) -> None:
        """Raise ServerError, with the end of its log, if it is not running any more."""
        code = self.process.poll()
        if code is not None:
            raise ServerError(f"{self.name} stopped by itself (exit code {code}). {self.end_of_log()}")

    def end_of_log(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join([f"The end of {self.log}:", *lines])


def serve(
    settings: Settings,
    wanted: Ports = Ports(),
    *,
    tensorboard: bool = False,
    module: str = "dlassets.definitions",
    timeout: float = 300,
) -> int:
    """Run the servers on the settings' lake until SIGINT, SIGTERM or SIGHUP; return the exit code.

    `module` holds Dagster's definitions; `timeout` is how many seconds they may take to answer. Where MLflow's store is
    a server already, none is started for it; TensorBoard is one more where it is asked for. Must be called in the main
    thread. Returns 1, having said why, where a server died or never answered. Raises DlassetsError where the folders or
    ports cannot be had.
    """
    lake = Lake.at(settings.root)
    home, (store, artifacts) = dagster_home(lake), opened_store(settings, lake)
    logs = home / "server_logs"  # Dagster empties `logs`, which its telemetry keeps for itself
    logs.mkdir(exist_ok=True)
    names = [name for name in asdict(wanted) if tensorboard or name != _TENSORBOARD]
    ports = Ports(**dict(zip(names, free_ports(*(getattr(wanted, name) for name in names)), strict=True)))
    addresses = {name: f"http://{HOST}:{getattr(ports, name)}" for name in names}
    if not artifacts:
        addresses["mlflow"] = without_secrets(store)
    environment = {
        **os.environ,
        HOME_VARIABLE: str(home),
        "DLASSETS_ROOT": lake.root,
        "DLASSETS_ENGINE": settings.engine,
        **_links(settings.ui, addresses),
    }

    with stop_requests() as stop, ExitStack() as started:
        servers = [started.enter_context(_pages(ports.pages, logs, environment))]
        servers.append(started.enter_context(_dagster(module, ports.dagster, logs, environment)))
        if artifacts:
            servers.append(started.enter_context(_mlflow(store, artifacts, ports.mlflow, logs, environment)))
        if tensorboard:
            servers.append(started.enter_context(_tensorboard(ports.tensorboard, logs, environment)))
        click.echo(f"Starting {_names(servers)}; their logs are in {logs}.")
        try:
            await_servers(servers, stop, timeout)
            if not stop.is_set():
                mlflow = addresses["mlflow"]
                models = _models_page(mlflow, settings.registry.model_name) if artifacts else mlflow
                _announce({**addresses, "mlflow": models})
            while not stop.wait(POLL_SECONDS):
                for server in servers:
                    server.check()
        except ServerError as error:
            click.echo(str(error), err=True)
            return 1
        click.echo("Stopping.")
    return 0


def _links(ui: UiSettings, addresses: Mapping[str, str]) -> dict[str, str]:
    """Return variables that let links follow the addresses, except where the settings name others (a proxy, say)."""
    default = UiSettings()
    return {
        f"DLASSETS_UI__{name.upper()}": address
        for name, address in addresses.items()
        if name in UiSettings.model_fields and getattr(ui, name) == getattr(default, name)
    }


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Give an event that SIGINT, SIGTERM and SIGHUP set, instead of what they did before."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    if before[signal.SIGHUP] is signal.SIG_IGN:  # under nohup, where closing the terminal is to change nothing
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, lambda *_: stop.set())
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _pages(port: int, logs: Path, environment: Mapping[str, str]) -> Iterator[Server]:
    command = ["dlassets.web.pages", "--host", HOST, "--port", str(port)]
    with running("Pages", command, port, "/health", logs / "pages.log", environment) as server:
        yield server


@contextmanager
def _dagster(module: str, port: int, logs: Path, environment: Mapping[str, str]) -> Iterator[Server]:
    workspace = {"load_from": [{"python_module": {"module_name": module, "location_name": LOCATION}}]}
    (logs / "workspace.yaml").write_text(yaml.safe_dump(workspace))
    command = [
        "dlassets.web.dagster_dev",
        "--workspace",
        str(logs / "workspace.yaml"),
        "--host",
        HOST,
        "--port",
        str(port),
    ]
    with running("Dagster", command, port, "/server_info", logs / "dagster.log", environment) as server:
        yield server


@contextmanager
def _mlflow(store: str, artifacts: str, port: int, logs: Path, environment: Mapping[str, str]) -> Iterator[Server]:
    command = ["dlassets.web.mlflow_server", "server", "--app-name", "dlassets"]
    command += ["--default-artifact-root", artifacts, "--no-serve-artifacts"]
    command += ["--workers", "1", "--host", HOST, "--port", str(port)]
    # Its job runner would be two more processes for features that nothing here uses.
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    # Its command line is anybody's on this machine to read, and the store's address may hold a password.
    own = {**environment, **quiet, "MLFLOW_BACKEND_STORE_URI": store}
    with running("MLflow", command, port, "/health", logs / "mlflow.log", own) as server:
        yield server


@contextmanager
def _tensorboard(port: int, logs: Path, environment: Mapping[str, str]) -> Iterator[Server]:
    command = ["dlassets.web.tensorboard_server", "--host", HOST, "--port", str(port)]
    with running("TensorBoard", command, port, "/data/environment", logs / "tensorboard.log", environment) as server:
        yield server


@contextmanager
def running(
    name: str, command: Sequence[str], port: int, probe: str, log: Path, environment: Mapping[str, str]
) -> Iterator[Server]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dlassets.web.leash", *command],
            env=environment,
            stdin=subprocess.PIPE,  # never written to: that it closes tells the server that this process is gone
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Server(name, f"http://{HOST}:{port}", probe, process, log)
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and everything in its group: kindly first, since Dagster then ends its runs in good order."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def await_servers(servers: Sequence[Server], stop: threading.Event, timeout: float) -> None:
    """Return once every server answers, or a stop was asked for. Raises ServerError if one dies or never answers."""
    began = time.monotonic()
    waiting, heartbeats = list(servers), 0
    while waiting and not stop.wait(POLL_SECONDS):
        elapsed = time.monotonic() - began
        for server in servers:
            server.check()
        for server in [server for server in waiting if server.answers()]:
            waiting.remove(server)
            click.echo(f"  {server.name} answers after {elapsed:.0f} s")
        if not waiting:
            return
        names = _names(waiting)
        if elapsed > timeout:
            raise ServerError(f"No answer from {names} in {timeout:.0f} s. {waiting[0].end_of_log()}")
        if elapsed // HEARTBEAT_SECONDS > heartbeats:
            heartbeats = int(elapsed // HEARTBEAT_SECONDS)
            click.echo(f"  waiting for {names} ({elapsed:.0f} s)")


def _names(servers: Sequence[Server]) -> str:
    """Return the servers' names, as in: Pages, Dagster and MLflow."""
    *others, last = [server.name for server in servers]
    return f"{', '.join(others)} and {last}" if others else last


def _models_page(mlflow: str, model: str) -> str:
    """Return the page of MLflow to begin with: the registered model's, or where there is none yet, of all there are."""
    name = quote(model, safe="")
    try:
        with _direct.open(f"{mlflow}/api/2.0/mlflow/registered-models/get?name={name}", timeout=5):
            return f"{mlflow}/#/models/{name}"
    except (OSError, HTTPException):
        return f"{mlflow}/#/models"


def _announce(addresses: Mapping[str, str]) -> None:
    click.echo(f"Start here  {addresses['pages']}")
    click.echo(f"Dagster     {addresses['dagster']}")
    click.echo(f"MLflow      {addresses['mlflow']}")
    if _TENSORBOARD in addresses:
        click.echo(f"TensorBoard {addresses[_TENSORBOARD]}")
    click.echo("Press Ctrl-C to stop.")
