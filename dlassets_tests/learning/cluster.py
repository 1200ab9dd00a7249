"""A Spark standalone cluster on loopback, from the pip package: a master and workers, each a process of its own."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from dlassets.engines.java import ensure_java

SECONDS = 60


@dataclass
class Cluster:
    folder: Path
    master: str = ""
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, workers: int) -> None:
        master = "org.apache.spark.deploy.master.Master"
        self.master = self._begin("master", master, r"Starting Spark master at (\S+)")
        for number in range(workers):
            place = ["--cores", "1", "--memory", "1g", "--work-dir", str(self.folder / f"work-{number}")]
            self._begin(
                f"worker-{number}",
                "org.apache.spark.deploy.worker.Worker",
                r"(Successfully registered)",
                *place,
                self.master,
            )

    def stop(self) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):  # ended by itself
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _begin(self, name: str, java_class: str, sign: str, *arguments: str) -> str:
        """Start a daemon and wait until it says `sign`; return the sign's group."""
        import pyspark

        home = Path(pyspark.__file__).parent
        log = self.folder / f"{name}.log"
        environment = {
            "JAVA_HOME": str(ensure_java()),
            "SPARK_HOME": str(home),
            "SPARK_DAEMON_MEMORY": "256m",
            "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1",
            "SPARK_NO_DAEMONIZE": "1",
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [home / "bin" / "spark-class", java_class, "--host", "127.0.0.1", "--port", "0", "--webui-port", "0",
                 *arguments],
                env=os.environ | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        self._processes.append(process)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and process.poll() is None:
            if found := re.search(sign, log.read_text(errors="replace")):
                return found[1]
            time.sleep(0.1)
        raise RuntimeError(f"{name} did not start:\n{log.read_text(errors='replace')}")


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[Cluster]:
    """A running cluster; all of its processes are killed at the end, whatever happens."""
    running = Cluster(folder)
    try:
        running.start(workers)
        yield running
    finally:
        running.stop()
