"""A real MLflow server: killed, started again at its address, or behind a wire that is cut between two requests."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from dlassets_tests.servers import free_port

HOST = "127.0.0.1"


@dataclass
class MlflowServer:
    """A server over a store and artifacts of its own in a folder; it does not ask who somebody is."""

    folder: Path
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def uri(self) -> str:
        return f"http://{self.address}"

    def start(self) -> None:
        store, artifacts, log = (self.folder / name for name in ("served.db", "served", "server.log"))
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{store}"]
        command += ["--artifacts-destination", str(artifacts), "--workers", "1", "--port", str(self.port)]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while b"startup complete" not in log.read_bytes() and time.monotonic() < deadline:
            time.sleep(0.2)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def mlflow_server(folder: Path) -> Iterator[MlflowServer]:
    server = MlflowServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


class Wire(ThreadingHTTPServer):
    """What takes requests to a server and brings its answers, until it is cut: requests are lost, or answers alone."""

    daemon_threads = True

    def __init__(self, server: Any) -> None:
        super().__init__((HOST, 0), _Request)
        self._server, self._one_at_a_time = server, threading.Lock()
        self._left: int | None = None
        self._loses_answers_alone = False

    @property
    def uri(self) -> str:
        return f"http://{HOST}:{self.server_port}"

    @contextmanager
    def cut_after(self, requests: int, *, loses_answers_alone: bool = False) -> Iterator[None]:
        """Cut it after so many requests, for the time of a `with`."""
        self._left, self._loses_answers_alone = requests, loses_answers_alone
        try:
            yield
        finally:
            self._left = None

    @property
    def has_lost(self) -> bool:
        """Whether anything was lost since it was to be cut."""
        return self._left is not None and self._left < 0

    def carries(self) -> tuple[bool, bool]:
        """Return whether the next request gets to the server, and whether its answer comes back."""
        with self._one_at_a_time:
            if self._left is None:
                return True, True
            self._left -= 1
            return self._left >= 0 or self._loses_answers_alone, self._left >= 0

    def ask(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes] | None:
        """Return the server's answer: its status, headers and body. None where there is no server."""
        connection = http.client.HTTPConnection(HOST, self._server.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), reply.read()
        except ConnectionRefusedError:
            return None
        finally:
            connection.close()


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Wire

    def log_message(self, *_: object) -> None:
        pass

    def _pass_on(self) -> None:
        gets_there, comes_back = self.server.carries()
        headers = dict(self.headers)
        if headers.pop("Transfer-Encoding", None) is not None:  # as the bytes of an empty file come
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        reply = self.server.ask(self.command, self.path, body, headers) if gets_there else None
        if reply is None or not comes_back:
            self.close_connection = True
            return
        status, headers, content = reply
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in {"transfer-encoding", "connection", "content-length", "date", "server"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        chunk = self.rfile.read(size)
        self.rfile.readline()
        return chunk

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _pass_on  # noqa: N815 - http.server's names


@contextmanager
def wire_to(server: Any) -> Iterator[Wire]:
    with Wire(server) as wire:
        thread = threading.Thread(target=wire.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield wire
        finally:
            wire.shutdown()
            thread.join()
