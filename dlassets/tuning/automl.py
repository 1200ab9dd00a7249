"""Search backbone, head and augmentation within a budget of time, the cheap candidates first.

Each part of the search is a study (see `tuning`): of heads on each backbone's features, then of blocks of the best
backbone, trained on the photos. What is known to take longer than there is left is not begun. The test photos are
looked at once, for the winner.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from dlassets.engines.base import Snapshot
from dlassets.engines.process_identity import ProcessIdentity
from dlassets.errors import DlassetsError
from dlassets.lakehouse.tables import TRAIN, VALIDATION
from dlassets.learning.backbones import BackboneRef, feature_version
from dlassets.learning.evaluation.evaluate import Evaluation
from dlassets.learning.examples import read_split
from dlassets.learning.training.job import Job
from dlassets.registry.lifecycle import TAG_PROCESS
from dlassets.settings import ComputeSettings, Span, TrainingSettings, TuningSettings
from dlassets.tuning.automl_script import script_of
from dlassets.tuning.local_trials import LocalTrials
from dlassets.tuning.question import Question
from dlassets.tuning.search_space import Space, settings_with
from dlassets.tuning.study import Best, run_study
from dlassets.tuning.trials import ACCURACY

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from optuna.trial import FrozenTrial

HEADS: Space = {
    "label_smoothing": (0.0, 0.05, 0.1),  # a list: none at all is often best, and a span never gives it
    "balance": ("none", "weights"),
}
BLOCKS: Space = {
    "pixels.augmentation": ("none", "light", "strong"),
    "last_n": Span(low=1, high=3),
    "pixels.learning_rate": Span(low=3e-5, high=1e-3, log=True),
}
HEAD_TRIALS, BLOCK_TRIALS = 30, 12
HEAD_PROCESSES = 2  # a head is fitted on one thread; starting another process takes longer than many of them
EPOCHS = (12, 6, 3)
# Of the winner's training at the end, where that is a head: it takes longer than a trial, which finds all loaded.
_SECONDS_TO_END = 5.0
# What a step on a photo takes, in forward passes: one forward, half of one backward, and its decoding.
_STEP_COST = 2.0
_BATCH, _BATCHES = 8, 4


@dataclass(frozen=True)
class Line:
    """A line of the leaderboard: what was searched, how many were tried of how many at most, and the best of them."""

    backbone: BackboneRef
    trainable: str
    tried: int
    of: int
    best: FrozenTrial | None

    @property
    def loss(self) -> float:
        return float("inf") if self.best is None else float(self.best.value)


class LearnablePhotos(Protocol):
    """Labelled photos, made ready for any backbone: see `pipeline.labelled_photos`."""

    def training_set(self, backbone: BackboneRef, trainable: str = "head", report: Any = None) -> Snapshot:
        """Return the rows that a training learns from."""

    def seconds_to_embed(self, backbone: BackboneRef) -> float:
        """Return how long it takes to embed what is not embedded yet."""


class Board(Protocol):
    """Shows a search to whoever waits for it."""

    def show(self, lines: Sequence[Line]) -> None:
        """Show the leaderboard, the best line first."""

    def info(self, message: str) -> None:
        """Show what is being done, or was left out and why."""

    def count(self, what: str, done: int, total: int | None) -> None:
        """Show how many of something are done."""


@dataclass(frozen=True)
class Winner:
    """The best candidate, trained again: `value` and `accuracy` are of validation, `test` is of photos never seen."""

    job: Job
    value: float
    accuracy: float
    test: Evaluation
    candidates: int
    script: str
    run_id: str


def search(
    photos: LearnablePhotos,
    backbones: Sequence[BackboneRef],
    training: TrainingSettings,
    until: float,
    client: MlflowClient,
    experiment: str,
    board: Board,
) -> Winner:
    """Search until then (seconds of `time.monotonic`), train the winner again, and return it with its test accuracy.

    Every candidate is a run in MLflow, below the one of the search. Raises DlassetsError where no candidate can be
    tried in the time, saying how long the shortest would need.
    """
    experiment_id = client.get_experiment_by_name(experiment).experiment_id
    process = {TAG_PROCESS: str(ProcessIdentity.this())}
    run_id = client.create_run(experiment_id, run_name="automl", tags=process).info.run_id
    try:
        hunt = _Search(photos, training, until, client, experiment, run_id, board)
        for place, backbone in enumerate(backbones):
            hunt.try_heads(backbone, share=1 / (len(backbones) - place))
        hunt.try_blocks()
        winner = hunt.end()
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id)
    return winner


@dataclass
class _Search:
    photos: LearnablePhotos
    training: TrainingSettings
    until: float
    client: MlflowClient
    experiment: str
    run_id: str
    board: Board
    lines: list[Line] = field(default_factory=list)
    tried: list[tuple[Job, Best]] = field(default_factory=list)
    needed: list[float] = field(default_factory=list)  # seconds of what was left out

    @property
    def left(self) -> float:
        """Seconds there are, but for those that the end takes."""
        return self.until - time.monotonic() - _SECONDS_TO_END

    def try_heads(self, backbone: BackboneRef, share: float) -> None:
        self.board.info(f"{_name(backbone)}: measuring how long its embeddings take")
        seconds = self.photos.seconds_to_embed(backbone)
        if not self._is_time_for(f"{_name(backbone)}: embedding the photos", seconds):
            return
        training_set = self.photos.training_set(backbone, report=self.board)
        settings = self.training.model_copy(update={"trainable": "head"})
        self._study(Job(training_set, backbone, settings), HEADS, HEAD_TRIALS, self.left * share, HEAD_PROCESSES)

    def try_blocks(self) -> None:
        """Train the last blocks of the best backbone so far, where there is time for one such training and its end."""
        if not self.tried:
            return
        backbone = min(self.tried, key=lambda tried: tried[1].value)[0].backbone
        what = f"{_name(backbone)}: training its last blocks"
        self.board.info(f"{what}: measuring how long that takes")
        rows = self.tried[0][0].training_set
        train, validation = (len(read_split(rows, split, features=False)) for split in (TRAIN, VALIDATION))
        forward = _seconds_a_photo(backbone)
        # The head is fitted first, then there are the epochs, each validated.
        costs = {
            epochs: forward * (train + validation + epochs * (_STEP_COST * train + validation)) for epochs in EPOCHS
        }
        # A second time for the winner's own training at the end.
        epochs = next((epochs for epochs in EPOCHS if 2 * costs[epochs] <= self.left), EPOCHS[-1])
        if not self._is_time_for(f"{what} for {epochs} epochs, and once more at the end,", 2 * costs[epochs]):
            return
        training_set = self.photos.training_set(backbone, "last_n")
        settings = settings_with(self.training, {"trainable": "last_n", "pixels.epochs": epochs})
        trials = min(BLOCK_TRIALS, int(self.left / costs[epochs]) - 1)
        self._study(Job(training_set, backbone, settings), BLOCKS, trials, self.left - costs[epochs], processes=1)

    def end(self) -> Winner:
        """Train the winner again and look at the test photos."""
        from dlassets.learning.evaluation.trained import evaluate_trained
        from dlassets.learning.training.launch import Place, launch

        if not self.tried:
            raise DlassetsError(
                f"There is no time to try a single candidate: the shortest needs {min(self.needed):.0f} "
                f"seconds, by what was measured here. Give it more: --minutes {math.ceil(min(self.needed) / 40)}."
            )
        job, best = min(self.tried, key=lambda tried: tried[1].value)
        job = replace(job, settings=best.settings)
        self.board.info(f"{_name(job.backbone)} has won: it is trained again, and tested")
        trained = launch(job, Place(), lambda event: self.board.count(f"{event.kind}s", event.number, event.of))
        test = evaluate_trained(job, trained)
        candidates = sum(line.tried for line in self.lines)
        script = script_of(self.photos, job, best, candidates)
        self._log(job, best, test, candidates, script)
        return Winner(job, best.value, best.accuracy, test, candidates, script, self.run_id)

    def _study(self, job: Job, space: Space, trials: int, seconds: float, processes: int) -> None:
        place = len(self.lines)
        self.lines.append(Line(job.backbone, job.settings.trainable, 0, trials, None))

        def report(done: int, of: int, best: FrozenTrial | None) -> None:
            self.lines[place] = Line(job.backbone, job.settings.trainable, done, of, best)
            self.board.show(sorted(self.lines, key=lambda line: line.loss))

        settings = TuningSettings(
            trials=trials, minutes=max(seconds, 1.0) / 60, processes=processes, pruning=True, space=dict(space)
        )
        question = Question(job, feature_version(job.backbone), space)
        best = run_study(question, settings, self.client, self.experiment, LocalTrials(strictly=True), report)
        self.client.set_tag(best.run_id, "mlflow.parentRunId", self.run_id)
        winner = next(trial for trial in best.trials if trial.params == best.chosen and trial.value == best.value)
        report(len(best.trials), max(trials, len(best.trials)), winner)
        self.tried.append((job, best))

    def _is_time_for(self, what: str, seconds: float) -> bool:
        if seconds <= self.left:
            return True
        self.needed.append(seconds + _SECONDS_TO_END)
        self.board.info(f"{what} would take {seconds:.0f} s, and {max(self.left, 0):.0f} s are left: left out")
        return False

    def _log(self, job: Job, best: Best, test: Evaluation, candidates: int, script: str) -> None:
        for name, value in {"backbone": job.backbone.name, "weights": job.backbone.weights, **best.chosen}.items():
            self.client.log_param(self.run_id, name, value)
        self.client.log_param(self.run_id, "trainable", job.settings.trainable)
        measured = {"validation_loss": best.value, ACCURACY: best.accuracy, "candidates": candidates}
        for name, number in {**measured, "test_accuracy": test.accuracy}.items():
            self.client.log_metric(self.run_id, name, number)
        self.client.set_tag(self.run_id, "dlassets.automl.winner", best.trial_run_id)
        self.client.log_text(self.run_id, script, "best.py")


def _seconds_a_photo(backbone: BackboneRef) -> float:
    """Return what a forward pass takes on this machine, a photo, by torch."""
    import torch

    from dlassets.learning.backbones import network
    from dlassets.learning.training.classifier import embedded, multiplies_bfloat16
    from dlassets.learning.training.group import device_of

    device = device_of(ComputeSettings())
    whole = network(backbone).to(device=device, memory_format=torch.channels_last).eval()
    photos = torch.zeros(_BATCH, backbone.side, backbone.side, 3, dtype=torch.uint8, device=device)

    def forward() -> float:
        """Pass so many batches; what is read back has been computed."""
        passed = [embedded(whole, photos, bfloat16=multiplies_bfloat16(device)) for _ in range(_BATCHES)]
        return float(sum(features.sum() for features in passed))

    with torch.inference_mode():
        forward()  # the first one prepares
        started = time.monotonic()
        forward()
    return (time.monotonic() - started) / _BATCH / _BATCHES


def _name(backbone: BackboneRef) -> str:
    return backbone.name if backbone.weights == "package" else f"{backbone.name} ({backbone.weights})"
