"""One lake as steps see it: its settings, engine, models and backbone, each opened when it is first used.

A session reads the newest versions of its own lake, unless it is given others: by `at`, snapshots that are read in
place of a table's newest (those of a model, to train it again), or by `source`, another session that gives the tables
which this one does not make itself (a search's lake beside the one whose photos it learns from).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from dlassets.engines.base import Engine, Snapshot
from dlassets.engines.schema import Table
from dlassets.errors import DlassetsError
from dlassets.lakehouse.snapshots import ready_table, rows_in
from dlassets.lakehouse.tables import RAW_IMAGES
from dlassets.registry.models import ModelVersion
from dlassets.settings import Settings
from dlassets.storage.lake import Lake, is_local, local_path

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from pyspark.sql import SparkSession

    from dlassets.labeling.services import Services
    from dlassets.lakehouse.photos import Photos
    from dlassets.learning.backbones import BackboneRef
    from dlassets.learning.features import Embedder
    from dlassets.registry.model_registry import ModelRegistry
    from dlassets.registry.package import ModelPackage
    from dlassets.registry.store import MlflowStore

# Packages of models that are kept: the champion's and challengers'.
_PACKAGES = 4


@dataclass(eq=False)
class Session:
    """`run_id` and `tags` are those of the run that the steps belong to, if any.

    `own` are the tables that this lake has where `source` has the others. `embeds_with` is the backbone in place of the
    settings'. `champion_seconds` is how long an answer of MLflow's on who is champion holds: a stream asks several
    times a second. `scope` is which photos are scored again: see `scoring.batch.Scope`.
    """

    settings: Settings
    run_id: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    at: Mapping[str, Snapshot] = field(default_factory=dict)
    source: Session | None = None
    own: Collection[str] = ()
    embeds_with: BackboneRef | None = None
    champion_seconds: float = 0.0
    scope: str = "new"
    _champion: tuple[float, ModelVersion | None] = field(default=(float("-inf"), None), init=False)
    _packages: dict[ModelVersion, ModelPackage] = field(default_factory=dict, init=False)

    @property
    def lake(self) -> Lake:
        return Lake.at(self.settings.root)

    @cached_property
    def engine(self) -> Engine:
        if self.source is not None:
            return self.source.engine
        if self.settings.engine == "local":
            from dlassets.engines.local import LocalEngine

            return LocalEngine()
        from dlassets.engines.spark import SparkEngine

        return SparkEngine(self._spark, only_writer=self.settings.spark.only_writer)

    @cached_property
    def mlflow(self) -> MlflowStore:
        from dlassets.registry.store import MlflowStore

        return MlflowStore(self.settings)

    @property
    def actor(self) -> str:
        """Who does what is done in this session, as `model_events` has it."""
        from dlassets.registry.events import acting

        return acting(self.settings.registry.actor, self.tags)

    @property
    def registry(self) -> ModelRegistry:
        """The registered model, as this lake knows it."""
        from dlassets.registry.model_registry import ModelRegistry

        return ModelRegistry(self.settings, self.engine, self.mlflow, self.actor, self.run_id)

    @cached_property
    def backbone(self) -> BackboneRef:
        """The settings' backbone, with weights that every worker can load."""
        from dlassets.registry.store import backbone_in_use

        return self.embeds_with or backbone_in_use(self.settings, self.lake)

    @property
    def feature_version(self) -> str:
        from dlassets.learning.backbones import feature_version

        return feature_version(self.backbone)

    @cached_property
    def labeling(self) -> Services:
        """Where people are asked, and where they answer: what lies in the folder of answers always counts."""
        from dlassets.labeling.bucket import BucketService
        from dlassets.labeling.folder import FolderService
        from dlassets.labeling.label_studio.service import LabelStudioService
        from dlassets.labeling.services import LabelingService, Services

        names = self.settings.labeling.service
        services: dict[str, LabelingService] = {}
        requests, answers = self.lake.requests, self.lake.answers
        if is_local(self.lake.root):
            services["folder"] = FolderService(local_path(requests), local_path(answers))
        else:
            services["folder"] = BucketService(requests, answers)
        if "labelstudio" in names:
            services["labelstudio"] = LabelStudioService(
                self.settings.labeling.label_studio, self.lake, self.settings.serving.webhook_secret
            )
        return Services([services[name] for name in names], [*services.values()])

    def changed(self, **fields: Any) -> Self:
        """Return this session with other `settings`, `at`, `own` or `scope`, which goes on with what this opened."""
        other = replace(self, **fields)
        other.engine = self.engine
        if "mlflow" in vars(self):
            other.mlflow = self.mlflow
        return other

    def pin(self, table: Table) -> Snapshot:
        """Return the version of a table that this session reads; one of its own lake is made where it is not there."""
        if table.name in self.at:
            return self.at[table.name]
        if not self.makes(table):
            return self.source.pin(table)  # type: ignore[union-attr]
        return Snapshot(table.name, self.lake.table(table.name), self._ready(table).version())

    def measure(self, table: Table) -> tuple[Snapshot, int]:
        """Return the newest version of a table of its own lake, and how many rows that has."""
        delta = self._ready(table)
        return Snapshot(table.name, self.lake.table(table.name), delta.version()), rows_in(delta)

    def makes(self, table: Table) -> bool:
        """Whether the table lies in this session's own lake."""
        return self.source is None or table.name in self.own

    def lake_of(self, table: Table) -> Lake:
        return self.lake if self.makes(table) else self.source.lake_of(table)  # type: ignore[union-attr]

    def photos(self, raw_images: Snapshot) -> Photos:
        """Return the photos of this version of `raw_images`."""
        from dlassets.lakehouse.photos import Photos

        return Photos(self.engine, self.lake_of(RAW_IMAGES), raw_images)

    def embedder(self, raw_images: Snapshot) -> Embedder:
        """Return what embeds the photos of this version of `raw_images`."""
        from dlassets.learning.features import Embedder

        return Embedder(self.photos(raw_images), self.settings.features.runtime)

    @property
    def model_name(self) -> str:
        return self.settings.registry.model_name

    def champion(self) -> ModelVersion | None:
        """Return the version of the registered model that is in use, if any is.

        It is the one with the alias champion in MLflow, or by `registry.outside_moves` the one of `model_events` alone.
        """
        asked_at, model = self._champion
        if time.monotonic() - asked_at >= self.champion_seconds:
            puts_back = self.settings.registry.puts_back
            model = self.registry.history().champion if puts_back else self._known(self.mlflow.champion())
            self._champion = time.monotonic(), model
        return model

    def challengers(self) -> list[ModelVersion]:
        """Return who is to answer beside the champion: MLflow's challenger, where `scoring.challengers` says so."""
        from dlassets.registry.lifecycle import challenger_beside

        if not self.settings.scoring.challengers:
            return []
        challenger = self._known(challenger_beside(self.mlflow.client, self.model_name, self.champion()))
        return [] if challenger is None else [challenger]

    def _known(self, model: ModelVersion | None) -> ModelVersion | None:
        """Return a version of MLflow's with the digest that `model_events` has: its tag may have been taken off."""
        return model if model is None or model.package is not None else self.registry.history().known(model)

    def required_champion(self) -> ModelVersion:
        """Return the champion. Raises DlassetsError where there is none."""
        if (model := self.champion()) is None:
            raise DlassetsError(
                f"No version of {self.model_name} is champion yet. Run training_pipeline first, or approve a version "
                "that waits (dlassets models)."
            )
        return model

    def package(self, model: ModelVersion) -> ModelPackage:
        """Return the files of a registered version; those of the few that were asked for last are kept."""
        from dlassets.registry.model_registry import load_version

        package = self._packages.pop(model, None) or load_version(self.registry, model.version)
        self._packages = {**dict(list(self._packages.items())[1 - _PACKAGES :]), model: package}
        return package

    def _ready(self, table: Table) -> DeltaTable:
        return ready_table(self.lake, table, self._open)

    def _open(self, uri: str) -> DeltaTable:
        """Open a table as it stands, for `open_table`, which says what is wrong with one that cannot be opened."""
        from deltalake import DeltaTable

        return DeltaTable(uri)

    def _spark(self) -> SparkSession:
        from dlassets.engines.spark_session import spark_session

        return spark_session(self.settings.spark, self._places)

    @property
    def _places(self) -> list[str]:
        """Everywhere that Spark is to read and write."""
        lake = self.lake
        return [lake.root, *(lake.zone(zone.uri) for zone in self.settings.landing.values())]
