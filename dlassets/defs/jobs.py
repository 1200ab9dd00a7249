"""The pipelines as jobs, each one run at a time (resources/dagster.yaml limits runs by the tag).

Those of dlassets are data as those are that a lake has of its own: see pipeline/jobs.py. Both become jobs here.
"""

import datetime as dt
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from dlassets.defs.common import PIPELINE_TAG
from dlassets.defs.compute import TAG as COMPUTE_TAG
from dlassets.defs.compute import pod_of
from dlassets.defs.operations.assets import CARE, dagster_runs
from dlassets.defs.schedules import refuse_never, schedule_of
from dlassets.errors import DlassetsError, SettingsError
from dlassets.pipeline.jobs import (
    DAY,
    RUN_ALERTS,
    Job,
    Kept,
    KnownStep,
    KnownSteps,
    Partitions,
    Task,
    described,
    kept_jobs,
    of_settings,
    of_steps,
    settings_of_run,
)
from dlassets.resources.dagster_alerts import ALERTS_TAG, alerts_tag
from dlassets.settings import Schedule, Settings
from dlassets.storage.lake import Lake

_log = logging.getLogger(__name__)
_INGESTED = ("ingested_files", "image_profiles", "classes", "labeled_images")


def _pipeline(name: str, description: str, *tasks: str, partitions: Partitions | None = None) -> Job:
    return Job(
        name=name, description=description, tasks=tuple(Task(name=task) for task in tasks), partitions=partitions
    )


INGEST_PIPELINE = _pipeline(
    "ingest_pipeline",
    "Take photos in, look at them, and label those whose folder or list says their label.",
    *_INGESTED,
)
TRAINING_PIPELINE = _pipeline(
    "training_pipeline",
    "Take photos in, label them, embed them, train, register, validate, and promote what is not shown to be worse.",
    *_INGESTED,
    "image_features",
    "training_set",
    "label_errors",
    "tuned_hyperparameters",  # as it stands: see the asset
    "trained_model",
    "evaluated_rows",
    "registered_version",
    "validated_version",
)
TUNING_PIPELINE = _pipeline(
    "tuning_pipeline",
    "Try settings of training, train with the best, register, validate, and promote what is not shown to be worse.",
    "image_features",
    "training_set",
    "tuned_hyperparameters",
    "trained_model",
    "evaluated_rows",
    "registered_version",
    "validated_version",
)
VALIDATION_PIPELINE = _pipeline(
    "validation_pipeline",
    "Validate a registered version, and promote it where nothing shows that it is worse.",
    "validated_version",
)
SCORING_PIPELINE = _pipeline(
    "scoring_pipeline",
    "Take photos in, score them, and send people the unsure ones that have no label; take in what was served.",
    *_INGESTED,
    "image_features",
    "predictions",
    "predictions_current",
    "served_requests",
    "label_requests",
    "labeling_report",
)
RESCORING_PIPELINE = _pipeline(
    "rescoring_pipeline",
    "Score again the photos that were taken in on a day, whatever was said of them; a backfill takes many days.",
    "predictions",
    "predictions_current",
    # Days that a backfill may be asked for: no lake is older than the first release of what makes it.
    partitions=Partitions(since=dt.date(2026, 11, 1), parameters={"predictions.scope": f"on {DAY}"}),
)
LABELING_PIPELINE = _pipeline(
    "labeling_pipeline",
    "Collect people's answers, weigh what several say, merge it into the labels, close requests, and ask what is next.",
    "classes",
    "human_labels",
    "consensus",
    "annotators",
    "labeled_images",
    "label_requests",
    "labeling_report",
)
MAINTENANCE_PIPELINE = _pipeline(
    "maintenance_pipeline",
    "Put small files of every table together, and delete what neither a reader nor a model needs.",
    *(each.step.name for each in CARE),
    dagster_runs.op.name,
)
BUILT_IN = {
    job.name: job
    for job in (
        INGEST_PIPELINE,
        TRAINING_PIPELINE,
        TUNING_PIPELINE,
        VALIDATION_PIPELINE,
        SCORING_PIPELINE,
        RESCORING_PIPELINE,
        LABELING_PIPELINE,
        MAINTENANCE_PIPELINE,
    )
}
# Dagster remembers of a schedule by its name whether somebody has switched it on.
_SCHEDULES = {
    "scoring_pipeline": "daily_scoring",
    "training_pipeline": "weekly_training",
    "maintenance_pipeline": "nightly_maintenance",
}


@dataclass(frozen=True)
class Pipelines:
    """Every pipeline of a lake: those of dlassets, its own, and of those of its own that cannot be, why."""

    built_in: Mapping[str, Job]
    kept: Kept
    steps: KnownSteps

    @property
    def all(self) -> dict[str, Job]:
        return {**self.built_in, **self.kept.jobs}


def pipelines_of(settings: Settings, assets: Iterable[Any], more: Sequence[Job] = ()) -> Pipelines:
    """Return the pipelines of a lake whose steps these assets are; one of `more` takes the place of that of its name.

    Raises SettingsError where the settings schedule what there is not, or for never; JobError where one of `more`
    cannot be. One of the lake's own that cannot be is broken by itself.
    """
    known = known_steps(assets)
    built_in = {name: described(job, known) for name, job in _scheduled(settings).items()}
    kept = kept_jobs(Lake.at(settings.root), known, built_in, settings)
    never = {name: why for name, job in kept.jobs.items() if (why := _why_never(job))}
    instead = {job.name: described(job, known) for job in more}
    own = {name: job for name, job in kept.jobs.items() if name not in never} | {
        name: job for name, job in instead.items() if name not in built_in
    }
    broken = {name: why for name, why in (dict(kept.broken) | never).items() if name not in instead}
    built_in |= {name: job for name, job in instead.items() if name in built_in}
    return Pipelines(built_in, Kept(own, broken), known)


def checked(job: Job, pipelines: Pipelines, settings: Settings) -> Job:
    """Return a pipeline of a file with all that is to be said of it. Raises JobError, SettingsError if it cannot be."""
    made = described(job, pipelines.steps)
    settings_of_run(settings, of_settings(made))
    if made.schedule is not None:
        refuse_never(made.name, made.schedule)
    return made


def known_steps(assets: Iterable[Any]) -> dict[str, KnownStep]:
    """Return the steps that a pipeline may take, by name."""
    return {
        asset.op.name: KnownStep(
            asset.op.name,
            makes={key.to_user_string() for key in asset.keys},
            reads={key.to_user_string() for deps in asset.asset_deps.values() for key in deps},
            parameters=list(getattr(asset.op.config_schema.config_type, "fields", None) or ()),
            compute=asset.op.tags.get(COMPUTE_TAG),
        )
        for asset in assets
        if isinstance(asset, dg.AssetsDefinition) and asset.is_executable
    }


def jobs(pipelines: Pipelines, settings: Settings) -> list[Any]:
    """Return the jobs of Dagster; a pipeline that cannot be is one that says why, and fails of it."""
    for name, why in pipelines.kept.broken.items():
        _log.warning("The pipeline %s of this lake's own cannot be: %s", name, why)
    made = [_job(job, pipelines.steps, settings) for job in pipelines.all.values()]
    return [*made, *(_broken(name, why) for name, why in pipelines.kept.broken.items() if name.isidentifier())]


def schedules(pipelines: Pipelines) -> list[dg.ScheduleDefinition]:
    return [
        schedule_of(
            job.name,
            job.schedule,
            schedule_name(job),
            job.description,
            run_config_of(job, pipelines.steps),
        )
        for job in pipelines.all.values()
        if job.schedule is not None
    ]


def schedule_name(job: Job) -> str:
    return _SCHEDULES.get(job.name, f"{job.name}_schedule")


def run_config_of(job: Job, known: KnownSteps) -> dict[str, Any]:
    """Return a pipeline's parameters as a run's configuration of Dagster, which its launchpad shows."""
    ops = {name: {"config": said} for name, said in of_steps(job, known).items()}
    changed = of_settings(job)
    return {
        **({"ops": ops} if ops else {}),
        **({"resources": {"session": {"config": {"settings": changed}}}} if changed else {}),
    }


def _scheduled(settings: Settings) -> dict[str, Job]:
    """Return the pipelines of dlassets with the schedules of the settings."""
    automation = settings.automation
    if unknown := sorted(automation.scheduled.keys() - BUILT_IN.keys()):
        raise SettingsError(
            f"automation.scheduled names {', '.join(unknown)}, and the pipelines of dlassets are {', '.join(BUILT_IN)}."
            " One of the lake's own says its schedule itself."
        )
    alerts = tuple(kind for kind in RUN_ALERTS if kind in settings.alerts.kinds)
    made = {}
    for name, job in BUILT_IN.items():
        schedule = automation.scheduled.get(name)
        if schedule is not None:
            schedule = schedule.model_copy(update={"paused": schedule.paused or not automation.schedules})
            refuse_in_settings(name, schedule)
        made[name] = job.model_copy(update={"schedule": schedule, "alerts": alerts})
    return made


def refuse_in_settings(name: str, schedule: Schedule) -> None:
    """Raise SettingsError for a schedule of the settings that never comes, naming the setting."""
    try:
        refuse_never(name, schedule)
    except SettingsError as error:
        raise SettingsError(f"automation.scheduled.{name}: {error}") from error


def _why_never(job: Job) -> str | None:
    try:
        if job.schedule is not None:
            refuse_never(job.name, job.schedule)
    except SettingsError as error:
        return str(error)
    return None


def _job(job: Job, known: KnownSteps, settings: Settings) -> Any:
    steps = [task.name for task in job.tasks]
    keys = [dg.AssetKey.from_user_string(key) for task in job.tasks for key in sorted(known[task.name].makes)]
    return dg.define_asset_job(
        job.name,
        selection=dg.AssetSelection.assets(*keys),
        description=job.description,
        config=_config(job, known),
        tags={PIPELINE_TAG: job.name, ALERTS_TAG: alerts_tag(job.alerts), **pod_of(settings, steps)},
    )


def _config(job: Job, known: KnownSteps) -> Any:
    if job.partitions is None:
        return run_config_of(job, known) or None
    days = dg.DailyPartitionsDefinition(job.partitions.since.isoformat(), end_offset=1)
    return dg.PartitionedConfig(days, run_config_for_partition_key_fn=lambda day: run_config_of(job.on_day(day), known))


def _broken(name: str, why: str) -> dg.JobDefinition:
    """Return the job that stands for a pipeline that cannot be, so that Dagster shows which, and why."""

    @dg.op(name=f"why_{name}_cannot_be")
    def say() -> None:
        raise DlassetsError(why)

    @dg.job(name=name, description=f"It cannot be: {why}", tags={PIPELINE_TAG: name})
    def broken() -> None:
        say()

    return broken
