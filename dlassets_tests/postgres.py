"""A PostgreSQL server on loopback, of Debian's programs: made anew, with a password, and stopped at the end."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

USER, PASSWORD = "keeper", "Qz7fPass1"
PROGRAMS = Path("/usr/local/bin")
SECONDS = 60


class Postgres:
    def __init__(self, port: int) -> None:
        self.port = port

    def create(self, database: str) -> str:
        """Make a database and return its URI, as MLflow takes it."""
        import psycopg2  # type: ignore[import-untyped]

        connection = psycopg2.connect(host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname="postgres")
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {database}")
        connection.close()
        return f"postgresql+psycopg2://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def dagster_yaml(self, database: str) -> str:
        place = (
            f"{{hostname: 127.0.0.1, port: {self.port}, username: {USER}, password: {PASSWORD}, db_name: {database}, "
        )
        return f"storage: {{postgres: {{postgres_db: {place}scheme: postgresql+psycopg2}}}}}}\n"


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Give a server that runs; the test is skipped where its programs are not installed."""
    if not (PROGRAMS / "initdb").exists():
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    # It refuses to run as root.
    who: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    if who:
        os.chown(folder, 65534, 65534)
    word = folder / "word"
    word.write_text(PASSWORD)
    word.chmod(0o644)
    data = folder / "data"
    made: list[Any] = [
        PROGRAMS / "initdb",
        "-D",
        data,
        "-U",
        USER,
        "-A",
        "scram-sha-256",
        f"--pwfile={word}",
        "--no-sync",
    ]
    subprocess.run(made, check=True, capture_output=True, cwd=folder, **who)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run: list[Any] = [PROGRAMS / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-F"]
    process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, **who)
    try:
        _wait(port, process)
        yield Postgres(port)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(SECONDS)
        shutil.rmtree(folder)


def _wait(port: int, process: subprocess.Popen[Any]) -> None:
    import psycopg2

    until = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < until:
        try:
            psycopg2.connect(host="127.0.0.1", port=port, user=USER, password=PASSWORD, dbname="postgres").close()
        except psycopg2.OperationalError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("PostgreSQL did not start")
