"""Which requests a user interface answers: its own pages' and those of programs, but no other web page's.

None of them asks who is there, so whatever a browser on this machine is made to send to them, by any page
that is open in it, would be done. A browser says where a request comes from, which no page can change: in `Origin`, in
`Sec-Fetch-Site`, and in `Host` the name under which it found the server, which a page may have pointed at this machine.
Programs (curl, MLflow's client) send none of these but `Host`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
HINT = (
    "Where browsers reach this server at another address than 127.0.0.1 or localhost, name it: "
    "DLASSETS_UI__PAGES=https://… for the pages, DLASSETS_UI__DAGSTER=https://… for Dagster, "
    "DLASSETS_UI__MLFLOW=https://… for MLflow, and any further ones in DLASSETS_UI__ORIGINS.\n"
)
_DEFAULT_PORTS = (":80", ":443")


@dataclass(frozen=True)
class Refusal:
    status: HTTPStatus
    reason: str


def refusal(method: str, headers: Headers, allowed: frozenset[str]) -> Refusal | None:
    """Return why a request is refused, None for one to be answered. `allowed` has the hosts of `hosts_of`."""
    hosts = {_normal(host) for host in headers.getlist("host")}
    if len(hosts) != 1 or not all(_name(host) in LOOPBACK or host in allowed for host in hosts):
        return Refusal(
            HTTPStatus.MISDIRECTED_REQUEST, "It was sent to a host (its header Host) whose name is not this server's."
        )
    origins = headers.getlist("origin")
    if not all(_host_of(origin) in hosts | allowed for origin in origins):
        return Refusal(HTTPStatus.FORBIDDEN, "It was sent by a page of another origin (its header Origin).")
    # A page on another port of this machine is same-site, and no more trusted than any other.
    if not origins and headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}:
        if _is_page_opened(method, headers):
            return None
        return Refusal(HTTPStatus.FORBIDDEN, "It was sent by a page of another site (its header Sec-Fetch-Site).")
    return None


def hosts_of(addresses: Iterable[str]) -> frozenset[str]:
    """Return the hosts, with the port where it is not the usual one, of addresses such as https://lake.example.com."""
    return frozenset(_host_of(address) for address in addresses)


class Guard:
    """ASGI middleware that answers what `refusal` lets through, and says of the rest why not and what to set."""

    def __init__(self, app: ASGIApp, addresses: Iterable[str]) -> None:
        self._app = app
        self._allowed = hosts_of(addresses)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = None
        if scope["type"] in {"http", "websocket"}:
            refused = refusal(scope.get("method", "GET"), Headers(scope=scope), self._allowed)
        if refused is None:
            await self._app(scope, receive, send)
        else:
            text = f"dlassets refused this request. {refused.reason}\n{HINT}"
            await PlainTextResponse(text, refused.status)(scope, receive, send)


def _is_page_opened(method: str, headers: Headers) -> bool:
    """Whether a person follows a link to a page, in a window of its own: nothing is changed, or shown to another."""
    fetched = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
    return method in {"GET", "HEAD"} and fetched == ("navigate", "document")


def _host_of(address: str) -> str:
    """Return an address' host as `Host` names it; what is no web address (an origin of null) has one of no server."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    return _normal(parts.netloc) if parts.scheme in {"http", "https"} else address


def _normal(host: str) -> str:
    host = host.lower()
    for port in _DEFAULT_PORTS:
        host = host.removesuffix(port)
    return host


def _name(host: str) -> str:
    """Return a host without its port."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
