"""What is written down of each request at its end: a line in the log, and the metrics."""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders

from dlassets.web.serving.asked import Asked
from dlassets.web.serving.metrics import Metrics

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

ID_HEADER = "X-Request-Id"
# The client went away before it was answered: a status that nobody is sent.
GONE = 499
_ID = re.compile(rb"[\w.:-]{1,128}", re.ASCII)

_log = logging.getLogger("dlassets.requests")


class Noted:
    """ASGI middleware: each request is given an id, or keeps its own, is counted, and has a line in the log.

    The line has neither the photos nor the token.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = scope["asked"] = Asked(_id_of(scope), dt.datetime.now(dt.UTC))
        status: int = GONE

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[ID_HEADER] = asked.request_id
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except Exception:
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            raise
        finally:
            for call in asked.at_end:
                call()
            self._metrics.count(asked, status)
            if asked.form is not None:
                _log.info(_line(asked, status))


def _id_of(scope: Scope) -> str:
    """Return the id that the client gave the request, if it is one, else a new one."""
    name = ID_HEADER.lower().encode()
    given = next((value for key, value in scope["headers"] if key == name), b"")
    return given.decode() if _ID.fullmatch(given) else uuid.uuid4().hex


def _line(asked: Asked, status: int) -> str:
    return json.dumps(
        {
            "at": asked.received_at.isoformat(timespec="milliseconds"),
            "request_id": asked.request_id,
            "form": asked.form,
            "status": status,
            "ms": round(asked.seconds * 1000, 1),
            "photos": asked.photos,
            "bytes": asked.size,
            "model": str(asked.model) if asked.model else None,
        }
    )
