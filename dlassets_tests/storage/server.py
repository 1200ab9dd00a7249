"""An S3 server on loopback that can be told to misbehave: `python server.py` says its port, then serves until killed.

It is moto's, behind a little WSGI application that knows one pair of credentials and injects faults. PUT /_faults sets
them (`Faults`, as JSON) and starts counting anew; GET /_faults says how many of each there were.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Start = Callable[..., Any]
ACCESS_KEY = "test-key"


@dataclass(frozen=True)
class Faults:
    """`…_every` is one request of so many; 0 is none. Reads are GETs of objects."""

    busy_every: int = 0  # 503 SlowDown
    slow_every: int = 0  # a read that comes in pieces, over `slow_seconds`
    slow_seconds: float = 0.2
    cut_every: int = 0  # a read whose connection ends half way
    denied: str = ""  # 403 AccessDenied for reads of keys that contain this regular expression
    down: str = ""  # 503 for each read of such keys


class Store:
    """The application: faults first, then moto."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app

        self._moto = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._faults = Faults()
        self._counts: Counter[str] = Counter()

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/_faults":
            return self._control(environ, start)
        if f"Credential={ACCESS_KEY}/" not in environ.get("HTTP_AUTHORIZATION", ""):
            return _refuse(environ, start, "403 Forbidden", "InvalidAccessKeyId", "No such access key.")
        if self._turn("busy", self._faults.busy_every):
            return _busy(environ, start)
        is_read = environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].count("/") > 1
        if is_read and not environ["QUERY_STRING"]:
            return self._read(environ, start)
        return self._moto(environ, start)

    def _read(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        faults = self._faults
        if faults.denied and re.search(faults.denied, environ["PATH_INFO"]):
            return _refuse(environ, start, "403 Forbidden", "AccessDenied", "Access Denied")
        if faults.down and re.search(faults.down, environ["PATH_INFO"]):
            return _busy(environ, start)
        if self._turn("cut", faults.cut_every):
            return _half(self._moto(environ, start))
        if self._turn("slow", faults.slow_every):
            return _pieces(self._moto(environ, start), faults.slow_seconds)
        return self._moto(environ, start)

    def _turn(self, fault: str, every: int) -> bool:
        with self._lock:
            self._counts[f"{fault} asked"] += 1
            is_due = every > 0 and self._counts[f"{fault} asked"] % every == 0
            self._counts[fault] += is_due
        return is_due

    def _control(self, environ: dict[str, Any], start: Start) -> list[bytes]:
        with self._lock:
            if environ["REQUEST_METHOD"] == "PUT":
                self._faults = Faults(**json.loads(_body(environ)))
                self._counts.clear()
            counts = {fault: self._counts[fault] for fault in ("busy", "slow", "cut")}
        start("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(counts).encode()]


def _body(environ: dict[str, Any]) -> bytes:
    data: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    return data


def _refuse(environ: dict[str, Any], start: Start, status: str, code: str, message: str) -> list[bytes]:
    _body(environ)  # else the connection is reset under a client that is still sending
    said = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(said)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [said]


def _busy(environ: dict[str, Any], start: Start) -> list[bytes]:
    return _refuse(environ, start, "503 Slow Down", "SlowDown", "Please reduce your request rate.")


def _half(body: Iterable[bytes]) -> Iterator[bytes]:
    """The headers promise all of it: the server closes the connection where the client expects more."""
    data = b"".join(body)
    yield data[: len(data) // 2]


def _pieces(body: Iterable[bytes], seconds: float) -> Iterator[bytes]:
    data = b"".join(body)
    size = len(data) // 4 + 1
    for start in range(0, len(data), size):
        time.sleep(seconds / 4)
        yield data[start : start + size]


def main() -> None:
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log_request(self, *_: object) -> None:
            """Thousands of requests are nothing to read."""

    server = make_server("127.0.0.1", 0, Store(), threaded=True, request_handler=Quiet)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
