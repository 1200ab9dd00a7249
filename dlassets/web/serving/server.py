"""The process that serves: its socket, its log, and connections that are not what they should be."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import click
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dlassets.errors import DlassetsError
from dlassets.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_BACKLOG = 2048
_FILES = 65_536
_GRACE_SECONDS = 20
_KEPT_SECONDS = 30
# A request's head is to be here whole after this to twice as long.
HEAD_SECONDS = 10
_LONGEST_HEAD = 2**20
# How long a thread may keep Python's lock where another asks for it: the loop asks for it with each answer.
_SWITCH_SECONDS = 0.001


class Connection(HttpToolsProtocol):
    """A connection that is closed where a request's head does not end, or what was refused goes on being sent."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._is_head, self._head = True, 0
        self._before: Any = self
        self.loop.call_later(HEAD_SECONDS, self._look)

    def data_received(self, data: bytes) -> None:
        if self._is_head:
            self._head += len(data)
            if self._head > _LONGEST_HEAD:
                self.transport.abort()
                return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._is_head = False

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._is_head, self._head = True, 0

    def _look(self) -> None:
        """Close it where no request is being answered, and that was so the last time, but data comes."""
        if self.transport.is_closing():
            return
        is_answered = self.cycle is None or self.cycle.response_complete
        rests = self.timeout_keep_alive_task is not None  # then uvicorn closes it, if nothing comes
        if is_answered and not rests and self._before is self.cycle:
            self.transport.abort()
            return
        self._before = self.cycle if is_answered and not rests else self
        self.loop.call_later(HEAD_SECONDS, self._look)


class _Server(uvicorn.Server):
    """Calls `announce` once it listens, and can be stopped."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()
            sys.stdout.flush()


def run(app: ASGIApp, settings: Settings, announce: Callable[[str], None] | None = None) -> NoReturn:
    """Serve until SIGINT or SIGTERM, then answer what was asked, and end the process.

    Once it listens it tells `announce` its address, or prints it. Raises DlassetsError where that cannot be had.
    """
    host, port = settings.serving.host, settings.serving.port
    try:
        listening = socket.create_server((host, port), backlog=_BACKLOG, family=_family(host))
    except OSError as error:
        raise DlassetsError(
            f"{host}:{port} cannot be listened on: {error}. Name another port: --port, or DLASSETS_SERVING__PORT."
        ) from error
    _log_to_streams()
    _allow_many_connections()
    sys.setswitchinterval(_SWITCH_SECONDS)
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEPT_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
    announcement = f"Serving {settings.registry.model_name} on {address}. Press Ctrl-C to stop."
    server = _Server(config, lambda: announce(address) if announce else click.echo(announcement))
    for number in (signal.SIGINT, signal.SIGTERM):  # which uvicorn sends itself once more at its end
        signal.signal(number, lambda *_: None)
    server.run(sockets=[listening])
    raise SystemExit(0 if server.started else 1)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _log_to_streams() -> None:
    """Have requests be logged to stdout, a line of JSON each, and everything else to stderr."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("dlassets").setLevel(logging.INFO)
    requests = logging.getLogger("dlassets.requests")
    requests.propagate = False
    requests.addHandler(logging.StreamHandler(sys.stdout))


def _allow_many_connections() -> None:
    """Let slow clients be as many as the system allows: each of them is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
