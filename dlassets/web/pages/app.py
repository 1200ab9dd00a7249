"""The application: which pages there are, who may ask for them, and what a browser may do with what it is given."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dlassets.errors import DlassetsError
from dlassets.masking import masked
from dlassets.settings import Settings
from dlassets.web.guard import Guard
from dlassets.web.identity import behind_the_proxy
from dlassets.web.pages import decisions, files, lake, pictures
from dlassets.web.pages.rendering import Templates, icon, style

# Nothing from elsewhere, and no script: what is on a page came from files' names and other people's words.
POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with none at all, browsers keep from a form's server that it is its own
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def create_app(settings: Settings) -> Starlette:
    """Return the pages of the settings' lake, guarded. They are read anew for each request."""
    templates = Templates(settings)

    async def refused(_: Request, error: Exception) -> Response:
        is_ours = isinstance(error, HTTPException)
        status = error.status_code if is_ours else HTTPStatus.SERVICE_UNAVAILABLE  # type: ignore[attr-defined]
        message = error.detail if is_ours else str(error)  # type: ignore[attr-defined]
        return templates.page("refused.html", status, status=HTTPStatus(status), message=masked(message))

    routes: list[BaseRoute] = [
        *lake.routes(settings, templates),
        *pictures.routes(settings),
        *files.routes(settings),
        *decisions.routes(settings),
        Route("/style.css", style),
        Route("/favicon.ico", icon),
        Route("/health", _health),
    ]
    # A proxy has them at a path of its own, and may or may not pass that on.
    prefix = urlsplit(settings.ui.pages).path.rstrip("/")
    return Starlette(
        routes=[*routes, Mount(prefix, routes=routes)] if prefix else routes,
        middleware=[
            Middleware(Safe),
            *behind_the_proxy(settings.access, {"/health", f"{prefix}/health"}),
            Middleware(Guard, addresses=settings.ui.of_pages),
        ],
        exception_handlers={HTTPException: refused, DlassetsError: refused},
    )


class Safe:
    """ASGI middleware that gives every answer the HEADERS that it does not have itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_safely)


def _health(_: Request) -> Response:
    return PlainTextResponse("OK")
