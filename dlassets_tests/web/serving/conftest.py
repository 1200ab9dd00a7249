"""Three versions of a model of four classes, on the same features, and a server of them for a whole file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dlassets.learning.backbones import BackboneRef, feature_version
from dlassets.learning.embedding import embed_images
from dlassets.registry.lifecycle import CHALLENGER, CHAMPION, PACKAGE, TAG_PACKAGE, register
from dlassets.registry.package import ModelPackage, digest_of
from dlassets.registry.store import MlflowStore
from dlassets.scoring.batch import classify
from dlassets.settings import Settings
from dlassets_tests.registry.conftest import MODEL, store_of
from dlassets_tests.registry.test_pyfunc import head_for
from dlassets_tests.web.serving.service import Served, serving

REF = BackboneRef("efficientnet_lite0", root=True)
LABELS = (3, 12, 40, 41)
LIMITS = {
    "DLASSETS_SERVING__MAX_BYTES": str(2**20),
    "DLASSETS_SERVING__MAX_IMAGES": "6",
    "DLASSETS_SERVING__MAX_PIXELS": "4000000",
    "DLASSETS_SERVING__QUEUE": "8",
    "DLASSETS_SERVING__BODY_SECONDS": "1",
    "DLASSETS_SERVING__CHAMPION_SECONDS": "0.1",
}


@dataclass(frozen=True)
class Models:
    """A lake with versions 1 to 3, of which 1 is champion and 3 challenger.

    `photos` are those that they learned from, a class each.

    Versions 2 and 3 say what 1 does, less surely.
    """

    settings: Settings
    client: Any
    packages: tuple[ModelPackage, ...]
    photos: list[bytes]

    def name_champion(self, version: int) -> None:
        self.client.set_registered_model_alias(MODEL, CHAMPION, str(version))

    def files_of(self, version: int) -> Path:
        """Return the folder of a version's package."""
        source = self.client.get_model_version(MODEL, str(version)).source
        logged = self.client.get_logged_model(source.removeprefix("models:/"))
        return Path(logged.artifact_location.removeprefix("file://"), PACKAGE)

    def batch_scored(self, photos: list[bytes], version: int = 1) -> list[dict[str, Any]]:
        """Return what the kernels of batch scoring say of photos."""
        import pyarrow as pa

        package = self.packages[version - 1]
        ids = [str(place) for place in range(len(photos))]
        batch = pa.RecordBatch.from_arrays([pa.array(ids), pa.array(photos, pa.binary())], ["image_id", "content"])
        embedded = embed_images(batch, backbone=package.backbone)
        scored = classify(embedded, head=package.head, feature_version=package.feature_version, top_k=5)
        names = {"predicted_label": "label", "predicted_name": "name"}
        return [{names.get(name, name): value for name, value in row.items()} for row in scored.to_pylist()]


def enter(store: MlflowStore, package: ModelPackage) -> int:
    """Register a version of which MLflow has the package alone, and not what its own server would load."""
    from mlflow.entities import LoggedModelOutput

    client = store.client
    experiment = client.get_experiment_by_name(store.experiment).experiment_id
    run_id = client.create_run(experiment).info.run_id
    logged = client.create_logged_model(experiment, name="model", source_run_id=run_id)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])
    folder = Path(logged.artifact_location.removeprefix("file://"), PACKAGE)
    package.save(folder)
    client.set_tag(run_id, TAG_PACKAGE, digest_of(folder))
    return register(client, MODEL, client.get_run(run_id))


@pytest.fixture(scope="session")
def models(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    settings = Settings(root=str(tmp_path_factory.mktemp("served") / "lake"))
    known = [min(folder.iterdir()).read_bytes() for folder in sorted(photos.iterdir())]
    head = head_for(known, LABELS)
    packages = tuple(
        ModelPackage(replace(head, temperature=head.temperature * times), REF, feature_version(REF))
        for times in (1, 2, 4)
    )
    with store_of(settings) as store:
        for package in packages:
            enter(store, package)
        made = Models(settings, store.client, packages, known)
        made.name_champion(1)
        made.client.set_registered_model_alias(MODEL, CHALLENGER, "3")
        yield made


@pytest.fixture(scope="session")
def server(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(models.settings.root, tmp_path_factory.mktemp("server") / "log", LIMITS) as served:
        yield served


@pytest.fixture
def champion(models: Models, server: Served) -> Iterator[Models]:
    """The models, for a test that moves the champion."""
    yield models
    models.name_champion(1)
    server.awaited(lambda: server.answers_with(1))
