"""A request's body, read as far as it may go on: so many bytes, so many seconds, and so much memory for all at once."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.requests import Request

from dlassets.settings import ServingSettings
from dlassets.web.serving.asked import Asked, asked_of
from dlassets.web.serving.refusals import RefusedError, later

# Of all bodies that are in memory at once, where none of them is larger than may be.
_AT_ONCE = 256 * 2**20


class Bodies:
    """Reads bodies, and knows how many bytes of them are held: each until its request is over."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self._most = max(_AT_ONCE, 4 * settings.max_bytes)
        self._held = 0

    async def read(self, request: Request, most: int | None = None) -> bytes:
        """Return the whole body, of `most` bytes where fewer than serving.max_bytes may be sent.

        Raises RefusedError, and ClientDisconnect where the client went away.
        """
        most = min(most or self._settings.max_bytes, self._settings.max_bytes)
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > most:
            raise self._too_large(most)
        chunks: list[bytes] = []
        asked = asked_of(request.scope)
        asked.at_end.append(lambda: self._let_go(asked))
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                async for chunk in request.stream():
                    asked.size += len(chunk)
                    self._held += len(chunk)
                    if asked.size > most:
                        raise self._too_large(most)
                    if self._held > self._most:
                        raise later(HTTPStatus.TOO_MANY_REQUESTS, "Too many bytes are being sent at once.")
                    chunks.append(chunk)
        except TimeoutError as error:
            raise RefusedError(
                HTTPStatus.REQUEST_TIMEOUT,
                f"The request was not here whole after {self._settings.body_seconds:g} s (serving.body_seconds).",
                {"Connection": "close"},
            ) from error
        return b"".join(chunks)

    def _let_go(self, asked: Asked) -> None:
        self._held -= asked.size

    def _too_large(self, most: int) -> RefusedError:
        by = " (serving.max_bytes)" if most == self._settings.max_bytes else ""
        return RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The request has more than {most:,} bytes{by}.")
