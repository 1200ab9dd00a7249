"""What a whole lake lives through, act by act, and what it then holds. Each function runs in a process of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from dlassets.pipeline.session import Session
from dlassets.resources.dead_runs import end_dead_runs
from dlassets.resources.instance import dagster_home
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.contents import contents
from dlassets_tests.pipelines import Pipelines, arrive, failures, is_ours
from dlassets_tests.whole import Whole

_GOING_ON = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELING]


@dataclass(frozen=True)
class Act:
    """A pipeline, which may be harmed, or what people do to files, which is not."""

    name: str
    work: Callable[[Path], Any]
    is_pipeline: bool = True


def story(photos: Path) -> tuple[Act, ...]:
    """Photos come, are learned from and scored; people answer; a model learns from that; photos change and go."""
    train, score, ask, care = (
        Act(name, functools.partial(run_pipeline, f"{name}_pipeline"))
        for name in ("training", "scoring", "labeling", "maintenance")
    )
    return (
        Act("photos arrive", functools.partial(photos_arrive, photos), is_pipeline=False),
        train,
        score,
        Act("people answer", lambda root: whole(root).people_answer(), is_pipeline=False),
        ask,
        train,
        Act("photos change", lambda root: whole(root).photos_change(), is_pipeline=False),
        score,
        care,
    )


def settings_of(root: Path) -> Settings:
    return Settings(root=str(root))


def whole(root: Path) -> Whole:
    return Whole(Session(settings_of(root)))


def photos_arrive(photos: Path, root: Path) -> None:
    with dg.DagsterInstance.ephemeral() as nowhere:
        lake = Pipelines(settings_of(root), nowhere)
        for zone in lake.settings.landing:
            lake.zone(zone).mkdir(parents=True)
        arrive(photos, lake)


def run_pipeline(job: str, root: Path) -> dict[str, str]:
    """Run it as `dagster job execute` does; return what each failed step said."""
    with dg.DagsterInstance.from_config(str(dagster_home(Lake.at(str(root))))) as instance:
        return failures(Pipelines(settings_of(root), instance).run(job))


def tells_people(said: str) -> bool:
    """Whether an error is of ours, which says what to do, or a check of ours that did not pass."""
    name = said.partition(":")[0]
    return is_ours(name) or name == "DagsterAssetCheckFailedError"


def found_in(root: Path) -> dict[str, Any]:
    """Return all that must be as in a lake that nothing happened to."""
    look = whole(root).look()
    return contents(root) | {"look": look} | _left_over(root)


def _left_over(root: Path) -> dict[str, Any]:
    """Return what killed processes leave, once whoever comes next has ended it."""
    mlflow = Session(settings_of(root)).mlflow
    mlflow.tags_of_process()
    experiment = mlflow.client.get_experiment_by_name(mlflow.experiment)
    running = mlflow.client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'")
    with dg.DagsterInstance.from_config(str(dagster_home(Lake.at(str(root))))) as instance:
        end_dead_runs(instance)
        going_on = instance.get_runs(dg.RunsFilter(statuses=_GOING_ON))
    return {
        "MLflow runs": [run.info.run_id for run in running],
        "Dagster runs": [run.run_id for run in going_on],
        "half-made stores": [str(path) for path in root.rglob(".new-*") if path.is_dir()],
    }
