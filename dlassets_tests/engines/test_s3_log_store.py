"""Several drivers on one table in a bucket: each commit is there once, whoever made it, and whatever got lost."""

import hashlib
import os
import shutil
import subprocess
import sys
import uuid
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from dlassets.engines.spark_session import LOG_STORE_JAR
from dlassets.lakehouse.snapshots import pin
from dlassets.storage.lake import Lake
from dlassets_tests.engines import committer
from dlassets_tests.intake.test_ingest import rows
from dlassets_tests.storage.s3 import S3, Faults, serve_versitygw
from scripts import log_store

COMMITS = 5
# As an operator would set them where dlassets does not.
DELTAS_OWN = "spark.delta.logStore.s3a.impl=io.delta.storage.S3SingleDriverLogStore"


def test_the_jar_is_of_this_source() -> None:
    assert f"Source-SHA-256: {log_store.digest()}" in zipfile.ZipFile(LOG_STORE_JAR).read("META-INF/MANIFEST.MF").decode()


@pytest.fixture(scope="module", params=["moto", "versitygw"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """An S3 server: what all tests take, and a real one where there is one."""
    if request.param == "moto":
        yield request.getfixturevalue("s3")
        return
    if (program := shutil.which("versitygw")) is None:
        pytest.skip("there is no versitygw, an S3 server, on the PATH")
    with serve_versitygw(program, tmp_path_factory.mktemp("buckets")) as server:
        yield server


@pytest.fixture
def lake(store: S3, monkeypatch: pytest.MonkeyPatch) -> Lake:
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"lake-{uuid.uuid4().hex[:8]}"
    store.create(bucket)
    lake = Lake.at(f"s3://{bucket}/lake")
    pin(lake, "deleted_files")
    return lake


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.parametrize("drivers", [["spark", "spark", "local"]], ids=str)
def test_each_commit_of_several_drivers_is_there_once(local_engine, store, lake, drivers) -> None:
    with store.faults(Faults(late_seconds=0.3)):
        commit(lake, drivers)

    assert found(local_engine, lake) == {f"{number}-{engine}": COMMITS for number, engine in enumerate(drivers)}


@pytest.mark.spark
@pytest.mark.slow
def test_a_commit_whose_answer_got_lost_is_no_conflict(local_engine, store, lake) -> None:
    with store.faults(Faults(lost_every=2)):
        commit(lake, ["spark", "spark"])
        lost = store.injected["lost"]

    assert lost >= COMMITS
    assert found(local_engine, lake) == {"0-spark": COMMITS, "1-spark": COMMITS}


def commit(lake: Lake, drivers: Sequence[str], *conf: str) -> None:
    """Have drivers, each a process, commit at the same time."""
    program = [sys.executable, "-m", committer.__name__]
    with ExitStack() as started:
        processes = [
            started.enter_context(
                subprocess.Popen(
                    [*program, engine, lake.root, f"{number}-{engine}", str(COMMITS), *conf],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
                )
            )
            for number, engine in enumerate(drivers)
        ]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        said = [process.communicate()[0] for process in processes]
    assert said == ["0\n"] * len(drivers)


def found(engine, lake: Lake) -> dict[str, int]:
    return Counter(name for (name,) in rows(engine, lake, "deleted_files", "landing"))
