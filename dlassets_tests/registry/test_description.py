"""What MLflow's pages of the model and its versions say: kept up as the champion moves, and people's own words kept."""

import json
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from dlassets.learning.evaluation.evaluate import evaluate
from dlassets.registry.approval import settle
from dlassets.registry.description import describe
from dlassets.registry.entry import enter as enter_run
from dlassets.registry.gate import Verdict
from dlassets.registry.lifecycle import register, version_of
from dlassets.registry.model_registry import ModelRegistry
from dlassets.registry.package import ModelPackage
from dlassets.registry.store import MlflowStore
from dlassets.settings import Settings, UiSettings
from dlassets_tests.mlflow_servers import mlflow_server
from dlassets_tests.registry.conftest import MODEL, Registry
from dlassets_tests.registry.test_lifecycle import BAD, EQUAL, GOOD, TEST

UI = UiSettings(dagster="https://dagster.example.com")
TAGS = {"dlassets.input.training_set": "2", "dlassets.input.raw_images": "1, 2", "dagster_run_id": "a-run"}
FIGURES = {
    "test_accuracy": 0.864, "test_accuracy_low": 0.785, "test_accuracy_high": 0.917,
    "test_macro_f1": 0.85, "test_calibration_error": 0.1054,
}  # fmt: skip


def logged(registry: Registry) -> Any:
    """A run with a model, of which nothing is there but its entry: none is loaded here."""
    from mlflow.entities import LoggedModelOutput

    client = registry.client
    experiment = client.get_experiment_by_name(registry.resource.experiment).experiment_id
    run_id = client.create_run(experiment, run_name="head on efficientnet_lite0").info.run_id
    model = client.create_logged_model(experiment, name="model", source_run_id=run_id)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
    return client.get_run(run_id)


def enter(registry: Registry, package: ModelPackage, figures: Mapping[str, float] = MappingProxyType({})) -> int:
    """Register a run's model, promote it if it may be, and describe it, as the step does."""
    client, run_id = registry.client, logged(registry).info.run_id
    for name, value in figures.items():
        client.log_metric(run_id, name, value)
    for name, rows in {"train": 350, "validation": 68, "test": 103}.items():
        client.log_param(run_id, f"{name}_rows", rows)
    for name, tag in TAGS.items():
        client.set_tag(run_id, name, tag)
    model, verdict = enter_run(shown(registry), client.get_run(run_id)), judged(registry, package)
    settle(shown(registry), registry.validation(model, passed=verdict.passed, why=verdict.explanation))
    return model.version


def shown(registry: Registry) -> ModelRegistry:
    by_ann = registry.by("ann")
    return replace(by_ann, settings=by_ann.settings.model_copy(update={"ui": UI}))


def judged(registry: Registry, package: ModelPackage) -> Verdict:
    """The verdict on a package, where every champion is right each time."""
    champion, now = version_of(registry.client, MODEL), evaluate(package.head, TEST)
    return Verdict(now, None if champion is None else evaluate(GOOD.head, TEST), champion)


def said(registry: Registry, version: int) -> str:
    return registry.client.get_model_version(MODEL, str(version)).description


def test_a_version_s_page_has_its_figures_its_data_its_pictures_and_where_to_look(registry) -> None:
    enter(registry, GOOD, FIGURES)

    page = said(registry, 1)
    assert page.splitlines()[0].startswith("Champion since 20")
    assert page.splitlines()[0].endswith(
        " UTC, by ann: right on 4 of 4 test photos: no champion to be worse than, passed."
    )
    for line in (
        "- accuracy: **86.4%** of 103 test photos (95% interval: 78.5% to 91.7%)",
        "- macro F1: 0.850",
        "- calibration error: 0.105",
        "- training: head on efficientnet_lite0, split into 350 train, 68 validation, 103 test",
        "- made of the Delta versions: raw_images 1, 2; training_set 2",
    ):
        assert line in page.splitlines()
    run = registry.client.get_run(registry.client.get_model_version(MODEL, "1").run_id)
    assert f"(#/experiments/{run.info.experiment_id}/runs/{run.info.run_id})" in page
    assert (
        f"[its validation](#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/validation)" in page
    )
    assert "(https://dagster.example.com/assets/validated_version)" in page
    assert "(https://dagster.example.com/runs/a-run)" in page
    pictures = [parse_qs(urlsplit(link).query) for link in re.findall(r"!\[.*?\]\((get-artifact.*?)\)", page)]
    assert [picture["path"] for picture in pictures] == [
        [f"evaluation/{name}.png"] for name in ("confusion_matrix", "misclassified", "calibration")
    ]
    assert {picture["run_id"][0] for picture in pictures} == {run.info.run_id}


def test_the_model_that_a_run_logged_names_its_version_once(registry) -> None:
    run = logged(registry)

    assert [register(registry.client, MODEL, run) for _ in range(2)] == [1, 1]

    (model,) = run.outputs.model_outputs
    versions = registry.client.get_logged_model(model.model_id).tags["mlflow.modelVersions"]
    assert json.loads(versions) == [{"name": MODEL, "version": "1"}]


def test_when_the_champion_moves_so_do_the_words_and_a_version_that_is_refused_says_why(registry) -> None:
    enter(registry, GOOD)
    assert "No version" not in registry.client.get_registered_model(MODEL).description
    enter(registry, BAD)
    enter(registry, EQUAL)

    first, refused, champion = (said(registry, version).splitlines()[0] for version in (1, 2, 3))
    assert re.fullmatch(
        r"No longer champion at .* UTC, by ann: version 3 took its place\. "
        r"It was promoted at .* UTC, by ann: .* no champion .*, passed\.",
        first,
    )
    assert refused.startswith("Not promoted: right on 0 of 4 test photos where version 1 is on 4 (0 gained, 4 lost): ")
    assert refused.endswith(", refused.")
    assert champion.endswith("on 4 of 4 test photos where version 1 is on 4 (0 gained, 0 lost): as good, passed.")
    model = registry.client.get_registered_model(MODEL).description
    assert f"[Version 3](#/models/{MODEL}/versions/3) is **champion** since" in model
    assert f'mlflow.pyfunc.load_model("models:/{MODEL}@champion")' in model


def test_what_people_write_stays_and_what_would_be_the_same_is_not_written(registry) -> None:
    client = registry.client
    client.create_registered_model(MODEL, description="Ask Ann before you delete anything.")
    enter(registry, GOOD)
    client.update_model_version(MODEL, "1", said(registry, 1) + "\n\nIt knows no red hats.")
    before = client.get_model_version(MODEL, "1")

    describe(shown(registry), registry.by().history(), 1)
    assert client.get_model_version(MODEL, "1").last_updated_timestamp == before.last_updated_timestamp
    enter(registry, EQUAL)

    assert said(registry, 1).startswith("No longer champion")
    assert said(registry, 1).endswith("below this line.*\n\nIt knows no red hats.")
    model = client.get_registered_model(MODEL).description
    assert model.endswith("\n\nAsk Ann before you delete anything.")
    assert model.count("Ask Ann") == model.count("is **champion**") == 1


def test_versions_of_before_are_described_as_far_as_is_known(registry) -> None:
    old = register(registry.client, MODEL, logged(registry))
    registry.client.update_registered_model(MODEL, "Photos to classes: a linear head on a backbone.")
    registry.client.create_model_version(MODEL, "file:///elsewhere")  # and not by dlassets

    enter(registry, GOOD, FIGURES)

    assert said(registry, old).startswith(
        "Not validated yet: found in MLflow's registry when model_events began.\n\n- training"
    )
    assert not said(registry, 2)
    assert said(registry, 3).startswith("Champion since")
    assert registry.client.get_registered_model(MODEL).description.count("Photos to classes") == 1


@pytest.mark.slow
def test_a_server_has_the_same_pages_and_shows_their_pictures(tmp_path, registry) -> None:
    with mlflow_server(tmp_path) as server:
        served = Registry(
            MlflowStore(
                Settings.model_validate({"root": str(tmp_path / "lake"), "mlflow": {"tracking_uri": server.uri}})
            )
        )
        version = enter(served, GOOD, FIGURES)
        run_id = served.client.get_model_version(MODEL, str(version)).run_id
        picture = tmp_path / "confusion_matrix.png"
        picture.write_bytes(b"\x89PNG of this test")
        served.client.log_artifact(run_id, str(picture), "evaluation")

        page = said(served, version)
        link = next(link for link in re.findall(r"\((get-artifact.*?)\)", page) if "confusion_matrix" in link)
        with urllib.request.urlopen(f"{server.uri}/{link}", timeout=30) as reply:
            assert reply.read() == Path(picture).read_bytes()
        assert "**86.4%** of 103 test photos" in page
