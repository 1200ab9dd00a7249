"""`dlassets doctor` of a lake whose parts lie on other machines: the bucket, servers' databases, Spark."""

import datetime as dt
import socket
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from dlassets import __version__
from dlassets.cli import elsewhere
from dlassets.settings import Settings, SparkSettings
from dlassets.storage.lake import Lake
from dlassets_tests.learning.training.cluster import cluster
from dlassets_tests.postgres import PASSWORD, Postgres, postgres
from dlassets_tests.programs import dlassets, invoke

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


def found(lake: Lake) -> list[str]:
    return list(elsewhere.bucket(Settings(root=lake.root), lake))


def test_a_bucket_that_is_as_it_should_be_is_well_and_left_as_it_was(s3, bucket) -> None:
    assert found(Lake.at(f"s3://{bucket}/lake")) == []
    assert s3.client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_a_bucket_that_is_not_there_and_credentials_that_are_wrong_are_said(bucket, monkeypatch) -> None:
    (said,) = found(Lake.at("s3://no-such-bucket/lake"))
    assert "create no-such-bucket" in said

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    (said,) = found(Lake.at(f"s3://{bucket}/lake"))
    assert "set AWS_ACCESS_KEY_ID" in said


def test_a_store_that_overwrites_and_a_clock_that_is_off_are_said(s3, bucket, monkeypatch) -> None:
    class Careless:
        """A client of a store that honours no condition, and whose clock is five minutes ahead."""

        def put_object(self, **put: Any) -> Any:
            answer = s3.client.put_object(**{name: value for name, value in put.items() if name != "IfNoneMatch"})
            date = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5)
            answer["ResponseMetadata"]["HTTPHeaders"]["date"] = f"{date:%a, %d %b %Y %H:%M:%S GMT}"
            return answer

        def __getattr__(self, name: str) -> Any:
            return getattr(s3.client, name)

    monkeypatch.setattr(boto3.Session, "client", lambda *_: Careless())

    skew, overwrites = found(Lake.at(f"s3://{bucket}/lake"))

    assert "clock and the store's are 300 seconds apart" in skew or "299 seconds apart" in skew
    assert "overwrites what it was asked to create" in overwrites
    assert s3.client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_mlflows_database_on_a_server_is_looked_at_and_no_password_is_said(lake, server) -> None:
    uri = server.create("mlflow_one")
    assert list(elsewhere.mlflow_server(Settings(root=lake.root, mlflow={"tracking_uri": uri}))) == []

    for wrong in (uri.replace(PASSWORD, "Qz7fWrong1"), uri.replace("mlflow_one", "none_such")):
        result = invoke("doctor", DLASSETS_ROOT=lake.root, DLASSETS_MLFLOW__TRACKING_URI=wrong)
        assert "MLflow's store: 1 found" in result.output
        assert "see that it takes this user and password" in " ".join(result.output.split())
        assert "Qz7f" not in result.output


def test_dagsters_databases_on_a_server_are_looked_at(lake, server, tmp_path) -> None:
    (tmp_path / "dagster.yaml").write_text(server.dagster_yaml("dagster_one"))

    (said,) = elsewhere.dagster_server(tmp_path)
    assert "dagster_one" in said
    assert "start their server" in said

    server.create("dagster_one")
    assert list(elsewhere.dagster_server(tmp_path)) == []


def test_a_master_that_does_not_answer_is_said_at_once(lake) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for spark in (SparkSettings(master=f"spark://127.0.0.1:{port}"), SparkSettings(remote=f"sc://127.0.0.1:{port}")):
        (said,) = elsewhere.spark(Settings(root=lake.root, engine="spark", spark=spark), lake)
        assert f"this machine reaches 127.0.0.1:{port}" in said


@pytest.mark.spark
def test_a_worker_whose_dlassets_is_another_is_named_with_what_to_install(spark_engine, monkeypatch) -> None:
    tasks = spark_engine._session().range(0, 4, 1, 4)
    assert list(elsewhere._workers(tasks)) == []

    monkeypatch.setattr(elsewhere, "__version__", "9.9")
    (said,) = elsewhere._workers(tasks)

    assert f"The worker on {socket.gethostname()} has dlassets {__version__} (here 9.9): install the same" in said


@pytest.mark.spark
def test_a_cluster_is_well(lake, tmp_path) -> None:
    conf = "{spark.executor.memory: 512m}"
    with cluster(tmp_path, workers=1) as master:
        spark = {"DLASSETS_ENGINE": "spark", "DLASSETS_SPARK__MASTER": master, "DLASSETS_SPARK__CONF": conf}
        done = dlassets("doctor", DLASSETS_ROOT=lake.root, **spark)

    assert "Spark: well" in done.stdout, done.stdout + done.stderr
