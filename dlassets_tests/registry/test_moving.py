"""A lake that was copied or moved: its MLflow store names files where the lake lies now, and no other's."""

import hashlib
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dlassets.registry.moving import move_in
from dlassets.registry.store import MlflowStore
from dlassets.settings import Settings
from dlassets_tests.registry.conftest import opened
from dlassets_tests.stores import give_store


def everything(root: Path) -> dict[str, tuple[str, int]]:
    files = [file for file in root.rglob("*") if file.is_file()]
    return {str(f): (hashlib.sha256(f.read_bytes()).hexdigest(), f.stat().st_mtime_ns) for f in files}


def log_something(store: MlflowStore, text: str) -> str:
    import mlflow
    from mlflow.data.delta_dataset_source import DeltaDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    with store.run(text) as run:
        run.log_text(text, "said.txt")
        table = str(Path(store.settings.root, "tables", "training_set"))
        run.log_input(MetaDataset(DeltaDatasetSource(path=table, delta_table_version=1), "rows", "abc"))
        run_id = str(mlflow.active_run().info.run_id)
    store.client.create_registered_model("model")
    logged = store.client.get_run(run_id).info.artifact_uri
    store.client.create_model_version("model", f"{logged}/model", run_id)
    return run_id


@pytest.fixture
def original(tmp_path: Path) -> tuple[Path, str]:
    """A lake with a run, a registered version and an experiment in a bucket, and the run's id."""
    root = tmp_path / "a lake, über all"
    settings = Settings(root=str(root))
    give_store(settings)
    with opened(settings) as store:
        run_id = log_something(store, "before")
        store.client.create_experiment("elsewhere", "s3://bucket/mlflow/artifacts")
    return root, run_id


def noted(root: Path) -> str:
    with closing(sqlite3.connect(root / "mlflow" / "mlflow.db")) as connection:
        return "\n".join(connection.iterdump())


def test_a_copy_reads_and_writes_its_own_files_and_the_original_is_as_it_was(original, tmp_path) -> None:
    root, run_id = original
    before = everything(root)
    copy = tmp_path / "copy #2"
    shutil.copytree(root, copy)

    with opened(Settings(root=str(copy))) as store, store.run("after") as run:
        run.log_text("after", "said.txt")
        there = store.client.get_run(run_id)
        read = Path(store.client.download_artifacts(run_id, "said.txt")).read_text()
        version = store.client.get_model_version("model", "1")
        bucket = store.client.get_experiment_by_name("elsewhere").artifact_location

    assert read == "before"
    assert everything(root) == before
    assert there.info.artifact_uri == f"{copy.as_uri()}/mlflow/artifacts/{run_id}/artifacts"
    assert version.source == f"{there.info.artifact_uri}/model"
    assert f'"path": "{copy}/tables/training_set"' in there.inputs.dataset_inputs[0].dataset.source
    assert bucket == "s3://bucket/mlflow/artifacts"
    assert len(list(copy.glob("mlflow/artifacts/*/artifacts/said.txt"))) == 2
    assert root.as_uri() not in noted(copy)
    assert str(root) not in noted(copy)


def test_a_moved_lake_goes_on_and_a_link_to_it_is_no_other_lake(original, tmp_path) -> None:
    root, run_id = original
    moved, link = tmp_path / "deep" / "er", tmp_path / "link"
    moved.parent.mkdir()
    root.rename(moved)
    with opened(Settings(root=str(moved))) as store:
        assert Path(store.client.download_artifacts(run_id, "said.txt")).read_text() == "before"

    link.symlink_to(moved)
    before = noted(moved)
    with opened(Settings(root=str(link))) as store:
        assert Path(store.client.download_artifacts(run_id, "said.txt")).read_text() == "before"
    assert noted(moved) == before


def test_a_store_that_is_where_it_was_is_not_written_to(original) -> None:
    root, _ = original
    before = everything(root)
    move_in(root / "mlflow" / "mlflow.db", root)
    assert everything(root) == before


def test_a_store_that_the_settings_name_is_left_as_it_is(original, tmp_path) -> None:
    root, _ = original
    store = tmp_path / "shared.db"
    shutil.copyfile(root / "mlflow" / "mlflow.db", store)
    shared = Settings.model_validate(
        {"root": str(tmp_path / "other"), "mlflow": {"tracking_uri": f"sqlite:///{store}"}}
    )
    with opened(shared) as opened_store:
        found = opened_store.client.get_experiment_by_name(opened_store.experiment)
    assert found.artifact_location == f"{root.as_uri()}/mlflow/artifacts"
