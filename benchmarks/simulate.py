"""`make simulate`: what answers buy, by the strategy that chooses what people are asked about.

A labelled photo set is played again: few photos have a label, the model that learns from them says what it thinks of
the others, a strategy chooses, the folder's label is the answer, and another model learns. The strategies are those
that `label_requests` chooses by, the models are trained and calibrated as `trained_model` does, and each is judged by
photos that nobody is asked about. A seed draws anew which photos these are, and which have a label at first.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click
import numpy as np
from rich.console import Console
from rich.table import Table as Grid

from benchmarks.accuracy import redrawn_hashes, rows_of, sides_of
from benchmarks.machine import Machine
from benchmarks.report import Report
from dlassets.demo.photos import photos_in
from dlassets.labeling.selection.strategies import STRATEGIES, Candidates, random
from dlassets.lakehouse.tables import TEST, TRAIN, VALIDATION
from dlassets.learning.backbones import backbone_of
from dlassets.learning.calibration import calibrated
from dlassets.learning.embedding import load_backbone
from dlassets.learning.evaluation.pictures import as_png, new_figure
from dlassets.learning.examples import Examples
from dlassets.learning.head import Head
from dlassets.learning.training.head_training import train_head
from dlassets.samples.generated import generate
from dlassets.settings import LabelingSettings, ScoringSettings, Settings, SplitSettings, StrategyName

if TYPE_CHECKING:
    from numpy.typing import NDArray

# `threshold` is `least_confidence` under its other name.
NAMES = tuple(name for name in STRATEGIES if name != "threshold")
BASELINE = "random"
DEFAULT = LabelingSettings().strategy
# More to be judged by than the usual 15 %, and as many to learn from for each that ends a training as usual.
SPLIT = SplitSettings(train=0.58, validation=0.12)


@dataclass(frozen=True)
class Plan:
    """How many photos have a label at first, how many are asked about at a time, and how often."""

    labelled: int = 40
    asked: int = 50
    rounds: int = 5

    @property
    def answers(self) -> list[int]:
        return [self.asked * turn for turn in range(self.rounds + 1)]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, and its 95% interval by Student's t."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Interval:
        from scipy.stats import t

        mean = float(values.mean())
        half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
        return cls(mean, mean - half, mean + half)

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


@dataclass(frozen=True)
class Curve:
    """Accuracy by number of answers. `per_100` is what 100 answers added, over all that were asked for.

    `minus_random` is the mean of the curve minus that of random asking, paired over seeds; `of_random` is how many
    answers random asking takes for the last accuracy of the curve, None where it does not get there.
    """

    strategy: str
    accuracy: list[Interval]
    per_100: Interval
    minus_random: Interval
    of_random: float | None

    @property
    def verdict(self) -> str:
        if self.strategy == BASELINE:
            return ""
        if self.minus_random.low > 0:
            return "better"
        return "worse" if self.minus_random.high < 0 else "no different"


@dataclass(frozen=True)
class Simulation:
    photos: int
    judged: int
    seeds: int
    plan: Plan
    curves: list[Curve]

    def tables(self) -> list[Grid]:
        grid = Grid(
            "strategy",
            *(f"{answers} answers" for answers in self.plan.answers),
            "per 100 answers",
            "minus random, paired",
            "than random",
            "random needs",
            title=f"Accuracy on {self.judged} photos that nobody is asked about, of {self.photos:,}: mean of "
            f"{self.seeds} seeds, {self.plan.labelled} photos labelled at first; intervals at 95%",
            title_justify="left",
        )
        for curve in sorted(self.curves, key=lambda curve: -curve.minus_random.mean):
            needs = "more" if curve.of_random is None else f"{curve.of_random:.0f}"
            grid.add_row(
                curve.strategy + (" (default)" if curve.strategy == DEFAULT else ""),
                *(f"{accuracy.mean:.3f}" for accuracy in curve.accuracy),
                str(curve.per_100),
                *(("", "", "") if curve.strategy == BASELINE else (str(curve.minus_random), curve.verdict, needs)),
            )
        return [grid]

    def picture(self) -> bytes:
        """Return a PNG of the curves, with the intervals of the default and of random asking."""
        figure = new_figure(8, 5)
        axes = figure.subplots()
        answers = self.plan.answers
        for curve in sorted(self.curves, key=lambda curve: -curve.minus_random.mean):
            shown = curve.strategy in {DEFAULT, BASELINE}
            (line,) = axes.plot(
                answers,
                [accuracy.mean for accuracy in curve.accuracy],
                label=curve.strategy + (" (default)" if curve.strategy == DEFAULT else ""),
                linewidth=2.5 if shown else 1,
                linestyle="-" if shown else "--",
                color="black" if curve.strategy == BASELINE else None,
            )
            if shown:
                low, high = ([getattr(a, side) for a in curve.accuracy] for side in ("low", "high"))
                axes.fill_between(answers, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
        axes.set_xlabel("answers")
        axes.set_ylabel(f"accuracy on {self.judged} other photos")
        axes.set_title(f"{self.photos:,} photos, mean of {self.seeds} seeds, 95% intervals", fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
        return as_png(figure)


def simulate(
    photos: Examples, names: Sequence[str], seeds: int, plan: Plan, settings: Settings, processes: int = 1
) -> Simulation:
    """Play the photos again, for each strategy and for random asking, with as many seeds (two at least)."""
    chosen = [BASELINE, *(name for name in names if name != BASELINE)]
    of_seed = functools.partial(_of_seed, photos, chosen, plan, settings)
    if processes > 1:
        with ProcessPoolExecutor(processes) as pool:
            played = [*pool.map(of_seed, range(seeds))]
    else:
        played = [of_seed(seed) for seed in range(seeds)]
    accuracies = np.array([accuracy for accuracy, _ in played])
    curves = [_curve(name, accuracies[:, place], accuracies[:, 0], plan.answers) for place, name in enumerate(chosen)]
    return Simulation(len(photos), round(float(np.mean([judged for _, judged in played]))), seeds, plan, curves)


def _curve(name: str, accuracy: NDArray[np.float64], of_random: NDArray[np.float64], answers: Sequence[int]) -> Curve:
    """Return the curve of (seeds, rounds) accuracies."""
    gained = (accuracy[:, -1] - accuracy[:, 0]) * 100 / answers[-1]
    reached, random_mean = accuracy[:, -1].mean(), np.maximum.accumulate(of_random.mean(axis=0))
    needed = float(np.interp(reached, random_mean, answers)) if reached <= random_mean[-1] else None
    difference = (accuracy - of_random)[:, 1:].mean(axis=1)
    return Curve(name, [Interval.of(a) for a in accuracy.T], Interval.of(gained), Interval.of(difference), needed)


def _of_seed(
    photos: Examples, names: Sequence[str], plan: Plan, settings: Settings, seed: int
) -> tuple[list[list[float]], int]:
    """Return the accuracies of each strategy by round, and how many photos judged them."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1):
        drawn = _drawn(photos, seed)
        sides = sides_of(drawn.image_ids, settings)
        begun = _begun(drawn, sides, plan, settings)
        return [_play(drawn, sides, begun, name, plan, settings) for name in names], int((sides == TEST).sum())


def _drawn(photos: Examples, seed: int) -> Examples:
    """Return the photos under other image_ids, and in their order: by these, sides and samples are drawn anew."""
    image_ids = redrawn_hashes(photos.image_ids, seed)
    order = sorted(range(len(photos)), key=image_ids.__getitem__)
    return Examples(
        paths=[photos.paths[place] for place in order],
        image_ids=[image_ids[place] for place in order],
        labels=photos.labels[order],
        names=[photos.names[place] for place in order],
        features=photos.features[order],
    )


def _begun(photos: Examples, sides: NDArray[np.str_], plan: Plan, settings: Settings) -> tuple[NDArray[np.bool_], Head]:
    """Return which photos have a label at first, and the model that learned from them."""
    others = np.flatnonzero(sides != TEST)
    is_labelled = np.zeros(len(photos), np.bool_)
    is_labelled[others[random(_candidates(photos, others), plan.labelled)]] = True
    return is_labelled, _trained(photos, sides, is_labelled, settings)


def _play(
    photos: Examples,
    sides: NDArray[np.str_],
    begun: tuple[NDArray[np.bool_], Head],
    name: str,
    plan: Plan,
    settings: Settings,
) -> list[float]:
    """Return the accuracy before the first answers, and after each round of them."""
    is_labelled, head = begun[0].copy(), begun[1]
    test, others = photos.taken(sides == TEST), np.flatnonzero(sides != TEST)
    accuracies = [_accuracy(head, test)]
    for _ in range(plan.rounds):
        known, unlabelled = (others[is_labelled[others] == said] for said in (True, False))
        is_labelled[_asked(photos, unlabelled, known, head, name, plan.asked, settings)] = True
        head = _trained(photos, sides, is_labelled, settings)
        accuracies.append(_accuracy(head, test))
    return accuracies


def _accuracy(head: Head, test: Examples) -> float:
    return float((head.predict(test.features) == test.labels).mean())


def _trained(photos: Examples, sides: NDArray[np.str_], is_labelled: NDArray[np.bool_], settings: Settings) -> Head:
    train, validation = (photos.taken(is_labelled & (sides == side)) for side in (TRAIN, VALIDATION))
    return calibrated(train_head(train, validation, settings.training).head, validation)


def _asked(
    photos: Examples,
    places: NDArray[np.intp],
    known: NDArray[np.intp],
    head: Head,
    name: str,
    number: int,
    settings: Settings,
) -> NDArray[np.intp]:
    """Return which are asked about: by random asking any of all, else of those below the threshold, as in the lake.

    Where these are fewer, any others as well, so that every strategy has as many answers.
    """
    if name == BASELINE:
        return places[random(_candidates(photos, places), number)]
    probabilities = head.probabilities(photos.features[places])
    is_unsure = probabilities.max(axis=1) < settings.labeling.threshold
    unsure, sure = places[is_unsure], places[~is_unsure]
    candidates = _candidates(photos, unsure, probabilities[is_unsure])
    candidates = replace(candidates, known=lambda: [photos.features[known]])
    chosen = STRATEGIES[cast("StrategyName", name)](candidates, number)
    more = random(_candidates(photos, sure), number - len(chosen))
    return np.concatenate([unsure[chosen], sure[more]])


def _candidates(
    photos: Examples, places: NDArray[np.intp], probabilities: NDArray[np.float64] | None = None
) -> Candidates:
    """Return photos as the lake has them: with the likeliest classes, and the embeddings that are cached."""
    listed = np.zeros((len(places), 2)) if probabilities is None else -np.sort(-probabilities, axis=1)
    image_ids = [photos.image_ids[place] for place in places.tolist()]
    place_of = dict(zip(image_ids, places.tolist(), strict=True))

    def embed(image_ids: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        return photos.features[[place_of[image] for image in image_ids]], np.ones(len(image_ids), np.bool_)

    confidence, margin = listed[:, 0], listed[:, 0] - listed[:, 1]
    return Candidates(image_ids, confidence, margin, listed[:, : ScoringSettings().top_k], embed)


def _embedded(images: Path, settings: Settings) -> Examples:
    """Return the photos of a folder of class folders, each once, with their embeddings."""
    photos = {photo.image_id: photo for photo in photos_in(images)}
    chosen = [photos[image_id] for image_id in sorted(photos)]
    backbone = load_backbone(backbone_of(settings.features))
    return replace(rows_of(chosen), features=backbone.embed_bytes([photo.path.read_bytes() for photo in chosen]))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", metavar="[STRATEGY]...", nargs=-1, type=click.Choice(NAMES))
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    help="Photos in NNN.class/ folders; without it, generated ones, which say little.",
)
@click.option("--seeds", type=click.IntRange(2), default=20, show_default=True, help="How often all is drawn anew.")
@click.option("--labelled", default=Plan.labelled, show_default=True, help="Photos with a label at first.")
@click.option("--asked", default=Plan.asked, show_default=True, help="Photos that are asked about at a time.")
@click.option("--rounds", type=click.IntRange(1), default=Plan.rounds, show_default=True, help="How often.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw the curves there, as a PNG.")
@click.option("--json", "record", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures there too.")
def main(
    names: tuple[str, ...],
    images: Path | None,
    seeds: int,
    labelled: int,
    asked: int,
    rounds: int,
    plot: Path | None,
    record: Path | None,
) -> None:
    """Play a labelled photo set again: accuracy by answers, with each STRATEGY (all by default) and at random."""
    console = Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "180")))
    report, settings = Report(console, record), Settings(split=SPLIT)
    report.show("machine", Machine.here())
    with tempfile.TemporaryDirectory(prefix="dlassets-simulate-") as folder:
        if images is None:
            images = Path(folder) / "images"
            generate(images, classes=10, per_class=60)
        photos = _embedded(images, settings)
    plan = Plan(labelled, asked, rounds)
    found = simulate(photos, names or NAMES, seeds, plan, settings, os.cpu_count() or 1)
    report.show("simulation", found)
    if plot is not None:
        plot.write_bytes(found.picture())
