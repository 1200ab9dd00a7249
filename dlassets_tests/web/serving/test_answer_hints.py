"""Label Studio's webhook as the served applications take it: a hint where its key is right. Nothing of it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from dlassets.errors import SettingsError
from dlassets.labeling.label_studio.hints import HEADER, PATH, key_of
from dlassets.settings import Settings, load_settings
from dlassets.storage.hints import hint_in
from dlassets.web.serving import app
from dlassets.web.serving.label import alone

SECRET = "a secret of sixteen letters"
KEY = {HEADER: key_of(SECRET)}


@pytest.fixture(params=[app.create_app, alone.create_app], ids=["serve", "label"])
def receiver(request, settings) -> TestClient:
    """Each of the applications that take hints; its token is asked for of everything else."""
    serving = {"webhook_secret": SECRET, "token": "a token of sixteen letters"}
    return client(request.param(Settings(root=settings.root, serving=serving)))


def client(application: FastAPI) -> TestClient:
    return TestClient(application, base_url="http://127.0.0.1:8000")


def test_each_with_the_key_is_a_hint_whatever_it_says(receiver, lake) -> None:
    hints = [hint_in(lake.answer_hints)]
    for body in (b'{"action": "ANNOTATION_CREATED"}', b"", b"\xff not JSON", b"x" * 2**20):
        assert receiver.post(PATH, content=body, headers=KEY).status_code == 202
        hints.append(hint_in(lake.answer_hints))

    assert hints[0] == ""
    assert len({*hints}) == 5


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {HEADER: ""},
        {HEADER: SECRET},
        {HEADER: key_of("another secret of the kind")},
        {HEADER: "é".encode("latin-1")},
        {"Authorization": f"Bearer {key_of(SECRET)}"},
    ],
    ids=["none", "empty", "secret", "another", "ASCII", "elsewhere"],
)
def test_one_without_it_is_none(receiver, lake, headers: dict[str, Any]) -> None:
    assert receiver.post(PATH, content=b"{}", headers=headers).status_code == 401
    assert hint_in(lake.answer_hints) == ""


def test_label_studio_is_not_told_the_secret_of_mlflow_s_webhooks() -> None:
    assert SECRET not in key_of(SECRET)
    assert key_of(SECRET) == key_of(SECRET) != key_of(f"{SECRET}2")


def test_where_the_lake_cannot_be_written_it_is_not_taken(receiver, lake) -> None:
    Path(lake.answer_hints).mkdir(parents=True)

    assert receiver.post(PATH, headers=KEY).status_code == 503


def test_without_a_secret_there_is_no_such_route(settings) -> None:
    assert client(alone.create_app(settings)).post(PATH, headers=KEY).status_code == 404


def test_an_address_for_hints_without_a_secret_to_know_them_by_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"known by serving\.webhook_secret: set it"):
        load_settings({"DLASSETS_LABELING__LABEL_STUDIO__HINT_URL": "http://127.0.0.1:8000"})
