"""The Spark session through dagster-pyspark: lazy, and one for the whole process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dlassets.engines import spark_session as sessions
from dlassets.settings import SparkSettings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def spark_session(settings: SparkSettings, uris: Sequence[str], tell: Callable[[str], None]) -> SparkSession:
    """Return the session that dagster-pyspark's lazy resource hands out, for these settings and these places.

    Spark is started before the resource asks for it, so that what can be missing (a Java, Delta's jars, the server) is
    said in one clear DlassetsError; the resource then finds it running. `tell` is as in `engines.spark_session`.
    """
    sessions.spark_session(settings, uris, tell)
    from dagster_pyspark import LazyPySparkResource

    session: SparkSession = LazyPySparkResource(spark_config=sessions.spark_config(settings, uris)).spark_session
    return session
