"""A tracking store on sqlite, and models in it that cost no training."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from dlassets.learning.examples import Examples
from dlassets.learning.head import Head
from dlassets.registry.package import ModelPackage
from dlassets.registry.store import MlflowStore
from dlassets.settings import Settings
from dlassets_tests.learning import examples
from dlassets_tests.stores import give_store

MODEL = "image_classifier"


def head(*labels: int, knows: float = 1.0, features: int = 2) -> Head:
    """A head of as many classes that looks at the first feature alone; with `knows` of -1, the wrong way round."""
    weight = np.zeros((len(labels), features), np.float32)
    weight[:, 0] = np.linspace(-knows, knows, len(labels))
    return examples.head(labels, weight)


def points(*values: float, labels: tuple[int, ...]) -> Examples:
    """Examples whose first feature is the value."""
    return examples.examples(labels, [[value, 0] for value in values])


@dataclass
class Registry:
    resource: MlflowStore

    @property
    def client(self) -> Any:
        return self.resource.client

    def run(self, package: ModelPackage, inputs: str = "inputs", status: str = "FINISHED") -> Any:
        """Return a run that logged the package, as training would."""
        import mlflow

        from dlassets.registry.lifecycle import TAG_INPUTS
        from dlassets.registry.model_log import log_model

        experiment = self.client.get_experiment_by_name(self.resource.experiment)
        with mlflow.start_run(experiment_id=experiment.experiment_id) as run:
            mlflow.set_tag(TAG_INPUTS, inputs)
            log_model(mlflow, package, example=b"no photo")
        self.client.set_terminated(run.info.run_id, status)
        return self.client.get_run(run.info.run_id)


@contextmanager
def opened(settings: Settings) -> Iterator[MlflowStore]:
    """Give the settings' store as it is, and put MLflow back to the one that it had."""
    import mlflow

    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    yield MlflowStore(settings)
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])


@contextmanager
def store_of(settings: Settings) -> Iterator[MlflowStore]:
    """Give a lake's own store, made anew, and put MLflow back to the one that it had."""
    give_store(settings)
    with opened(settings) as store:
        yield store


@pytest.fixture
def registry(settings: Settings) -> Iterator[Registry]:
    with store_of(settings) as store:
        yield Registry(store)
