"""Who asks: by the cookie of a log-in, or as programs say it with each request, by a password or a token."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dlassets.settings import AccessSettings
from dlassets.web.gate.cookies import Cookies, Session, new_session
from dlassets.web.gate.throttle import Throttle
from dlassets.web.gate.users import User, UsersFile
from dlassets.web.identity import Visitor

_MOST_REMEMBERED = 1000


@dataclass(frozen=True)
class WaitError(Exception):
    """Too many wrong passwords: nothing is looked at for so many seconds."""

    seconds: int


class Doorkeeper:
    def __init__(self, access: AccessSettings, cookies: Cookies) -> None:
        self._access, self._cookies = access, cookies
        self._users = UsersFile(Path(access.users_file)) if access.users_file else None
        self._throttle = Throttle(access.attempts)
        # Programs send their password with each request, and a look at one is slow by design.
        self._key = secrets.token_bytes(32)
        self._remembered: dict[bytes, str] = {}

    def check(self) -> None:
        """Raise DlassetsError where nobody could log in."""
        if self._users is not None:
            self._users.all()

    def by_cookie(self, cookies: Mapping[str, str]) -> Visitor | None:
        session = self._cookies.read(cookies)
        return self._visitor(session) if session else None

    def by_authorization(self, header: str, address: str) -> Visitor | None:
        """Return who says so in the header Authorization, which takes a moment. Raises WaitError."""
        kind, _, given = header.partition(" ")
        if self._users is None:
            return None
        if kind.lower() == "bearer":
            user = self._users.with_token(given.strip())
            return _as_visitor(user) if user else None
        if kind.lower() != "basic":
            return None
        try:
            name, _, password = base64.b64decode(given, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        user = self._of_password(name, password, address)
        return _as_visitor(user) if user else None

    def log_in(self, name: str, password: str, address: str) -> Session | None:
        """Return a session of whoever has this password. Raises WaitError."""
        user = self._of_password(name, password, address)
        return new_session(user.name, user.proof) if user else None

    def _of_password(self, name: str, password: str, address: str) -> User | None:
        if self._users is None:
            return None
        seen = hmac.digest(self._key, f"{name}\0{password}".encode(), hashlib.sha256)
        user = self._users.all().get(name)
        if user is not None and hmac.compare_digest(self._remembered.get(seen, ""), user.proof):
            return user
        if wait := self._throttle.seconds(name, address):
            raise WaitError(math.ceil(wait))
        user = self._users.with_password(name, password)
        if user is None:
            return None
        self._throttle.was_right(name, address)
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[seen] = user.proof
        return user

    def _visitor(self, session: Session) -> Visitor | None:
        """Return who a session is of, as they are by now; None for who has been removed or has another password."""
        if not session.proof:  # the provider's word, which holds as long as the session
            return Visitor(session.name, frozenset(session.roles)) if self._access.login == "oidc" else None
        user = self._users.all().get(session.name) if self._users and self._access.login == "basic" else None
        if user is None or not hmac.compare_digest(user.proof, session.proof):
            return None
        return _as_visitor(user)


def _as_visitor(user: User) -> Visitor:
    return Visitor(user.name, frozenset(user.roles))
