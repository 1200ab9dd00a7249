"""A log-in at an identity provider: a real flow between the gate and a provider of the tests."""

import warnings
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from dlassets.errors import SettingsError
from dlassets.web.gate.cookies import COOKIE
from dlassets.web.identity import ROLES_HEADER, USER_HEADER
from dlassets_tests.servers import free_port
from dlassets_tests.web.gate.people import BROWSER, Asker, settings_of

CLIENT_SECRET = "a secret of the provider and the gate"
ROLES = {"lake": ("operator", "labeller"), "leads": ("approver",)}


# The provider is built on what its library is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from oidc_provider_mock import User, run_server_in_thread
    people = [
        User(
            sub="anna", claims={"email": "anna@example.com", "email_verified": True, "groups": ["lake", "leads", "x"]}
        ),
        User(sub="olga", claims={"email": "olga@example.com", "groups": "lake"}),
        User(sub="eve", claims={"email": "eve@example.com", "groups": ["others"]}),
        User(sub="mallory", claims={"email": "anna@example.com", "email_verified": False, "groups": ["leads"]}),
        User(sub="nameless", claims={"groups": ["leads"]}),
    ]
    with run_server_in_thread(user_claims=people) as server:
        yield f"http://localhost:{server.server_port}"


def asker_of(issuer, tmp_path, **changes) -> Asker:
    oidc = {"issuer": issuer, "client_id": "gate", "client_secret": CLIENT_SECRET, "roles": ROLES} | changes
    return Asker(settings_of(tmp_path / "none.yaml", login="oidc", oidc=oidc, users_file=None))


def came_back(asker: Asker, sub: str, then: str = "/"):
    """Log in at the provider; return the address to which it sends the browser back."""
    there = asker.client.get("/gate/oidc/login", params={"next": then}, headers=BROWSER).headers["Location"]
    asked = parse_qs(urlsplit(there).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["nonce"]
    assert asked["state"]
    assert asked["redirect_uri"] == ["https://lake.example.com/gate/oidc/callback"]
    answer = requests.post(there, data={"sub": sub}, allow_redirects=False, timeout=20)
    return answer.headers["Location"]


def test_who_logs_in_at_the_provider_has_the_roles_of_their_groups(issuer, tmp_path):
    asker = asker_of(issuer, tmp_path)
    answer = asker.client.get(came_back(asker, "anna", "/wrong?page=2"), headers=BROWSER)

    assert (answer.status_code, answer.headers["Location"]) == (303, "/wrong?page=2")
    told = asker.asks("pages", "POST", "/versions/approve")
    assert (told.status_code, told.headers[USER_HEADER]) == (200, "anna@example.com")
    assert told.headers[ROLES_HEADER] == "approver,labeller,operator"


def test_one_group_may_be_a_text(issuer, tmp_path):
    asker = asker_of(issuer, tmp_path)
    asker.client.get(came_back(asker, "olga"), headers=BROWSER)

    assert asker.asks("dagster", "POST", "/dagster/x").headers[ROLES_HEADER] == "labeller,operator"
    assert asker.asks("pages", "POST", "/versions/approve").status_code == 403


@pytest.mark.parametrize(
    ("sub", "why"),
    [
        ("eve", "eve@example.com is in no group that has a role here"),
        ("mallory", "has not verified that anna@example.com is the address"),
        ("nameless", "its ID token has no claim email"),
    ],
)
def test_whom_the_settings_do_not_let_in_is_told_why(issuer, tmp_path, sub, why):
    asker = asker_of(issuer, tmp_path)
    answer = asker.client.get(came_back(asker, sub), headers=BROWSER)

    assert answer.status_code == 403
    assert why in answer.text
    assert COOKIE not in asker.client.cookies


def test_an_answer_that_was_not_asked_for_or_comes_again_logs_nobody_in(issuer, tmp_path):
    asker, other = asker_of(issuer, tmp_path), asker_of(issuer, tmp_path)
    address = came_back(asker, "anna")

    # Somebody else's browser is sent to where anna's provider sent hers.
    assert other.client.get(address, headers=BROWSER).status_code == 403
    came_back(other, "olga")
    assert other.client.get(address, headers=BROWSER).status_code == 403
    assert COOKIE not in other.client.cookies

    assert asker.client.get(address, headers=BROWSER).status_code == 303
    asker.client.cookies.clear()
    assert asker.client.get(address, headers=BROWSER).status_code == 403
    assert asker.client.get("/gate/oidc/callback?error=access_denied", headers=BROWSER).status_code == 403


def test_an_id_token_of_another_log_in_is_refused(issuer, tmp_path, monkeypatch):
    asker = asker_of(issuer, tmp_path)
    address = came_back(asker, "anna")
    from authlib.integrations.starlette_client import StarletteOAuth2App

    parse = StarletteOAuth2App.parse_id_token

    async def with_another_nonce(self, token, nonce, *args, **kwargs):
        return await parse(self, token, "another", *args, **kwargs)

    monkeypatch.setattr(StarletteOAuth2App, "parse_id_token", with_another_nonce)
    answer = asker.client.get(address, headers=BROWSER)

    assert (answer.status_code, COOKIE in asker.client.cookies) == (403, False)


def test_passwords_log_nobody_in_where_the_provider_does(issuer, tmp_path):
    asker = asker_of(issuer, tmp_path)

    assert asker.login("anna").status_code == 401
    assert "Log in at your identity provider" in asker.client.get("/gate/login", headers=BROWSER).text


def test_a_provider_that_does_not_answer_is_named(issuer, tmp_path):
    for address in (f"http://localhost:{free_port()}", f"{issuer}/elsewhere"):
        with pytest.raises(SettingsError, match="No identity provider answers at"), asker_of(address, tmp_path).client:
            pass
    with asker_of(issuer, tmp_path).client as client:
        assert client.get("/health").text == "OK"


def test_a_provider_without_tls_is_not_listened_to_from_elsewhere(tmp_path):
    with pytest.raises(ValueError, match="issuer must be https"):
        asker_of("http://id.example.com", tmp_path)
    with pytest.raises(ValueError, match=r"login is oidc: set oidc\.issuer"):
        settings_of(tmp_path / "none.yaml", login="oidc")
