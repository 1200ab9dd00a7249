"""`dlassets serve` in a process of its own, asked as programs ask it."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psutil

HOST = "127.0.0.1"
_PATIENCE = 120
CLIENTS = 4


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def tree(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def ask(self, path: str, body: Any = None, kind: str | None = None, **headers: str) -> Reply:
        """GET, or POST a body: bytes, or what becomes JSON."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=_PATIENCE)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        told = {"Content-Type": kind or ("image/jpeg" if isinstance(body, bytes) else "application/json")}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(
                "GET" if body is None else "POST", path, data, (told if data is not None else {}) | named
            )
            reply = connection.getresponse()
            return Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())
        finally:
            connection.close()

    def connect(self, sent: bytes = b"") -> socket.socket:
        """Open a connection, on which so much is sent."""
        made = socket.create_connection((HOST, self.port), timeout=_PATIENCE)
        made.sendall(sent)
        return made

    def awaited(self, is_there: Any) -> Any:
        """Return what `is_there` returns once it is something."""
        deadline = time.monotonic() + _PATIENCE
        while not (found := is_there()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        return found

    def is_ready(self) -> bool:
        return self.ask("/ready").status == 200

    def answers_with(self, version: int) -> bool:
        return f"/{version}" in self.ask("/ready").tree["models"][0]

    @property
    def lookers(self) -> list[int]:
        """The processes that look at photos."""
        children = psutil.Process(self.process.pid).children()
        return [child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE]

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log of requests."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


@contextmanager
def serving(root: str, log: Path, environment: Mapping[str, str], *, is_ready: bool = True) -> Iterator[Served]:
    """Serve a lake's champion; with `is_ready`, from when it answers on."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", "from dlassets.cli import main; main()", "serve", "--port", "0"],
            env={**os.environ, "DLASSETS_ROOT": root, **environment},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    served = Served(process, 0, log)
    try:
        address = served.awaited(lambda: [line for line in log.read_text().splitlines() if line.startswith("Serving ")])
        served.port = int(address[0].split(". Press")[0].rpartition(":")[2])
        served.awaited(lambda: _is_up(served))
        if is_ready:
            served.awaited(served.is_ready)
        yield served
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


@contextmanager
def asking(
    served: Served, photos: Sequence[bytes], answered: dict[str, tuple[int, int]], name: str = "one"
) -> Iterator[None]:
    """Have CLIENTS ask meanwhile, a photo each, until nobody answers any more.

    `answered` is told of each answer, by the request's id: the version that it names, and the label.
    """
    ended = threading.Event()

    def asks(client: int) -> None:
        number = 0
        while not ended.is_set():
            request = f"{name}-{client}-{number}"
            try:
                reply = served.ask("/predict", photos[client], X_Request_Id=request)
            except (OSError, http.client.HTTPException):
                return
            assert reply.status == 200, reply.body
            answered[request] = reply.tree["model"]["version"], reply.tree["label"]
            number += 1

    with ThreadPoolExecutor(CLIENTS) as clients:
        all_ask = [clients.submit(asks, client) for client in range(CLIENTS)]
        try:
            yield
        finally:
            ended.set()
    for client in all_ask:
        client.result()


def _is_up(served: Served) -> bool:
    try:
        return served.ask("/health").status == 200
    except OSError:
        return False
