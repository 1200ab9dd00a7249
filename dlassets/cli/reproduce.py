"""`dlassets reproduce`: train a model again from what its run wrote down, and compare."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from dlassets.cli.group import bars, console, settings_and_lake
from dlassets.errors import DlassetsError

if TYPE_CHECKING:
    from dlassets.pipeline.reproduce import Reproduction
    from dlassets.pipeline.session import Session
    from dlassets.registry.tracking import TrainingInputs

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
    from dlassets.pipeline.reproduce import compare_runs, find_original, inputs_of, train_again
    from dlassets.pipeline.session import Session

    settings, _ = settings_and_lake()
    session = Session(settings)
    original = find_original(session, model)
    inputs = inputs_of(session, original)
    version = inputs.job.training_set.version
    console().print(f"run {original.info.run_id} learned from version {version} of training_set")
    rebuilt = _rebuilt(session, inputs)
    with bars() as report:
        again = train_again(session, original, inputs, report)
    reproduction = compare_runs(session.mlflow.client, original, again, rebuilt)
    _show(reproduction, tolerance)
    sys.exit(1 if reproduction.differing(tolerance) else 0)


def _rebuilt(session: Session, inputs: TrainingInputs) -> bool | None:
    """Choose the training set's rows anew from the versions it was made of, and say what came of it."""
    from dlassets.pipeline.reproduce import is_rebuilt

    try:
        same = is_rebuilt(session, inputs.job.training_set)
    except DlassetsError as error:
        console().print(f"its rows cannot be chosen anew, so they are taken as they stand there: {error}")
        return None
    outcome = "are the ones it holds" if same else "are NOT the ones it holds: it is trained from those it holds"
    console().print(f"its rows, chosen anew from the versions of the tables it was made of, {outcome}")
    return same


def _show(reproduction: Reproduction, tolerance: float) -> None:
    from rich.table import Table

    differing = reproduction.differing(tolerance)
    out = console()
    shown = Table("figure", "then", "now", "difference", box=None, pad_edge=False, header_style="bold")
    for column in list(shown.columns)[1:]:
        column.justify = "right"
    ordered = [*differing, *(figure for figure in reproduction.figures if figure not in differing)]
    for figure in ordered[: max(_MOST_SHOWN, len(differing))]:
        difference = f"{figure.difference:.3g}" if figure.difference else "none"
        shown.add_row(figure.name, figure.before, figure.after, difference)
    out.print(shown)
    if rest := len(ordered) - shown.row_count:
        out.print(f"and {rest} more, the same within {tolerance:g}")
    for what, then, now in reproduction.changed:
        out.print(f"differs: {what}: {then} then, {now} now", highlight=False)
    if not reproduction.changed:
        out.print("code, packages and machine are as they were")
    verdict = f"reproduced: all {len(ordered)} figures, weights included, are the same within {tolerance:g}"
    if differing:
        verdict = f"{len(differing)} of {len(ordered)} figures differ by more than {tolerance:g}"
    out.print(f"{verdict} (run {reproduction.new_run_id})")
