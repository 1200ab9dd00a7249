"""The cookie of who has logged in: signed, and worth nothing once it is too old or its person is no longer let in."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from itsdangerous import BadSignature, URLSafeTimedSerializer

from dlassets.settings import AccessSettings
from dlassets.web.gate.label_studio import SESSION_COOKIE

COOKIE = "dlassets_session"
LABEL_STUDIO_COOKIE = "dlassets_label_studio"


@dataclass(frozen=True)
class Session:
    """Somebody's log-in. `proof` is of the user's entry, which a new password changes; `roles` are a provider's word,
    where nothing here knows better.
    """

    name: str
    id: str
    proof: str = ""
    roles: tuple[str, ...] = ()


def new_session(name: str, proof: str = "", roles: tuple[str, ...] = ()) -> Session:
    return Session(name, secrets.token_urlsafe(12), proof, roles)


class Cookies:
    """What cookies hold, for the minutes that the settings say. A log-out is remembered as long, in this process."""

    def __init__(self, access: AccessSettings, cookie_secret: str) -> None:
        self._seconds = int(access.session_minutes * 60)
        self._is_secure = (access.url or "").startswith("https://")
        self._sessions = URLSafeTimedSerializer(cookie_secret, "a session of the gate")
        self._label_studio = URLSafeTimedSerializer(cookie_secret, "a log-in at Label Studio")
        self._ended: dict[str, float] = {}

    def write(self, session: Session) -> str:
        """Return the header Set-Cookie of a session."""
        return self._header(self._sessions.dumps(asdict(session)), self._seconds)

    def read(self, cookies: Mapping[str, str]) -> Session | None:
        """Return whose request it is by its cookie; None where that is missing, forged, too old or was ended."""
        try:
            held = self._sessions.loads(cookies.get(COOKIE, ""), max_age=self._seconds)
        except BadSignature:
            return None
        session = Session(held["name"], held["id"], held["proof"], tuple(held["roles"]))
        return None if session.id in self._ended else session

    def end(self, session: Session | None) -> str:
        """Return the header Set-Cookie that takes a session back, which is not read again."""
        now = time.time()
        self._ended = {name: until for name, until in self._ended.items() if until > now}
        if session is not None:
            self._ended[session.id] = now + self._seconds
        return self._header("", 0)

    def write_label_studio(self, session: Session, value: str) -> list[str]:
        """Return the headers Set-Cookie of a log-in at Label Studio, and of which log-in here it belongs to."""
        told = {SESSION_COOKIE: value, LABEL_STUDIO_COOKIE: str(self._label_studio.dumps(session.id))}
        return [self._header(value, self._seconds, cookie) for cookie, value in told.items()]

    def is_at_label_studio(self, cookies: Mapping[str, str]) -> bool:
        """Whether who asks has been logged in at Label Studio: another may have used this browser before.

        What the cookie of that holds is no sign, since Label Studio writes it anew as it goes.
        """
        session = self.read(cookies)
        try:
            held = self._label_studio.loads(cookies.get(LABEL_STUDIO_COOKIE, ""), max_age=self._seconds)
        except BadSignature:
            return False
        return session is not None and bool(held == session.id)

    def _header(self, value: str, seconds: int, name: str = COOKIE) -> str:
        # Lax: a link from a mail leads in, and no other site's page can have anything done.
        secure = "; Secure" if self._is_secure else ""
        return f"{name}={value}; Max-Age={seconds}; Path=/; HttpOnly; SameSite=Lax{secure}"
