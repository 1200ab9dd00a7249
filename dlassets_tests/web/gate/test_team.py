"""A team behind one log-in: what each role may, by programs and in a browser, of real servers behind a real Caddy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from dlassets.registry.approval import settle
from dlassets.settings import Settings
from dlassets_tests.browser import chromium, needs_chromium
from dlassets_tests.registry.conftest import MODEL, Registry, store_of
from dlassets_tests.web.gate.people import password_of
from dlassets_tests.web.gate.team import Team, needs_caddy, team
from dlassets_tests.web.serving.label_lake import label_lake

pytestmark = [pytest.mark.slow, needs_caddy]

LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId tags { key value } } }
    ... on PythonError { message }
    ... on UnauthorizedError { message }
  }
}
"""
PARAMS = {
    "selector": {
        "repositoryLocationName": "stand_in",
        "repositoryName": "__repository__",
        "jobName": "a_job",
    },
    "executionMetadata": {"tags": [{"key": "user", "value": "somebody else"}]},
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    """A lake with three open requests, and a version that waits for a person's word."""
    settings = label_lake(tmp_path_factory.mktemp("team") / "lake", [0.1, 0.2, 0.3])
    with store_of(settings) as store:
        registry = Registry(store)
        settle(registry.by(approval="person"), registry.validation(registry.entered()))
    return settings


@pytest.fixture(scope="module")
def made(settings, tmp_path_factory) -> Iterator[Team]:
    with team(settings, tmp_path_factory.mktemp("servers")) as started:
        yield started


def launched(session: requests.Session, made: Team) -> Any:
    body: Any = {"query": LAUNCH, "variables": {"params": PARAMS}}
    return session.post(f"{made.url}/dagster/graphql", json=body, timeout=60)


def test_a_viewer_reads_everything_and_changes_nothing(made) -> None:
    vera = made.program("vera")
    for path in ("/", "/dagster/runs", "/mlflow/", "/serve/", "/label/", "/label/photo/a1"):
        assert vera.get(made.url + path, timeout=60).status_code == 200, path
    assert vera.post(f"{made.url}/mlflow/api/2.0/mlflow/runs/search", json={"experiment_ids": ["0"]}, timeout=60).ok

    told = launched(vera, made).json()
    assert told["data"]["launchRun"]["__typename"] == "UnauthorizedError"
    refused = [
        vera.post(f"{made.url}/dagster/report_asset_materialization/a_stand_in", timeout=60),
        vera.post(f"{made.url}/mlflow/api/2.0/mlflow/registered-models/create", json={"name": "hers"}, timeout=60),
        vera.post(f"{made.url}/label/answers", json={"browser": "b", "answers": []}, timeout=60),
        vera.post(f"{made.url}/serve/label/answers", json={"browser": "b", "answers": []}, timeout=60),
        vera.post(f"{made.url}/versions/approve", data={"version": "1", "reason": "mine"}, timeout=60),
    ]
    assert [answer.status_code for answer in refused] == [403] * len(refused)
    # MLflow itself refuses her account as well, where the gate would not.
    as_she_is = requests.post(
        f"{made.behind('mlflow')}/mlflow/api/2.0/mlflow/registered-models/set-tag",
        json={"name": MODEL, "key": "a", "value": "b"},
        auth=("reader", "Reader-1-pass"),
        timeout=60,
    )
    assert as_she_is.status_code == 403


def test_an_operator_launches_under_their_own_name_and_writes_to_mlflow_and_approves_nothing(made) -> None:
    olga = made.program("olga")
    run = launched(olga, made).json()["data"]["launchRun"]["run"]

    asked = {"query": f'{{ runOrError(runId: "{run["runId"]}") {{ ... on Run {{ tags {{ key value }} }} }} }}'}
    found = made.program("vera").post(f"{made.url}/dagster/graphql", json=asked, timeout=60).json()
    tags = {tag["key"]: tag["value"] for tag in found["data"]["runOrError"]["tags"]}
    assert tags["user"] == "olga"
    api = f"{made.url}/mlflow/api/2.0/mlflow"
    assert olga.post(f"{api}/registered-models/create", json={"name": "of olga"}, timeout=60).ok
    alias = {"name": "of olga", "alias": "champion", "version": "1"}
    assert olga.post(f"{api}/registered-models/alias", json=alias, timeout=60).status_code == 403
    decided = olga.post(f"{made.url}/versions/approve", data={"version": "1", "reason": "mine"}, timeout=60)
    assert decided.status_code == 403


def test_servers_behind_the_proxy_answer_nobody_else_and_believe_nobody_s_headers(made) -> None:
    forged = {"X-Dlassets-User": "anna", "X-Dlassets-Roles": "approver,operator", "X-Dlassets-Proxy": "a guess"}
    for name, path in (
        ("pages", "/"),
        ("dagster", "/dagster/runs"),
        ("read_only", "/dagster/runs"),
        ("serve", "/label/"),
    ):
        assert requests.get(made.behind(name) + path, headers=forged, timeout=60).status_code == 401, name
    assert (
        requests.get(
            made.behind("mlflow") + "/mlflow/api/2.0/mlflow/experiments/get?experiment_id=0", timeout=60
        ).status_code
        == 401
    )
    assert made.program().get(made.url + "/", headers=forged, timeout=60).status_code == 401

    vera = made.program("vera")
    vera.headers.update(forged)
    assert vera.get(f"{made.url}/label/who", timeout=60).json() == {"name": "vera"}
    assert (
        vera.post(f"{made.url}/versions/approve", data={"version": "1", "reason": "x"}, timeout=60).status_code == 403
    )
    assert launched(vera, made).json()["data"]["launchRun"]["__typename"] == "UnauthorizedError"


def test_a_labeller_answers_in_their_own_name_alone(made) -> None:
    lars = made.program("lars")
    asked = {"person": "Lars", "browser": "b-lars", "most": 1}
    photo = lars.post(f"{made.url}/label/next", json=asked, timeout=60).json()["photos"][0]
    given = {"request_id": photo["id"], "act": "answered", "label": 2, "seconds": 1.0}
    answers = [{"id": "x1", "person": "vera", **given}, {"id": "x2", "person": "lars", **given}]
    told = lars.post(f"{made.url}/label/answers", json={"browser": "b-lars", "answers": answers}, timeout=60).json()

    assert told["problems"] == ["It is of vera, and lars has logged in.", None]


@needs_chromium
def test_people_log_in_once_in_a_browser_and_find_all_of_it(made) -> None:
    with chromium() as browser:
        page = browser.new_context(ignore_https_errors=True).new_page()
        page.set_default_timeout(30_000)
        page.goto(f"{made.url}/labeling")
        page.get_by_label("Name").fill("anna")
        page.get_by_label("Password").fill("not hers at all")
        page.keyboard.press("Enter")
        page.get_by_text("The name or the password is wrong").wait_for()
        page.get_by_label("Name").fill("anna")
        page.get_by_label("Password").fill(password_of("anna"))
        page.keyboard.press("Enter")
        page.wait_for_url(f"{made.url}/labeling")

        page.goto(f"{made.url}/mlflow/")
        page.get_by_text(MODEL).first.wait_for()
        page.goto(f"{made.url}/dagster/jobs")
        page.get_by_text("a_job").first.wait_for()
        page.goto(made.url)
        page.get_by_label("Why version 1 is approved or rejected").fill("it is good")
        page.get_by_role("button", name="Approve").click()
        page.get_by_text("it is good").first.wait_for()
        page.get_by_text("champion").first.wait_for()

        page.get_by_role("link", name="You").click()
        page.get_by_role("button", name="Log out").click()
        page.goto(made.url)
        page.wait_for_url(f"{made.url}/gate/login?next=%2F")

    from dlassets.monitoring.views.models import models_of

    events = models_of(made.settings).version(1).events
    assert [(event.event, event.actor) for event in events if event.event in {"approved", "promoted"}] == [
        ("approved", "anna"),
        ("promoted", "anna"),
    ]


@needs_chromium
def test_a_labeller_s_page_knows_them_by_their_log_in(made) -> None:
    with chromium() as browser:
        page = browser.new_context(ignore_https_errors=True).new_page()
        page.set_default_timeout(30_000)
        page.goto(f"{made.url}/label/")
        page.get_by_label("Name").fill("lars")
        page.get_by_label("Password").fill(password_of("lars"))
        page.keyboard.press("Enter")
        page.get_by_role("button", name="lars: not you?").wait_for()
        page.locator("#accept").wait_for()
        assert not page.get_by_label("Your name").is_visible()
