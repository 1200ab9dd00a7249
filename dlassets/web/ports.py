"""Ports of this machine that nobody listens on yet."""

from __future__ import annotations

import socket
from collections.abc import Collection

from dlassets.errors import DlassetsError

HOST = "127.0.0.1"
PORTS_TRIED = 20


def free_ports(*wanted: int, besides: Collection[int] = ()) -> list[int]:
    """Return, for each, the first port from there on that can be listened on; none of `besides`.

    Raises DlassetsError if twenty cannot.
    """
    found: list[int] = []
    for first in wanted:
        ports = range(first, min(first + PORTS_TRIED, 65536))
        port = next((port for port in ports if port not in {*found, *besides} and is_free(port)), None)
        if port is None:
            raise DlassetsError(f"Ports {ports.start} to {ports.stop - 1} on {HOST} are all taken: name another.")
        found.append(port)
    return found


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do, or a port would seem taken for a minute after the last server on it has gone.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
