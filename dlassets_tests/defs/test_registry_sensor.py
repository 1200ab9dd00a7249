"""What the sensor of the registry finds: versions to validate, those of others, a champion moved by hand, and hints."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dlassets.registry.approval import settle
from dlassets.registry.events import MOVED_OUTSIDE
from dlassets.registry.hints import Deliveries
from dlassets.registry.models import ModelVersion
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.pipelines import Pipelines
from dlassets_tests.registry.conftest import MODEL, Registry, registry

__all__ = ["registry"]
SECRET = {"serving": {"webhook_secret": "a secret of sixteen letters"}}


@pytest.fixture
def pipelines(registry: Registry, settings: Settings, instance: dg.DagsterInstance) -> Pipelines:
    return Pipelines(settings, instance)


def entered(registry: Registry, learned_in: Lake | None, **tags: str) -> ModelVersion:
    """Register a version whose run learned from this lake's training set."""
    from mlflow.entities import Dataset, DatasetInput

    model = registry.entered()
    run_id = registry.client.get_model_version(MODEL, str(model.version)).run_id
    if learned_in:
        source = json.dumps({"path": learned_in.table("training_set")})
        read = Dataset("training_set.train@v7", str(hash(source))[:8], "delta_table", source)
        registry.client.log_inputs(run_id, [DatasetInput(read)])
    for name, value in tags.items():
        registry.client.set_tag(run_id, name, value)
    return model


def asked(tick: Any) -> list[str]:
    """The versions whose validation is asked for."""
    return [request.tags["dlassets/model_version"] for request in tick.run_requests]


def tick(pipelines: Pipelines, cursor: str | None = None) -> Any:
    return pipelines.tick("registry_changes", cursor)


def a_look_later(done: Any) -> str:
    """The cursor of a sensor that is to look again."""
    return json.dumps({**json.loads(done.cursor), "looked_at": time.time() - 30})


def test_without_a_registry_nothing_is_made(settings, instance) -> None:
    assert tick(Pipelines(settings, instance)).skip_message == "There is no registry yet."
    assert not Path(settings.root).exists()


def test_without_a_version_nothing_is_written_down(pipelines, lake) -> None:
    assert tick(pipelines).skip_message == "Every version has a validation."
    assert not Path(lake.table("model_events")).exists()


def test_each_version_without_a_validation_is_asked_for_until_it_has_one(pipelines, registry, lake) -> None:
    first, second = entered(registry, lake), entered(registry, lake)

    found = tick(pipelines)
    assert asked(found) == ["1", "2"]
    assert pipelines.defs.resolve_sensor_def("registry_changes").job_name == "validation_pipeline"
    assert [request.run_key for request in tick(pipelines).run_requests] == [
        request.run_key for request in found.run_requests
    ]

    settle(registry.by(), registry.validation(first))
    assert asked(tick(pipelines)) == ["2"]
    settle(registry.by(), registry.validation(second, passed=False, why="worse"))
    assert tick(pipelines).skip_message == "Every version has a validation."


def test_versions_that_are_not_of_this_lake_or_there_twice_are_said_to_be(pipelines, registry, lake) -> None:
    ours = entered(registry, lake)
    source = registry.client.get_model_version(MODEL, str(ours.version))
    registry.client.create_model_version(MODEL, source.source, source.run_id)
    entered(registry, Lake.at("/another/lake"))
    settle(registry.by(), registry.validation(ours))

    found = tick(pipelines)

    assert found.run_requests == []
    assert found.skip_message == (
        "Version 2 is the model of version 1 again, so that it is not validated by itself. "
        "Version 3 did not learn from this lake's training set, so that it is not validated here."
    )


def test_what_a_run_has_registered_that_goes_on_it_validates_itself(pipelines, registry, lake) -> None:
    run = pipelines.instance.create_run_for_job(pipelines.defs.resolve_job_def("training_pipeline"))
    entered(registry, lake, dagster_run_id=run.run_id)

    assert tick(pipelines).skip_message == "Version 1 is validated by the run that has registered it."
    pipelines.instance.report_run_failed(run)
    assert asked(tick(pipelines)) == ["1"]


def test_a_champion_that_was_set_by_hand_is_noticed_and_written_down_once(pipelines, registry, lake) -> None:
    models = [entered(registry, lake) for _ in range(2)]
    for model in models:
        settle(registry.by(), registry.validation(model))
    registry.client.set_registered_model_alias(MODEL, "champion", "1")

    messages = [tick(pipelines).skip_message for _ in range(2)]

    assert messages == [
        "image_classifier/1: the alias champion was set by hand in MLflow.",
        "Every version has a validation.",
    ]
    moved = [event for event in registry.by().history().events if event.event == MOVED_OUTSIDE]
    assert [event.model_version for event in moved] == [1]


def test_a_hint_makes_the_next_look_due_at_once_and_without_one_it_is_due_later(
    registry, settings, instance, lake
) -> None:
    hinted = Pipelines(Settings(root=settings.root, **SECRET), instance)
    assert hinted.defs.resolve_sensor_def("registry_changes").minimum_interval_seconds == 5
    cursor = tick(hinted).cursor
    entered(registry, lake)

    assert "No webhook has come since the last look" in tick(hinted, cursor).skip_message
    Deliveries(lake).take("7b1c", time.time(), time.time())
    told = tick(hinted, cursor)
    assert asked(told) == ["1"]
    assert "No webhook has come" in tick(hinted, told.cursor).skip_message
    assert asked(tick(hinted, a_look_later(told))) == ["1"]
    clock_set_back = json.dumps({**json.loads(told.cursor), "looked_at": time.time() + 3600})
    assert asked(tick(hinted, clock_set_back)) == ["1"]


@pytest.mark.slow
def test_a_version_whose_validation_fails_again_and_again_is_given_up_and_others_are_not(
    registry, settings, instance, lake
) -> None:
    pipelines = Pipelines(Settings(root=settings.root, automation={"attempts": 1}), instance)
    entered(registry, lake)
    (request,) = tick(pipelines).run_requests
    job = pipelines.defs.resolve_job_def("validation_pipeline")
    run = instance.create_run_for_job(job, tags=dict(request.tags))
    instance.report_run_failed(run)
    entered(registry, lake)

    given_up = tick(pipelines)
    again = tick(pipelines, a_look_later(given_up))

    assert asked(given_up) == asked(again) == ["2"]
    (check,) = given_up.asset_events
    assert (check.asset_key.to_user_string(), check.passed, again.asset_events) == ("validated_version", False, [])
    assert "run validation_pipeline by hand" in check.description
