import pytest

from dlassets.errors import DlassetsError
from dlassets.lakehouse.lake import Lake
from dlassets.registry.store import artifact_location, tracking_uri
from dlassets.settings import Settings


def with_store(uri: str) -> Settings:
    return Settings.model_validate({"mlflow": {"tracking_uri": uri}})


def test_the_store_is_sqlite_under_the_lake_with_artifacts_beside_it(tmp_path):
    lake = Lake.at(str(tmp_path / "lake"))
    assert tracking_uri(Settings(), lake) == f"sqlite:///{tmp_path}/lake/mlflow/mlflow.db"
    assert artifact_location(Settings(), lake) == f"file://{tmp_path}/lake/mlflow/artifacts"
    assert (tmp_path / "lake" / "mlflow").is_dir()


def test_a_file_uri_is_the_same_lake(tmp_path):
    lake = Lake.at(f"file://{tmp_path}")
    assert tracking_uri(Settings(), lake) == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    assert artifact_location(Settings(), lake) == f"file://{tmp_path}/mlflow/artifacts"


def test_a_server_decides_where_artifacts_go(tmp_path):
    settings, lake = with_store("https://mlflow.example.com"), Lake.at(str(tmp_path))
    assert tracking_uri(settings, lake) == "https://mlflow.example.com"
    assert artifact_location(settings, lake) is None


def test_artifacts_follow_a_lake_in_object_storage_under_the_name_mlflow_knows():
    settings, lake = with_store("postgresql://db.example.com/mlflow"), Lake.at("s3a://bucket/lake")
    assert artifact_location(settings, lake) == "s3://bucket/lake/mlflow/artifacts"


def test_a_lake_in_object_storage_asks_for_a_store():
    with pytest.raises(DlassetsError, match="DLASSETS_MLFLOW__TRACKING_URI"):
        tracking_uri(Settings(), Lake.at("s3a://bucket/lake"))


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "lake").touch()
    with pytest.raises(DlassetsError, match="cannot be written"):
        tracking_uri(Settings(), Lake.at(str(tmp_path / "lake")))
