"""What the proxy says of who asks, and how a server knows that it was the proxy: headers, and a secret of both.

Whoever asks at the proxy may send such headers as well: the proxy takes them away before it adds its own, and a server
that knows the secret answers nobody who does not.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote, unquote

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from dlassets.settings import AccessSettings

PROXY_HEADER = "X-Dlassets-Proxy"
USER_HEADER = "X-Dlassets-User"
ROLES_HEADER = "X-Dlassets-Roles"
_OURS = frozenset(name.lower().encode() for name in (PROXY_HEADER, USER_HEADER, ROLES_HEADER))
_STATE = "dlassets_visitor"


@dataclass(frozen=True)
class Visitor:
    """Who asks, as the gate knows them."""

    name: str
    roles: frozenset[str]

    @property
    def headers(self) -> dict[str, str]:
        """What the gate says of them; a header takes no letters but English ones."""
        return {USER_HEADER: quote(self.name, safe="@+ "), ROLES_HEADER: ",".join(sorted(self.roles))}


def visitor_of(scope: Scope) -> Visitor | None:
    """Return who asks; None where there is no gate, which is to know."""
    found = scope.get(_STATE)
    return found if isinstance(found, Visitor) else None


def is_by_the_proxy(headers: Headers, proxy_secret: str) -> bool:
    return hmac.compare_digest(headers.get(PROXY_HEADER, "").encode(), proxy_secret.encode())


class BehindTheProxy:
    """ASGI middleware that answers the proxy alone, but of those paths that are open, and takes from it who asks."""

    def __init__(self, app: ASGIApp, proxy_secret: str, open_paths: Collection[str] = ()) -> None:
        self._app, self._secret, self._open = app, proxy_secret, open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        by_the_proxy = is_by_the_proxy(headers, self._secret)
        if not by_the_proxy and scope["path"] not in self._open:
            text = (
                "This server answers the proxy alone (access.proxy_secret), where people log in: ask at the address of "
                "access.url.\n"
            )
            await PlainTextResponse(text, HTTPStatus.UNAUTHORIZED)(scope, receive, send)
            return
        said = _visitor(headers) if by_the_proxy else None
        # What is behind knows by the scope alone, and can hand the secret on to nobody.
        rest = [(name, value) for name, value in scope["headers"] if name.lower() not in _OURS]
        await self._app({**scope, "headers": rest, _STATE: said}, receive, send)


def behind_the_proxy(access: AccessSettings, open_paths: Collection[str]) -> list[Middleware]:
    """Return what stands before an application: nothing where no proxy is set, which would be known by its secret."""
    secret = access.proxy_secret
    return [Middleware(BehindTheProxy, proxy_secret=secret, open_paths=open_paths)] if secret else []


def _visitor(headers: Headers) -> Visitor | None:
    name = headers.get(USER_HEADER)
    if not name:
        return None
    return Visitor(unquote(name), frozenset(filter(None, headers.get(ROLES_HEADER, "").split(","))))
