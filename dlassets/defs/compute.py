"""Where each step runs: the assets of all steps, each by the compute class that the profile has for it.

A step whose class has a process of its own runs there as a whole, with what is reported of it: the run's process only
waits for it, and never starts a Spark session that would hold what the step's is to have.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg

from dlassets.defs.common import StepAsset
from dlassets.defs.ingest import assets as ingest
from dlassets.defs.labeling import assets as labeling
from dlassets.defs.operations.assets import CARE, MAINTENANCE
from dlassets.defs.scoring import assets as scoring
from dlassets.defs.training import assets as training
from dlassets.engines.spark_session import give_back_cores
from dlassets.errors import DlassetsError, PassingError, SettingsError
from dlassets.pipeline import steps
from dlassets.pipeline.own_process import Call, TimedOutError
from dlassets.pipeline.report import Report
from dlassets.resources.progress import LoggedProgress
from dlassets.resources.session import DagsterSession, for_another_process
from dlassets.settings import DEFAULT_CLASS, ComputeClass, Settings

STEP_ASSETS = {
    each.step.name: each
    for each in (*(each for module in (ingest, labeling, training, scoring) for each in vars(module).values()), *CARE)
    if isinstance(each, StepAsset)
}
STAGES = sorted({each.group for each in STEP_ASSETS.values()})
# What a run may set of each step that it makes.
FIELD, TAG = "compute", "dlassets/compute"
# dagster-k8s's name for what a run's pod is to have, and Kubernetes's for a GPU and for what keeps others off its node.
POD_TAG, _GPU = "dagster-k8s/config", "nvidia.com/gpu"
# What a run makes comes before checks that stop nothing: people wait for it.
_FIRST = {"dagster/priority": "1"}
# Where Linux shows the GPUs that a process may use.
_GPUS = ((Path("/dev"), "nvidia[0-9]*"), (Path("/dev"), "dxg"))


def check(settings: Settings) -> None:
    """Raise SettingsError for a stage or step that there is not, and for GPUs that this machine has not."""
    compute, known = settings.compute, {*STAGES, *STEP_ASSETS}
    if unknown := sorted(compute.stages.keys() - known):
        raise SettingsError(
            f"compute.stages names {', '.join(unknown)}, and there is no such stage or step. The stages are "
            f"{', '.join(STAGES)}; the steps are {', '.join(_steps_but_care())}, and {MAINTENANCE}__<table>."
        )
    for name, each in compute.all_classes.items():
        if each.gpu and settings.of_class(name).spark.is_local and not _has_gpu():
            raise SettingsError(
                f"compute.classes.{name}.gpu is true, and this machine has no GPU to show ({_places_of_gpus()}). Run "
                "where there is one, install its driver, name a Spark cluster that has some (spark.executor_gpus), or "
                "leave gpu out: then a GPU is used where there is one."
            )
        if (
            each.gpu is False
            and settings.training.compute.device == "cuda"
            and _class_of(settings, "trained_model") == name
        ):
            raise SettingsError(
                f"training.compute.device is cuda, and trained_model is of the class {name}, which hides GPUs (gpu: "
                "false). Change one of them."
            )


def _steps_but_care() -> list[str]:
    return sorted(name for name, each in STEP_ASSETS.items() if each.group != MAINTENANCE)


def assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """Return the assets of all steps as these settings have them run."""
    kinds = _Classes(settings)
    return [asset(each, kinds) for each in STEP_ASSETS.values()]


def asset_of(step_asset: StepAsset, settings: Settings) -> dg.AssetsDefinition:
    """Return the assets of one step as these settings have it run."""
    return asset(step_asset, _Classes(settings))


class _Classes:
    """The compute classes, and Dagster's type of their names, of which there may be but one."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.by_name = settings.compute.all_classes

    @cached_property
    def _type(self) -> dg.Enum:
        return dg.Enum(
            "ComputeClass", [dg.EnumValue(name, description=str(each)) for name, each in self.by_name.items()]
        )

    def field(self, default: str) -> dict[str, dg.Field]:
        """Return the field of a step's run config in which a run may name another class; none where there is none."""
        if len(self.by_name) == 1:
            return {}
        said = "; ".join(f"{name}: {each}" for name, each in self.by_name.items())
        described = f"The compute class that the step runs by in this run; the pool stays that of {default}. {said}."
        return {FIELD: dg.Field(self._type, default_value=default, is_required=False, description=described)}


def asset(step_asset: StepAsset, classes: _Classes) -> dg.AssetsDefinition:
    default = _class_of(classes.settings, step_asset.step.name)

    @step_asset.decorator(
        config_schema={**step_asset.config, **classes.field(default)} or None,
        op_tags={**_FIRST, TAG: default},
        pool=classes.by_name[default].pool,
    )
    def made(
        context: dg.AssetExecutionContext,
        session: dg.ResourceParam[DagsterSession],
        progress: dg.ResourceParam[LoggedProgress],
    ) -> Iterator[dg.MaterializeResult]:
        fields = dict(context.op_execution_context.op_config or {})
        name = fields.pop(FIELD, default)
        with _tried_again(context, classes.by_name[name]):
            results = _run(context, step_asset, session, progress.of(context), name, fields)
        for result in results:
            if result.asset_key is None or result.asset_key in context.selected_asset_keys:
                yield result

    return made


def _run(
    context: dg.AssetExecutionContext,
    step_asset: StepAsset,
    session: DagsterSession,
    report: Report,
    name: str,
    fields: dict[str, Any],
) -> list[dg.MaterializeResult]:
    """Run a step where its class says."""
    step = step_asset.instead(context) or step_asset.step
    compute = session.settings.compute.all_classes[name]
    if compute.place == "run":
        return [*step_asset.results(session.changed(**fields) if fields else session, step, report)]
    context.log.info(f"{step.name} runs {compute} (compute class {name}).")
    settings = session.settings.of_class(name)
    given = for_another_process(session, settings=settings, **fields)
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if compute.gpu is False else {}
    call = Call(run_elsewhere, (step_asset.step.name, step.name, given), hidden, secret=settings.model_dump())
    minutes = compute.timeout_minutes
    try:
        done: list[dg.MaterializeResult] = call.run(report, None if minutes is None else minutes * 60)
    except TimedOutError:
        raise DlassetsError(
            f"{step.name} took longer than the {minutes:g} minutes of its compute class {name}, and was ended. What it "
            "had committed stands, and a run goes on from there: give it longer "
            f"(compute.classes.{name}.timeout_minutes), or run it in a class with more to work with."
        ) from None
    return done


def run_elsewhere(
    asset_name: str, step_name: str, session: DagsterSession, report: Report
) -> list[dg.MaterializeResult]:
    """Run a step in this process, which is its own, and return what is reported of it."""
    session.tell_of_spark = report.warning
    asset_ = STEP_ASSETS[asset_name]
    step = asset_.step if step_name == asset_name else getattr(steps, step_name)
    results = [*asset_.results(session, step, report)]
    give_back_cores()
    return results


@contextmanager
def _tried_again(context: dg.AssetExecutionContext, compute: ComputeClass) -> Iterator[None]:
    """Have Dagster try a step again, later and later, for what may have passed by then.

    What somebody has to put right is raised as it is.
    """
    try:
        yield
    except Exception as error:
        tried = context.retry_number
        if tried >= compute.retries or (isinstance(error, DlassetsError) and not isinstance(error, PassingError)):
            raise
        seconds = compute.retry_seconds * 2**tried
        context.log.warning(f"It is tried again in {seconds:g} s ({tried + 1} of {compute.retries} times): {error}")
        raise dg.RetryRequested(compute.retries, seconds) from error


def _class_of(settings: Settings, step: str) -> str:
    stages = settings.compute.stages
    return stages.get(step, stages.get(STEP_ASSETS[step].group, DEFAULT_CLASS))


def pod_of(settings: Settings, steps: Iterable[str]) -> dict[str, Any]:
    """Return the tag by which Dagster's launcher for Kubernetes sizes the pod of a run of these steps.

    One pod runs all of them, so it has the most that a class of any of them asks for. Empty where no class says so.
    """
    names = {_class_of(settings, step) for step in steps if step in STEP_ASSETS}
    pods = [pod for name in sorted(names) if (pod := settings.compute.all_classes[name].pod) is not None]
    if not pods:
        return {}
    memory = max((pod.memory for pod in pods), key=_mebibytes)
    requests = {"cpu": f"{max(pod.cores for pod in pods):g}", "memory": memory}
    limits, spec = {"memory": memory}, {}
    if gpus := max(pod.gpus for pod in pods):
        limits[_GPU] = str(gpus)
        spec = {"tolerations": [{"key": _GPU, "operator": "Exists", "effect": "NoSchedule"}]}
    container = {"resources": {"requests": requests, "limits": limits}}
    return {POD_TAG: {"container_config": container, **({"pod_spec_config": spec} if spec else {})}}


def _mebibytes(memory: str) -> int:
    return int(memory[:-2]) << 10 * "MGT".index(memory[-2])


def _has_gpu() -> bool:
    return any(any(folder.glob(name)) for folder, name in _GPUS)


def _places_of_gpus() -> str:
    return ", ".join(str(folder / name) for folder, name in _GPUS)
