"""Why a request is not answered, and the one form in which every client is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from dlassets.masking import masked
from dlassets.web.serving.asked import asked_of


class RefusedError(Exception):
    """A request that is not answered: with this status and message."""

    def __init__(self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})


def later(status: HTTPStatus, message: str, seconds: int = 1) -> RefusedError:
    """Return what tells a client to ask again, after so many seconds."""
    return RefusedError(status, message, {"Retry-After": str(seconds)})


async def refusal_of(request: Request, error: RefusedError) -> Response:
    return refusal(request, error.status, error.message, error.headers)


def refusal(request: Request, status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    asked = asked_of(request.scope)
    told = {"error": masked(message), "request_id": asked.request_id}
    return Response(json.dumps(told), status, dict(headers or {}), media_type="application/json")
