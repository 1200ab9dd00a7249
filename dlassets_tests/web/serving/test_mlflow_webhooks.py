"""Webhooks of a real MLflow server: what comes of a new version, whether its webhook arrives or not."""

from __future__ import annotations

import json
import time
import urllib.error
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from dlassets.registry.store import MlflowStore
from dlassets.settings import Settings
from dlassets.storage.hints import hint_in
from dlassets.storage.lake import Lake
from dlassets.web.serving.webhooks import PATH, webhook_router
from dlassets_tests.mlflow_servers import mlflow_server
from dlassets_tests.pipelines import Pipelines
from dlassets_tests.programs import dlassets, invoke
from dlassets_tests.servers import fetch, served

SECRET = "a secret of sixteen letters"
MODEL = "image_classifier"


def service(settings: Settings) -> FastAPI:
    app = FastAPI()
    app.include_router(webhook_router(settings))
    return app


def wait_for(happens: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def new_version(store: MlflowStore, lake: Lake) -> str:
    """Register a version of a run that learned from the lake, as any client of MLflow may."""
    from mlflow.entities import Dataset, DatasetInput
    from mlflow.exceptions import MlflowException

    client = store.client
    run_id = client.create_run(client.get_experiment_by_name(store.experiment).experiment_id).info.run_id
    source = json.dumps({"path": lake.table("training_set")})
    client.log_inputs(run_id, [DatasetInput(Dataset("training_set.train@v1", "abc", "delta_table", source))])
    with suppress(MlflowException):  # it is there already
        client.create_registered_model(MODEL)
    return str(client.create_model_version(MODEL, f"runs:/{run_id}/model", run_id).version)


@pytest.mark.slow
def test_a_new_version_is_asked_for_at_once_by_a_webhook_and_later_without(tmp_path, instance, monkeypatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    before = mlflow.get_tracking_uri()
    with mlflow_server(tmp_path) as server:
        settings = Settings(
            root=str(tmp_path / "lake"),
            mlflow={"tracking_uri": server.uri},
            serving={"webhook_secret": SECRET},
        )
        lake, store, pipelines = Lake.at(settings.root), MlflowStore(settings), Pipelines(settings, instance)
        environment = {
            "DLASSETS_ROOT": settings.root,
            "DLASSETS_MLFLOW__TRACKING_URI": server.uri,
            "DLASSETS_SERVING__WEBHOOK_SECRET": SECRET,
        }
        with served(service(settings)) as taken_at:
            address = f"{taken_at}{PATH}"
            added = [dlassets("webhooks", "add", address, **environment) for _ in range(2)]
            assert [(each.returncode, each.stdout) for each in added] == [
                (0, f"MLflow sends webhooks to {address}, and the first one was taken.\n")
            ] * 2
            assert len(store.client.list_webhooks()) == 1
            looked = pipelines.tick("registry_changes")
            assert looked.run_requests == []
            hint, began = hint_in(lake.registry_hints), time.monotonic()

            first = new_version(store, lake)
            wait_for(lambda: hint_in(lake.registry_hints) != hint)
            told_after = time.monotonic() - began

            assert asked(pipelines, looked.cursor) == [first]
            with pytest.raises(urllib.error.HTTPError, match="401"):
                fetch(address, {"entity": "model_version", "action": "created"})
        looked = pipelines.tick("registry_changes")
        second = new_version(store, lake)
        assert asked(pipelines, looked.cursor) == []
        later = json.dumps({**json.loads(looked.cursor), "looked_at": time.time() - 30})
        assert asked(pipelines, later) == [first, second]
        refused = dlassets("webhooks", "add", address, **environment)
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri(None)

    assert told_after < 20
    assert refused.returncode == 1
    assert "the first one was not taken" in refused.stdout
    assert SECRET not in refused.stdout + refused.stderr


def asked(pipelines: Pipelines, cursor: str) -> list[Any]:
    return [
        request.tags["dlassets/model_version"] for request in pipelines.tick("registry_changes", cursor).run_requests
    ]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"DLASSETS_MLFLOW__TRACKING_URI": "http://127.0.0.1:1"}, "Set DLASSETS_SERVING__WEBHOOK_SECRET"),
        ({"DLASSETS_SERVING__WEBHOOK_SECRET": SECRET}, "Webhooks come from an MLflow server alone"),
    ],
)
def test_what_lacks_for_webhooks_is_said(lake, environment, said) -> None:
    result = invoke("webhooks", "add", "http://127.0.0.1:8000/webhooks/mlflow", DLASSETS_ROOT=lake.root, **environment)

    assert result.exit_code == 2
    assert said in result.output
    assert not Path(lake.root).exists()
