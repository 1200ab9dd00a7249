"""Label Studio's webhook: each that is known by its header is a hint that somebody has answered. None is read."""

from __future__ import annotations

import hmac
from http import HTTPStatus

from fastapi import APIRouter, HTTPException, Request
from starlette.concurrency import run_in_threadpool

from dlassets.labeling.label_studio.hints import HEADER, PATH, key_of, leave_hint
from dlassets.settings import Settings
from dlassets.storage.lake import Lake


def hint_router(settings: Settings) -> APIRouter:
    """Return the route that takes hints; it has none where the settings have no secret of webhooks.

    202: taken. 401: not known by its header. 503: the lake could not be written.
    """
    router = APIRouter(tags=["webhooks"])
    secret, lake = settings.serving.webhook_secret, Lake.at(settings.root)
    if secret is None:
        return router
    key = key_of(secret).encode()

    @router.post(PATH, status_code=HTTPStatus.ACCEPTED, summary="Label Studio's webhook", include_in_schema=False)
    async def hint(request: Request) -> dict[str, str]:
        # In constant time: how long a refusal takes must not say how much of it was right.
        if not hmac.compare_digest(request.headers.get(HEADER, "").encode(), key):
            raise HTTPException(HTTPStatus.UNAUTHORIZED, f"Its {HEADER} is not of serving.webhook_secret.")
        try:
            await run_in_threadpool(leave_hint, lake)
        except OSError as error:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "The lake could not be written.") from error
        return {"status": "taken"}

    return router
