"""A Spark Connect server as an operator would start one, a process of its own: on this machine, or of a cluster."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dlassets.engines.java import ensure_java
from dlassets.engines.spark_session import spark_config
from dlassets.settings import SparkSettings
from dlassets_tests.servers import free_port
from dlassets_tests.storage.s3 import answers

SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"
SECONDS = 200


@contextmanager
def connect_server(
    log: Path, master: str = "local[1]", conf: Mapping[str, str] | None = None, root: str = "s3a://bucket"
) -> Iterator[str]:
    """Give the address of a server for a lake there. It is killed at the end."""
    import pyspark

    ensure_java()
    port = free_port()
    config = spark_config(SparkSettings(master=master, driver_memory="1g", conf=dict(conf or {})), [root])
    config |= {"spark.connect.grpc.binding.address": "127.0.0.1", "spark.connect.grpc.binding.port": str(port)}
    options = [word for name, value in config.items() for word in ("--conf", f"{name}={value}")]
    submit = str(Path(pyspark.__file__).parent / "bin" / "spark-submit")
    program = [submit, "--class", SERVER, *options, "spark-internal"]
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            program,
            stdout=stream,
            stderr=stream,
            env=os.environ | {"PYSPARK_PYTHON": sys.executable},
            start_new_session=True,
        ) as server,
    ):
        try:
            answers(port, SECONDS)
            yield f"sc://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGKILL)
