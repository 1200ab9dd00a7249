#!/usr/bin/env python
"""Compile the log store of Spark on S3 to its jar, which is committed: who installs dlassets need not have a compiler.

`make log-store`. It takes the javac of a JDK, and the jars of a Spark session on S3, which Spark fetches once. The same
source and the same javac make the same bytes.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from dlassets.engines import spark_session as sessions
from dlassets.settings import SparkSettings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SOURCE = sessions.LOG_STORE_JAR.with_name("S3LogStore.java")
# Spark 4 runs on this Java and on newer ones.
RELEASE = "17"

# One class of each jar that the source is compiled against.
_NEEDED = (
    "io.delta.storage.LogStore",
    "org.apache.hadoop.fs.FileSystem",
    "org.apache.hadoop.fs.s3a.S3AFileSystem",
    "software.amazon.awssdk.awscore.exception.AwsServiceException",
    "software.amazon.awssdk.core.exception.SdkException",
)
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


def jars(session: SparkSession) -> list[Path]:
    """Return the jars of a session on S3 that the source is compiled against."""
    jvm: Any = session.sparkContext._jvm  # noqa: SLF001 - nobody else knows where its classes are from
    loader = jvm.Thread.currentThread().getContextClassLoader()
    places = [jvm.Class.forName(name, False, loader).getProtectionDomain().getCodeSource() for name in _NEEDED]
    return [Path(unquote(urlparse(place.getLocation().toString()).path)) for place in places]


def javac_version() -> str:
    """Return the release of javac, such as 17. Raises OSError where there is none."""
    said = subprocess.run(["javac", "-version"], capture_output=True, text=True, check=True)
    return re.sub(r"\D*(\d+).*\s*", r"\1", said.stdout + said.stderr)


def compiled(class_path: Iterable[Path]) -> dict[str, bytes]:
    """Return what the jar is to hold: by its path in it, each file's bytes."""
    with tempfile.TemporaryDirectory() as folder:
        jars = ":".join(map(str, class_path))
        # Without annotation processors, which javac would look for in all jars.
        options = ["--release", RELEASE, "-proc:none", "-Xlint:all,-classfile", "-Werror", "-cp", jars, "-d", folder]
        subprocess.run(["javac", *options, str(SOURCE)], check=True)
        classes = {file.relative_to(folder).as_posix(): file.read_bytes() for file in Path(folder).rglob("*.class")}
    manifest = f"Manifest-Version: 1.0\r\nCreated-By: javac {javac_version()}\r\nSource-SHA-256: {digest()}\r\n\r\n"
    return {"META-INF/MANIFEST.MF": manifest.encode(), **dict(sorted(classes.items()))}


def digest() -> str:
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()


def main() -> None:
    config = sessions.spark_config(SparkSettings(driver_memory="512m"), ["s3a://any"])
    files = compiled(jars(sessions.started({**config, "spark.jars": ""})))
    with zipfile.ZipFile(sessions.LOG_STORE_JAR, "w") as jar:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _LONG_AGO)
            entry.external_attr = 0o644 << 16
            jar.writestr(entry, content)


if __name__ == "__main__":
    main()
