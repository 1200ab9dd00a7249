"""Who is answered by what serves, and how they are told that they are not."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Collection
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from dlassets.labeling.label_studio.hints import PATH as HINTS
from dlassets.settings import Settings
from dlassets.web.guard import Guard
from dlassets.web.identity import behind_the_proxy
from dlassets.web.pages.app import Safe
from dlassets.web.serving.metrics import Metrics
from dlassets.web.serving.noted import GONE, Noted
from dlassets.web.serving.refusals import RefusedError, refusal, refusal_of
from dlassets.web.serving.webhooks import PATH as WEBHOOKS

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_log = logging.getLogger("dlassets.serving")
# By who started it, whether it is up.
_PROBED = ("/health", "/ping", "/ready", "/v2/health/live", "/v2/health/ready", "/metrics")


def middleware(settings: Settings, metrics: Metrics, open_paths: Collection[str]) -> list[Middleware]:
    """Return what stands before an application; `open_paths` are asked for without a token."""
    return [Middleware(Noted, metrics=metrics), Middleware(Safe), *_asked_who(settings, open_paths)]


def _asked_who(settings: Settings, open_paths: Collection[str]) -> list[Middleware]:
    token, guard = settings.serving.token, Middleware(Guard, addresses=settings.ui.of_label)
    # Webhooks come from servers beside this one, and bring a signature, or a key of their own.
    if behind := behind_the_proxy(settings.access, {*_PROBED, WEBHOOKS, HINTS}):
        return [*behind, guard]
    # Without a token, whatever any page that is open in a browser here sends would be answered.
    return [Middleware(Bearer, token=token, open_paths=open_paths) if token else guard]


class Bearer:
    """ASGI middleware that asks for the token, but of those paths that are open."""

    def __init__(self, app: ASGIApp, token: str, open_paths: Collection[str]) -> None:
        self._app, self._wanted, self._open = app, f"Bearer {token}".encode(), open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._open:
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if hmac.compare_digest(given, self._wanted):
            await self._app(scope, receive, send)
            return
        message = "The request needs the header `Authorization: Bearer <token>`, with the token of serving.token."
        headers = {"WWW-Authenticate": "Bearer"}
        await refusal(Request(scope), HTTPStatus.UNAUTHORIZED, message, headers)(scope, receive, send)


async def _not_there(request: Request, error: Exception) -> Response:
    status, headers = error.status_code, error.headers  # type: ignore[attr-defined]  # it is an HTTPException
    return refusal(request, status, error.detail, headers)  # type: ignore[attr-defined]


async def _gone(request: Request, _: Exception) -> Response:
    return refusal(request, GONE, "The client went away.")


async def _failed(request: Request, error: Exception) -> Response:
    _log.error("A request failed.", exc_info=error)
    return refusal(request, HTTPStatus.INTERNAL_SERVER_ERROR, "The request failed, as the server's log says.")


HANDLERS: dict[Any, Any] = {
    RefusedError: refusal_of,
    HTTPException: _not_there,
    ClientDisconnect: _gone,
    Exception: _failed,
}
