"""A Spark session with Delta: in this process, on a cluster, or through Spark Connect."""

from __future__ import annotations

import logging
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dlassets import __version__
from dlassets.engines.java import ensure_java
from dlassets.errors import DlassetsError, PassingError
from dlassets.masking import is_secret, masked
from dlassets.settings import ExecutorSpan, SparkSettings
from dlassets.storage.cache import cache_path
from dlassets.storage.stores import s3a_config

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Rows of a step through image bytes: Spark's own 10,000 photos would be gigabytes in one Arrow batch.
BATCH_ROWS = 64

TASK_TRIES = 4

# What commits to S3 on the condition that nobody else did: Delta's own looks first, and puts then. `make log-store`
# compiles it. May go when a Delta has io.delta.storage.S3LogStore.
LOG_STORE = "dlassets.engines.S3LogStore"
LOG_STORE_JAR = Path(__file__).with_name("s3_log_store") / "s3-log-store.jar"
LOG_STORE_OF_S3 = "spark.delta.logStore.s3a.impl"
_CONDITIONAL = {LOG_STORE, "io.delta.storage.S3LogStore"}
_log_of_code = logging.getLogger(__name__)

_COMPILED = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m"

# A user's `conf` adds to these; it replaces any other.
_LISTS = {
    "spark.jars": ",",
    "spark.jars.packages": ",",
    "spark.jars.excludes": ",",
    "spark.driver.extraJavaOptions": " ",
}

_PYTHON = "spark.pyspark.python"

_SUBMIT_ARGUMENTS = "PYSPARK_SUBMIT_ARGS"

# In how many parts a shuffle's rows come, and the list of a table's files: Spark's 200 and Delta's 50 are for far more.
_SHUFFLE_PARTITIONS = "spark.sql.shuffle.partitions"
_SNAPSHOT_PARTITIONS = "spark.databricks.delta.snapshotPartitions"

_LACKS = {
    r"No module named '(dlassets|pyspark|pyarrow|pandas|numpy)\b": "have no package {0}",
    r'Cannot run program "([^"\s]*python[^"\s]*)"': "have no program {0}",
    r"\[PYTHON_VERSION_MISMATCH\] Python in worker has different version: ([\d.]+)": "have Python {0}",
}

# How long a cluster is given to give a session its first cores before that is said, and how often it is said then.
PATIENCE_SECONDS, REMIND_SECONDS = 10.0, 60.0

_starting = threading.Lock()


def spark_config(settings: SparkSettings, uris: Sequence[str] = ()) -> dict[str, str]:
    """Return the Spark settings of a session: what `SparkSession.builder.config` and dagster-pyspark take.

    `uris` are the places it is to read and write: what object storage takes is added where one of them is there. A
    Spark Connect server has its own.
    """
    config = {
        "spark.app.name": "dlassets",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(BATCH_ROWS),
        # Photos are small files: counted as 4 MB each, a thousand of them would be read, and written, in 32 parts.
        "spark.sql.files.openCostInBytes": str(64 * 2**10),
    }
    if settings.remote is not None:
        return config | {"spark.remote": settings.remote} | settings.conf
    object_storage = s3a_config(uris, os.environ)
    if object_storage:
        object_storage |= {"spark.jars": LOG_STORE_JAR.as_uri(), LOG_STORE_OF_S3: LOG_STORE}
    config |= {
        "spark.master": _with_retries(settings.master) if object_storage else settings.master,
        "spark.driver.memory": settings.driver_memory,
        "spark.jars.packages": _delta_package(),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.warehouse.dir": str(cache_path("spark-warehouse")),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
    }
    config |= _for_one_machine(settings.master) if settings.is_local else _of_a_cluster(settings)
    for name, value in [*object_storage.items(), *settings.conf.items()]:
        joined = name in _LISTS and name in config
        config[name] = f"{config[name]}{_LISTS[name]}{value}" if joined else value
    return config


def spark_session(
    settings: SparkSettings, uris: Sequence[str] = (), tell: Callable[[str], None] = _log_of_code.warning
) -> SparkSession:
    """Return this process's session, started on the first call. `uris` are as for `spark_config`.

    Where a cluster has no cores left it waits until it has, and tells of that. Raises DlassetsError where there is no
    Java, Delta's jars cannot be had, or the cluster or server does not answer.
    """
    with _starting:
        config = spark_config(settings, uris)
        if settings.remote is not None:
            return _connected(settings.remote, config)
        is_new = not _is_started()
        session = started(config)
        if is_new and not settings.is_local:
            _wait_for_cores(session, settings, tell)
            for name in {_SHUFFLE_PARTITIONS, _SNAPSHOT_PARTITIONS} - config.keys():
                session.conf.set(name, session.sparkContext.defaultParallelism)
        return session


def _wait_for_cores(session: SparkSession, settings: SparkSettings, tell: Callable[[str], None]) -> None:
    """Wait until the cluster has given this session an executor. Nothing else would say that it has none to give."""
    began, due, pause = time.monotonic(), PATIENCE_SECONDS, threading.Event()
    while not _executors(session):
        if jvm_has_ended():
            raise jvm_ended()
        if (waited := time.monotonic() - began) >= due:
            due += REMIND_SECONDS
            tell(
                f"Waiting for {waited:.0f} s by now for cores of the cluster {masked(settings.master)}. It goes on as "
                "soon as there are any. Either other sessions have all of them (one that does not say spark.executors "
                "takes what there is), or none of its machines has the cores and the memory that one executor takes "
                "(spark.executor_cores, spark.executor_memory)."
            )
        pause.wait(0.1)
    if (waited := time.monotonic() - began) >= PATIENCE_SECONDS:
        tell(f"The cluster has given cores after {waited:.0f} s.")


def _executors(session: SparkSession) -> int:
    """Return how many executors a session has: each has a store of blocks, as the driver does."""
    return int(session.sparkContext._jsc.sc().getExecutorMemoryStatus().size()) - 1  # noqa: SLF001 - Python has no word


def _is_started() -> bool:
    from pyspark import SparkContext

    return SparkContext._active_spark_context is not None  # noqa: SLF001 - what the builder itself looks at


def started(config: dict[str, str]) -> SparkSession:
    """Return this process's session, started with these settings where there is none. Raises as `spark_session`."""
    from py4j.protocol import Py4JError
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

    if jvm_has_ended():
        raise jvm_ended()
    if not _is_started():
        ensure_java()
        os.environ |= _pythons(config)
        # spark-submit has added the packages to the jars by now: executors would have none of them by this list.
        conf = SparkConf(loadDefaults=False).setAll([item for item in config.items() if item[0] != "spark.jars"])
        try:
            SparkContext(conf=conf, gateway=_jvm(config))
        except Py4JError as error:
            # A JVM that ended says it in its log alone.
            pages = str(error).partition("\n: ")[2] or _log().read_text(errors="replace").strip().rpartition("\n")[2]
            said = pages.partition("\n")[0]
            raise DlassetsError(
                f"Spark did not start: {said}. It needs room, and a right to write, in spark.local.dir (in "
                f"spark.conf; by default /tmp). Everything it said: {_log()}"
            ) from error
    return SparkSession.builder.getOrCreate()


def _pythons(config: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that say which Python runs: the driver sends the workers the name of theirs.

    It is this one, but for a cluster that has been given another (PYSPARK_PYTHON): its machines may have theirs
    elsewhere. A name without a folder is what each of them finds on its own PATH.
    """
    named = config.get(_PYTHON) or os.environ.get("PYSPARK_PYTHON")
    workers = named if named and not config["spark.master"].startswith("local") else sys.executable
    return {"PYSPARK_PYTHON": workers, "PYSPARK_DRIVER_PYTHON": sys.executable}


def workers_lack(said: str) -> DlassetsError | None:
    """Return what is wrong with the Python of Spark's workers, by what Spark said; None where that is not it."""
    here = ".".join(map(str, sys.version_info[:2]))
    for pattern, lack in _LACKS.items():
        if found := re.search(pattern, said):
            return DlassetsError(
                f"Spark's workers {lack.format(*found.groups())}. Install dlassets {__version__} with its extra spark "
                f"on each of their machines, in a Python {here}, and have PYSPARK_PYTHON (here, or where the Spark "
                "Connect server starts) name that Python as it is called there. `dlassets doctor` says what each "
                "worker has."
            )
    return None


def works_here(session: SparkSession) -> bool:
    """Whether this machine does a session's work: not so where a Connect server does, whatever its master is."""
    from pyspark.sql.utils import is_remote

    return not is_remote() and str(session.conf.get("spark.master", "")).startswith("local")


def is_conditional(session: SparkSession) -> bool:
    """Whether a session commits to a table on S3 on the condition that no other writer did meanwhile."""
    return session.conf.get(LOG_STORE_OF_S3, None) in _CONDITIONAL


def refuse_unconditional(session: SparkSession, uri: str) -> None:
    """Raise DlassetsError where a session would commit to a table on S3 whatever another writer does meanwhile."""
    if not is_conditional(session):
        used = session.conf.get(LOG_STORE_OF_S3, None) or "Delta's own, S3SingleDriverLogStore"
        raise DlassetsError(
            f"Spark would write {uri} without a condition, and what another wrote at the same moment would be lost: "
            f"its {LOG_STORE_OF_S3} is {used}. Nothing was written. Set it to {LOG_STORE}, and let Spark have "
            f"{LOG_STORE_JAR}: a Spark Connect server by --conf and --jars when it starts. Or set "
            "spark.only_writer=true (DLASSETS_SPARK__ONLY_WRITER) where one Spark driver alone, and no engine `local`, "
            "writes this lake."
        )


def driver_of(session: SparkSession) -> str:
    """Return what Spark calls a session's driver, and where that runs: clients of a Connect server share one."""
    conf = session.conf
    return f"{conf.get('spark.app.id')} at {conf.get('spark.driver.host', '')}:{conf.get('spark.driver.port', '')}"


def give_back_cores() -> None:
    """End this process's session, if there is one, so that its cluster has the cores again at once."""
    if "pyspark" in sys.modules and _is_started():
        from pyspark import SparkContext

        SparkContext.getOrCreate().stop()


def jvm_has_ended(seconds: float = 0) -> bool:
    """Whether the JVM that this process started, if it did, is gone, or will be within some seconds."""
    from pyspark import SparkContext

    process = getattr(SparkContext._gateway, "proc", None)  # noqa: SLF001 - nobody else knows it
    if process is None:
        return False
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None


def jvm_ended() -> DlassetsError:
    return PassingError(
        "Spark's JVM has ended: killed, or out of memory. Give it more (spark.driver_memory), or the machine less to "
        f"do, and run again: what was committed before stands. Everything it said: {_log()}"
    )


def _log() -> Path:
    return cache_path("spark.log")


def _jvm(config: Mapping[str, str]) -> object:
    """Start Spark's JVM. What it says goes to a file: a hundred lines on jars each time, and the reason if it fails."""
    from pyspark import SparkConf
    from pyspark.errors import PySparkRuntimeError
    from pyspark.java_gateway import launch_gateway

    log = _log()
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)  # not emptied: another process may be writing to it
    secret = {name: value for name, value in config.items() if is_secret(name, value)}
    conf = SparkConf(loadDefaults=False).setAll([item for item in config.items() if item[0] not in secret])
    with log.open("ab") as stream, _in_a_file(secret):
        try:
            return launch_gateway(conf, popen_kwargs={"stdout": stream, "stderr": stream})  # type: ignore[no-untyped-call]
        except PySparkRuntimeError as error:
            raise DlassetsError(_start_failure(log.read_text(errors="replace"), str(log))) from error
        finally:
            if secret:  # it has told where it looks for jars; what it says from now on comes after this
                log.write_text(masked(log.read_text(errors="replace")))


@contextmanager
def _in_a_file(config: Mapping[str, str]) -> Iterator[None]:
    """Tell the JVM that is started meanwhile these settings, and nobody else: a command line is anybody's to read."""
    if not config:
        yield
        return
    before = os.environ.get(_SUBMIT_ARGUMENTS)
    with tempfile.NamedTemporaryFile("w", prefix="dlassets-spark-", encoding="utf-8") as file:  # its owner's alone
        file.writelines(f"{_escaped(name)}={_escaped(value)}\n" for name, value in config.items())
        file.flush()
        words = ["--load-spark-defaults", "--properties-file", shlex.quote(file.name), before or "pyspark-shell"]
        os.environ[_SUBMIT_ARGUMENTS] = " ".join(words)
        try:
            yield
        finally:
            del os.environ[_SUBMIT_ARGUMENTS]
            if before is not None:
                os.environ[_SUBMIT_ARGUMENTS] = before


def _escaped(text: str) -> str:
    """Return a text as Java reads it in a file of properties."""
    return re.sub(r"[^\w.]", r"\\\g<0>", text)


def _start_failure(output: str, log: str) -> str:
    missing = sorted(set(re.findall(r"unresolved dependency: (\S+?):? ", output)))
    if missing:
        return (
            f"Spark's jars cannot be had: {', '.join(missing)}. They come from Maven Central once and stay in the Ivy "
            "cache (~/.ivy2.5.2): let this machine reach it or a mirror (spark.conf: spark.jars.repositories, "
            "spark.jars.ivySettings), copy that folder from a machine that has it, or set DLASSETS_ENGINE=local. "
            f"Everything Spark said: {log}"
        )
    last = "\n".join(output.strip().splitlines()[-5:])
    return f"Spark's JVM did not start (everything it said: {log}). Its last words:\n{last}"


def _connected(remote: str, config: dict[str, str]) -> SparkSession:
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    builder = SparkSession.builder
    for name, value in config.items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
        session.version  # noqa: B018 - the first word with the server
    except ImportError as error:
        raise DlassetsError(
            f"Spark Connect needs more packages here: {error}. Install them (pip install 'dlassets[spark]'), or unset "
            "spark.remote."
        ) from error
    except PySparkException as error:
        raise PassingError(
            f"The Spark Connect server {remote} does not answer: {error}. Start it, or change spark.remote "
            "(SPARK_REMOTE)."
        ) from error
    return session


def _delta_package() -> str:
    from delta import configure_spark_with_delta_pip
    from pyspark.sql import SparkSession

    builder = configure_spark_with_delta_pip(SparkSession.builder)
    return str(builder._options["spark.jars.packages"])  # noqa: SLF001 - nowhere else does delta-spark say it


def _with_retries(master: str) -> str:
    """On one machine Spark gives a task one try, on a cluster four: over a network it needs them on either."""
    alone = re.fullmatch(r"local(?:\[([\d*]+)\])?", master)
    return f"local[{alone[1] or 1},{TASK_TRIES}]" if alone else master


def _for_one_machine(master: str) -> dict[str, str]:
    """Measured on 2 cores: these take a third off what a session, a first write and a first MERGE cost.

    Java has 48 MB for what one compiler makes: a session that goes on fills them, and code is thrown out and made anew.
    With more, a lake that is made step by step takes a seventh less of the processors.
    """
    wanted = re.match(r"local\[(\d+)", master)
    cores = wanted[1] if wanted else str(os.cpu_count() if master.startswith("local[*") else 1)
    return {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.extraJavaOptions": f"{_COMPILED} -Xlog:disable {_class_archive()}",
        _SHUFFLE_PARTITIONS: cores,
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": cores,
        _SNAPSHOT_PARTITIONS: "1",
    }


def _of_a_cluster(settings: SparkSettings) -> dict[str, str]:
    """Say which executors a session takes. A standalone cluster counts cores in all, others count executors."""
    config = {}
    if settings.executor_cores is not None:
        config["spark.executor.cores"] = str(settings.executor_cores)
    if settings.executor_memory is not None:
        config["spark.executor.memory"] = settings.executor_memory
    if settings.executor_gpus is not None:
        # As training wants them: a process has one to itself.
        config |= {"spark.executor.resource.gpu.amount": str(settings.executor_gpus)}
        config |= {"spark.task.resource.gpu.amount": "1"}
    if settings.most_cores is not None:
        config |= {"spark.cores.max": str(settings.most_cores), _SHUFFLE_PARTITIONS: str(settings.most_cores)}
    if isinstance(settings.executors, ExecutorSpan):
        config |= {
            "spark.dynamicAllocation.enabled": "true",
            "spark.dynamicAllocation.shuffleTracking.enabled": "true",  # a cluster need have no shuffle service then
            "spark.dynamicAllocation.minExecutors": str(settings.executors.at_least),
            "spark.dynamicAllocation.maxExecutors": str(settings.executors.at_most),
        }
    elif settings.executors is not None:
        config["spark.executor.instances"] = str(settings.executors)
    return config


def _class_archive() -> str:
    """Have the first JVM leave its loaded classes (200 MB) for later ones; one that does not fit is ignored by Java."""
    import pyspark

    archive = cache_path(f"spark-{pyspark.__version__}.jsa")
    return shlex.quote(f"-XX:{'SharedArchiveFile' if archive.is_file() else 'ArchiveClassesAtExit'}={archive}")
