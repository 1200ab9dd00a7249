"""A version that somebody registers in MLflow by hand, without any step: found, validated, and champion as any other."""

from pathlib import Path

import pytest

from dlassets.engines.local import LocalEngine
from dlassets.lakehouse.model_versions import recorded_models
from dlassets.registry.lifecycle import CHAMPION, version_of
from dlassets.registry.store import MlflowStore
from dlassets_tests.pipelines import arrive, failures, let_guesses_pass

MODEL = "image_classifier"


@pytest.mark.slow
def test_one_whose_run_is_of_this_lake_is_validated_and_another_is_not(empty, photos, monkeypatch) -> None:
    import dagster as dg

    let_guesses_pass(monkeypatch)
    arrive(photos, empty)
    learned = dg.AssetSelection.assets("trained_model").upstream()
    assert empty.run_only(learned - dg.AssetSelection.assets("tuned_hyperparameters")).success
    client = MlflowStore(empty.settings).client
    experiment = client.get_experiment_by_name(empty.settings.mlflow.experiment).experiment_id
    (run,) = client.search_runs([experiment])
    client.create_registered_model(MODEL)
    source = f"models:/{run.outputs.model_outputs[0].model_id}"
    client.create_model_version(MODEL, source, run.info.run_id)
    other = client.create_run(experiment)
    client.create_model_version(MODEL, f"runs:/{other.info.run_id}/model", other.info.run_id)

    tick = empty.tick("registry_changes")
    (request,) = tick.run_requests
    result = empty.run("validation_pipeline", request.tags)
    foreign = empty.run("validation_pipeline", {"dlassets/model_version": "2"})

    assert result.success, failures(result)
    assert version_of(client, MODEL, CHAMPION) == 1
    assert [(known.model_version, known.run_id) for known in recorded_models(LocalEngine(), empty.lake)] == [
        (1, run.info.run_id)
    ]
    assert "Version 2 of image_classifier did not learn from the training set of this lake" in str(failures(foreign))
    assert empty.tick("registry_changes").skip_message == (
        "Version 2 did not learn from this lake's training set, so that it is not validated here."
    )
    assert not Path(empty.lake.table("alerts")).exists()
