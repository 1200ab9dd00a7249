"""All that a team reaches by one address: real servers behind a real Caddy, which asks a real gate."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from dlassets.resources.instance import dagster_home
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets.web.gate.caddy import Proxy, Upstreams, addresses, caddyfile
from dlassets_tests.servers import DEFINITIONS, free_port
from dlassets_tests.web.gate.people import COOKIE_SECRET, PROXY_SECRET, READER, WRITER, add_people, password_of

_HERE = Path(__file__).resolve().parents[3]
CADDY = shutil.which("caddy") or shutil.which("caddy", path=_HERE / ".venv-shared" / "bin")
needs_caddy = pytest.mark.skipif(
    CADDY is None, reason="there is no Caddy: go install github.com/caddyserver/caddy/v2/cmd/caddy@latest"
)
ADMIN, ADMIN_PASSWORD = "admin", "Admin-1-pass-of-MLflow"
_AUTH = "[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{}\nadmin_username = admin\n"
_PATIENCE = 100


@dataclass
class Team:
    """`url` is the one address; `ports` are where the servers behind it listen, by name."""

    settings: Settings
    folder: Path
    ports: dict[str, int]
    processes: list[tuple[str, subprocess.Popen[bytes]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.ports['caddy']}"

    @property
    def authority(self) -> Path:
        return self.folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"

    def behind(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def program(self, name: str | None = None) -> requests.Session:
        """Return a session that asks as this person, by HTTP Basic, and knows the proxy's certificate."""
        session = requests.Session()
        session.trust_env, session.verify = False, str(self.authority)
        if name:
            session.auth = (name, password_of(name))
        return session

    def log_of(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def start(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        with (self.folder / f"{name}.log").open("wb") as output:
            process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.folder,
            )
        self.processes.append((name, process))

    def awaits(self, name: str, address: str, **ask: Any) -> None:
        """Wait until an address answers with 200. Raises AssertionError, with the end of its log, where it does not."""
        deadline = time.monotonic() + _PATIENCE
        process = dict(self.processes)[name]
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if requests.get(address, timeout=5, **ask).ok:
                    return
            except (requests.RequestException, OSError):
                pass
            time.sleep(0.1)
        raise AssertionError(f"{name} does not answer: {self.log_of(name)[-3000:]}")

    def stop(self) -> None:
        for _, process in reversed(self.processes):
            process.terminate()
        for _, process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def team(settings: Settings, folder: Path, **access: str) -> Iterator[Team]:
    """Start everything for a lake, in this folder; `access` are further variables of all, of the gate above all."""
    names = ("caddy", "gate", "pages", "serve", "dagster", "read_only", "mlflow")
    made = Team(settings, folder, {name: free_port() for name in names})
    environment = _environment(made) | access
    try:
        _start(made, environment)
        yield made
    finally:
        made.stop()


def _environment(made: Team) -> dict[str, str]:
    folder, settings = made.folder, made.settings
    add_people(folder / "users.yaml")
    secrets = {"cookie_secret": COOKIE_SECRET, "proxy_secret": PROXY_SECRET}
    for name, secret in secrets.items():
        (folder / name).write_text(secret)
        (folder / name).chmod(0o600)
    account = {
        f"DLASSETS_ACCESS__MLFLOW_{kind}__{name.upper()}": value
        for kind, account in (("READER", READER), ("WRITER", WRITER))
        for name, value in account.items()
    }
    return {
        **addresses(made.url),
        **{f"DLASSETS_ACCESS__{name.upper()}__FILE": str(folder / name) for name in secrets},
        **account,
        "DLASSETS_ACCESS__USERS_FILE": str(folder / "users.yaml"),
        "DLASSETS_ROOT": settings.root,
        "DLASSETS_REGISTRY__APPROVAL": "person",
        "DAGSTER_HOME": str(dagster_home(Lake.at(settings.root))),  # made before two servers would make it at once
        "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }


def _start(made: Team, environment: dict[str, str]) -> None:
    folder, ports = made.folder, made.ports
    (folder / "stand_in.py").write_text(DEFINITIONS)
    python = [sys.executable, "-m"]
    dagster = [
        *python,
        "dlassets.web.dagster_webserver",
        "-m",
        "stand_in",
        "--path-prefix",
        "/dagster",
        "-h",
        "127.0.0.1",
    ]
    made.start("gate", [*python, "dlassets.web.gate", "--port", str(ports["gate"])], environment)
    made.start("mlflow", _mlflow(made), environment | _mlflow_variables(made))
    made.start("dagster", [*dagster, "-p", str(ports["dagster"])], environment)
    made.start("read_only", [*dagster, "-p", str(ports["read_only"]), "--read-only"], environment)
    made.start("pages", [*python, "dlassets.web.pages", "--port", str(ports["pages"])], environment)
    serve = [*python, "dlassets", "serve", "--port", str(ports["serve"])]
    made.start("serve", serve, environment | {"DLASSETS_SERVING__PROCESSES": "1"})
    upstreams = Upstreams(
        gate=f"127.0.0.1:{ports['gate']}",
        pages=f"127.0.0.1:{ports['pages']}",
        dagster=f"127.0.0.1:{ports['dagster']}",
        dagster_read_only=f"127.0.0.1:{ports['read_only']}",
        mlflow=f"127.0.0.1:{ports['mlflow']}",
        served=f"127.0.0.1:{ports['serve']}",
    )
    proxy = Proxy(made.url, upstreams, folder / "caddy", secret_file=folder / "proxy_secret")
    (folder / "Caddyfile").write_text(caddyfile(proxy))
    config = ["--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    made.start("caddy", [str(CADDY), "run", *config], {"HOME": str(folder)})
    for name, path in (
        ("gate", "/health"),
        ("pages", "/health"),
        ("serve", "/health"),
        ("dagster", "/dagster/server_info"),
        ("read_only", "/dagster/server_info"),
        ("mlflow", "/mlflow/health"),
    ):
        made.awaits(name, made.behind(name) + path)
    made.awaits("caddy", f"{made.url}/gate/health", verify=str(made.authority))
    _add_accounts(made)


def _mlflow(made: Team) -> list[str]:
    command = [sys.executable, "-m", "dlassets.web.mlflow_server", "server", "--app-name", "dlassets"]
    store = f"sqlite:///{Lake.at(made.settings.root).root}/mlflow/mlflow.db"
    command += ["--backend-store-uri", store, "--artifacts-destination", str(made.folder / "artifacts")]
    return [*command, "--static-prefix", "/mlflow", "--workers", "1", "--port", str(made.ports["mlflow"])]


def _mlflow_variables(made: Team) -> dict[str, str]:
    config = made.folder / "auth.ini"
    config.write_text(_AUTH.format(made.folder / "auth.db"))
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a key of the server",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def _add_accounts(made: Team) -> None:
    """Give MLflow the two accounts that the gate hands on."""
    for account in (READER, WRITER):
        added = requests.post(
            f"{made.behind('mlflow')}/mlflow/api/2.0/mlflow/users/create",
            json={"username": account["user"], "password": account["password"]},
            auth=(ADMIN, ADMIN_PASSWORD),
            timeout=30,
        )
        assert added.ok, f"{added.status_code} {added.text} {made.log_of('mlflow')[-2000:]}"
