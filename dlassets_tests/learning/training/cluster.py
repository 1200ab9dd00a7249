"""A Spark standalone cluster on loopback, from the pip package: a master and workers, each a process of its own."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dlassets.engines.java import ensure_java

DEPLOY = "org.apache.spark.deploy"
SECONDS = 60


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[str]:
    """Give the address of a cluster of one-core workers. All of its processes are killed at the end."""
    daemons: list[Daemon] = []
    try:
        daemons.append(Daemon(folder / "master.log", f"{DEPLOY}.master.Master"))
        address = daemons[0].says(r"Starting Spark master at (\S+)")
        for number in range(workers):
            place = ("--cores", "1", "--memory", "1g", "--work-dir", str(folder / f"work-{number}"), address)
            daemons.append(Daemon(folder / f"worker-{number}.log", f"{DEPLOY}.worker.Worker", *place))
        for worker in daemons[1:]:
            worker.says(r"(Successfully registered)")
        yield address
    finally:
        for daemon in daemons:
            daemon.kill()


class Daemon:
    def __init__(self, log: Path, java_class: str, *arguments: str) -> None:
        import pyspark

        home = Path(pyspark.__file__).parent
        environment = {
            "JAVA_HOME": str(ensure_java()),
            "SPARK_HOME": str(home),
            "SPARK_DAEMON_MEMORY": "256m",
            "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1",
        }
        ports = ("--host", "127.0.0.1", "--port", "0", "--webui-port", "0")
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [home / "bin" / "spark-class", java_class, *ports, *arguments],
                env=os.environ | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def says(self, pattern: str) -> str:
        """Wait until it says this, and return the pattern's group."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            if found := re.search(pattern, self._log.read_text(errors="replace")):
                return found[1]
            time.sleep(0.1)
        raise RuntimeError(f"{self._log.stem} did not say {pattern}:\n{self._log.read_text(errors='replace')}")

    def kill(self) -> None:
        with suppress(ProcessLookupError):  # it ended by itself
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
