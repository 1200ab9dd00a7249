"""The whole loop on a Spark elsewhere: a standalone cluster, a Connect server, and both; in a folder and on S3."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dlassets_tests.conftest import FOR_FEW_ROWS
from dlassets_tests.contents import contents
from dlassets_tests.engines.connect import connect_server
from dlassets_tests.learning.training.cluster import cluster
from dlassets_tests.programs import dlassets

pytestmark = [pytest.mark.spark, pytest.mark.slow]

# A quiet machine of two cores takes a third of it.
SECONDS = 800
PHOTOS = ("--classes", "3", "--per-class", "12")
# Two versions, each by its own scores of the test photos alone.
FEW = {"DLASSETS_VALIDATION__SAMPLE": "0"}

_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:ReservedCodeCacheSize=240m"
CONF = FOR_FEW_ROWS | {
    # Rows in two parts, so that either worker has some.
    "spark.sql.shuffle.partitions": "2",
    "spark.default.parallelism": "2",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.extraJavaOptions": _JVM,
    "spark.executor.extraJavaOptions": _JVM,
    "spark.executor.memory": "600m",
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the engine `local` makes of the same photos."""
    root = tmp_path_factory.mktemp("local") / "lake"
    ran = dlassets("demo", *PHOTOS, seconds=SECONDS, DLASSETS_ROOT=str(root), **FEW)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return contents(root)


@pytest.fixture(scope="module", params=["cluster", "connect", "connect to a cluster"])
def place(request: pytest.FixtureRequest, s3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables that have a lake use this Spark, whose machines reach the S3 server."""
    folder = tmp_path_factory.mktemp("spark")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        if request.param == "connect":
            with connect_server(folder / "server.log", "local[2]", CONF) as address:
                yield {"SPARK_REMOTE": address}
            return
        with cluster(folder, workers=2) as master:
            if request.param == "cluster":
                spark = {"MASTER": master, "DRIVER_MEMORY": "1g", "CONF": json.dumps(CONF)}
                yield {f"DLASSETS_SPARK__{name}": value for name, value in spark.items()}
                return
            with connect_server(folder / "server.log", master, CONF) as address:
                yield {"SPARK_REMOTE": address}


@pytest.fixture(params=["folder", "bucket"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The variables of a new lake; of one in a bucket, MLflow's database and Dagster's home are here."""
    if request.param == "folder":
        return {"DLASSETS_ROOT": str(tmp_path / "lake")}
    bucket = request.getfixturevalue("bucket")
    return {
        "DLASSETS_ROOT": f"s3a://{bucket}/lake",
        "DLASSETS_MLFLOW__TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "DAGSTER_HOME": str(tmp_path / "home"),
    }


def test_the_demo_makes_there_what_the_engine_local_makes(expected, place, lake) -> None:
    ran = dlassets("demo", *PHOTOS, seconds=SECONDS, DLASSETS_ENGINE="spark", **FEW, **place, **lake)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    made = contents(lake["DLASSETS_ROOT"], lake.get("DLASSETS_MLFLOW__TRACKING_URI"))
    for name, rows in expected.items():
        assert made[name] == rows, name
