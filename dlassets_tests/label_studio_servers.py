"""The real Label Studio, as `dlassets labelstudio` starts it: at work, killed, started again, and its people."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from dlassets.deployment.label_studio import ENVIRONMENT
from dlassets.labeling.label_studio.own import OwnServer, own_server
from dlassets.labeling.label_studio.service import LabelStudioService
from dlassets.settings import LabelStudioSettings
from dlassets.storage.lake import Lake
from dlassets_tests.servers import free_port

INSTALLED = Path(__file__).resolve().parent.parent / ENVIRONMENT
WEBHOOK_SECRET = "a secret of sixteen letters"
# What it is started with, so that it sends hints to this machine.
HINTED = {
    "DLASSETS_LABELING__LABEL_STUDIO__HINT_URL": "http://127.0.0.1:9",
    "DLASSETS_SERVING__WEBHOOK_SECRET": WEBHOOK_SECRET,
}
needs_label_studio = pytest.mark.skipif(
    not (INSTALLED / ".ready").exists(), reason="Label Studio is not installed: scripts/setup.sh labelstudio"
)


@dataclass
class Person:
    """Somebody who answers in Label Studio, by its own interface for programs."""

    url: str
    token: str
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.headers["Authorization"] = f"Token {self.token}"
        self.session.trust_env = False

    def ask(self, method: str, path: str, body: Any = None, **parameters: Any) -> Any:
        reply = self.session.request(method, self.url + path, json=body, params=parameters, timeout=60)
        reply.raise_for_status()
        return reply.json() if reply.content else None

    def next_task(self, project: int) -> dict[str, Any]:
        """Return what the label stream gives this person next."""
        return self.ask("GET", f"/api/projects/{project}/next/")

    def answers(self, task: int, *choices: str, seconds: float = 2.5) -> int:
        return self.ask("POST", f"/api/tasks/{task}/annotations/", result_of(*choices) | {"lead_time": seconds})["id"]

    def skips(self, task: int) -> int:
        return self.ask("POST", f"/api/tasks/{task}/annotations/", {"result": [], "was_cancelled": True})["id"]

    def changes(self, annotation: int, *choices: str) -> None:
        self.ask("PATCH", f"/api/annotations/{annotation}/", result_of(*choices))

    def deletes(self, annotation: int) -> None:
        self.ask("DELETE", f"/api/annotations/{annotation}/")


def result_of(*choices: str) -> dict[str, Any]:
    chosen = {"from_name": "label", "to_name": "photo", "type": "choices", "value": {"choices": list(choices)}}
    return {"result": [chosen] if choices else []}


@dataclass
class LabelStudioServer:
    """The server of a lake's own, in a process that can be killed."""

    lake: Lake
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "dlassets", "labelstudio", "--port", str(self.port)]
        self._process = subprocess.Popen(
            [*command, "--environment", str(INSTALLED)],
            env=os.environ | {"DLASSETS_ROOT": self.lake.root} | HINTED,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "Ctrl-C" in line:
                return
        raise AssertionError("".join(said))

    def kill(self) -> None:
        """Kill who holds its leash: it then ends by itself."""
        assert self._process is not None
        self._process.kill()
        self._process.communicate()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.communicate(timeout=60)

    @property
    def login(self) -> OwnServer:
        server = own_server(self.lake)
        assert server is not None
        return server

    @property
    def owner(self) -> Person:
        return Person(self.login.url, self.login.token)

    def another(self) -> Person:
        """Return a further person of the same team, who has just been invited."""
        email = f"{uuid.uuid4().hex[:8]}@dlassets.example"
        signup = requests.Session()
        signup.trust_env = False
        page = self.login.url + self.owner.ask("GET", "/api/invite")["invite_url"]
        signup.get(page, timeout=60)
        told = {"email": email, "password": uuid.uuid4().hex, "csrfmiddlewaretoken": signup.cookies["csrftoken"]}
        signup.post(page, told, headers={"Referer": page}, timeout=60).raise_for_status()
        token = signup.get(self.login.url + "/api/current-user/token", timeout=60).json()["token"]
        return Person(self.login.url, token)

    def service(self, lake: Lake, title: str | None = None, **settings: Any) -> LabelStudioService:
        """Return the service of a lake in a project of its own."""
        told = {"url": self.login.url, "token": self.login.token, "project": title or f"test {uuid.uuid4().hex}"}
        return LabelStudioService(LabelStudioSettings(**told | settings), lake, WEBHOOK_SECRET)


@contextmanager
def label_studio(folder: Path) -> Iterator[LabelStudioServer]:
    server = LabelStudioServer(Lake.at(str(folder / "lake")))
    server.start()
    try:
        yield server
    finally:
        server.stop()
