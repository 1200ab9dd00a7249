"""The page alone, for a team that has no model served: `dlassets label`."""

from __future__ import annotations

import socket
from typing import NoReturn

import click
from fastapi import FastAPI
from starlette.responses import RedirectResponse, Response

from dlassets.labeling.label_studio.hints import PATH as HINTS
from dlassets.masking import print_unmasked
from dlassets.settings import Settings
from dlassets.web.serving.answer_hints import hint_router
from dlassets.web.serving.guarded import HANDLERS, middleware
from dlassets.web.serving.label import page
from dlassets.web.serving.metrics import Metrics
from dlassets.web.serving.server import run

# By which this machine's own address is found: nothing is sent there, and nobody has it (RFC 5737).
_ANYWHERE = "192.0.2.1", 9
_ALL = {"0.0.0.0", "::"}  # noqa: S104 - what is asked for, and not what is listened on by itself


def create_app(settings: Settings) -> FastAPI:
    """Return the page alone, guarded as what is served: by serving.token, or open to this machine alone."""
    app = FastAPI(
        openapi_url=None,
        middleware=middleware(settings, Metrics(), {"/", "/health", *page.FILES, HINTS}),
        exception_handlers=HANDLERS,
    )

    @app.get("/", response_model=None)
    def to_the_page() -> Response:
        return RedirectResponse(page.PAGE.lstrip("/"))

    @app.get("/health", response_model=None)
    def health() -> Response:
        return Response("OK", media_type="text/plain")

    app.include_router(page.routes(settings))
    app.include_router(hint_router(settings))
    return app


def serve_page(settings: Settings, *, shows_token: bool) -> NoReturn:
    """Serve the page until SIGINT or SIGTERM, having printed its address, with the token where that is to be shown.

    Raises DlassetsError where its address or the answers cannot be had.
    """
    tell = print_unmasked if shows_token else click.echo
    run(create_app(settings), settings, lambda address: tell(_announcement(settings, address)))


def _announcement(settings: Settings, address: str) -> str:
    """Return where to open the page: with the token behind #, which browsers keep to themselves."""
    host, serving = settings.serving.host, settings.serving
    if host in _ALL:
        address = f"http://{_own_address()}:{address.rpartition(':')[2]}"
    token = f"#token={serving.token}" if serving.token else ""
    return f"Label photos on {address}{page.PAGE}{token} (Ctrl-C stops it)"


def _own_address() -> str:
    """Return the address of this machine that others reach; its name where it is on no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ANYWHERE)
        except OSError:
            return socket.gethostname()
        return str(probe.getsockname()[0])
