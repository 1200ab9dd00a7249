"""A gate of people with one role each, as the proxy and browsers ask it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from dlassets.settings import AccessSettings, Settings
from dlassets.web.gate.app import create_app
from dlassets.web.gate.policy import PART_HEADER
from dlassets.web.gate.users import changed, checked, with_new_password
from dlassets.web.identity import PROXY_HEADER

URL = "https://lake.example.com"
COOKIE_SECRET, PROXY_SECRET = "c" * 32, "p" * 32
ROLE_OF = {"vera": "viewer", "lars": "labeller", "olga": "operator", "anna": "approver"}
READER, WRITER = {"user": "reader", "password": "Reader-1-pass"}, {"user": "writer", "password": "Writer-1-pass"}
BROWSER = {"Accept": "text/html,*/*", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def password_of(name: str) -> str:
    return f"password of {name}"


def add_people(path: Path) -> None:
    with changed(path) as users:
        for name, role in ROLE_OF.items():
            users[name] = with_new_password(checked(name, (role,)), password_of(name))


def settings_of(path: Path, **changes: Any) -> Settings:
    given = {"url": URL, "users_file": str(path), "cookie_secret": COOKIE_SECRET, "proxy_secret": PROXY_SECRET}
    return Settings(
        access=AccessSettings.model_validate(given | {"mlflow_reader": READER, "mlflow_writer": WRITER} | changes)
    )


class Asker:
    """Somebody who asks at the proxy: through it, or at the gate's own pages."""

    def __init__(self, settings: Settings) -> None:
        self.client = TestClient(create_app(settings), base_url=URL, follow_redirects=False)

    def login(self, name: str, password: str | None = None, then: str = "/", **headers: str) -> Any:
        form = {"name": name, "password": password_of(name) if password is None else password, "next": then}
        return self.client.post("/gate/login", data=form, headers={**BROWSER, "Origin": URL, **headers})

    def asks(self, part: str, method: str, path: str, **headers: str) -> Any:
        """Return what the gate tells the proxy of a request."""
        said = {PROXY_HEADER: PROXY_SECRET, PART_HEADER: part, "X-Forwarded-Method": method, "X-Forwarded-Uri": path}
        return self.client.get(
            "/check", headers={**said, **{name.replace("_", "-"): value for name, value in headers.items()}}
        )
