"""A Spark that is elsewhere, on loopback: a standalone cluster of two workers, a Connect server, or both."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from dlassets_tests.conftest import FOR_FEW_ROWS
from dlassets_tests.engines.connect import connect_server
from dlassets_tests.learning.training.cluster import cluster
from dlassets_tests.storage.s3 import S3

CLUSTER, CONNECT, CONNECT_TO_CLUSTER = "cluster", "connect", "connect-to-cluster"
# The demo takes 340 to 470 seconds of processors there: on two busy ones it was twelve minutes.
SECONDS = 1200

_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:ReservedCodeCacheSize=240m"
_CONF = FOR_FEW_ROWS | {
    # Rows in two parts, so that either worker has some.
    "spark.sql.shuffle.partitions": "2",
    "spark.default.parallelism": "2",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.extraJavaOptions": _JVM,
    "spark.executor.extraJavaOptions": _JVM,
    "spark.executor.memory": "600m",
}


@contextmanager
def spark_elsewhere(kind: str, folder: Path, s3: S3) -> Iterator[dict[str, str]]:
    """Give the variables that have a lake, in a folder or on the S3 server, use this Spark."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name, value in s3.environment.items():  # workers' Python reads photos there
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        master = "local[2]" if kind == CONNECT else stack.enter_context(cluster(folder, workers=2))
        if kind == CLUSTER:
            spark = {"MASTER": master, "DRIVER_MEMORY": "1g", "CONF": json.dumps(_CONF)}
            place = {f"DLASSETS_SPARK__{name}": value for name, value in spark.items()}
        else:
            place = {"SPARK_REMOTE": stack.enter_context(connect_server(folder / "server.log", master, _CONF))}
        yield {"DLASSETS_ENGINE": "spark", **place}
