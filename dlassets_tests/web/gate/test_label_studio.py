"""Label Studio behind the gate: a labeller who has logged in is logged in there, as themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from dlassets.errors import DlassetsError
from dlassets.labeling.label_studio.http import Address
from dlassets.settings import LabelingSettings, LabelStudioSettings, Settings
from dlassets.storage.lake import Lake
from dlassets.web.gate.cookies import LABEL_STUDIO_COOKIE
from dlassets.web.gate.label_studio import SESSION_COOKIE, email_of, logged_in
from dlassets_tests.label_studio_servers import LabelStudioServer, needs_label_studio
from dlassets_tests.web.gate.people import BROWSER, COOKIE_SECRET, Asker, add_people, settings_of

pytestmark = [pytest.mark.slow, needs_label_studio]


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[LabelStudioServer]:
    made = LabelStudioServer(Lake.at(str(tmp_path_factory.mktemp("studio") / "lake")))
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def asker(server, tmp_path: Path) -> Asker:
    add_people(tmp_path / "users.yaml")
    own = LabelStudioSettings(url=server.login.url, token=server.login.token)
    settings: Settings = settings_of(tmp_path / "users.yaml")
    return Asker(settings.model_copy(update={"labeling": LabelingSettings(label_studio=own)}))


def who(server: LabelStudioServer, cookies: dict[str, str]) -> Any:
    return httpx2.get(f"{server.login.url}/api/current-user/whoami", cookies=cookies, trust_env=False).json()["email"]


def test_a_labeller_who_has_logged_in_is_logged_in_there_the_first_time_and_again(server, asker) -> None:
    for _ in range(2):
        asker.login("lars")
        sent = asker.asks("label_studio", "GET", "/label-studio/projects/", **BROWSER)
        assert sent.headers["Location"] == "/gate/label-studio?next=%2Flabel-studio%2Fprojects%2F"

        there = asker.client.get(sent.headers["Location"], headers=BROWSER)
        assert (there.status_code, there.headers["Location"]) == (303, "/label-studio/projects/")
        assert who(server, {SESSION_COOKIE: there.cookies[SESSION_COOKIE]}) == "lars@people.dlassets.example"
        assert asker.asks("label_studio", "GET", "/label-studio/projects/").status_code == 200
        asker.client.post("/gate/logout")


def test_another_person_in_the_same_browser_is_logged_in_anew(server, asker) -> None:
    asker.login("lars")
    asker.client.get("/gate/label-studio", headers=BROWSER)
    left = {name: asker.client.cookies[name] for name in (SESSION_COOKIE, LABEL_STUDIO_COOKIE)}
    asker.client.post("/gate/logout")
    asker.login("lars")
    asker.client.cookies.update(left)

    assert asker.asks("label_studio", "GET", "/label-studio/", **BROWSER).status_code == 303
    assert asker.asks("label_studio", "POST", "/label-studio/api/tasks/1/annotations/").status_code == 401


def test_who_is_no_labeller_is_made_no_user_there(server, asker) -> None:
    asker.login("vera")

    assert asker.client.get("/gate/label-studio", headers=BROWSER).status_code == 403


def test_a_user_whom_the_gate_has_not_made_is_not_taken_over(server) -> None:
    address = Address(server.login.url, server.login.token)
    with pytest.raises(DlassetsError, match=r"has a user me@dlassets\.example whom the gate has not made"):
        asyncio.run(logged_in(address, server.login.email, COOKIE_SECRET))
    with pytest.raises(DlassetsError, match="does not let people in"):
        asyncio.run(logged_in(Address("http://127.0.0.1:9", "t" * 40), "lars", COOKIE_SECRET))
    assert email_of("Ann@Example.com") == "ann@example.com"
