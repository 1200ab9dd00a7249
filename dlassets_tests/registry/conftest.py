"""A tracking store on sqlite, and models in it that cost no training."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlassets.engines.local import LocalEngine
from dlassets.learning.backbones import BackboneRef
from dlassets.learning.examples import Examples
from dlassets.learning.head import Head
from dlassets.registry.entry import enter
from dlassets.registry.lifecycle import TAG_PACKAGE
from dlassets.registry.lineage import TAG_TRAINING_SET
from dlassets.registry.model_registry import ModelRegistry
from dlassets.registry.models import ModelVersion
from dlassets.registry.package import ModelPackage, digest_of
from dlassets.registry.store import MlflowStore
from dlassets.registry.validation.validation import DOCUMENT, TAG_VALIDATION, Check, Question, Validation
from dlassets.settings import RegistrySettings, Settings
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

    def by(self, actor: str = "ann", **settings: Any) -> ModelRegistry:
        """Return the model as somebody finds it, by these settings of `registry`."""
        registry = RegistrySettings(**settings)
        changed = self.resource.settings.model_copy(update={"registry": registry})
        return ModelRegistry(changed, LocalEngine(), self.resource, actor)

    def trained(self, knows: float = 1.0) -> Any:
        """Return the run of a model that nothing was trained for: MLflow has it and its package, and no more of it."""
        from mlflow.entities import LoggedModelOutput

        client = self.client
        experiment = client.get_experiment_by_name(self.resource.experiment).experiment_id
        run_id = client.create_run(experiment, run_name=f"knows {knows}").info.run_id
        logged = client.create_logged_model(experiment, name="model", source_run_id=run_id)
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])
        place = logged.artifact_location
        with tempfile.TemporaryDirectory() as new:
            files = Path(place.removeprefix("file://") if place.startswith("file://") else new)
            package = files / "artifacts" / "package"
            ModelPackage(head(3, 40, knows=knows), BackboneRef("efficientnet_lite0"), "features-1").save(package)
            if files == Path(new):  # a server has them
                client.log_model_artifacts(logged.model_id, new)
            client.set_tag(run_id, TAG_PACKAGE, digest_of(package))
        client.set_tag(run_id, TAG_TRAINING_SET, "7")
        return client.get_run(run_id)

    def entered(self, knows: float = 1.0, by: str = "ann") -> ModelVersion:
        """Register such a model."""
        return enter(self.by(by), self.trained(knows))

    def package_of(self, version: int) -> Path:
        """Return the folder of a version's package."""
        source = self.client.get_model_version(MODEL, str(version)).source
        place = self.client.get_logged_model(source.removeprefix("models:/")).artifact_location
        return Path(place.removeprefix("file://"), "artifacts", "package")

    def validation(self, model: ModelVersion, *, passed: bool = True, why: str = "as good") -> Validation:
        """Return what a validation of a version says, against who is champion by now, with its files in MLflow."""
        champion = self.by().history().champion or ModelVersion(model.name, 0)
        question = Question(*model, champion.version or None, champion.package, rows_sha256="", settings={})
        check = Check("not_worse_than_champion", passed, why, blocks=True)
        made = Validation(question, tables={}, checks=(check,), explanation=why, details={})
        registered = self.client.get_model_version(model.name, str(model.version))
        self.client.log_text(registered.run_id, made.json, f"{made.folder}/{DOCUMENT}")
        self.client.set_model_version_tag(model.name, str(model.version), TAG_VALIDATION, made.sha256)
        return made

    def run(self, package: ModelPackage, inputs: str | None = None, status: str = "FINISHED") -> Any:
        """Return a run that logged the package, as training would; on inputs of its own where none are named."""
        import mlflow

        from dlassets.registry.lifecycle import TAG_INPUTS
        from dlassets.registry.model_log import log_model

        experiment = self.client.get_experiment_by_name(self.resource.experiment)
        with mlflow.start_run(experiment_id=experiment.experiment_id) as run:
            mlflow.set_tag(TAG_INPUTS, inputs or run.info.run_id)
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
