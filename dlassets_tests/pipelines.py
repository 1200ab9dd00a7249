"""A small lake for tests of whole pipelines, and what may be asked of a run of one."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dlassets import errors
from dlassets.definitions import build_defs
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import TABLES
from dlassets.pipeline.report import Report
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.stores import give_store


@dataclass
class Pipelines:
    """A lake, its definitions, and an instance that remembers its runs."""

    settings: Settings
    instance: dg.DagsterInstance

    @property
    def lake(self) -> Lake:
        return Lake.at(self.settings.root)

    @property
    def defs(self) -> dg.Definitions:
        return build_defs(self.settings)

    def zone(self, name: str) -> Path:
        return Path(self.lake.zone(name))

    def run(self, job: str, tags: Mapping[str, str] | None = None) -> dg.ExecuteInProcessResult:
        return self._run(self.defs, job, tags=dict(tags or {}))

    def run_only(self, selection: dg.AssetSelection) -> dg.ExecuteInProcessResult:
        """Run a job of this selection alone."""
        jobs = dg.Definitions(jobs=[dg.define_asset_job("selected", selection)])
        return self._run(dg.Definitions.merge(self.defs, jobs), "selected")

    def _run(self, defs: dg.Definitions, job: str, **options: Any) -> dg.ExecuteInProcessResult:
        found = defs.resolve_job_def(job)
        return found.execute_in_process(instance=self.instance, raise_on_error=False, **options)

    def tick(self, sensor: str, cursor: str | None = None) -> Any:
        """Evaluate a sensor once, as the daemon would."""
        defs = self.defs
        found = defs.resolve_sensor_def(sensor)
        resources = {name: defs.resources[name] for name in found.required_resource_keys}
        with dg.build_sensor_context(
            instance=self.instance, cursor=cursor, resources=resources, definitions=defs
        ) as context:
            return found.evaluate_tick(context)

    def versions(self) -> dict[str, int]:
        return {name: pin(self.lake, name).version for name in TABLES}


def new_lake(root: Path, instance: dg.DagsterInstance, **settings: Any) -> Pipelines:
    """Return a lake with empty landing zones; unless said otherwise, no version is validated on blurred photos."""
    made = Settings(root=str(root), **{"validation": {"sample": 0}, **settings})
    give_store(made)
    for zone in ("labeled", "unlabeled"):
        (root / "landing" / zone).mkdir(parents=True)
    return Pipelines(made, instance)


def arrive(photos: Path, pipelines: Pipelines, unlabelled_from: int = 14) -> None:
    """Copy the first photos of each class into the labelled zone, the others into the unlabelled one."""
    for folder in sorted(photos.iterdir()):
        for place, photo in enumerate(sorted(folder.iterdir())):
            if place < unlabelled_from:
                target = pipelines.zone("labeled") / folder.name / photo.name
            else:
                target = pipelines.zone("unlabeled") / f"{folder.name[:3]}-{photo.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photo, target)


class Warnings(Report):
    """Keeps what a step warns of."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def warning(self, message: str) -> None:
        self.messages.append(message)


def let_guesses_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a model that is no better than guessing go on, as one of few photos may be."""
    passed = dg.AssetCheckResult(passed=True, check_name="better_than_guessing")
    monkeypatch.setattr("dlassets.defs.training.assets._better_than_guessing", lambda _: passed)


def materialized(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetMaterialization]:
    """Return what each asset of a run reported."""
    events = result.get_asset_materialization_events()
    return {event.materialization.asset_key.to_user_string(): event.materialization for event in events}


def values(materialization: dg.AssetMaterialization) -> dict[str, Any]:
    return {name: value.value for name, value in materialization.metadata.items()}


def failures(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """Return the message of each failed step's error, by step: that of ours, else of the first cause of all."""
    said = {}
    for event in result.all_events:
        if event.event_type == dg.DagsterEventType.STEP_FAILURE:
            error = event.step_failure_data.error
            while error.cause is not None and not is_ours(str(error.cls_name)):
                error = error.cause
            said[str(event.step_key)] = f"{error.cls_name}: {error.message}"
    return said


def is_ours(name: str) -> bool:
    """Whether an error of this class is one that people are meant to read."""
    kind = getattr(errors, name, None)
    return isinstance(kind, type) and issubclass(kind, errors.DlassetsError)
