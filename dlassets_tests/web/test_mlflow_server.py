"""How a browser comes into MLflow's pages, and that nothing else is changed of what MLflow answers."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from dlassets.web.mlflow_server import _CHOICES, Door

OPENS = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(Door(PlainTextResponse("MLflow's own")), base_url="http://127.0.0.1")


def test_a_browser_that_opens_the_pages_comes_to_the_models_in_their_mode(client) -> None:
    door = client.get("/", headers=OPENS)

    assert door.headers["content-type"].startswith("text/html")
    assert '"mlflow.workflowType_v1": "machine_learning"' in door.text
    assert 'location.replace("?models" + (location.hash || "#/models"))' in door.text
    assert client.get("/?models", headers=OPENS).text == "MLflow's own"


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/", {}),  # curl
        ("HEAD", "/", OPENS),
        ("POST", "/", OPENS),
        ("GET", "/health", OPENS),
        ("GET", "/api/2.0/mlflow/registered-models/get?name=image_classifier", {}),
        ("GET", "/static-files/index.html", OPENS),
    ],
)
def test_everything_else_is_mlflow_s(client, method, path, headers) -> None:
    answer = client.request(method, path, headers=headers)
    assert (answer.status_code, answer.text) == (200, "" if method == "HEAD" else "MLflow's own")


def test_what_is_chosen_is_what_the_pages_of_this_mlflow_look_for() -> None:
    mlflow = find_spec("mlflow")  # importing it takes seconds
    assert mlflow is not None
    scripts = Path(str(mlflow.origin)).parent.glob("server/js/build/static/js/*.js")
    pages = "".join(script.read_text() for script in scripts)

    for key in _CHOICES:
        assert f'"{key.removesuffix("_v1")}"' in pages
    assert '"machine_learning"' in pages
