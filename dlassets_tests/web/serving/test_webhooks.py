"""MLflow's webhooks: a genuine one is a hint, once; forged, late, replayed and oversized ones are nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from dlassets.registry.hints import Deliveries
from dlassets.settings import Settings
from dlassets.storage.hints import hint_in
from dlassets.web.serving.app import create_app
from dlassets.web.serving.webhooks import MAX_BYTES, PATH, signature_of, webhook_router

SECRET = "a secret of sixteen letters"
BODY = b'{"entity":"model_version","action":"created","data":{"name":"image_classifier","version":"2"}}'


@pytest.fixture
def receiver(settings) -> TestClient:
    return receiver_of(settings)


def receiver_of(settings: Settings) -> TestClient:
    """The service, started anew."""
    app = FastAPI()
    app.include_router(webhook_router(Settings(root=settings.root, serving={"webhook_secret": SECRET})))
    return TestClient(app)


def headers(
    body: bytes = BODY, delivery: str = "7b1c", at: float | str | None = None, secret: str = SECRET
) -> dict[str, str]:
    timestamp = str(int(time.time()) if at is None else at)
    signature = signature_of(secret, delivery, timestamp, body)
    return {"X-MLflow-Signature": signature, "X-MLflow-Delivery-Id": delivery, "X-MLflow-Timestamp": timestamp}


def test_a_signature_is_mlflow_s_own() -> None:
    from mlflow.webhooks.delivery import _generate_hmac_signature

    assert signature_of(SECRET, "7b1c", "1700000000", BODY) == _generate_hmac_signature(
        SECRET, "7b1c", "1700000000", BODY.decode()
    )


def test_a_genuine_one_is_a_hint(receiver, lake) -> None:
    assert hint_in(lake.registry_hints) == ""

    assert receiver.post(PATH, content=BODY, headers=headers()).status_code == 202
    first = hint_in(lake.registry_hints)
    assert receiver.post(PATH, content=BODY, headers=headers(delivery="7b1d")).status_code == 202

    assert len({"", first, hint_in(lake.registry_hints)}) == 3


def test_a_replay_is_refused_and_over_a_restart_too(receiver, settings, lake) -> None:
    sent = headers()
    assert receiver.post(PATH, content=BODY, headers=sent).status_code == 202
    hint = hint_in(lake.registry_hints)

    answers = [each.post(PATH, content=BODY, headers=sent) for each in (receiver, receiver_of(settings))]

    assert [answer.status_code for answer in answers] == [409, 409]
    assert hint_in(lake.registry_hints) == hint


def now(seconds: float) -> int:
    return int(time.time() + seconds)


@pytest.mark.parametrize(
    "given",
    [
        dict,
        lambda: headers(secret="another secret of the kind"),
        lambda: headers(BODY.replace(b'"2"', b'"3"')),
        lambda: {**headers(), "X-MLflow-Delivery-Id": "another"},
        lambda: {**headers(), "X-MLflow-Timestamp": str(now(1))},
        lambda: {**headers(), "X-MLflow-Signature": headers()["X-MLflow-Signature"].removeprefix("v1,")},
        lambda: {**headers(), "X-MLflow-Signature": "v1,é".encode("latin-1")},
        lambda: headers(at=now(-302)),
        lambda: headers(at=now(305)),
        lambda: headers(at=""),
        lambda: headers(at="NaN"),
        lambda: headers(at=f"{now(0)}.5"),
        lambda: headers(delivery=""),
        lambda: headers(delivery="x" * 101),
        lambda: headers(delivery="../x"),
    ],
    ids=[
        "unsigned",
        "secret",
        "body",
        "delivery",
        "time",
        "version",
        "ASCII",
        "late",
        "early",
        "untimed",
        "NaN",
        "fraction",
        "nameless",
        "long",
        "path",
    ],
)
def test_what_is_not_of_mlflow_and_of_now_is_refused(receiver, lake, given) -> None:
    assert receiver.post(PATH, content=BODY, headers=given()).status_code == 401
    assert hint_in(lake.registry_hints) == ""


def test_no_more_than_the_limit_is_read_of_a_body(receiver, lake) -> None:
    in_pieces = (b"x" * 2**14 for _ in range(5))

    assert receiver.post(PATH, content=b"x" * (MAX_BYTES + 1), headers=headers()).status_code == 413
    assert receiver.post(PATH, content=in_pieces, headers=headers()).status_code == 413
    assert hint_in(lake.registry_hints) == ""


def test_what_is_remembered_is_of_the_last_minutes_and_bounded(lake, monkeypatch) -> None:
    monkeypatch.setattr("dlassets.registry.hints._MOST", 3)
    deliveries = Deliveries(lake)
    for number in range(5):
        assert deliveries.take(str(number), 1000 + number, 1000 + number)

    assert json.loads(Path(lake.registry_hints).read_text()) == {"2": 1002, "3": 1003, "4": 1004}
    assert deliveries.take("late", 1303, 1303)
    assert [*json.loads(Path(lake.registry_hints).read_text())] == ["3", "4", "late"]


def test_where_the_lake_cannot_be_written_mlflow_is_to_send_it_again(receiver, lake) -> None:
    Path(lake.registry_hints).parent.mkdir(parents=True)
    Path(lake.registry_hints).mkdir()

    assert receiver.post(PATH, content=BODY, headers=headers()).status_code == 503


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": "x"}'])
def test_a_file_that_is_another_s_is_written_anew(receiver, lake, text) -> None:
    Path(lake.registry_hints).parent.mkdir(parents=True)
    Path(lake.registry_hints).write_text(text)

    assert receiver.post(PATH, content=BODY, headers=headers()).status_code == 202


def test_the_service_takes_them_without_its_token_and_looks_at_once_who_is_champion(settings, lake) -> None:
    serving = {"webhook_secret": SECRET, "token": "a token of sixteen letters"}
    app = create_app(Settings(root=settings.root, serving=serving))
    due = app.state.service.life._due
    client = TestClient(app)

    assert client.post(PATH, content=BODY, headers=headers(secret="another secret of the kind")).status_code == 401
    assert not due.is_set()
    assert client.post(PATH, content=BODY, headers=headers()).status_code == 202

    assert due.is_set()
    assert hint_in(lake.registry_hints)
    assert PATH not in client.get("/openapi.json").text


def test_without_a_secret_there_is_no_such_route(settings) -> None:
    app = FastAPI()
    app.include_router(webhook_router(settings))

    assert TestClient(app).post(PATH, content=BODY, headers=headers()).status_code == 404
