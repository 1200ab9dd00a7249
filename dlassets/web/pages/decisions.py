"""What a person decides on a page: that a version is promoted, or never is. The log-in at the proxy says who."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from dlassets.errors import DlassetsError
from dlassets.pipeline.session import Session
from dlassets.registry.approval import approve, reject
from dlassets.settings import Settings
from dlassets.web.identity import Visitor, visitor_of
from dlassets.web.pages.rendering import link

ROLE = "approver"
_LONGEST_REASON, _LONGEST_FORM = 1000, 10_000


def routes(settings: Settings) -> list[Route]:
    return [
        Route("/versions/approve", _decision(settings, approve), methods=["POST"]),
        Route("/versions/reject", _decision(settings, reject), methods=["POST"]),
    ]


def may_decide(visitor: Visitor | None) -> bool:
    return visitor is not None and ROLE in visitor.roles


def _decision(settings: Settings, decide: Callable[..., Any]) -> Callable[[Request], Any]:
    start = link(urlsplit(settings.ui.pages).path.rstrip("/"), "")

    async def take(request: Request) -> Response:
        visitor = visitor_of(request.scope)
        if visitor is None or not may_decide(visitor):
            raise HTTPException(HTTPStatus.FORBIDDEN, f"Versions are decided on by who has logged in as {ROLE}.")
        version, reason = await _said(request)
        registry = _session(settings, visitor.name).registry
        await asyncio.to_thread(decide, registry, version, reason)
        return RedirectResponse(start, HTTPStatus.SEE_OTHER)

    return take


async def _said(request: Request) -> tuple[int, str]:
    """Return the version and the reason of a form. Raises HTTPException for what is neither."""
    if int(request.headers.get("content-length") or _LONGEST_FORM + 1) > _LONGEST_FORM:
        raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "A form with a version and a reason is shorter.")
    form = await request.form()
    version, reason = str(form.get("version", "")), " ".join(str(form.get("reason", "")).split())
    if not (version.isascii() and version.isdecimal()) or not 0 < len(reason) <= _LONGEST_REASON:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, "Say which version, and why, in a line.")
    return int(version), reason


def _session(settings: Settings, name: str) -> Session:
    """Return a session in which this person acts. The embedded engine writes their word, which is a row."""
    if settings.spark.only_writer:
        raise DlassetsError(
            "spark.only_writer has one Spark driver alone write this lake, so that no page may: decide there, by "
            "`dlassets approve` or `dlassets reject`."
        )
    registry = settings.registry.model_copy(update={"actor": name})
    return Session(settings.model_copy(update={"engine": "local", "registry": registry}))
