"""`dlassets jobs`: pipelines as files. written, taken back as the lake's own, run here; and when they come."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlassets.cli.group import PathHere, console, ended_by_sigterm, in_one_line, settings_and_lake, show
from dlassets.storage.files import write_whole
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import dagster as dg

    from dlassets.defs.jobs import Pipelines
    from dlassets.pipeline.jobs import Job
    from dlassets.settings import Settings

_CONFIG = click.option(
    "--config", "files", type=PathHere(path_type=Path, dir_okay=False), multiple=True, help="A file of pipelines."
)
_LOGGER = "foreground"


@click.group()
def jobs() -> None:
    """Pipelines as files: write them, take them back, make your own, run one, see when they come."""


@jobs.command()
@click.argument("names", metavar="[NAME]…", nargs=-1)
@click.option(
    "--to", "target", type=PathHere(path_type=Path, dir_okay=False), help="A file, .json or .yaml; else it is printed."
)
def export(names: Sequence[str], target: Path | None) -> None:
    """Write pipelines, all or those of these names, with their tasks, parameters, schedules and alerts."""
    from dlassets.pipeline.jobs import as_text

    _, pipelines = _settings_and_pipelines()
    chosen = [_named(name, pipelines) for name in names or pipelines.all]
    if target is None:
        click.echo(as_text(chosen), nl=False)
        return
    write_whole(target, as_text(chosen, target.suffix))
    click.echo(f"{len(chosen)} pipelines are in {target}.")


@jobs.command()
@_CONFIG
def apply(files: Sequence[Path]) -> None:
    """Make the pipelines of files the lake's own, all or none: Dagster has them beside those of dlassets.

    What is as it was stays so. A pipeline of dlassets is as it is, and one that differs takes a name of its own.
    """
    from dlassets.pipeline.jobs import keep_job

    settings, pipelines = _settings_and_pipelines()
    lake = Lake.at(settings.root)
    applied = [_checked(job, settings, pipelines) for job in _of_files(files)]
    changed = False
    for job in applied:
        if job.name in pipelines.built_in:
            click.echo(f"{job.name}: of dlassets, and as it is")
            continue
        was = "changed" if job.name in pipelines.kept.jobs or job.name in pipelines.kept.broken else "new"
        is_changed = keep_job(lake, job)
        changed |= is_changed
        click.echo(f"{job.name}: {was if is_changed else 'as it was'}")
    if changed:
        click.echo(_RELOAD)


@jobs.command()
@click.argument("name")
def delete(name: str) -> None:
    """Delete one of the lake's own pipelines. Runs there were stay, and so do the tables."""
    from dlassets.pipeline.jobs import delete_job

    _, lake = settings_and_lake(is_there=False)
    delete_job(lake, name)
    click.echo(f"{name}: deleted")
    click.echo(_RELOAD)


@jobs.command("list")
def list_() -> None:
    """Show each pipeline: whose it is, when it comes, when next, and how its last run ended."""
    from dlassets.defs.schedules import in_words
    from dlassets.resources.instance import opened_instance

    _, lake = settings_and_lake()
    _, pipelines = _settings_and_pipelines()
    with opened_instance(lake) as instance:
        rows = [
            (
                job.name,
                "dlassets" if name in pipelines.built_in else "this lake",
                in_words(job.schedule) if job.schedule else "",
                _next(job, instance),
                _last(job.name, instance),
            )
            for name, job in pipelines.all.items()
        ]
    show(("pipeline", "of", "comes", "next", "last run"), rows)
    for name, why in pipelines.kept.broken.items():
        click.secho(f"{in_one_line(name)} cannot be: {why}", fg="red", err=True)
    if pipelines.kept.broken:
        sys.exit(1)


@jobs.command()
@click.argument("name", required=False)
@_CONFIG
@click.option("--set", "changes", metavar="PARAMETER=VALUE", multiple=True, help="Another parameter, for this run.")
@click.option("--day", metavar="2026-11-20", help="Of a pipeline that runs for a day: which.")
def run(name: str | None, files: Sequence[Path], changes: Sequence[str], day: str | None) -> None:
    """Run a pipeline here and now, by its name or out of a file; exit code 1 where it fails."""
    settings, pipelines = _settings_and_pipelines()
    job = _chosen(name, _of_files(files) if files else [*pipelines.all.values()], pipelines)
    if files:
        _checked(job, settings, pipelines)
    changed = _of_day(job, day).with_parameters(dict(map(_parameter, changes)))
    parameters = _checked(changed, settings, pipelines, is_changed=True).parameters
    with ended_by_sigterm():
        sys.exit(_run(settings, job, parameters, pipelines, day))


_RELOAD = "A Dagster that is up has it once its code location is loaded again: Deployment, Reload."


def _settings_and_pipelines() -> tuple[Settings, Pipelines]:
    settings, _ = settings_and_lake(is_there=False)
    from dlassets.definitions import all_assets
    from dlassets.defs.jobs import pipelines_of

    return settings, pipelines_of(settings, all_assets(settings))


def _of_files(files: Sequence[Path]) -> list[Job]:
    from dlassets.pipeline.jobs import JobError, read_file

    if not files:
        raise click.UsageError("Name a file: --config FILE.")
    found = [job for file in files for job in read_file(file)]
    names = [job.name for job in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise JobError(
            f"The files have {', '.join(map(in_one_line, twice))} more than once: one pipeline has one name."
        )
    return found


def _checked(job: Job, settings: Settings, pipelines: Pipelines, *, is_changed: bool = False) -> Job:
    """Return a pipeline as it will be kept or run. Raises JobError for one of dlassets that is another in a file."""
    from dlassets.defs.jobs import checked
    from dlassets.pipeline.jobs import JobError

    made = checked(job, pipelines, settings)
    if not is_changed and made != pipelines.built_in.get(made.name, made):
        raise JobError(
            f"{made.name} is a pipeline of dlassets, and the file has it otherwise. Give it a name of its own; "
            "schedules of those of dlassets are the setting automation.scheduled, and parameters of one run `--set`."
        )
    return made


def _named(name: str, pipelines: Pipelines) -> Job:
    from dlassets.pipeline.jobs import JobError

    if name in pipelines.kept.broken:
        raise JobError(f"{name} cannot be: {pipelines.kept.broken[name]}")
    if name not in pipelines.all:
        raise JobError(f"There is no pipeline {name!r}. There are {', '.join(pipelines.all)}.")
    return pipelines.all[name]


def _chosen(name: str | None, found: Sequence[Job], pipelines: Pipelines) -> Job:
    """Return the one pipeline to run: that of the name, or the only one there is."""
    names = [job.name for job in found]
    if name is None and len(found) != 1:
        raise click.UsageError(f"Name the pipeline to run: {', '.join(names)}.")
    if name is not None and name not in names:
        return _named(name, pipelines)
    return found[0] if name is None else found[names.index(name)]


def _of_day(job: Job, day: str | None) -> Job:
    if day is None and job.partitions is None:
        return job
    try:
        chosen = dt.date.fromisoformat(day or "")
    except ValueError as error:
        raise click.UsageError(f"{job.name} runs for a day: say which, as --day 2026-11-20.") from error
    if job.partitions and not job.partitions.since <= chosen <= dt.datetime.now(dt.UTC).date():
        raise click.UsageError(f"{job.name} has the days from {job.partitions.since} to today, and {day} is none.")
    return job.on_day(chosen.isoformat())


def _parameter(given: str) -> tuple[str, str]:
    name, sign, value = given.partition("=")
    if not sign:
        raise click.UsageError(f"--set {given!r} is no PARAMETER=VALUE, such as training.epochs=5.")
    return name, value


def _run(settings: Settings, job: Job, parameters: Mapping[str, Any], pipelines: Pipelines, day: str | None) -> int:
    from dlassets.definitions import build_defs
    from dlassets.defs.jobs import run_config_of
    from dlassets.defs.schedules import going_on
    from dlassets.pipeline.jobs import JobError
    from dlassets.resources.dead_runs import end_dead_runs
    from dlassets.resources.display import Display, failure_of
    from dlassets.resources.instance import opened_instance

    display = Display(console())
    with opened_instance(Lake.at(settings.root)) as instance:
        end_dead_runs(instance)
        if run_id := going_on(instance, job.name):
            raise JobError(
                f"Run {run_id} of {job.name} is going on, and two would plan the same work: wait for its end."
            )
        defs = build_defs(settings, {"progress": display}, {_LOGGER: display.logger}, [job])
        config: Mapping[str, Any] = {
            **run_config_of(job.with_parameters(parameters), pipelines.steps),
            "loggers": {_LOGGER: {}},
        }
        with display.stage(1, 1, job.name):
            result = defs.resolve_job_def(job.name).execute_in_process(
                instance=instance, raise_on_error=False, run_config=config, partition_key=day
            )
        if result.success:
            return 0
        raise JobError(failure_of(result))


def _next(job: Job, instance: dg.DagsterInstance) -> str:
    from dlassets.defs.jobs import schedule_name
    from dlassets.defs.schedules import is_on, times

    if job.schedule is None:
        return ""
    if not is_on(instance, schedule_name(job), job.schedule):
        return "off"
    return f"{next(times(job.schedule, dt.datetime.now(dt.UTC))):%Y-%m-%d %H:%M %Z}"


def _last(name: str, instance: dg.DagsterInstance) -> str:
    import dagster as dg

    for record in instance.get_run_records(dg.RunsFilter(job_name=name), limit=1):
        return f"{record.dagster_run.status.value.lower()} {record.update_timestamp:%Y-%m-%d %H:%M} UTC"
    return "never"
