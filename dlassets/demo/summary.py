"""What the demo ends with: what went in, how good the models are, and where everything stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table as Grid

from dlassets.learning.evaluation.evaluate import Evaluation


@dataclass(frozen=True)
class Summary:
    """Counts and evaluations of a finished demo. `before` and `after` are two models on the same test rows."""

    images: int
    quarantined: int
    before: tuple[int, Evaluation]
    after: tuple[int, Evaluation]
    requests_sent: int
    requests_answered: int
    table_versions: Mapping[str, int]
    model_versions: Sequence[int]
    champion: int
    elapsed: Mapping[str, float]
    verdict: str | None = None


def show(console: Console, summary: Summary, not_taken_in: Sequence[str] = ()) -> None:
    grid = Grid("what", "figure", title="Summary", title_justify="left")
    grid.add_row("images in", f"{summary.images:,}")
    grid.add_row("files quarantined", f"{summary.quarantined:,}")
    for sentence in not_taken_in:
        grid.add_row("not taken in", sentence)
    for when, (version, evaluation) in (("before", summary.before), ("after", summary.after)):
        low, high = evaluation.interval
        grid.add_row(
            f"accuracy {when} the answers",
            f"{evaluation.accuracy:.3f} ({low:.3f} to {high:.3f}), version {version}, {evaluation.rows} test rows",
        )
    if summary.verdict:
        grid.add_row(f"version {summary.after[0]}", summary.verdict)
    grid.add_row("label requests", f"{summary.requests_sent:,} sent, {summary.requests_answered:,} answered")
    versions = ", ".join(f"{v}{' (champion)' if v == summary.champion else ''}" for v in summary.model_versions)
    grid.add_row("registered versions", versions)
    grid.add_section()
    for name, version in summary.table_versions.items():
        grid.add_row(f"table {name}", f"Delta version {version}")
    grid.add_section()
    for stage, seconds in summary.elapsed.items():
        grid.add_row(stage, f"{seconds:.1f} s")
    grid.add_row("[bold]in all[/bold]", f"[bold]{sum(summary.elapsed.values()):.1f} s[/bold]")
    console.print(grid)
