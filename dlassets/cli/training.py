"""`dlassets automl`: a search for the best model within a budget, and a script of what it found."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import click

from dlassets.cli.group import PathHere, console
from dlassets.errors import DlassetsError
from dlassets.extras import TUNING, require
from dlassets.pipeline.report import Report
from dlassets.settings import Settings, load_settings
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from dlassets.learning.backbones import BackboneRef
    from dlassets.tuning.automl import Line

_LINES_A_STAGE = 5


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), required=True, help="The budget.")
@click.option(
    "--images",
    type=PathHere(path_type=Path, exists=True, file_okay=False),
    help="Photos in class folders; without it, the labelled photos of the lake.",
)
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    metavar="NAME[=WEIGHTS]",
    help="To be tried as well: a name such as timm/resnet18, with a file or models:/name/version. May be repeated.",
)
@click.option(
    "--out",
    type=PathHere(path_type=Path, dir_okay=False),
    default=Path("best.py"),
    show_default=True,
    help="The script of the winner.",
)
@click.option("--yes", is_flag=True, help="Overwrite the script where it is there.")
def automl(minutes: float, images: Path | None, backbones: tuple[str, ...], out: Path, *, yes: bool) -> None:
    """Search backbone, head and augmentation within a budget, and leave an editable script of the best.

    Heads on embeddings come first, then blocks of the best backbone, trained on the photos, if there is time. Every
    candidate is logged to MLflow.
    """
    from dlassets.images.kinds import in_words
    from dlassets.pipeline.labelled_photos import photos_of_folder, photos_of_lake
    from dlassets.registry.store import MlflowStore
    from dlassets.samples.one_set import files_in
    from dlassets.tuning.automl import search

    require(TUNING, "dlassets automl")
    until = time.monotonic() + 60 * minutes
    _check_out(out, yes=yes)
    settings = load_settings()
    tracking = settings.mlflow.model_copy(update={"experiment": f"{settings.mlflow.experiment}-automl"})
    with _Board(console()) as board:
        # Before the store is opened: what cannot be searched should leave nothing.
        candidates = _backbones(settings, backbones)
        for sentence in in_words(map(str, files_in(images)), settings.ingest.formats) if images else ():
            board.info(sentence)
        photos = photos_of_lake(settings) if images is None else photos_of_folder(images, settings, board)
        mlflow = MlflowStore(settings.model_copy(update={"mlflow": tracking}))
        winner = search(photos, candidates, settings.training, until, mlflow.client, mlflow.experiment, board)
    _check_out(out, yes=yes)  # it may have come there since
    out.write_text(winner.script)
    low, high = winner.test.interval
    click.echo(
        f"The best of {winner.candidates} candidates: test accuracy {winner.test.accuracy:.4f} ({low:.4f} to "
        f"{high:.4f}) on {winner.test.rows} photos; validation loss {winner.value:.4f}, accuracy {winner.accuracy:.4f}."
    )
    click.echo(f"{out} trains it again. All candidates: MLflow's experiment {mlflow.experiment}, run {winner.run_id}.")


def _check_out(out: Path, *, yes: bool) -> None:
    if out.exists() and not yes:
        raise DlassetsError(f"{out} is there already, and may be edited: give another --out, or --yes to overwrite it.")
    if not out.resolve().parent.is_dir():
        raise DlassetsError(f"There is no folder {out.resolve().parent} to write {out.name} into.")


def _backbones(settings: Settings, given: Sequence[str]) -> list[BackboneRef]:
    """Return those with installed weights, the settings' own and the given ones, each once; raise what they lack."""
    import importlib.util

    from dlassets.learning.backbones import feature_version
    from dlassets.learning.weights import PACKAGE, PACKAGES
    from dlassets.registry.store import backbone_in_use

    lake = Lake.at(settings.root)
    installed = [name for name, package in PACKAGES.items() if importlib.util.find_spec(package.module)]
    named = [name.partition("=") for name in given]
    wanted = [(settings.features.backbone, settings.features.weights), *((name, PACKAGE) for name in installed)]
    wanted += [(name, weights or PACKAGE) for name, _, weights in named]
    found: dict[str, BackboneRef] = {}
    for name, weights in wanted:
        features = settings.features.model_copy(update={"backbone": name, "weights": weights})
        ref = backbone_in_use(settings.model_copy(update={"features": features}), lake)
        found.setdefault(feature_version(ref), ref)
    return list(found.values())


class _Board(Report):
    """The leaderboard: a table that is redrawn in a terminal, lines elsewhere."""

    def __init__(self, out: Console) -> None:
        from rich.live import Live

        self._out = out
        self._live = Live(console=out, auto_refresh=False) if out.is_terminal else None
        self._leader = float("inf")
        self._stage = ""

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, lines: Sequence[Line]) -> None:
        if self._live is not None:
            self._live.update(_table(lines), refresh=True)
        elif lines[0].loss < self._leader:
            self._leader = lines[0].loss
            self._out.print(f"leads: {_in_words(lines[0])}", highlight=False, soft_wrap=True)

    def info(self, message: str) -> None:
        self._out.print(message, highlight=False, soft_wrap=True)

    def count(self, what: str, done: int, total: int | None) -> None:
        """Show now and then how far it is: a few times a stage."""
        share = int(_LINES_A_STAGE * done / total) if total else done // 1000
        if (stage := f"{what} {share}") != self._stage:
            self._stage = stage
            self.info(f"  {done:,}{f' of {total:,}' if total else ''} {what}")


def _table(lines: Sequence[Line]) -> Table:
    from rich.table import Table

    table = Table("backbone", "trained", "tried", "validation loss", "accuracy", "best settings")
    for line in lines:
        table.add_row(*_cells(line))
    return table


def _cells(line: Line) -> tuple[str, ...]:
    searched = line.backbone.name, line.trainable, f"{line.tried} of {line.of}"
    if line.best is None:
        return *searched, "", "", ""
    chosen = ", ".join(f"{name} {_short(value)}" for name, value in line.best.params.items())
    return *searched, f"{line.loss:.4f}", f"{line.best.user_attrs['validation_accuracy']:.4f}", chosen


def _in_words(line: Line) -> str:
    backbone, trained, tried, loss, accuracy, chosen = _cells(line)
    return f"{backbone} ({trained}), {tried} tried: validation loss {loss}, accuracy {accuracy}, {chosen}"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
