"""The application in this process: who is told of answers, who may ask, and what is said while there is no model."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.testclient import TestClient

from dlassets.errors import SettingsError
from dlassets.images.digest import image_id_of
from dlassets.scoring.online import Listener, Served
from dlassets.settings import ServingSettings, Settings, load_settings
from dlassets.web.serving.app import create_app
from dlassets.web.serving.webhooks import PATH
from dlassets_tests.registry.conftest import MODEL, opened
from dlassets_tests.stores import give_store
from dlassets_tests.web.serving.test_serving import NO_PICTURE, text
from dlassets_tests.web.serving.test_webhooks import BODY, SECRET, headers

TOKEN = "a-token-of-twenty-signs"
JPEG = {"Content-Type": "image/jpeg"}


@contextmanager
def client_of(
    settings: Settings, listeners: Sequence[Listener] = (), *, is_ready: bool = True
) -> Iterator[tuple[TestClient, Any]]:
    app = create_app(settings, listeners)
    with opened(settings), TestClient(app, base_url="http://localhost") as client:
        deadline = time.monotonic() + 60
        while is_ready and client.get("/ready").status_code != 200:
            assert time.monotonic() < deadline, client.get("/ready").text
            time.sleep(0.02)
        yield client, app.state.service


class Notes:
    """A listener that keeps what it is told, or fails."""

    def __init__(self) -> None:
        self.told: list[Sequence[Served]] = []
        self.error: Exception | None = None

    def __call__(self, served: Sequence[Served]) -> None:
        if self.error is not None:
            raise self.error
        self.told.append(served)


@pytest.fixture(scope="module")
def notes() -> Notes:
    return Notes()


@pytest.fixture(scope="module")
def asked(models, notes) -> Iterator[tuple[TestClient, Any]]:
    """An application that tells what it answers, with a challenger."""
    serving = ServingSettings(challengers=True, champion_seconds=0.1, top_k=2)
    with client_of(models.settings.model_copy(update={"serving": serving}), [notes]) as made:
        yield made


@pytest.fixture
def client(asked, notes) -> TestClient:
    notes.told.clear()
    notes.error = None
    return asked[0]


def test_a_listener_is_told_what_champion_and_challenger_said(client, asked, notes, models) -> None:
    answer = client.post("/predict", content=models.photos[0], headers=JPEG | {"X-Request-Id": "one"}).json()

    (served,) = notes.told
    champion, challenger = served
    assert [(one.role, one.model.version) for one in served] == [("champion", 1), ("challenger", 3)]
    assert champion.answer.items() <= answer.items()
    assert len(answer["top_k"]) == 2
    assert challenger.answer["label"] == answer["label"]
    assert challenger.answer["confidence"] < answer["confidence"]
    assert {(one.request_id, one.form, one.content) for one in served} == {("one", "raw", models.photos[0])}
    assert {one.image_id for one in served} == {image_id_of(models.photos[0])}
    assert all(0 < one.seconds < 60 for one in served)


def test_of_several_photos_each_has_a_name_of_its_own_and_one_without_an_answer_none(client, notes, models) -> None:
    images = {"images": [text(models.photos[0]), text(NO_PICTURE), text(models.photos[1])]}

    client.post("/predict", json=images, headers={"X-Request-Id": "many"})

    (served,) = notes.told
    assert [one.request_id for one in served] == ["many/1", "many/1", "many/3", "many/3"]
    assert {one.form for one in served} == {"json"}


def test_what_cannot_be_written_down_is_not_answered(client, notes, models) -> None:
    notes.error = OSError("the disk is full")

    refused = client.post("/predict", content=models.photos[0], headers=JPEG)

    assert refused.status_code == 503
    assert "could not be written down: the disk is full" in refused.json()["error"]
    assert "label" not in refused.json()


def test_the_page_s_requests_are_known_as_its_own(client, notes, models) -> None:
    client.post("/predict", content=models.photos[0], headers=JPEG | {"X-Dlassets-Page": "1"})

    assert {one.form for one in notes.told[0]} == {"page"}


def test_no_more_bytes_are_held_at_once_than_there_is_memory_for(client, asked, models, monkeypatch) -> None:
    bodies = asked[1].bodies
    client.post("/predict", content=models.photos[0], headers=JPEG)
    assert bodies._held == 0

    monkeypatch.setattr(bodies, "_most", len(models.photos[0]) - 1)
    refused = client.post("/predict", content=models.photos[0], headers=JPEG)

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert bodies._held == 0


def test_without_a_champion_it_says_what_to_do_and_serves_the_first_that_comes(tmp_path, models) -> None:
    settings = Settings(root=str(tmp_path), serving=ServingSettings(champion_seconds=60))
    with client_of(settings, is_ready=False) as (client, service):
        service.life.look_now()
        expected = f"No version of {MODEL} is champion yet. Run training_pipeline first."
        while client.get("/ready").json()["error"] != expected:
            time.sleep(0.02)
        refused = client.post("/predict", content=models.photos[0], headers=JPEG)

        assert client.get("/health").text == "OK"
        assert client.get("/ready").status_code == client.get("/v2/health/ready").status_code == 503
        assert (refused.status_code, refused.json()["error"]) == (503, expected)
        assert refused.headers["retry-after"] == "5"
        assert expected in client.get("/").text
        assert list(tmp_path.iterdir()) == [], "who only looks makes nothing"

        give_store(settings)
        service.life.look_now()
        assert client.get("/ready").status_code == 503


def test_with_a_token_nobody_else_is_answered() -> None:
    client = TestClient(create_app(Settings(serving=ServingSettings(token=TOKEN, host="0.0.0.0"))))
    answers = {
        token: client.post("/predict", content=b"x", headers=JPEG | {"Authorization": token})
        for token in ("", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN}")
    }

    assert [answer.status_code for answer in answers.values()] == [401, 401, 401, 401, 503]
    assert answers[""].headers["www-authenticate"] == "Bearer"
    assert TOKEN not in answers[f"Bearer {TOKEN}x"].text
    assert [client.get(path).status_code for path in ("/metrics", f"/v2/models/{MODEL}", "/v2")] == [401] * 3
    assert [client.get(path).status_code for path in ("/", "/health", "/openapi.json", "/try.js")] == [200] * 4
    assert 'id="token"' in client.get("/").text


def test_without_one_no_other_machine_is_listened_to() -> None:
    with pytest.raises(SettingsError, match="token must be set"):
        load_settings({"DLASSETS_SERVING__HOST": "0.0.0.0"})


def test_a_webhook_of_mlflow_s_has_the_champion_looked_for_at_once_and_a_forged_one_does_not(tmp_path) -> None:
    settings = Settings(root=str(tmp_path), serving=ServingSettings(webhook_secret=SECRET, token=TOKEN))
    looks: list[int] = []
    app = create_app(settings)
    app.state.service.life.look_now = lambda: looks.append(1)
    client = TestClient(app)

    forged = client.post(PATH, content=BODY, headers=headers(secret="another secret of many letters"))
    genuine = client.post(PATH, content=BODY, headers=headers())
    replayed = client.post(PATH, content=BODY, headers=headers())

    assert [forged.status_code, genuine.status_code, replayed.status_code] == [401, 202, 409]
    assert len(looks) == 1
