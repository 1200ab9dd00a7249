"""MLflow through dagster-mlflow, opened only when used: its import costs seconds that loading definitions must not."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dagster import BetaWarning, InitResourceContext

from dlassets.errors import DlassetsError
from dlassets.registry.store import artifact_location, fail_soon, quiet_mlflow, tracking_uri
from dlassets.settings import Settings
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


class MlflowResource:
    """The tracking store and registry of one lake. Without Dagster's context it reads, and opens no run."""

    def __init__(self, settings: Settings, context: InitResourceContext | None = None) -> None:
        self.settings = settings
        self._context = context
        self._lake = Lake.at(settings.root)

    @cached_property
    def client(self) -> MlflowClient:
        """A client of the store, with the experiment made. Raises DlassetsError where the store cannot be reached."""
        import mlflow
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        fail_soon()
        quiet_mlflow()
        uri = tracking_uri(self.settings, self._lake)
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        client = mlflow.MlflowClient(uri, uri)
        try:
            if client.get_experiment_by_name(self.experiment) is None:
                client.create_experiment(self.experiment, artifact_location(self.settings, self._lake))
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise DlassetsError(
                f"MLflow's store at {uri} cannot be reached: {error}. Start the server, or set "
                "DLASSETS_MLFLOW__TRACKING_URI to one that runs (unset: a file under the lake's root)."
            ) from error
        return client

    @property
    def experiment(self) -> str:
        return self.settings.mlflow.experiment

    @contextmanager
    def run(self) -> Iterator[Any]:
        """Open a run for this Dagster run; it is ended here, as finished or as failed."""
        if self._context is None:
            raise RuntimeError("A run belongs to a Dagster run, and this resource was made without one.")
        client = self.client
        config = {
            "experiment_name": self.experiment,
            "mlflow_tracking_uri": client.tracking_uri,
            "parent_run_id": None,
            "mlflow_run_id": None,
            "env": {},
            "env_to_tag": [],
            "extra_tags": {},
        }
        with warnings.catch_warnings(action="ignore", category=BetaWarning):
            from dagster_mlflow.resources import MlFlow

            tracking = MlFlow(self._context.replace_config(config))
        try:
            yield tracking
        except BaseException:
            tracking.end_run("FAILED")
            raise
        tracking.end_run()

    def run_of(self, inputs_sha256: str) -> Run:
        """Return the run that learned from these inputs. Raises DlassetsError where there is none."""
        from dlassets.registry.lifecycle import find_run

        run = find_run(self.client, self.experiment, inputs_sha256)
        if run is None:
            raise DlassetsError(
                "No model was trained on the training set as it stands now. Materialize trained_model first, with the "
                "same settings."
            )
        return run

    def champion(self) -> tuple[str, int]:
        """Return the registered model's name and its champion's version. Raises DlassetsError where there is none."""
        from dlassets.registry.lifecycle import version_of

        name = self.settings.registry.model_name
        version = version_of(self.client, name)
        if version is None:
            raise DlassetsError(f"No version of {name} is champion yet. Run training_pipeline first.")
        return name, version

    def run_url(self, run: Run) -> str:
        """Return the address of a run in MLflow's UI."""
        return f"{self.settings.ui.mlflow}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
