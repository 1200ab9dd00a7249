"""Spark's own processes, from pip's pyspark: a standalone cluster of a master and workers, or a Connect server."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from dlassets.deployment.process import Probe, Process, Until
from dlassets.engines.java import ensure_java
from dlassets.extras import SPARK, require
from dlassets.web.ports import HOST

_DEPLOY = "org.apache.spark.deploy"
MASTER = "spark"
# Where Spark's pages and its sessions listen: else it is every address, and who reaches a session's can run code.
LOCAL = {"SPARK_LOCAL_IP": HOST}
# Of a worker: what all executors on it may take together.
WORKER_MEMORY = "3g"


def master(port: int, pages: int) -> Process:
    """Return a cluster's master; `pages` is the port of its web pages, by which it is seen to be well."""
    run = [*_spark_class(), f"{_DEPLOY}.master.Master", "--host", HOST, "--port", str(port)]
    return Process(MASTER, [*run, "--webui-port", str(pages)], _environment(), probe=Probe(pages, "/json/"))


def worker(name: str, pages: int, of: int, folder: Path, environment: Mapping[str, str]) -> Process:
    """Return a worker of half of this machine's cores. `environment` is what its executors have as well."""
    cores = max(1, (os.cpu_count() or 1) // 2)
    run = [*_spark_class(), f"{_DEPLOY}.worker.Worker", "--host", HOST, "--webui-port", str(pages)]
    run += ["--cores", str(cores), "--memory", WORKER_MEMORY, "--work-dir", str(folder), f"spark://{HOST}:{of}"]
    told = {**environment, **_environment()}
    return Process(name, run, told, {MASTER: Until.HEALTHY}, Probe(pages, "/json/"), whole_group=True)


def connect_server(port: int, environment: Mapping[str, str]) -> Process:
    """Return a Connect server whose own process does the work; `environment` is that of its Python workers too."""
    run = [sys.executable, "-m", "dlassets.deployment.spark_connect", str(spark_home()), str(port)]
    told = {**environment, **_environment()}
    return Process(MASTER, run, told, {"s3": Until.HEALTHY}, Probe(port), whole_group=True)


def _spark_class() -> list[str]:
    return [str(spark_home() / "bin" / "spark-class")]


def spark_home() -> Path:
    require(SPARK, "A shared Spark")
    import pyspark

    return Path(pyspark.__file__).parent


def _environment() -> dict[str, str]:
    return {
        "JAVA_HOME": str(ensure_java()),
        "SPARK_HOME": str(spark_home()),
        **LOCAL,
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1",
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
    }
