"""What every test may use: a lake of its own, both engines, small photos. `--photos` adds real ones."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import absl.logging
import pytest

from dlassets import extras, masking
from dlassets.engines.base import Engine
from dlassets.extras import SPARK, missing
from dlassets.settings import Settings, SparkSettings
from dlassets.storage.lake import Lake
from dlassets_tests.storage.s3 import S3, serve

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from dlassets.storage.local_files import Found
    from dlassets_tests.pipelines import Pipelines

pytest_plugins = ["dlassets_tests.lanes"]

# TensorBoard's logging closes the stream that it found, once logging is set up anew, as Dagster does: pytest's own, but
# for this one, which it leaves alone.
absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__

# What Spark compiles, plans anew midway and divides costs more than the few rows of a test.
FOR_FEW_ROWS = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.lightweightPlanChangeValidation": "false",
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.files.minPartitionNum": "1",
    "spark.default.parallelism": "1",
    # What collects garbage beside the work takes the processors from the other process of the tests.
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -Xms1g -Xmn512m -XX:MetaspaceSize=256m",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--photos", metavar="FOLDER", help="Real photos in NNN.class/ folders; without it, generated ones are used."
    )
    parser.addoption("--pictures", metavar="FOLDER", help="Where the tests in a browser put README's pictures.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if (reason := missing(SPARK, "Spark")) is not None:
        for item in items:
            if item.get_closest_marker("spark"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _no_settings_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith(("DLASSETS_", "DAGSTER_HOME", "SPARK_REMOTE"))]:
        monkeypatch.delenv(variable)


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_known", masking._Known())


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.at(str(tmp_path / "lake"))


@pytest.fixture
def settings(lake: Lake) -> Settings:
    return Settings(root=lake.root)


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    """Dagster's, that remembers runs as long as the test goes."""
    from dagster import DagsterInstance

    with DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def empty(tmp_path: Path, instance: DagsterInstance) -> Pipelines:
    """The pipelines of a lake with empty landing zones."""
    from dlassets_tests.pipelines import new_lake

    return new_lake(tmp_path / "lake", instance)


@pytest.fixture
def lacking() -> Callable[[str], AbstractContextManager[None]]:
    """Have an extra be one that is not installed, for the time of a `with`."""

    @contextmanager
    def without(extra: str) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(extras.MODULES, extra, ("not_installed",))
            yield

    return without


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of folders that are listed for files, each time that one is."""
    from dlassets.intake import listing
    from dlassets.storage.local_files import list_local

    names: list[str] = []

    def counted(folder: str, *args: Any) -> Iterator[Found]:
        names.append(Path(folder).name)
        return list_local(folder, *args)

    monkeypatch.setattr(listing, "list_local", counted)
    return names


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four classes with 20 generated photos each."""
    from dlassets.samples.generated import generate

    folder = tmp_path_factory.mktemp("photos")
    generate(folder, classes=4, per_class=20, seed=7)
    return folder


@pytest.fixture(scope="session")
def real_photos(request: pytest.FixtureRequest) -> Path | None:
    given = request.config.getoption("--photos")
    return Path(given) if given else None


@pytest.fixture(scope="session")
def few_photos(real_photos: Path | None, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty photos a class, of ten classes at most: real ones, where there are some."""
    if real_photos is None:
        return photos
    chosen = tmp_path_factory.mktemp("real")
    for folder in sorted(path for path in real_photos.iterdir() if path.is_dir())[:10]:
        (chosen / folder.name).mkdir()
        for photo in sorted(folder.iterdir())[:20]:
            shutil.copyfile(photo, chosen / folder.name / photo.name)
    return chosen


@pytest.fixture(scope="session")
def local_engine() -> Engine:
    from dlassets.engines.local import LocalEngine

    return LocalEngine()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 server, in a process of its own."""
    with serve() as server:
        yield server


@pytest.fixture
def bucket(s3: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a new, empty bucket that this process may use."""
    return s3.new_bucket(monkeypatch)


@pytest.fixture(scope="session")
def spark_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """One Spark session for the whole run: it takes longer to start than most tests take.

    It knows the S3 server where any test of this run does: a session learns of object storage when it starts.
    """
    from dlassets.engines.spark import SparkEngine
    from dlassets.engines.spark_session import spark_session

    places = []
    with pytest.MonkeyPatch.context() as environment:
        if any(
            "s3" in getattr(item, "fixturenames", ()) and item.get_closest_marker("spark")
            for item in request.session.items
        ):
            places = ["s3a://bucket"]
            for name, value in request.getfixturevalue("s3").environment.items():
                environment.setenv(name, value)
        session = spark_session(SparkSettings(driver_memory="2g", conf=FOR_FEW_ROWS), places)
    yield SparkEngine(lambda: session)
    session.stop()


@pytest.fixture(params=["local", pytest.param("spark", marks=pytest.mark.spark)])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Either engine: what works on one alone does not work."""
    found: Engine = request.getfixturevalue(f"{request.param}_engine")
    return found
