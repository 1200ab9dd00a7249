"""What goes on by itself once people have answered: a training after enough labels, and a new champion's scoring."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dlassets.errors import DlassetsError
from dlassets.labeling.services import LabelingService, Services
from dlassets.pipeline.session import Session
from dlassets.registry.approval import settle
from dlassets.settings import Settings
from dlassets_tests.pipelines import Pipelines
from dlassets_tests.registry.conftest import Registry, registry
from dlassets_tests.tables import labelled, put

__all__ = ["registry"]
LEARNED = {"feature_version": "features-1"}


@pytest.fixture
def pipelines(settings: Settings, instance: dg.DagsterInstance) -> Pipelines:
    """A lake whose people's labels start a training, three at a time."""
    labeling = settings.labeling.model_copy(update={"retrain_after": 3})
    return Pipelines(settings.model_copy(update={"labeling": labeling}), instance)


def said_by_people(pipelines: Pipelines, *names: str, label: int = 2) -> None:
    put(pipelines.lake, "labeled_images", *(labelled(name, label, source="human") for name in names))


def learned(pipelines: Pipelines, *names: str, label: int = 2) -> None:
    put(pipelines.lake, "training_set", *(labelled(name, label, **LEARNED) for name in names))


def ended(pipelines: Pipelines, request: dg.RunRequest, job: str) -> dg.DagsterRun:
    """What the daemon leaves of a run that a sensor asked for and that went well."""
    run = going_on(pipelines, request, job)
    for happened in (dg.DagsterEventType.RUN_START, dg.DagsterEventType.RUN_SUCCESS):
        pipelines.instance.report_dagster_event(
            dg.DagsterEvent(happened.value, job_name=job, message=""), run_id=run.run_id
        )
    return run


def going_on(pipelines: Pipelines, request: dg.RunRequest, job: str) -> dg.DagsterRun:
    return pipelines.instance.create_run_for_job(
        pipelines.defs.resolve_job_def(job), tags=dict(request.tags), status=dg.DagsterRunStatus.STARTED
    )


def test_a_training_is_started_once_people_have_given_as_many_new_labels(pipelines) -> None:
    learned(pipelines, "a", "b")
    said_by_people(pipelines, "a", "c", "d")  # of a nothing is new
    put(pipelines.lake, "labeled_images", labelled("folder's", 2))
    few = pipelines.tick("enough_new_labels")
    assert (few.run_requests, few.skip_message) == ([], "2 labels are new, of 3 that a training is started for.")

    said_by_people(pipelines, "b", label=6)  # which was learned as another
    enough = pipelines.tick("enough_new_labels", few.cursor)

    (request,) = enough.run_requests
    assert request.run_key.startswith("labels:")
    assert pipelines.defs.resolve_sensor_def("enough_new_labels").job_name == "training_pipeline"
    assert pipelines.tick("enough_new_labels", enough.cursor).run_requests == []


def test_while_a_training_goes_on_none_is_started_and_what_it_has_not_learned_is_counted_then(pipelines) -> None:
    said_by_people(pipelines, "a", "b", "c")
    first = pipelines.tick("enough_new_labels")
    run = going_on(pipelines, first.run_requests[0], "training_pipeline")
    learned(pipelines, "a", "b", "c")
    said_by_people(pipelines, "d", "e", "f")

    waits = pipelines.tick("enough_new_labels", first.cursor)
    assert waits.run_requests == []
    assert f"Run {run.run_id}, which was asked for this, has not ended" in waits.skip_message

    for happened in (dg.DagsterEventType.RUN_START, dg.DagsterEventType.RUN_SUCCESS):
        event = dg.DagsterEvent(happened.value, job_name="training_pipeline", message="")
        pipelines.instance.report_dagster_event(event, run_id=run.run_id)
    (again,) = pipelines.tick("enough_new_labels", waits.cursor).run_requests
    assert again.run_key != first.run_requests[0].run_key


def test_labels_of_photos_that_no_training_set_can_have_start_no_training(pipelines) -> None:
    from dlassets import __version__

    said_by_people(pipelines, "a", "b", "c")
    row = labelled("a", 2)
    failed = {"path": row["path"], "image_id": row["image_id"], "stage": "image_features", "code_version": __version__}
    put(pipelines.lake, "quarantined_files", failed | {"reason": "failed"})

    assert "2 labels are new" in pipelines.tick("enough_new_labels").skip_message


def test_unless_a_setting_says_so_no_label_starts_a_training(settings, instance) -> None:
    names = {sensor.name for sensor in Pipelines(settings, instance).defs.sensors}
    assert "enough_new_labels" not in names
    assert "new_champion" in names


def test_a_new_champion_scores_the_photos_once(pipelines, registry: Registry) -> None:
    assert pipelines.tick("new_champion").run_requests == []
    settle(registry.by(), registry.validation(registry.entered()))

    first = pipelines.tick("new_champion")

    (request,) = first.run_requests
    assert request.run_key.startswith("champion:image_classifier/1:")
    assert pipelines.defs.resolve_sensor_def("new_champion").job_name == "scoring_pipeline"
    ended(pipelines, request, "scoring_pipeline")
    assert pipelines.tick("new_champion", first.cursor).run_requests == []

    settle(registry.by(), registry.validation(registry.entered()))
    (request,) = pipelines.tick("new_champion", first.cursor).run_requests
    assert request.run_key.startswith("champion:image_classifier/2:")


class Away(LabelingService):
    """A service that cannot be reached, but once."""

    name = "away"
    is_back = False

    def answers_digest(self) -> str:
        if not self.is_back:
            raise DlassetsError("away cannot be reached: start it.")
        return ""

    def each_answer(self, _: Any = None) -> Iterator[Any]:
        yield from ()

    send = photos = show_refusals = show_standing = None  # type: ignore[assignment]


def test_a_service_that_is_away_keeps_no_other_s_answers_waiting(pipelines, monkeypatch) -> None:
    (folder,) = Session(pipelines.settings).labeling.read
    away = Away()
    monkeypatch.setattr(Session, "labeling", Services([folder], [folder, away]))
    with pytest.raises(DlassetsError, match="away cannot be reached"):
        pipelines.tick("new_answers")
    answers = Path(pipelines.lake.answers)
    answers.mkdir(parents=True)
    (answers / "mine.csv").write_text("request_id,label\nabc,3\n")

    found = pipelines.tick("new_answers")

    assert len(found.run_requests) == 1
    ended(pipelines, found.run_requests[0], "labeling_pipeline")
    with pytest.raises(DlassetsError, match="away"):
        pipelines.tick("new_answers", found.cursor)
    away.is_back = True
    assert pipelines.tick("new_answers", found.cursor).skip_message == "No new answer."
