"""Become a Spark Connect server: `python -m dlassets.deployment.spark_connect <Spark's home> <port>`.

It has what a session of this process would have: Delta, S3 where the lake's root is there, and the log store that
commits on a condition.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from dlassets.engines.spark_session import spark_config
from dlassets.settings import load_settings
from dlassets.web.ports import HOST

_SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"


def become(home: Path, port: str) -> NoReturn:
    settings = load_settings()
    conf = spark_config(settings.spark.model_copy(update={"remote": None, "master": "local[*]"}), [settings.root])
    conf |= {"spark.connect.grpc.binding.address": HOST, "spark.connect.grpc.binding.port": port}
    options = [word for name, value in conf.items() for word in ("--conf", f"{name}={value}")]
    # By this, and not by spark.driver.memory, spark-submit gives memory to a server of Spark's own.
    os.environ["SPARK_DAEMON_MEMORY"] = settings.spark.driver_memory
    submit = str(home / "bin" / "spark-submit")
    os.execv(submit, [submit, "--class", _SERVER, *options, "spark-internal"])  # noqa: S606 - no shell, as everywhere


if __name__ == "__main__":
    become(Path(sys.argv[1]), sys.argv[2])
