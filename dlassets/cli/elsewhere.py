"""What `dlassets doctor` looks at on other machines: the bucket, databases of a server, Spark and its workers."""

from __future__ import annotations

import datetime as dt
import json
import platform
import re
import socket
import uuid
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dlassets import __version__
from dlassets.extras import CLUSTER, require
from dlassets.masking import masked, without_secrets
from dlassets.settings import Settings, SparkSettings
from dlassets.storage.lake import Lake
from dlassets.storage.stores import advice, on_s3, one_line

if TYPE_CHECKING:
    import pyarrow as pa

# Stores refuse requests of a clock that is a quarter of an hour off, and tables tell by times what came first.
_SKEW_SECONDS = 60
_REACHED_SECONDS = 10
# More tasks than any worker's cores would take at once, so that each worker is likely to have some.
_TASKS = 32
# Where a driver or Connect server listens where its address does not say.
_PORTS = {"spark": 7077, "sc": 15002, "k8s": 443}


def bucket(_: Settings, lake: Lake) -> Iterator[str]:
    """Yield what is wrong with the store of a lake on S3: a small object is written there, looked at and deleted."""
    if not on_s3(lake.root):
        return
    require(CLUSTER, "A look at the bucket itself")
    import boto3

    name, *folders = lake.root.partition("://")[2].split("/")
    folder = "/".join(folders)
    key = f"{folder}/.doctor-{uuid.uuid4().hex}".lstrip("/")
    client = boto3.Session().client("s3")  # not the one whose credentials are kept
    try:
        asked_at = dt.datetime.now(dt.UTC)
        answer = client.put_object(Bucket=name, Key=key, Body=b"1", IfNoneMatch="*")
        try:
            yield from _skew(asked_at, answer["ResponseMetadata"]["HTTPHeaders"].get("date"))
            if client.get_object(Bucket=name, Key=key)["Body"].read() != b"1":
                yield f"{lake.root} does not give back what was written there: see the store."
            yield from _overwrites(client, name, key, lake)
        finally:
            client.delete_object(Bucket=name, Key=key)
    except Exception as error:  # noqa: BLE001 - whatever the store, the network or the credentials say
        yield f"The bucket of {lake.root} cannot be used: {advice(lake.root, error)}"


def _overwrites(client: Any, bucket: str, key: str, lake: Lake) -> Iterator[str]:
    try:
        client.put_object(Bucket=bucket, Key=key, Body=b"2", IfNoneMatch="*")
    except client.exceptions.ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] not in {409, 412}:
            raise
        return
    yield (
        f"The store of {lake.root} overwrites what it was asked to create (If-None-Match: *): two writers at once "
        "would lose commits without a word. Let one process alone write there, or use a store that honours it."
    )


def _skew(here: dt.datetime, date: str | None) -> Iterator[str]:
    if date is None:
        return
    seconds = (parsedate_to_datetime(date) - here).total_seconds()
    if abs(seconds) > _SKEW_SECONDS:
        yield (
            f"This machine's clock and the store's are {abs(seconds):.0f} seconds apart: set the one that is wrong, or "
            "the store refuses requests, and what came first is told wrongly."
        )


def mlflow_server(settings: Settings) -> Iterator[str]:
    """Yield what is wrong with a store of MLflow's that is a server or a server's database."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.exc import SQLAlchemyError

    from dlassets.registry.store import existing_client, require_driver, store_uri

    uri = store_uri(settings, Lake.at(settings.root))
    require_driver(uri)
    try:
        if re.match(r"(postgresql|mysql|mssql)\b", uri):  # MLflow itself would try for minutes
            create_engine(uri, poolclass=NullPool).connect().close()
        client = existing_client(settings)
        if client is not None:
            client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError) as error:
        yield (
            f"MLflow's store at {without_secrets(uri)} cannot be used: {_said(error)}. Start it, see that it takes "
            "this user and password, and that its release of MLflow is this one; or set DLASSETS_MLFLOW__TRACKING_URI."
        )


def dagster_server(home: Path) -> Iterator[str]:
    """Yield what is wrong with the databases of an instance whose dagster.yaml names others than its own."""
    import dagster as dg

    config = home / "dagster.yaml"
    try:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            instance.get_runs_count()
        yield from of_another_release(home)
    except Exception as error:  # noqa: BLE001 - of whichever storage it names
        yield (
            f"Dagster's databases cannot be used: {_said(error.__cause__ or error)}. {config} names them: start "
            "their server, see that it takes this user and password, and install dlassets with its extra cluster where "
            "it is PostgreSQL."
        )


def of_another_release(home: Path) -> Iterator[str]:
    """Yield which databases of a Dagster instance are of another release of Dagster than this one."""
    from dlassets.resources.upgrade import changes_of_dagster

    for change in changes_of_dagster(home):
        yield (
            f"{change.what} {change.now}, and here it {change.then}: `dlassets upgrade --rehearse` says what would "
            "change, `dlassets upgrade PLACE` does it, with a backup."
        )


def spark(settings: Settings, lake: Lake) -> Iterator[str]:
    """Yield what is wrong with Spark, where it is the engine: whether it answers, and what its workers' Python has."""
    if settings.engine != "spark":
        return
    yield from (unreached := list(_unreached(settings.spark)))
    if unreached:
        return
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    from dlassets.engines.spark_session import spark_session

    try:
        yield from _workers(spark_session(settings.spark, [lake.root]).range(0, _TASKS, 1, _TASKS))
    except (PySparkException, Py4JError) as error:
        yield f"Spark's workers cannot run Python for {lake.root}: {_said(error)}. See the log of a worker."


def _unreached(spark: SparkSettings) -> Iterator[str]:
    """Yield why no master or server answers: Spark itself would try for minutes."""
    address = spark.remote or spark.master
    scheme, host, port = _place_of(address)
    if scheme == "local":
        return
    try:
        socket.create_connection((host, port), _REACHED_SECONDS).close()
    except OSError as error:
        variable = "DLASSETS_SPARK__REMOTE" if spark.remote else "DLASSETS_SPARK__MASTER"
        yield (
            f"Spark at {without_secrets(address)} does not answer ({one_line(str(error))}): start it, see that this "
            f"machine reaches {host}:{port}, or set {variable} to one that runs."
        )


def _place_of(address: str) -> tuple[str, str, int]:
    """Return the scheme of a master or server, and the first host and port that it names."""
    if "://" not in address:
        return "local", "", 0
    scheme, _, rest = address.partition("://")
    place = urlsplit(f"//{re.split('[,;]', rest.rpartition('://')[2])[0]}")
    return scheme, place.hostname or "", place.port or _PORTS.get(scheme, 443)


def _workers(tasks: Any) -> Iterator[str]:
    """Run a little Python in each worker, which must not take anything of this package along."""

    def look(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import json
        import platform
        import socket

        import pyarrow as pa

        try:
            import dlassets

            version = dlassets.__version__
        except ImportError as error:
            version = f"none ({error})"
        for _ in batches:
            said = {"host": socket.gethostname(), "python": platform.python_version(), "dlassets": version}
            yield pa.RecordBatch.from_pydict({"said": [json.dumps(said | {"pyarrow": pa.__version__})]})

    import pyarrow as pa

    here = {"python": platform.python_version(), "dlassets": __version__, "pyarrow": pa.__version__}
    found = {row["said"] for row in tasks.mapInArrow(look, "said string").collect()}
    for there in map(json.loads, sorted(found)):
        other = [f"{name} {there[name]} (here {of})" for name, of in here.items() if there[name] != of]
        if other:
            yield (
                f"The worker on {there['host']} has {', '.join(other)}: install the same there, with dlassets and its "
                "extra spark, and have PYSPARK_PYTHON name that Python on every worker."
            )


def _said(error: BaseException) -> str:
    lines = [line.strip() for line in masked(str(error)).strip().splitlines() if line.strip()]
    return one_line(lines[0] if lines else type(error).__name__)[:300]
