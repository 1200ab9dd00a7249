"""`dlassets reproduce`: train a model again from what its run wrote down, and compare."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from dlassets.cli.group import bars, console

if TYPE_CHECKING:
    from mlflow.entities import Run

    from dlassets.engines.base import Snapshot
    from dlassets.learning.training.job import Event
    from dlassets.pipeline.reproduce import Reproduction
    from dlassets.registry.tracking import TrainingInputs
    from dlassets.resources.lake import LakeResource
    from dlassets.resources.mlflow import MlflowResource

_MOST_SHOWN = 12


@click.command()
@click.argument("model", metavar="RUN|VERSION|champion")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=1e-6,
    show_default=True,
    help="What a figure or a weight may differ by.",
)
def reproduce(model: str, tolerance: float) -> None:
    """Train a model again from the data, settings and seed that its run wrote down, and compare.

    MODEL is a run of MLflow, a version of the registered model, or champion. The tables are read as they were (Delta's
    time travel). What is trained is a run of its own, and is never registered. Exit code 0: every metric and weight is
    the same within the tolerance; 1: some differ, and are listed, with what differs of code, packages and machine.
    """
    from dlassets.pipeline.reproduce import compare_runs, find_original, inputs_of
    from dlassets.resources.lake import LakeResource
    from dlassets.resources.mlflow import MlflowResource
    from dlassets.settings import load_settings

    settings = load_settings()
    lake, mlflow = LakeResource(settings), MlflowResource(settings)
    original = find_original(mlflow.client, settings.registry.model_name, model)
    inputs = inputs_of(mlflow.client, original, lake.lake, settings)
    out = console()
    out.print(f"run {original.info.run_id} learned from version {inputs.job.training_set.version} of training_set")
    rebuilt = _rebuilt(lake, inputs)
    again = _train(lake, mlflow, original, inputs)
    found = compare_runs(mlflow.client, original, again, rebuilt)
    _show(found, tolerance)
    sys.exit(1 if found.differing(tolerance) else 0)


def _rebuilt(lake: LakeResource, inputs: TrainingInputs) -> bool | None:
    """Choose the training set's rows anew from the versions it was made of, and say what came of it."""
    from dlassets.errors import DlassetsError
    from dlassets.pipeline.reproduce import is_rebuilt

    hours = lake.settings.maintenance.retention_hours
    try:
        same = is_rebuilt(lake.engine, lake.lake, inputs.job.training_set, hours)
    except DlassetsError as error:
        console().print(f"its rows cannot be chosen anew, so they are taken as they stand there: {error}")
        return None
    said = "are the ones it holds" if same else "are NOT the ones it holds: it is trained from those it holds"
    console().print(f"its rows, chosen anew from the versions of the tables it was made of, {said}")
    return same


def _train(lake: LakeResource, mlflow: MlflowResource, original: Run, inputs: TrainingInputs) -> Run:
    """Train in a run of its own."""
    import mlflow as tracking

    from dlassets.lakehouse.training_set import attributes_of
    from dlassets.learning.features import Photos
    from dlassets.pipeline.reproduce import TAG_REPRODUCES
    from dlassets.registry.lifecycle import TAG_INPUTS
    from dlassets.registry.tracking import train_and_log
    from dlassets.resources.trainer import Trainer

    raw, labeled, profiles = (_then(lake, inputs, name) for name in ("raw_images", "labeled_images", "image_profiles"))
    photos = Photos(lake.engine, lake.lake, raw, lake.settings.features.runtime)
    attributes = attributes_of(lake.engine, inputs.job.training_set, profiles, labeled)
    # Not found as a run of these inputs: trained_model goes on from the original.
    tags = {TAG_REPRODUCES: original.info.run_id, TAG_INPUTS: f"reproduces {original.info.run_id}"}
    with (
        bars() as bar,
        tracking.start_run(experiment_id=original.info.experiment_id, run_name=f"reproduces {original.info.run_name}"),
    ):

        def report(event: Event) -> None:
            bar(f"{event.kind}s", event.number, event.of)

        trainer = Trainer()
        train_and_log(
            tracking,
            inputs,
            lambda job, live, splits: trainer.train(job, lake.engine, live, splits),
            photos,
            attributes,
            tags,
            report,
        )
        run_id = tracking.active_run().info.run_id
    return mlflow.client.get_run(run_id)


def _then(lake: LakeResource, inputs: TrainingInputs, name: str) -> Snapshot:
    """Return the table as the training set saw it, where that can still be had; else as it is now."""
    from dlassets.errors import DlassetsError
    from dlassets.lakehouse.history import whole_version

    (now,) = lake.pin(name)
    if name not in inputs.lineage:
        return now
    try:
        return whole_version(now, max(inputs.lineage[name]), lake.settings.maintenance.retention_hours)
    except DlassetsError:  # it serves pictures and slices alone, and what is learned is read elsewhere
        return now


def _show(found: Reproduction, tolerance: float) -> None:
    from rich.table import Table

    differing = found.differing(tolerance)
    out = console()
    shown = Table("figure", "then", "now", "difference", box=None, pad_edge=False, header_style="bold")
    for column in list(shown.columns)[1:]:
        column.justify = "right"
    ordered = [*differing, *(figure for figure in found.figures if figure not in differing)]
    for figure in ordered[: max(_MOST_SHOWN, len(differing))]:
        difference = f"{figure.difference:.3g}" if figure.difference else "none"
        shown.add_row(figure.name, figure.before, figure.after, difference)
    out.print(shown)
    if rest := len(ordered) - shown.row_count:
        out.print(f"and {rest} more, the same within {tolerance:g}")
    for what, then, now in found.changed:
        out.print(f"differs: {what}: {then} then, {now} now", highlight=False)
    if not found.changed:
        out.print("code, packages and machine are as they were")
    verdict = (
        f"{len(differing)} of {len(found.figures)} figures differ by more than {tolerance:g}"
        if differing
        else f"reproduced: all {len(found.figures)} figures, weights included, are the same within {tolerance:g}"
    )
    out.print(f"{verdict} (run {found.new_run_id})")
