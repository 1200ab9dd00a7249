"""The asset of tuned settings: a study over the training set, shown with its winner, and left alone when it is done."""

import dagster as dg

from dlassets.defs.training.assets import tuned_hyperparameters
from dlassets.lakehouse.tables import TEST, TRAIN, VALIDATION
from dlassets.resources.progress import LoggedProgress
from dlassets.resources.session import session_resource
from dlassets.settings import Settings, Span, TuningSettings
from dlassets_tests.learning.examples import rows
from dlassets_tests.learning.training.test_head_training import put
from dlassets_tests.pipelines import materialized, values
from dlassets_tests.stores import give_store

LABELS = [3, 12] * 10


def materialize(settings: Settings, instance: dg.DagsterInstance) -> dg.AssetMaterialization:
    resources = {"session": session_resource(settings), "progress": LoggedProgress()}
    result = dg.materialize([tuned_hyperparameters], resources=resources, instance=instance)
    return materialized(result)["tuned_hyperparameters"]


def test_it_shows_the_winner_and_with_nothing_new_leaves_it(local_engine, lake, instance) -> None:
    tuning = TuningSettings(trials=2, processes=1, space={"l2": Span(low=0.01, high=1, log=True)})
    settings = Settings(root=lake.root, tuning=tuning)
    give_store(settings)
    put(local_engine, lake, *((split, rows(LABELS, seed=seed)) for seed, split in enumerate((TRAIN, VALIDATION, TEST))))

    first, again = materialize(settings, instance), materialize(settings, instance)

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
