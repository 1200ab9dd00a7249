"""Label Studio, whose community edition has no log-in but its own: who has logged in here is logged in there.

They are made a user there when they first come, by the link that invites one, with a password that nobody sees.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from http import HTTPStatus
from typing import TYPE_CHECKING

from dlassets.errors import DlassetsError
from dlassets.labeling.label_studio.http import Address

if TYPE_CHECKING:
    import httpx2

SESSION_COOKIE = "sessionid"
_NO_ADDRESS = "people.dlassets.example"  # of those whose name is none
_SECONDS = 30


def email_of(name: str) -> str:
    """Return the address by which Label Studio knows somebody."""
    return (name if "@" in name else f"{name}@{_NO_ADDRESS}").lower()


async def logged_in(address: Address, name: str, secret: str) -> str:
    """Return the session of this person at Label Studio. Raises DlassetsError where there can be none."""
    import httpx2

    user = {"email": email_of(name), "password": _password(email_of(name), secret)}
    try:
        async with httpx2.AsyncClient(base_url=address.url, timeout=_SECONDS, trust_env=False) as client:
            if session := await _sent(client, "/user/login/", user):
                return session
            invited = await client.get("/api/invite", headers={"Authorization": f"Token {address.token}"})
            invited.raise_for_status()
            if session := await _sent(client, f"/user/signup/?token={invited.json()['token']}", user):
                return session
    except (httpx2.HTTPError, ValueError, KeyError) as error:
        raise DlassetsError(f"Label Studio at {address.url} does not let people in: {error}") from error
    raise DlassetsError(
        f"Label Studio at {address.url} has a user {user['email']} whom the gate has not made, or another "
        "access.cookie_secret has. Remove that user there, or log in there by that password."
    )


async def _sent(client: httpx2.AsyncClient, path: str, user: dict[str, str]) -> str | None:
    """Send a form of Label Studio's, which wants back what it has given; return the session, if it let them in."""
    form = await client.get(path)
    form.raise_for_status()
    fields = {**user, "csrfmiddlewaretoken": client.cookies.get("csrftoken") or ""}
    answer = await client.post(path, data=fields, headers={"Referer": f"{client.base_url}{path}"})
    return answer.cookies.get(SESSION_COOKIE) if answer.status_code == HTTPStatus.FOUND else None


def _password(email: str, secret: str) -> str:
    return base64.urlsafe_b64encode(
        hmac.digest(secret.encode(), f"Label Studio {email}".encode(), hashlib.sha256)
    ).decode()
