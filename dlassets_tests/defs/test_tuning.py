"""The asset of tuned settings: a study over the training set, shown with its winner, and left alone when it is done."""

from pathlib import Path
from typing import Any

import dagster as dg

from dlassets.defs.compute import asset_of
from dlassets.defs.training.assets import tuned_hyperparameters
from dlassets.lakehouse.tables import TEST, TRAIN, VALIDATION
from dlassets.resources.progress import LoggedProgress
from dlassets.resources.session import session_resource
from dlassets.settings import Settings, Span, TuningSettings
from dlassets_tests.learning.examples import rows
from dlassets_tests.learning.training.test_head_training import put
from dlassets_tests.pipelines import Pipelines, materialized, values
from dlassets_tests.stores import give_store

LABELS = [3, 12] * 10


def materialize(settings: Settings, instance: dg.DagsterInstance) -> dg.AssetMaterialization:
    resources = {"session": session_resource(settings), "progress": LoggedProgress()}
    result = dg.materialize([asset_of(tuned_hyperparameters, settings)], resources=resources, instance=instance)
    return materialized(result)["tuned_hyperparameters"]


def materialize_with_photos(settings: Settings, instance: dg.DagsterInstance) -> dict[str, Any]:
    """As *Materialize all* does."""
    run = Pipelines(settings, instance).run_only(dg.AssetSelection.assets("raw_images", "tuned_hyperparameters"))
    return values(materialized(run)["tuned_hyperparameters"])


def test_a_run_that_begins_with_the_photos_starts_no_study_and_says_who_does(empty) -> None:
    shown = materialize_with_photos(empty.settings, empty.instance)

    assert shown["changed"].startswith("nothing new: there is no study yet")
    assert "tuning_pipeline makes one" in shown["changed"]
    assert "mlflow_run_id" not in shown


def test_it_shows_the_winner_and_with_nothing_new_leaves_it(local_engine, lake, instance) -> None:
    tuning = TuningSettings(trials=2, processes=1, space={"l2": Span(low=0.01, high=1, log=True)})
    settings = Settings(root=lake.root, tuning=tuning)
    give_store(settings)
    put(local_engine, lake, *((split, rows(LABELS, seed=seed)) for seed, split in enumerate((TRAIN, VALIDATION, TEST))))

    for zone in ("labeled", "unlabeled"):
        Path(lake.zone(zone)).mkdir(parents=True)

    first, again = materialize(settings, instance), materialize(settings, instance)
    taken = materialize_with_photos(settings, instance)

    shown = values(first)
    assert shown["changed"] == "new trials"
    assert shown["chosen"].keys() == {"l2"}
    assert (shown["trials"], shown["training_set_version"]) == (2, 3)
    assert shown["mlflow_run"].endswith(shown["mlflow_run_id"])
    assert first.tags["dagster/data_version"] == shown["mlflow_run_id"]
    assert "data:image/png;base64," in shown["study"]
    assert values(again)["changed"].startswith("nothing new")
    assert values(again)["chosen"] == shown["chosen"]
    assert again.tags["dagster/data_version"] == shown["mlflow_run_id"]
    assert taken["changed"].startswith("nothing new: the newest study stands")
    assert {name: taken[name] for name in ("chosen", "mlflow_run_id", "mlflow_run")} == {
        name: shown[name] for name in ("chosen", "mlflow_run_id", "mlflow_run")
    }
