"""The peer: the Spark job that most would write: `binaryFile` as a stream, appended to a Delta table, all defaults.

It checks and hashes nothing, and misses an overwritten file. What later comes to be known of a photo is merged into
the same table, bytes and all.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SCHEMA = "path STRING, modificationTime TIMESTAMP, length BIGINT, content BINARY"


def session() -> SparkSession:
    """Start Spark with Delta and nothing set but its memory, which is dlassets' own, and what keeps it silent."""
    from delta import configure_spark_with_delta_pip
    from pyspark.sql import SparkSession

    from dlassets.engines.java import ensure_java

    ensure_java()
    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = (
        SparkSession.builder.master("local[*]")
        .config("spark.driver.memory", "4g")
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.log.level", "ERROR")
    )
    started: SparkSession = configure_spark_with_delta_pip(builder).getOrCreate()
    return started


def take_in(spark: SparkSession, zone: str, table: str, checkpoint: str) -> None:
    """Append what the stream has not seen yet."""

    def append(batch: DataFrame, _: int) -> None:
        batch.write.format("delta").mode("append").save(table)

    files = spark.readStream.format("binaryFile").schema(SCHEMA).option("recursiveFileLookup", "true").load(zone)
    query = (
        files.writeStream.foreachBatch(append)
        .option("checkpointLocation", checkpoint)
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()


def merge(spark: SparkSession, table: str, changed: DataFrame) -> None:
    """Merge `path, predicted_label, confidence` into the photos' own table."""
    spark.sql(
        f"""
        MERGE INTO delta.`{table}` AS target USING {{changed}} AS changed ON target.path = changed.path
        WHEN MATCHED THEN UPDATE SET predicted_label = changed.predicted_label, confidence = changed.confidence
        """,
        changed=changed,
    )
