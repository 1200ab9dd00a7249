"""The step `predictions`: what a new champion costs, and who answers beside it."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlassets.engines.local import LocalEngine
from dlassets.learning.backbones import dimensions_of, feature_version
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.registry.lifecycle import CHALLENGER, CHAMPION, register
from dlassets.registry.package import ModelPackage
from dlassets.settings import ScoringSettings, Settings
from dlassets_tests.learning.examples import head
from dlassets_tests.pipelines import Pipelines, Warnings, materialized, values
from dlassets_tests.programs import python
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


def _reported(pipelines: Pipelines, job: str, options: Mapping[str, Any]) -> dict[str, Any]:
    result = pipelines.defs.resolve_job_def(job).execute_in_process(instance=pipelines.instance, **options)
    return values(materialized(result)["predictions"])
