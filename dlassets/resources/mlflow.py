"""MLflow's store through dagster-mlflow: a training's run names the Dagster run it belongs to."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dagster import BetaWarning, InitResourceContext

from dlassets.registry.store import MlflowStore
from dlassets.settings import Settings


class DagsterMlflowStore(MlflowStore):
    def __init__(self, settings: Settings, context: InitResourceContext | None) -> None:
        super().__init__(settings)
        self._context = context

    @contextmanager
    def run(self, name: str | None = None, experiment_id: str | None = None) -> Iterator[Any]:
        """Open a run for this Dagster run, which names it; it is ended here, as finished or as failed."""
        if self._context is None or name is not None or experiment_id is not None:
            with super().run(name, experiment_id) as run:
                yield run
            return
        config = {
            "experiment_name": self.experiment,
            "mlflow_tracking_uri": self.client.tracking_uri,
            "parent_run_id": None,
            "mlflow_run_id": None,
            "env": {},
            "env_to_tag": [],
            "extra_tags": self.tags_of_process(),
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
