"""An S3 server on loopback that can be told to misbehave: `python server.py` says its port, then serves until killed.

It is moto's, or the one at the port of this machine that is given (`python server.py 7070`), behind a little WSGI
application that knows one pair of credentials and injects faults. PUT /_faults sets them (`Faults`, as JSON) and starts
counting anew; GET /_faults says how many there were of each that is set.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Start = Callable[..., Any]
Application = Callable[[dict[str, Any], Start], Iterable[bytes]]
ACCESS_KEY = "test-key"
_COUNTED = ("busy", "slow", "cut", "lost")
# Headers that are of one connection.
_HOPS = {"Connection", "Transfer-Encoding"}


@dataclass(frozen=True)
class Faults:
    """`…_every` is one request of so many; 0 is none. Reads are GETs of objects, commits are PUTs of a Delta log's."""

    busy_every: int = 0  # 503 SlowDown
    slow_every: int = 0  # a read that comes in pieces, over `slow_seconds`
    slow_seconds: float = 0.2
    cut_every: int = 0  # a read whose connection ends half way
    denied: str = ""  # 403 AccessDenied for reads of keys that contain this regular expression
    down: str = ""  # 503 for each read of such keys
    late_seconds: float = 0  # how long a commit takes to get here
    lost_every: int = 0  # a commit that is taken, and whose connection ends without an answer


class Store:
    """The application: faults first, then a real server."""

    def __init__(self, server: Application) -> None:
        self._server = server
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
        if environ["REQUEST_METHOD"] == "PUT" and re.search(r"/_delta_log/\d{20}\.json$", environ["PATH_INFO"]):
            return self._commit(environ, start)
        return self._server(environ, start)

    def _commit(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        time.sleep(self._faults.late_seconds)
        is_lost = self._turn("lost", self._faults.lost_every)
        answer = self._server(environ, start)
        if is_lost:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return answer

    def _read(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        faults = self._faults
        if faults.denied and re.search(faults.denied, environ["PATH_INFO"]):
            return _refuse(environ, start, "403 Forbidden", "AccessDenied", "Access Denied")
        if faults.down and re.search(faults.down, environ["PATH_INFO"]):
            return _busy(environ, start)
        if self._turn("cut", faults.cut_every):
            return _half(self._server(environ, start))
        if self._turn("slow", faults.slow_every):
            return _pieces(self._server(environ, start), faults.slow_seconds)
        return self._server(environ, start)

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
            faults = [name for name in _COUNTED if getattr(self._faults, f"{name}_every")]
            counts = {fault: self._counts[fault] for fault in faults}
        start("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(counts).encode()]


def _moto() -> Application:
    """Return moto's server, which looks for an object and then puts one: those that are conditional, one at a time."""
    from moto.server import DomainDispatcherApplication, create_backend_app

    application, one_at_a_time = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def answer(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        if "HTTP_IF_NONE_MATCH" not in environ:
            return application(environ, start)
        with one_at_a_time:
            return list(application(environ, start))

    return answer


def _forwarded(port: int) -> Application:
    """Return what passes a request on as it is, signature and all."""

    def answer(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        headers = {name: value for name, value in environ["werkzeug.request_headers"] if name not in _HOPS}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(environ["REQUEST_METHOD"], environ["RAW_URI"], _body(environ), headers)
        response = connection.getresponse()
        content = response.read()
        start(f"{response.status} {response.reason}", [item for item in response.getheaders() if item[0] not in _HOPS])
        connection.close()
        return [content]

    return answer


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

        def make_environ(self) -> dict[str, Any]:
            return {**super().make_environ(), "werkzeug.request_headers": self.headers.items()}

    application = _forwarded(int(sys.argv[1])) if sys.argv[1:] else _moto()
    server = make_server("127.0.0.1", 0, Store(application), threaded=True, request_handler=Quiet)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
