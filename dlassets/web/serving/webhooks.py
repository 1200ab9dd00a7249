"""MLflow's webhooks: each that is genuine is a hint that the registry has changed, and nothing else is taken from it.

MLflow sends a webhook three times within seconds, and then never again, so that it only saves waiting: what one has
missed, the sensor `registry_changes` finds by itself.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable
from http import HTTPStatus

from fastapi import APIRouter, HTTPException, Request
from starlette.concurrency import run_in_threadpool

from dlassets.registry.hints import WINDOW_SECONDS, Deliveries
from dlassets.settings import Settings
from dlassets.storage.lake import Lake

PATH = "/webhooks/mlflow"
SIGNATURE, DELIVERY, TIMESTAMP = "X-MLflow-Signature", "X-MLflow-Delivery-Id", "X-MLflow-Timestamp"
_VERSION = "v1"
# MLflow's are some hundred bytes, and a tag's value some thousand.
MAX_BYTES = 64 * 2**10
_DELIVERY_ID = re.compile(r"[\w-]{1,100}", re.ASCII)


def signature_of(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """Return the signature that MLflow gives a delivery."""
    signed = hmac.new(secret.encode(), f"{delivery}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"{_VERSION},{base64.b64encode(signed).decode()}"


def webhook_router(settings: Settings, taken: Callable[[], None] = lambda: None) -> APIRouter:
    """Return the route that takes MLflow's webhooks; it has none where the settings have no secret of theirs.

    `taken` is called with each new one, so that the service itself need not wait to see who is champion.
    202: taken. 401: forged, not signed, or not of these minutes. 409: taken before. 413: too large. 503: the lake could
    not be written, so that MLflow sends it again.
    """
    router = APIRouter(tags=["webhooks"])
    secret, deliveries = settings.serving.webhook_secret, Deliveries(Lake.at(settings.root))
    if secret is None:
        return router

    @router.post(PATH, status_code=HTTPStatus.ACCEPTED, summary="MLflow's webhooks", include_in_schema=False)
    async def webhook(request: Request) -> dict[str, str]:
        body = await _body(request)
        if body is None:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A webhook has at most {MAX_BYTES} bytes.")
        delivery, timestamp = request.headers.get(DELIVERY, ""), request.headers.get(TIMESTAMP, "")
        now = time.time()
        # In constant time: how long a refusal takes must not say how much of a signature was right.
        expected = signature_of(secret, delivery, timestamp, body).encode()
        if not hmac.compare_digest(request.headers.get(SIGNATURE, "").encode(), expected):
            raise HTTPException(HTTPStatus.UNAUTHORIZED, "It is not signed by serving.webhook_secret.")
        if not _DELIVERY_ID.fullmatch(delivery) or not _is_of_now(timestamp, now):
            raise HTTPException(HTTPStatus.UNAUTHORIZED, f"It is not of the last {WINDOW_SECONDS} seconds.")
        try:
            is_new = await run_in_threadpool(deliveries.take, delivery, float(timestamp), now)
        except OSError as error:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "The lake could not be written.") from error
        if not is_new:
            raise HTTPException(HTTPStatus.CONFLICT, "It was taken before.")
        taken()
        return {"status": "taken"}

    return router


def _is_of_now(timestamp: str, now: float) -> bool:
    return timestamp.isascii() and timestamp.isdecimal() and abs(now - int(timestamp)) <= WINDOW_SECONDS


async def _body(request: Request) -> bytes | None:
    """Return a request's body, None where it is too large: no more than that is ever held."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            return None
    return bytes(body)
