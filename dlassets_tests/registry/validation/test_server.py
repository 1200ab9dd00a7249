"""Validation with a real MLflow server, which keeps the files too, and is away in the middle of it."""

from pathlib import Path
from typing import Any

import pytest

from dlassets.errors import DlassetsError
from dlassets.registry.outages import explained_mlflow
from dlassets.registry.validation.validation import TAG_VALIDATION
from dlassets.settings import MlflowSettings, Settings
from dlassets_tests.mlflow_servers import mlflow_server
from dlassets_tests.registry.conftest import Registry, opened
from dlassets_tests.registry.validation.test_validate import Bench, grounds, knows, tested  # noqa: F401 - fixtures


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
    with mlflow_server(tmp_path) as server:
        settings = Settings(root=str(tmp_path / "lake"), mlflow=MlflowSettings(tracking_uri=server.uri))
        with opened(settings) as store:
            bench = Bench(Registry(store), settings, grounds(lake), photo)
            version, client = bench.version(knows()), store.client
            log_artifact = client.log_artifact

            def go_away(*arguments: Any) -> None:
                server.kill()
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
