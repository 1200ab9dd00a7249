"""Several drivers on one table in a bucket: each commit is there once, whoever made it, and whatever got lost."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from dlassets.engines.only_writer import OnlyWriter
from dlassets.engines.spark import SparkEngine
from dlassets.engines.spark_session import LOG_STORE, LOG_STORE_JAR, LOG_STORE_OF_S3
from dlassets.errors import DlassetsError, PassingError
from dlassets.lakehouse.snapshots import pin
from dlassets.storage.lake import Lake
from dlassets_tests.engines.connect import connect_server
from dlassets_tests.intake.test_ingest import rows
from dlassets_tests.storage import committer
from dlassets_tests.storage.s3 import S3, serve_versitygw
from dlassets_tests.storage.server import Faults
from dlassets_tests.storage.test_s3_tables import NOTED
from dlassets_tests.tables import put
from scripts import log_store

COMMITS = 5
DELTAS_OWN = "io.delta.storage.S3SingleDriverLogStore"


def test_the_jar_is_of_this_source() -> None:
    assert (
        f"Source-SHA-256: {log_store.digest()}" in zipfile.ZipFile(LOG_STORE_JAR).read("META-INF/MANIFEST.MF").decode()
    )


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
    lake = Lake.at(f"s3://{store.new_bucket(monkeypatch)}/lake")
    pin(lake, "deleted_files")
    return lake


@pytest.mark.spark
@pytest.mark.slow
def test_each_commit_of_several_drivers_is_there_once(local_engine, store, lake) -> None:
    with store.faults(Faults(late_seconds=0.3)):
        commit(lake, ["spark", "spark", "local"])

    assert found(local_engine, lake) == {"0": COMMITS, "1": COMMITS, "2": COMMITS}


@pytest.mark.spark
@pytest.mark.slow
def test_a_commit_whose_answer_got_lost_is_no_conflict(local_engine, store, lake) -> None:
    with store.faults(Faults(lost_every=2)):
        commit(lake, ["spark", "spark"])
        lost = store.injected["lost"]

    assert lost >= COMMITS
    assert found(local_engine, lake) == {"0": COMMITS, "1": COMMITS}


@pytest.mark.spark
@pytest.mark.slow
def test_runs_of_a_connect_server_and_a_local_one_commit_at_the_same_time(local_engine, s3, bucket, tmp_path) -> None:
    lake = Lake.at(f"s3://{bucket}/lake")
    pin(lake, "deleted_files")

    with connect_server(tmp_path / "said") as address, s3.faults(Faults(late_seconds=0.3)):
        commit(lake, [address, address, "local"])

    assert found(local_engine, lake) == {"0": COMMITS, "1": COMMITS, "2": COMMITS}


@pytest.mark.spark
@pytest.mark.slow
def test_spark_without_the_log_store_is_refused_and_told_how_to_have_it(local_engine, spark_engine, bucket) -> None:
    lake = Lake.at(f"s3://{bucket}/lake")
    pin(lake, "deleted_files")
    session = spark_engine.session
    session.conf.set(LOG_STORE_OF_S3, DELTAS_OWN)
    try:
        with pytest.raises(DlassetsError, match=f"is {DELTAS_OWN}.*s3-log-store.jar.*--jars.*spark.only_writer"):
            put(lake, "deleted_files", NOTED, engine=spark_engine)
        another, only = OnlyWriter(lake.root, "another at elsewhere:1"), SparkEngine(lambda: session, only_writer=True)
        another.check()
        with pytest.raises(PassingError, match=r"Another Spark driver writes .*: another at elsewhere:1"):
            put(lake, "deleted_files", NOTED, engine=only)
        another.give_back()
        put(lake, "deleted_files", NOTED, engine=only)
        only._leases[lake.root].give_back()
    finally:
        session.conf.set(LOG_STORE_OF_S3, LOG_STORE)

    assert rows(local_engine, lake, "deleted_files", "path") == [("photos/a.jpg",)]


@pytest.mark.spark
@pytest.mark.slow
def test_the_jar_is_what_its_source_compiles_to(spark_engine, s3) -> None:
    jar = zipfile.ZipFile(LOG_STORE_JAR)
    if shutil.which("javac") is None:
        pytest.skip("there is no javac")
    if f"javac {log_store.javac_version()}\r" not in jar.read("META-INF/MANIFEST.MF").decode():
        pytest.skip("another javac makes other bytes of it")

    assert {name: jar.read(name) for name in jar.namelist()} == log_store.compiled(log_store.jars(spark_engine.session))


def commit(lake: Lake, drivers: Sequence[str], *conf: str) -> None:
    """Have drivers, each a process, commit at the same time."""
    program = [sys.executable, "-m", committer.__name__]
    with ExitStack() as started:
        processes = [
            started.enter_context(
                subprocess.Popen(
                    [*program, engine, lake.root, str(number), str(COMMITS), *conf],
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
