"""Validation with a real MLflow server, which keeps the files too, and is away in the middle of it."""

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dlassets.errors import DlassetsError
from dlassets.registry.outages import explained_mlflow
from dlassets.registry.validation.validation import TAG_VALIDATION
from dlassets.settings import MlflowSettings, Settings
from dlassets_tests.registry.conftest import Registry, opened
from dlassets_tests.registry.validation.test_validate import Bench, grounds, knows, tested  # noqa: F401 - fixtures
from dlassets_tests.servers import free_port


@dataclass
class Server:
    """`mlflow server` on a folder, as often as it is started."""

    folder: Path
    port: int = field(default_factory=free_port)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        store = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        files = ["--artifacts-destination", self.folder.as_uri() + "/artifacts", "--serve-artifacts"]
        place = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *store, *files, *place],
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while not self.answers():
            assert self.process.poll() is None

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.mark.slow
def test_a_server_that_goes_away_is_one_error_and_once_it_is_back_the_validation_completes(
    tmp_path: Path,
    tested: Any,  # noqa: F811
    knows: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    lake, _, photo = tested
    with served(tmp_path) as server:
        settings = Settings(root=str(tmp_path / "lake"), mlflow=MlflowSettings(tracking_uri=server.address))
        with opened(settings) as store:
            bench = Bench(Registry(store), settings, grounds(lake), photo)
            version, client = bench.version(knows()), store.client
            log_artifact = client.log_artifact

            def go_away(*arguments: Any) -> None:
                server.stop()
                log_artifact(*arguments)

            with monkeypatch.context() as patch:
                patch.setattr(client, "log_artifact", go_away)
                with pytest.raises(DlassetsError, match="MLflow failed while a version was validated"):  # noqa: SIM117
                    with explained_mlflow("a version was validated"):
                        bench.validate(version)

            server.start()
            assert TAG_VALIDATION not in bench.tags(version)
            validation, is_new = bench.validate(version)
            assert (is_new, validation.passed) == (True, True)
            kept = client.list_artifacts(client.get_model_version("image_classifier", "1").run_id, validation.folder)
            assert {Path(file.path).name for file in kept} == {"validation.json", "report.md", "reliability.png"}
