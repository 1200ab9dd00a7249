import os
import sqlite3
from contextlib import closing

import pytest

from dlassets.errors import DlassetsError
from dlassets.registry.store import MlflowStore, artifact_location, fail_soon, ready_store, tracking_uri
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.killing import overtaken_at
from dlassets_tests.stores import give_store


def with_store(uri: str) -> Settings:
    return Settings.model_validate({"mlflow": {"tracking_uri": uri}})


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_the_store_is_sqlite_under_the_lake_with_artifacts_beside_it(tmp_path, scheme):
    lake = Lake.at(f"{scheme}{tmp_path}/lake")
    assert tracking_uri(Settings(), lake) == f"sqlite:///{tmp_path}/lake/mlflow/mlflow.db"
    assert artifact_location(Settings(), lake) == f"file://{tmp_path}/lake/mlflow/artifacts"
    assert (tmp_path / "lake" / "mlflow").is_dir()


def test_a_server_decides_where_artifacts_go(tmp_path):
    settings, lake = with_store("https://mlflow.example.com"), Lake.at(str(tmp_path))
    assert tracking_uri(settings, lake) == "https://mlflow.example.com"
    assert artifact_location(settings, lake) is None


def test_a_lake_in_object_storage_asks_for_a_store_and_has_artifacts_under_the_name_mlflow_knows():
    settings, lake = with_store("postgresql://db.example.com/mlflow"), Lake.at("s3a://bucket/lake")
    assert artifact_location(settings, lake) == "s3://bucket/lake/mlflow/artifacts"
    with pytest.raises(DlassetsError, match="DLASSETS_MLFLOW__TRACKING_URI"):
        tracking_uri(Settings(), lake)


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "lake").touch()
    with pytest.raises(DlassetsError, match="cannot be written"):
        tracking_uri(Settings(), Lake.at(str(tmp_path / "lake")))


def test_a_store_that_was_half_made_is_made_anew_and_one_with_runs_is_left(tmp_path, registry):
    store = tmp_path / "mlflow" / "mlflow.db"
    store.parent.mkdir()
    with closing(sqlite3.connect(store)) as connection:  # as MLflow was killed before its first migration
        connection.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    lake = MlflowStore(Settings(root=str(tmp_path)))

    with lake.run("first"):
        pass
    inode = store.stat().st_ino
    ready_store(f"sqlite:///{store}", None)

    experiment = lake.client.get_experiment_by_name(lake.experiment)
    assert [run.info.run_name for run in lake.client.search_runs([experiment.experiment_id])] == ["first"]
    assert lake.client.get_experiment("0").artifact_location == f"file://{tmp_path}/mlflow/artifacts/0"
    assert store.stat().st_ino == inode


def test_an_experiment_that_another_process_makes_at_the_same_moment_is_used(tmp_path):
    from mlflow import MlflowClient

    settings = Settings(root=str(tmp_path))
    give_store(settings)
    uri = tracking_uri(settings, Lake.at(settings.root))

    def another() -> None:
        MlflowClient(uri, uri).create_experiment(settings.mlflow.experiment)

    with overtaken_at(MlflowClient, "create_experiment", another):
        store = MlflowStore(settings)
        assert store.client.get_experiment_by_name(store.experiment) is not None


def test_a_store_that_is_no_database_is_named_with_the_remedy_and_left(tmp_path):
    store = tmp_path / "mlflow.db"
    store.write_text("not what it was " * 99)
    with pytest.raises(DlassetsError, match=r"(?s)mlflow.db cannot be used: file is not a database. .*restore it"):
        ready_store(f"sqlite:///{store}", None)
    assert store.read_text() == "not what it was " * 99


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_given_up_on_with_the_remedy(tmp_path, monkeypatch, registry):
    for name in ("MAX_RETRIES", "BACKOFF_FACTOR", "TIMEOUT"):
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", "")  # so that what is set below is taken back
        monkeypatch.delenv(f"MLFLOW_HTTP_REQUEST_{name}")
    settings = Settings.model_validate(
        {"root": str(tmp_path), "mlflow": {"tracking_uri": "http://me:hunter2@127.0.0.1:9"}}
    )
    said = r"(?s)http://…@127.0.0.1:9 cannot be reached: .*Start the server, or set.*DLASSETS_MLFLOW__TRACKING_URI"
    with pytest.raises(DlassetsError, match=said) as raised:
        MlflowStore(settings).client  # noqa: B018 - looking is asking
    assert "hunter2" not in str(raised.value)
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "3"


def test_how_long_a_server_is_waited_for_is_the_user_s_to_say(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "9")
    for name in ("BACKOFF_FACTOR", "TIMEOUT"):
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", "1")
    fail_soon()
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "9"
