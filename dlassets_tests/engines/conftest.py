"""One Spark session for the whole run: it takes longer to start than most tests take."""

from collections.abc import Iterator

import pytest

from dlassets.engines.base import Engine


@pytest.fixture(scope="session")
def spark_engine() -> Iterator[Engine]:
    from dlassets.engines.spark import SparkEngine
    from dlassets.engines.spark_session import spark_session
    from dlassets.settings import SparkSettings

    session = spark_session(SparkSettings(driver_memory="2g"))
    yield SparkEngine(lambda: session)
    session.stop()
