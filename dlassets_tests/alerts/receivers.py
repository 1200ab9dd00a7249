"""Who is told: a mail server and a receiver of web hooks, each a process that keeps what it is sent in a folder."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from dlassets_tests.servers import free_port

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Receiver:
    """It need not be up: its port is its own."""

    command: Sequence[str]
    url: str
    port: int
    folder: Path

    @contextmanager
    def up(self) -> Iterator[None]:
        process = subprocess.Popen([sys.executable, *self.command], stderr=subprocess.DEVNULL)
        try:
            self._await(process)
            yield
        finally:
            process.kill()  # where Ctrl-C is ignored Dagster has SIGTERM ignored too, by whatever is started after it
            process.wait(10)

    def _await(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection((HOST, self.port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError(f"{self.command} does not listen")

    @property
    def mails(self) -> list[tuple[str, str]]:
        """The subject and text of each mail, the first one first."""
        files = sorted((self.folder / "new").glob("*"), key=lambda file: file.stat().st_mtime_ns)
        mails = [message_from_bytes(file.read_bytes(), policy=default) for file in files]
        return [(mail["subject"], mail.get_body(("plain", "html")).get_content()) for mail in mails]

    @property
    def hooks(self) -> list[dict[str, Any]]:
        """What each web hook brought, the first one first."""
        return [json.loads(file.read_text()) for file in sorted(self.folder.glob("*.json"))]


def mail_server(folder: Path) -> Receiver:
    port = free_port()
    command = ["-m", "aiosmtpd", "-n", "-l", f"{HOST}:{port}", "-c", "aiosmtpd.handlers.Mailbox", str(folder)]
    return Receiver(command, f"mailto://{HOST}:{port}?from=lake@example.com&to=me@example.com", port, folder)


def hook_receiver(folder: Path) -> Receiver:
    folder.mkdir(exist_ok=True)
    port = free_port()
    command = ["-m", __name__, str(port), str(folder)]
    return Receiver(command, f"json://{HOST}:{port}/hook/Qz7fToken1", port, folder)


class _Hooks(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        folder = Path(sys.argv[2])
        body = self.rfile.read(int(self.headers["Content-Length"]))
        (folder / f"{len([*folder.iterdir()]):04}.json").write_bytes(body)
        self.send_response(200)
        self.end_headers()


if __name__ == "__main__":
    HTTPServer((HOST, int(sys.argv[1])), _Hooks).serve_forever()
