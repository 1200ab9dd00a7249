"""The lake as assets see it: its settings, its engine, and pinned versions of its tables."""

from __future__ import annotations

from functools import cached_property

from dlassets.engines.base import Engine, Snapshot
from dlassets.lakehouse import snapshots
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets.storage.stores import on_s3


class LakeResource:
    """One lake and the engine that runs on it. The engine starts when it is first used."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lake = Lake.at(settings.root)

    @cached_property
    def engine(self) -> Engine:
        return engine_of(self.settings)

    def pin(self, *names: str) -> list[Snapshot]:
        """Return the newest version of each table, read through dagster-deltalake; a missing table is created."""
        return [self._pin(name) for name in names]

    def _pin(self, name: str) -> Snapshot:
        from dagster_deltalake import DeltaTableResource, LocalConfig, S3Config

        snapshots.create(self.lake, name)
        uri = self.lake.table(name)
        # Neither says anything: delta-rs finds what a storage takes in the environment.
        storage = S3Config() if on_s3(uri) else LocalConfig()
        table = DeltaTableResource(url=uri, storage_options=storage).load()
        return Snapshot(name, uri, table.version())


def engine_of(settings: Settings) -> Engine:
    """Return the engine that the settings name."""
    if settings.engine == "local":
        from dlassets.engines.local import LocalEngine

        return LocalEngine()
    from dlassets.engines.spark import SparkEngine
    from dlassets.resources.spark import spark_session

    lake = Lake.at(settings.root)
    places = [lake.root, *(lake.zone(zone.uri) for zone in settings.landing.values())]
    return SparkEngine(lambda: spark_session(settings.spark, places))
