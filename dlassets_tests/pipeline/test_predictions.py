"""The step `predictions`: what a new champion costs, and who answers beside it."""

import datetime as dt
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from click.testing import Result

from dlassets.engines.local import LocalEngine
from dlassets.images.digest import image_id_of
from dlassets.learning.backbones import dimensions_of, feature_version
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.registry.lifecycle import CHALLENGER, CHAMPION, register
from dlassets.registry.models import ModelVersion
from dlassets.registry.package import ModelPackage
from dlassets.resources.instance import opened_instance
from dlassets.scoring.online import Served
from dlassets.scoring.served import RequestLog
from dlassets.settings import ScoringSettings, ServingSettings, Settings
from dlassets_tests.learning.examples import head
from dlassets_tests.pipelines import Pipelines, Warnings, materialized, new_lake, values
from dlassets_tests.programs import invoke, python
from dlassets_tests.registry.conftest import Registry, opened, registry  # noqa: F401 - a fixture
from dlassets_tests.tables import get, image_id, put

MODEL = "image_classifier"
OWN = Session(Settings()).backbone
VERSION, WIDTH = feature_version(OWN), dimensions_of(OWN)


def photos_with_features(settings: Settings, *names: str) -> None:
    """Rows of photos whose bytes are nowhere, and of their features: `a` looks like class 3 and the others like 4."""
    lake = Session(settings).lake
    for name in names:
        path, features = f"unlabeled/{name}.jpg", np.zeros(WIDTH)
        features[0 if name == "a" else 1] = 1
        location = f"landing/{path}"
        put(lake, "raw_images", {"path": path, "image_id": image_id(name), "length": 1, "location": location})
        put(lake, "image_features", {"image_id": image_id(name), "feature_version": VERSION, "features": features})


def model(registry: Registry, alias: str, *labels: int) -> int:  # noqa: F811
    package = ModelPackage(head(labels, np.eye(len(labels), WIDTH)), OWN, VERSION)
    version = register(registry.client, MODEL, registry.run(package, f"{alias} {labels}"))
    registry.client.set_registered_model_alias(MODEL, alias, version)
    return version


def session_of(settings: Settings, registry: Registry, *, challengers: bool) -> Session:  # noqa: F811
    scoring = ScoringSettings(challengers=challengers)
    session = Session(settings.model_copy(update={"scoring": scoring}))
    session.mlflow = registry.resource
    return session


def labels(settings: Settings, table: str = "predictions") -> dict[tuple[str, int], int]:
    rows = get(LocalEngine(), Session(settings).lake, table)
    return {(Path(row["path"]).stem, row["model_version"]): row["predicted_label"] for row in rows}


@pytest.mark.slow
def test_a_new_champion_scores_all_again_without_a_photo_and_without_a_network(settings, registry) -> None:  # noqa: F811
    photos_with_features(settings, "a", "b")
    model(registry, CHAMPION, 3, 4)
    steps.predictions.run(session_of(settings, registry, challengers=False))
    model(registry, CHAMPION, 5, 6)
    program = """
import sys
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.settings import load_settings
print(steps.predictions.run(Session(load_settings())).written["predictions"].inserted)
print(*sorted({"torch", "openvino"} & {*sys.modules}))
"""

    scored, loaded = python(program, DLASSETS_ROOT=settings.root).split("\n")[:2]

    assert (scored, loaded) == ("2", "")
    assert labels(settings) == {("a", 1): 3, ("b", 1): 4, ("a", 2): 5, ("b", 2): 6}


def test_a_challenger_scores_beside_the_champion_where_the_setting_says_so(settings, registry) -> None:  # noqa: F811
    photos_with_features(settings, "a", "b")
    model(registry, CHAMPION, 3, 4)
    model(registry, CHALLENGER, 5, 6)

    assert steps.predictions.run(session_of(settings, registry, challengers=False)).written["predictions"].inserted == 2
    made = steps.predictions.run(session_of(settings, registry, challengers=True))
    steps.predictions_current.run(session_of(settings, registry, challengers=True))

    assert made.details["challengers"] == [f"{MODEL}/2"]
    assert made.provenance.parameters["challengers"] == [f"{MODEL}/2"]
    assert labels(settings) == {("a", 1): 3, ("b", 1): 4, ("a", 2): 5, ("b", 2): 6}
    assert labels(settings, "predictions_current") == {("a", 1): 3, ("b", 1): 4}


def test_a_challenger_whose_files_are_gone_keeps_no_photo_from_being_scored(settings, registry) -> None:  # noqa: F811
    photos_with_features(settings, "a")
    model(registry, CHAMPION, 3, 4)
    broken = model(registry, CHALLENGER, 5, 6)
    source = registry.client.get_model_version(MODEL, str(broken)).source.removeprefix("models:/")
    shutil.rmtree(registry.client.get_logged_model(source).artifact_location.removeprefix("file://"))
    report = Warnings()

    steps.predictions.run(session_of(settings, registry, challengers=True), report)

    assert labels(settings) == {("a", 1): 3}
    (warning,) = report.messages
    assert warning.startswith(f"The challenger {MODEL}/{broken} scores nothing now: The files of models:/")


def test_one_version_under_both_names_is_no_challenger(settings, registry) -> None:  # noqa: F811
    photos_with_features(settings, "a")
    version = model(registry, CHAMPION, 3, 4)
    registry.client.set_registered_model_alias(MODEL, CHALLENGER, version)

    assert session_of(settings, registry, challengers=True).challengers() == []


@pytest.mark.slow
def test_a_run_may_have_a_scope_and_so_may_a_backfill(empty: Pipelines) -> None:
    photos_with_features(empty.settings, "a", "b")
    with opened(empty.settings) as store:
        model(Registry(store), CHAMPION, 3, 4)
    a_day = {"partition_key": "2026-11-01"}
    all_of_it = {"run_config": {"ops": {"predictions": {"config": {"scope": "all"}}}}}

    made = [
        _reported(empty, job, options)
        for job, options in (
            ("rescoring_pipeline", a_day),
            ("rescoring_pipeline", a_day),
            ("scoring_pipeline", all_of_it),
        )
    ]

    scopes = [each["provenance"]["parameters"]["scope"] for each in made]
    assert scopes == ["on 2026-11-01", "on 2026-11-01", "all"]
    assert [each["rows_inserted"] for each in made] == [2, 0, 0]
    assert len({each["delta_version"] for each in made}) == 1  # what says the same again is not written
    assert labels(empty.settings, "predictions_current") == {("a", 1): 3, ("b", 1): 4}


@pytest.mark.slow
def test_a_command_runs_a_pipeline_of_days_for_one(empty: Pipelines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")  # as it was, after the command
    photos_with_features(empty.settings, "a", "b")
    with opened(empty.settings) as store:
        model(Registry(store), CHAMPION, 3, 4)

    def run(*options: str) -> Result:
        return invoke("jobs", "run", "rescoring_pipeline", *options, DLASSETS_ROOT=empty.settings.root)

    refused = [run(), run("--day", "yesterday"), run("--day", "2026-10-31"), run("--day", "2999-01-01")]
    for day in ("2026-11-02", "2026-11-01"):
        done = run("--day", day)
        assert done.exit_code == 0, done.output

    assert [result.exit_code for result in refused] == [2] * 4
    assert "say which, as --day 2026-11-20" in refused[0].stderr
    assert "has the days from 2026-11-01 to today" in refused[2].stderr
    assert labels(empty.settings) == {("a", 1): 3, ("b", 1): 4}
    with opened_instance(empty.lake) as kept:
        runs = kept.get_runs(dg.RunsFilter(job_name="rescoring_pipeline"))
    assert [run.tags["dagster/partition"] for run in runs] == ["2026-11-01", "2026-11-02"]
    scopes = [run.run_config["ops"]["predictions"]["config"]["scope"] for run in runs]
    assert scopes == ["on 2026-11-01", "on 2026-11-02"]
    assert {run.tags["dlassets/alerts"] for run in runs} == {"run_failed check_failed"}


def _reported(pipelines: Pipelines, job: str, options: Mapping[str, Any]) -> dict[str, Any]:
    result = pipelines.defs.resolve_job_def(job).execute_in_process(instance=pipelines.instance, **options)
    return values(materialized(result)["predictions"])


@pytest.mark.slow
def test_a_served_photo_that_was_unsure_becomes_a_label_request(settings, registry, photos) -> None:  # noqa: F811
    content = min(photos.glob("*/*")).read_bytes()
    serving = ServingSettings(log_requests=True, label_below=0.9)
    session = session_of(settings.model_copy(update={"serving": serving}), registry, challengers=False)
    champion = model(registry, CHAMPION, 3, 4)
    asked_at = dt.datetime(2026, 11, 26, 23, 59, tzinfo=dt.UTC)
    answer = {"label": 3, "name": "class 3", "confidence": 0.6, "margin": 0.2, "top_k": []}
    for zone in ("labeled", "unlabeled"):
        Path(session.lake.zone(zone)).mkdir(parents=True)

    with RequestLog(session.settings) as log:
        by = ModelVersion(MODEL, champion)
        log([Served("r", asked_at, image_id_of(content), content, "raw", answer, by, "champion", 0.1)])
    for step in (steps.ingested_files, steps.image_features, steps.predictions, steps.label_requests):
        step.run(session)

    (request,) = get(LocalEngine(), session.lake, "label_requests")
    assert request["path"] == f"unlabeled/served/2026-11-26/{image_id_of(content)}.jpg"
    assert request["image_id"] == image_id_of(content)


@pytest.mark.slow
def test_dagster_shows_how_a_challenger_differs(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    pipelines = new_lake(tmp_path / "lake", instance, scoring={"challengers": True})
    photos_with_features(pipelines.settings, "a", "b")
    with opened(pipelines.settings) as store:
        model(Registry(store), CHAMPION, 3, 4)
        model(Registry(store), CHALLENGER, 3, 5)

    made = _reported(pipelines, "rescoring_pipeline", {"partition_key": "2026-11-01"})

    text = made["beside_version_2"]
    assert "Versions 1 and 2 say the same of 1 of 2 photos (50.0%)" in text
    assert "| 1 | class 4 | class 5 |" in text
    assert "[With the photos](http://127.0.0.1:4000/compare?a=1&b=2)" in text
