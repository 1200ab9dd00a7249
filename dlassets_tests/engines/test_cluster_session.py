"""What a session takes of a standalone cluster: a master and two workers of one core on loopback."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from dlassets import __version__
from dlassets.settings import SparkSettings
from dlassets_tests.learning.training.cluster import cluster
from dlassets_tests.pipelines import failures, materialized, new_lake, values
from dlassets_tests.programs import dlassets

pytestmark = [pytest.mark.spark, pytest.mark.slow]

SECONDS = 150
# Its executors have the workers' memory of 1 GB.
EXECUTOR = {"executor_cores": 1, "executor_memory": "600m"}

# A session that takes what the cluster gives, and keeps it until it is told to end.
KEEP = """
import sys
from dlassets.engines import spark_session as sessions
from dlassets.settings import SparkSettings

sessions.PATIENCE_SECONDS = 0.5
given = SparkSettings.model_validate_json(sys.argv[1])
session = sessions.spark_session(given, tell=lambda said: print(said, flush=True))
executors = sessions._executors(session)
print("has", executors, session.conf.get("spark.sql.shuffle.partitions"), flush=True)
sys.stdin.read()
sessions.give_back_cores()
"""


# A Python of the workers' own, which has everything but this package.
LACKING = """\
import sys

class NotThere:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "dlassets":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotThere())
"""
RUN_A_KERNEL = """
import sys
import pyarrow as pa
from dlassets.engines.spark import SparkEngine
from dlassets.engines.spark_session import spark_session
from dlassets.errors import DlassetsError
from dlassets.settings import SparkSettings
from dlassets_tests.engines.test_engines import SIZES, sizes

given = SparkSettings.model_validate_json(sys.argv[1])
engine = SparkEngine(lambda: spark_session(given))
rows = pa.table({"image_id": ["one"], "content": [b"abc"]})
try:
    print(engine.rows(rows).map(sizes, SIZES).count())
except DlassetsError as error:
    print(error)
"""


class Kept:
    """A session in a process of its own."""

    def __init__(self, master: str, log: Path, **spark: object) -> None:
        self.log = log
        settings = SparkSettings.model_validate({"master": master, "driver_memory": "512m", **EXECUTOR, **spark})
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", KEEP, settings.model_dump_json(exclude_unset=True)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"},
            )

    def says(self, text: str) -> str:
        deadline = time.monotonic() + SECONDS
        while text not in (said := self.log.read_text()):
            assert time.monotonic() < deadline, said
            assert self._process.poll() is None, said
            time.sleep(0.05)
        return said

    def end(self) -> None:
        self._process.communicate(timeout=SECONDS)


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with cluster(tmp_path_factory.mktemp("cluster"), workers=2) as address:
        yield address


def test_a_session_that_finds_no_cores_says_so_until_another_gives_them_back(master, tmp_path) -> None:
    greedy = Kept(master, tmp_path / "greedy.log")
    try:
        greedy.says("has")
        modest = Kept(master, tmp_path / "modest.log", executors=1)
        try:
            said = modest.says("for cores of the cluster spark://")
            assert "one that does not say spark.executors takes what there is" in said
            assert "has 1" not in said
            greedy.end()
            assert "has 1 1" in modest.says("has 1")
            assert "The cluster has given cores after" in modest.log.read_text()
        finally:
            modest.end()
    finally:
        greedy.end()


def test_a_step_runs_on_a_session_of_its_own_that_comes_and_goes_with_its_work(master, tmp_path) -> None:
    span = {"at_least": 1, "at_most": 2}
    compute = {
        "classes": {"cluster": {"place": "spark", "spark": {"master": master, "executors": span, **EXECUTOR}}},
        "stages": {"classes": "cluster"},
    }
    spark = {"driver_memory": "512m", "conf": {"spark.driver.host": "127.0.0.1"}}
    with dg.DagsterInstance.ephemeral() as instance:
        pipelines = new_lake(tmp_path / "lake", instance, compute=compute, spark=spark)
        result = pipelines.run_only(dg.AssetSelection.assets("classes", "labeled_images"))

        assert failures(result) == {}
        shown = {name: values(made)["engine"] for name, made in materialized(result).items()}
        assert shown == {"classes": "spark", "labeled_images": "local"}


def test_workers_keep_the_python_that_is_theirs_and_say_where_it_lacks_dlassets(master, tmp_path) -> None:
    (tmp_path / "sitecustomize.py").write_text(LACKING)
    theirs = tmp_path / "python"
    theirs.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}:$PYTHONPATH exec {sys.executable} "$@"\n')
    theirs.chmod(0o755)
    settings = SparkSettings(master=master, driver_memory="512m", executors=1, **EXECUTOR).model_dump_json(
        exclude_unset=True
    )

    def ran(**environment: str) -> str:
        program = (sys.executable, "-c", RUN_A_KERNEL)
        done = dlassets(settings, command=program, SPARK_LOCAL_IP="127.0.0.1", **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert ran() == "1\n"
    said = ran(PYSPARK_PYTHON=str(theirs))
    assert said.startswith(
        f"Spark's workers have no package dlassets. Install dlassets {__version__} with its extra spark"
    )
    assert len(said.splitlines()) == 1
