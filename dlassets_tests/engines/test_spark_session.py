"""What a session is configured with, and what is said where it cannot start."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dlassets import __version__
from dlassets.engines.spark import _in_our_words
from dlassets.engines.spark_session import _pythons, spark_config, workers_lack
from dlassets.settings import SparkSettings
from dlassets_tests.programs import python
from dlassets_tests.secrets import shown_command_lines

START = """
import sys
from dlassets.engines.spark_session import spark_session
from dlassets.errors import DlassetsError
from dlassets.settings import SparkSettings

try:
    spark_session(SparkSettings(driver_memory="512m", conf=dict(word.split("=", 1) for word in sys.argv[1:])))
except DlassetsError as error:
    print(error)
"""

ASK = """
import os, sys
from dlassets.engines.spark_session import spark_session
from dlassets.settings import SparkSettings

conf = {"spark.hadoop.fs.s3a.secret.key": sys.stdin.read(), "spark.hadoop.x": "said"}
conf["spark.jars.repositories"] = os.environ["REPOSITORIES"]
session = spark_session(SparkSettings(master="local[1]", driver_memory="512m", conf=conf))
hadoop = session.sparkContext._jsc.hadoopConfiguration()
assert hadoop.get("x") == "said"
system = session.sparkContext._jvm.java.lang.System  # what the JVM was started with, to fetch jars by
assert system.getProperty("spark.hadoop.fs.s3a.secret.key") == conf["spark.hadoop.fs.s3a.secret.key"].strip()
assert hadoop.get("fs.s3a.secret.key") == conf["spark.hadoop.fs.s3a.secret.key"]
"""

NO_REPOSITORY = """\
<ivysettings>
  <settings defaultResolver="here"/>
  <resolvers><filesystem name="here"><artifact pattern="{folder}/[artifact].[ext]"/></filesystem></resolvers>
</ivysettings>
"""


def test_one_machine_keeps_to_itself_and_to_its_cores() -> None:
    config = spark_config(SparkSettings(master="local[3]", driver_memory="3g"))

    assert config["spark.master"] == "local[3]"
    assert config["spark.driver.memory"] == "3g"
    assert config["spark.sql.shuffle.partitions"] == "3"
    assert config["spark.driver.bindAddress"] == "127.0.0.1"
    assert config["spark.sql.session.timeZone"] == "UTC"
    assert config["spark.jars.packages"].startswith("io.delta:delta-spark_")
    assert spark_config(SparkSettings())["spark.sql.shuffle.partitions"] == str(os.cpu_count())


def test_a_cluster_keeps_its_own_sizes_and_addresses() -> None:
    config = spark_config(SparkSettings(master="spark://head:7077"))

    assert "spark.sql.extensions" in config
    assert not {"spark.driver.bindAddress", "spark.sql.shuffle.partitions"} & config.keys()


def test_a_cluster_keeps_the_python_that_it_was_given_and_one_machine_has_this_one(monkeypatch) -> None:
    there = {"spark.master": "spark://head:7077"}
    monkeypatch.delenv("PYSPARK_PYTHON", raising=False)
    assert _pythons(there)["PYSPARK_PYTHON"] == sys.executable

    monkeypatch.setenv("PYSPARK_PYTHON", "/opt/workers/bin/python")
    assert _pythons(there) == {"PYSPARK_PYTHON": "/opt/workers/bin/python", "PYSPARK_DRIVER_PYTHON": sys.executable}
    assert _pythons({**there, "spark.pyspark.python": "python3.11"})["PYSPARK_PYTHON"] == "python3.11"
    assert _pythons({"spark.master": "local[2]"})["PYSPARK_PYTHON"] == sys.executable


@pytest.mark.parametrize(
    ("said", "lack"),
    [
        ("ModuleNotFoundError: No module named 'dlassets.engines'", "have no package dlassets"),
        (
            'java.io.IOException: Cannot run program "/opt/bin/python3": error=2, No such',
            "have no program /opt/bin/python3",
        ),
        ("[PYTHON_VERSION_MISMATCH] Python in worker has different version: 3.9 than", "have Python 3.9"),
    ],
)
def test_what_workers_lack_is_said_with_what_to_install(said, lack) -> None:
    error = _in_our_words(f"Job aborted due to stage failure:\n  {said}\n\tat java.lang.Thread.run", "s3a://lake")

    assert f"Spark's workers {lack}. Install dlassets {__version__}" in str(error)
    assert workers_lack("No module named 'somebody_elses'") is None


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (
            "java.lang.ClassNotFoundException: Class org.apache.hadoop.fs.s3a.S3AFileSystem not found",
            "nothing that reads",
        ),
        ("[CHECKPOINT_RDD_BLOCK_ID_NOT_FOUND] Checkpoint block rdd_3_1 not found!", "lost an executor.*Run again"),
    ],
)
def test_a_log_that_could_not_be_read_for_another_reason_is_not_said_to_be_damaged(cause, said) -> None:
    pages = f"[FAILED_READ_FILE.NO_HINT] Encountered error while reading file s3a://b/t/_delta_log/0.json.\n  {cause}"

    assert re.search(said, str(_in_our_words(pages, "s3a://b/t")))


def test_spark_connect_takes_what_a_session_may_set() -> None:
    config = spark_config(SparkSettings(remote="sc://host:15002"))

    assert config["spark.remote"] == "sc://host:15002"
    assert config["spark.sql.execution.arrow.maxRecordsPerBatch"] == "64"
    assert not {"spark.master", "spark.jars.packages", "spark.driver.memory"} & config.keys()


def test_a_users_settings_win_and_add_to_jars_and_java_options() -> None:
    plain = spark_config(SparkSettings())
    conf = {"spark.sql.session.timeZone": "Asia/Tokyo", "spark.jars.packages": "org.apache.hadoop:hadoop-aws:3.5.0"}
    conf |= {"spark.driver.extraJavaOptions": "-Da=b", "spark.new": "1"}
    config = spark_config(SparkSettings(conf=conf))

    assert config["spark.sql.session.timeZone"] == "Asia/Tokyo"
    assert config["spark.jars.packages"] == f"{plain['spark.jars.packages']},org.apache.hadoop:hadoop-aws:3.5.0"
    assert config["spark.driver.extraJavaOptions"].endswith(" -Da=b")
    assert config["spark.new"] == "1"


@pytest.mark.spark
@pytest.mark.slow
def test_jars_that_cannot_be_had_are_named_with_what_to_do(tmp_path: Path) -> None:
    ivy = tmp_path / "ivy.xml"
    ivy.write_text(NO_REPOSITORY.format(folder=tmp_path))
    conf = [f"spark.jars.ivySettings={ivy}", f"spark.jars.ivy={tmp_path / 'ivy'}"]
    env = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}

    said = subprocess.run([sys.executable, "-c", START, *conf], env=env, capture_output=True, text=True, check=True)

    assert said.stdout.startswith("Spark's jars cannot be had: io.delta#delta-spark_")
    assert "Maven Central" in said.stdout
    assert "DLASSETS_ENGINE=local" in said.stdout
    assert "Traceback" not in said.stderr


NO_PLACE = """
from dlassets.engines.spark_session import spark_session
from dlassets.errors import DlassetsError
from dlassets.settings import SparkSettings

try:
    spark_session(SparkSettings(conf={"spark.local.dir": "/proc/nowhere"}))
except DlassetsError as error:
    print(error)
"""


@pytest.mark.spark
@pytest.mark.slow
def test_a_folder_that_spark_cannot_work_in_is_said_with_what_to_do(tmp_path: Path) -> None:
    said = python(NO_PLACE, XDG_CACHE_HOME=str(tmp_path))

    assert said.startswith("Spark did not start: ")
    assert "a right to write, in spark.local.dir" in said


@pytest.mark.spark
@pytest.mark.slow
def test_the_jvm_is_told_a_secret_that_no_command_line_or_log_shows(tmp_path: Path) -> None:
    import pyspark

    (tmp_path / "dlassets").mkdir()
    (tmp_path / "dlassets" / f"spark-{pyspark.__version__}.jsa").touch()  # else the JVM writes 200 MB there as it ends
    with shown_command_lines() as lines:
        repositories = {"REPOSITORIES": "https://Qz7fUser1:Qz7fPass1@127.0.0.1:9/jars"}
        env = os.environ | {"XDG_CACHE_HOME": str(tmp_path)} | repositories
        subprocess.run([sys.executable, "-c", ASK], env=env, input="a secret: \\k=1#2é ", text=True, check=True)

    shown = b" ".join(word for line in lines for word in line)
    assert b"spark.hadoop.x=said" in shown
    assert b"a secret" not in shown
    assert b"Qz7f" not in shown
    log = (tmp_path / "dlassets" / "spark.log").read_text()
    assert "https://…@127.0.0.1:9/jars added as a remote repository" in log
    assert "Qz7f" not in log
