"""The rule by itself, and in front of Dagster's webserver and MLflow's server as a client of theirs meets it."""

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from starlette.datastructures import Headers
from starlette.testclient import TestClient, WebSocketDenialResponse

from dlassets.errors import SettingsError
from dlassets.settings import load_settings
from dlassets.web.dagster_webserver import GuardedWebserver
from dlassets.web.guard import hosts_of, refusal

OWN = "127.0.0.1:3000"
VERSION = "1.2.3"
ALLOWED = hosts_of(["https://lake.example.com", "http://Lake.example.com:8080/dagster"])
OPENED = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", {}, None),  # curl, or a client
        ("POST", {"origin": f"http://{OWN}", "sec-fetch-site": "same-origin"}, None),
        ("GET", {"sec-fetch-site": "none", **OPENED}, None),
        ("GET", {"sec-fetch-site": "cross-site", **OPENED}, None),  # a link was followed
        ("POST", {"host": "localhost:9999", "origin": "http://localhost:9999"}, None),  # through a tunnel
        ("GET", {"host": "[::1]:3000"}, None),
        ("POST", {"host": "lake.example.com", "origin": "https://lake.example.com"}, None),
        ("POST", {"host": "LAKE.example.com:443"}, None),
        ("POST", {"origin": "https://lake.example.com", "sec-fetch-site": "same-origin"}, None),  # Host was changed
        ("POST", {"origin": "http://lake.example.com:8080", "sec-fetch-site": "cross-site"}, None),
        ("GET", {"host": ""}, 421),
        ("GET", {"host": "evil.example"}, 421),
        ("GET", {"host": "lake.example.com:9090"}, 421),
        ("GET", {"host": "127.0.0.1.evil.example:3000"}, 421),
        ("GET", {"host": "localhost@evil.example"}, 421),
        ("GET", {"host": "evil.example", "sec-fetch-site": "same-origin"}, 421),
        ("POST", {"origin": "null"}, 403),
        ("POST", {"origin": ""}, 403),
        ("POST", {"origin": "http://["}, 403),
        ("POST", {"origin": "https://evil.example"}, 403),
        ("POST", {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-site"}, 403),
        ("POST", {"origin": f"chrome-extension://{OWN}"}, 403),
        ("GET", {"origin": "https://lake.example.com.evil.example"}, 403),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, 403),
        ("GET", {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, 403),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, 403),
        ("POST", {"sec-fetch-site": "cross-site", **OPENED}, 403),
        ("GET", {"sec-fetch-site": "never heard of"}, 403),
    ],
)
def test_own_pages_programs_and_links_are_answered_and_no_other_page(method, headers, status):
    refused = refusal(method, Headers({"host": OWN, **headers}), ALLOWED)
    assert (refused.status if refused else None) == status


def test_of_two_hosts_neither_counts():
    headers = Headers(raw=[(b"host", OWN.encode()), (b"host", b"evil.example")])
    assert refusal("GET", headers, ALLOWED).status == 421


@pytest.fixture(scope="module")
def dagster():
    with (
        dg.instance_for_test() as instance,
        WorkspaceProcessContext(instance, EmptyWorkspaceTarget(), version=VERSION) as context,
    ):
        yield TestClient(GuardedWebserver(context).create_asgi_app(), base_url=f"http://{OWN}")


def test_dagster_answers_its_own_page_and_a_program_and_no_foreign_page(dagster):
    question = {"query": "{ version }"}
    own = dagster.post("/graphql", json=question, headers={"origin": f"http://{OWN}"})
    assert own.json()["data"]["version"] == VERSION
    assert dagster.get("/graphql", params=question).json() == own.json()
    foreign = dagster.post("/graphql", json=question, headers={"origin": "https://evil.example"})
    assert foreign.status_code == 403
    assert "DLASSETS_UI__ORIGINS" in foreign.text
    assert dagster.get("/server_info", headers={"host": "evil.example"}).status_code == 421


def test_dagster_changes_nothing_for_a_get(dagster):
    reload = "mutation { reloadWorkspace { __typename } }"
    refused = dagster.get("/graphql", params={"query": reload})
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    named = {"query": f"query Q {{ version }} {reload.replace('mutation', 'mutation M')}", "operationName": "M"}
    assert dagster.get("/graphql", params=named).status_code == 405
    assert dagster.post("/graphql", json={"query": reload}).json()["data"]["reloadWorkspace"]


def test_dagster_opens_a_socket_to_its_own_page_alone(dagster):
    with dagster.websocket_connect("/graphql", ["graphql-ws"], headers={"origin": f"http://{OWN}", "host": OWN}) as own:
        own.send_json({"type": "connection_init"})
        assert own.receive_json() == {"type": "connection_ack"}
    foreign = {"origin": "https://evil.example", "host": OWN}
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        dagster.websocket_connect("/graphql", ["graphql-ws"], headers=foreign),
    ):
        pass
    assert refused.value.status_code == 403


def test_further_addresses_are_listed_with_commas_and_are_web_addresses():
    given = {"DLASSETS_UI__ORIGINS": "https://lake.example.com, http://10.0.0.5:3000"}
    assert load_settings(given).ui.origins == ("https://lake.example.com", "http://10.0.0.5:3000")
    for impossible in ("lake.example.com", "*", "https://*.example.com", "https://lake.example.com/dagster"):
        with pytest.raises(SettingsError, match="is no address such as"):
            load_settings({"DLASSETS_UI__ORIGINS": impossible})
