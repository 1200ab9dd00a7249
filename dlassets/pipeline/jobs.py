"""Pipelines as data: what a pipeline is in a file, and those that a lake keeps of its own, under `<root>/jobs`."""

from __future__ import annotations

import datetime as dt
import difflib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dlassets.errors import DlassetsError
from dlassets.masking import is_secret, masked
from dlassets.settings import Schedule, Settings, changed_settings
from dlassets.storage.files import files_under, is_there, read_whole, remove_file, write_where_changed
from dlassets.storage.lake import Lake, is_local, local_path

VERSION = 1
# What may be told of a pipeline's runs; all other alerts are of no run, and the lake's.
RunAlert = Literal["run_failed", "check_failed"]
RUN_ALERTS: tuple[RunAlert, ...] = get_args(RunAlert)
# Settings that a pipeline may have otherwise than its lake. Where things lie, who may read and promote them, and what
# all pipelines must have in common is not for one of them to say.
OF_A_RUN = ("ingest", "training", "tuning", "scoring", "labeling", "maintenance")
DAY = "{day}"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}", re.ASCII)
_YAML = (".yaml", ".yml")


class JobError(DlassetsError):
    """A pipeline cannot be as a file says, or there is none of a name."""


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class Task(_Data):
    """One step of a pipeline. What else is said of it is how it is: it follows from the step."""

    name: str
    needs: tuple[str, ...] | None = Field(None, description="Tasks of the pipeline that make what it reads.")
    compute: str | None = Field(None, description="The compute class that it runs on.")


class Partitions(_Data):
    """A pipeline that runs for a day: `{day}` in `parameters` is the day that a run is for."""

    by: Literal["day"] = "day"
    since: dt.date
    parameters: dict[str, str]


class Job(_Data):
    """A pipeline: which steps it takes, with which parameters, when by itself, and what is told of its runs."""

    name: str
    description: str = ""
    tasks: tuple[Task, ...] = Field(min_length=1)
    parameters: dict[str, Any] = Field(default_factory=dict)
    partitions: Partitions | None = None
    schedule: Schedule | None = None
    alerts: tuple[RunAlert, ...] = RUN_ALERTS

    @property
    def all_parameters(self) -> dict[str, Any]:
        return self.parameters | (self.partitions.parameters if self.partitions else {})

    def with_parameters(self, parameters: Mapping[str, Any]) -> Job:
        """Return it with other parameters, or more."""
        return self.model_copy(update={"parameters": self.parameters | dict(parameters)})

    def on_day(self, day: str) -> Job:
        """Return it for one of its days, of which each run is one. Raises JobError where it has none."""
        if self.partitions is None:
            raise JobError(f"{self.name} is no pipeline of days: leave the day out.")
        texts = {name: text.replace(DAY, day) for name, text in self.partitions.parameters.items()}
        return self.with_parameters(texts).model_copy(update={"partitions": None})


class JobFile(_Data):
    """The one schema of all files of pipelines."""

    version: Literal[1]
    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class KnownStep:
    """A step that a pipeline may take: the assets it makes and those it reads, and what a run may say to it."""

    name: str
    makes: Collection[str]
    reads: Collection[str]
    parameters: Collection[str] = ()
    compute: str | None = None


KnownSteps = Mapping[str, KnownStep]


def described(job: Job, steps: KnownSteps) -> Job:
    """Return a pipeline with all that is to be said of it, in a stable order: tasks after those that they need.

    Raises JobError for what cannot be: an unknown step or parameter, one that holds a secret, needs that go round in a
    circle or that no step has.
    """
    refuse_no_name(job.name)
    if job.name in steps:
        raise JobError(f"{job.name} is the name of a step, and pipelines take other names.")
    if job.partitions and job.schedule:
        raise JobError(
            f"{job.name} runs for a day, which a schedule does not know: leave `schedule` or `partitions` out."
        )
    names = [task.name for task in job.tasks]
    for name in names:
        if name not in steps:
            raise JobError(f"{job.name}: there is no step {name!r}.{_near(name, steps)}")
        if names.count(name) > 1:
            raise JobError(f"{job.name} has the task {name} twice.")
    stated = {task.name: task.needs for task in job.tasks if task.needs is not None}
    _in_order(job.name, stated)
    needs = {name: _needs(name, names, steps) for name in names}
    for task in job.tasks:
        _refuse_otherwise(job.name, task, needs[task.name], steps[task.name])
    _refuse_secrets(job)
    for name in job.all_parameters:
        _refuse_unknown(job, name, steps)
    tasks = (Task(name=name, needs=needs[name], compute=steps[name].compute) for name in _in_order(job.name, needs))
    parameters = dict(sorted(job.parameters.items()))
    alerts = tuple(kind for kind in RUN_ALERTS if kind in job.alerts)
    return job.model_copy(update={"tasks": tuple(tasks), "parameters": parameters, "alerts": alerts})


def refuse_no_name(name: str) -> str:
    """Return the name of a pipeline. Raises JobError for one that could be anything else, such as a path."""
    if _NAME.fullmatch(name) is None:
        raise JobError(f"{name!r} is no name of a pipeline: use up to 100 small letters, digits and _, a letter first.")
    return name


def settings_of_run(settings: Settings, parameters: Mapping[str, Any]) -> Settings:
    """Return the settings that a run has by these of its pipeline's parameters. Raises SettingsError, JobError."""
    for name in parameters:
        if name.partition(".")[0] not in OF_A_RUN:
            raise JobError(f"{name} is no setting of a run: these are of {', '.join(OF_A_RUN)}.")
    return changed_settings(settings, parameters) if parameters else settings


def of_steps(job: Job, steps: KnownSteps) -> dict[str, dict[str, Any]]:
    """Return what a pipeline's parameters say to its steps, by their names."""
    said: dict[str, dict[str, Any]] = {}
    for name, value in job.parameters.items():
        step, _, parameter = name.partition(".")
        if step in steps:
            said.setdefault(step, {})[parameter] = value
    return said


def of_settings(job: Job) -> dict[str, Any]:
    """Return the settings that a pipeline's parameters change, by their dotted names."""
    return {name: value for name, value in job.parameters.items() if name.partition(".")[0] in OF_A_RUN}


def _needs(name: str, names: Sequence[str], steps: KnownSteps) -> tuple[str, ...]:
    reads = {*steps[name].reads}
    return tuple(sorted(other for other in names if other != name and reads & {*steps[other].makes}))


def _in_order(job: str, needs: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Return the tasks, each after those it needs, and by name where that leaves open which."""
    sorter = TopologicalSorter(needs)
    try:
        sorter.prepare()
    except CycleError as error:
        raise JobError(f"{job}: what its tasks need goes round in a circle: {' → '.join(error.args[1])}.") from error
    return iter([name for batch in _batches(sorter) for name in batch])


def _batches(sorter: TopologicalSorter[str]) -> Iterator[list[str]]:
    while sorter.is_active():
        yield (batch := sorted(sorter.get_ready()))
        sorter.done(*batch)


def _refuse_otherwise(job: str, task: Task, needs: Collection[str], step: KnownStep) -> None:
    """Raise JobError where a file says of a task what is not so: nothing would come of it."""
    if task.needs is not None and {*task.needs} != {*needs}:
        raise JobError(
            f"{job}: {task.name} needs {', '.join(needs) or 'nothing'} of this pipeline, and the file says "
            f"{', '.join(task.needs) or 'nothing'}. It follows from what the step reads: leave `needs` out."
        )
    if task.compute is not None and task.compute != step.compute:
        raise JobError(
            f"{job}: {task.name} runs on {step.compute or 'no compute class'}, and the file says {task.compute}. It "
            "follows from the step: leave `compute` out."
        )


def _refuse_secrets(job: Job) -> None:
    for name, value in job.all_parameters.items():
        if any(is_secret(leaf, text) or masked(text) != text for leaf, text in _texts(name, value)):
            raise JobError(
                f"{job.name}: the parameter {name} holds a secret, and everybody who sees a run sees its parameters. "
                "Leave it out, and set it in the environment of what runs pipelines."
            )
    if masked(job.description) != job.description:
        raise JobError(f"{job.name}: its description holds a secret, and everybody can read that. Leave it out.")


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield every text of a parameter, with the name that it has: of itself, or in a mapping."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _texts(str(key), each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _texts(name, each)
    else:
        yield name, str(value)


def _refuse_unknown(job: Job, name: str, steps: KnownSteps) -> None:
    step, _, parameter = name.partition(".")
    if step in OF_A_RUN and parameter:
        return  # the settings know their own
    if step in steps and parameter in steps[step].parameters:
        if step not in {task.name for task in job.tasks}:
            raise JobError(f"{job.name}: the parameter {name} is of the step {step}, which is none of its tasks.")
        return
    known = sorted(f"{each.name}.{parameter}" for each in steps.values() for parameter in each.parameters)
    raise JobError(
        f"{job.name}: there is no parameter {name!r}.{_near(name, known)} Parameters are {', '.join(known)}, and "
        f"settings of {', '.join(OF_A_RUN)}, such as training.epochs."
    )


def _near(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    # One cares for each table: all of them would hide the others.
    there_are = ", ".join(sorted(each for each in known if not each.startswith("maintenance_")))
    return f" Did you mean {near[0]}?" if near else f" There are {there_are}."


# ---- files


def as_text(jobs: Sequence[Job], suffix: str = ".json") -> str:
    """Return a file of pipelines: YAML for its suffixes, else JSON."""
    tree = JobFile(version=VERSION, jobs=tuple(jobs)).model_dump(mode="json", exclude_none=True)
    if suffix in _YAML:
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120)
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"


def read_text(text: str, place: str) -> tuple[Job, ...]:
    """Return the pipelines of a file's text, which is JSON or YAML. Raises JobError, naming all that cannot be."""
    try:
        tree = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise JobError(f"{place} is neither JSON nor YAML: {error}") from error
    try:
        return JobFile.model_validate(tree).jobs
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors()]
        raise JobError(f"{place} cannot be read as pipelines:\n" + "\n".join(lines)) from error


def read_file(path: Path) -> tuple[Job, ...]:
    """Return the pipelines of a file of this machine. Raises JobError, naming all that cannot be."""
    try:
        return read_text(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{path} cannot be read: {error}") from error


# ---- the lake's own


@dataclass(frozen=True)
class Kept:
    """The lake's own pipelines, and of those that cannot be, why; both by name."""

    jobs: Mapping[str, Job]
    broken: Mapping[str, str]


def kept_jobs(lake: Lake, steps: KnownSteps, taken: Collection[str], settings: Settings) -> Kept:
    """Return the lake's own pipelines; `taken` are names that are others'. A file that is none breaks itself alone."""
    jobs: dict[str, Job] = {}
    broken: dict[str, str] = {}
    try:
        names = _kept_names(lake)
    except (OSError, DlassetsError) as error:
        return Kept({}, {lake.jobs: masked(str(error))})
    for name in names:
        try:
            if refuse_no_name(name) in taken:
                raise JobError(f"{name} is a pipeline of dlassets: delete {lake.job(name)}.")
            (job,) = read_text(read_whole(lake.job(name)).decode(), lake.job(name))
            if job.name != name:
                raise JobError(f"{lake.job(name)} is of the pipeline {job.name}: each has a file of its name.")
            jobs[name] = described(job, steps)
            settings_of_run(settings, of_settings(job))
        except (OSError, ValueError, DlassetsError) as error:
            jobs.pop(name, None)
            broken[name] = masked(str(error))
    return Kept(jobs, broken)


def keep_job(lake: Lake, job: Job) -> bool:
    """Keep a pipeline as one of the lake's own; return whether that changed anything.

    What follows from its steps is left out: the next release of dlassets may have them otherwise.
    """
    own = job.model_copy(update={"tasks": tuple(Task(name=task.name) for task in job.tasks)})
    return write_where_changed(lake.job(job.name), as_text([own]).encode())


def delete_job(lake: Lake, name: str) -> None:
    """Delete one of the lake's own pipelines, broken or not. Raises JobError where there is none of this name."""
    if not is_there(lake.job(refuse_no_name(name))):
        own = ", ".join(_kept_names(lake)) or "none"
        raise JobError(f"This lake has no pipeline {name} of its own. Its own are: {own}.")
    remove_file(lake.job(name))


def _kept_names(lake: Lake) -> list[str]:
    # Arrow is not imported for the folder that most lakes do not have.
    if is_local(lake.jobs):
        files = [path.name for path in local_path(lake.jobs).glob("*.json") if not path.name.startswith(".")]
    else:
        files = [name for name in files_under(lake.jobs) if name.endswith(".json") and "/" not in name]
    return sorted(name.removesuffix(".json") for name in files)
