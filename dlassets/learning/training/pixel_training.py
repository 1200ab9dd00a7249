"""Train a head and blocks of its backbone together, on the photos themselves.

With pretrained weights the head is fitted first, on features of the frozen network, and both are trained from there:
the gradients of a head that knows nothing would distort the features (LP-FT: Kumar et al., 2022).

All that is random is a function of the seed, the step and the row, so a training that goes on from a checkpoint ends
with the weights of one that was never killed.

The processes of a group take parts of the same batches, and their gradients are summed after the backward pass, not
within it as DistributedDataParallel would: one that is short of memory can say so, where the others would wait for ever
for its part of a sum; and what is divided by is the weight of the whole batch, however it was parted.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from dlassets.errors import DlassetsError
from dlassets.lakehouse.tables import TRAIN, VALIDATION
from dlassets.learning.examples import Examples, Splits
from dlassets.learning.training.augment import GREY
from dlassets.learning.training.checkpoints import Checkpoint, Checkpoints, fingerprint
from dlassets.learning.training.classifier import Classifier, multiplies_bfloat16, new_classifier
from dlassets.learning.training.group import Group
from dlassets.learning.training.head_training import train_head
from dlassets.learning.training.job import Event, Job, Metrics, OnEvent, Trained
from dlassets.learning.training.pixels import PhotoBatches, damage_of, features_of
from dlassets.learning.weights import NONE
from dlassets.settings import PixelSettings

if TYPE_CHECKING:
    import torch

    from dlassets.learning.training.classifier import Tensors

# Of an epoch's metrics, the photos left out so far for being damaged, where there are any.
LEFT_OUT = "photos_left_out"

_NOW, _BEST, _OPTIMIZER = "now.", "best.", "optimizer."
_SHORT_OF_MEMORY = ("not enough memory", "DefaultCPUAllocator", "out of memory")


def fit_pixels(job: Job, group: Group, report: OnEvent, splits: Splits | None = None) -> Trained:
    """Train a head and blocks of the backbone on a training set that holds the photos' bytes.

    Every process of the group calls it and is given the same; rank 0 alone reports and writes checkpoints. AdamW
    (Loshchilov and Hutter, 2019), with a linear warm-up and a cosine to nothing (2017); the weights of the epoch with
    the best validation loss are kept. Where weights are pretrained the history begins with the head alone, so that what
    is kept is no worse than that by this loss. With random weights batch norm learns its statistics, on GPUs over all
    processes, else in each by itself: there the number of processes has a say in the result. The same job twice gives
    the same weights to the last bit on a CPU, with as many processes and threads.

    A photo whose bytes are damaged is left out, and told of in `remarks` and, as a number, in the epochs' metrics.

    `splits` are the training set's, where they have been read already. Raises DlassetsError for photos too few, all
    damaged or undecodable, a loss that is no number, and too little memory for half a batch.
    """
    with _reproducible(group.device):
        try:
            return _Training(job, group, report, splits).run()
        except (RuntimeError, MemoryError) as error:
            if _is_short_of_memory(error):
                raise DlassetsError(_too_little_memory("training", job, group)) from error
            raise


def learning_rate(step: int, steps: int, settings: PixelSettings) -> float:
    """Return the share of the learning rate that a step takes (from 0, of all epochs), with `steps` an epoch."""
    warm, last = settings.warmup_epochs * steps, settings.epochs * steps
    if step < warm:
        return (step + 1) / (warm + 1)
    return (1 + math.cos(math.pi * (step - warm) / max(last - warm, 1))) / 2


@dataclass
class _Progress:
    """How far a training has come: with its tensors, all that a checkpoint holds."""

    history: list[Metrics] = field(default_factory=list)
    best_epoch: int = 0
    step: int = 0  # how many of this epoch are done
    loss: float = 0.0  # summed over this epoch's rows, as they are weighted
    weight: float = 0.0
    parts: int = 1  # in which a batch is computed, for want of memory
    remarks: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)  # paths of the photos that were left out so far


class _Training:
    def __init__(self, job: Job, group: Group, report: OnEvent, splits: Splits | None) -> None:
        self._job, self._group, self._report = job, group, report
        self._settings = job.settings.pixels
        self._photos = PhotoBatches(job, group, splits)
        self._classifier = new_classifier(job, self._photos.classes, group)
        self._optimizer = _optimizer(self._classifier, self._settings)
        # Where it is wanted and every process has it: they compute alike.
        self._bfloat16 = self._settings.mixed_precision and all(group.gather(multiplies_bfloat16(group.device)))
        self._checkpoints = Checkpoints(job.folder, fingerprint(job)) if job.folder is not None else None
        self._progress = _Progress()
        self._best: Tensors = {}
        # The head alone, where it is fitted first, stands before the epochs.
        self._before = int(job.backbone.weights != NONE)

    def run(self) -> Trained:
        if not self._resume() and self._before:
            self._fit_head()
        while not self._is_over():
            self._train_epoch()
        self._classifier.load_learned(self._best)
        progress, head, weights = self._progress, self._classifier.head(), self._classifier.weights()
        remarks = [*progress.remarks, *([damage_of(self._job, progress.damaged)] if progress.damaged else [])]
        left_out = tuple(progress.damaged)
        return Trained(head, progress.history, progress.best_epoch, weights, tuple(remarks), left_out)

    @property
    def _epoch(self) -> int:
        return len(self._progress.history) - self._before

    @property
    def _steps_done(self) -> int:
        return self._epoch * self._photos.steps + self._progress.step

    def _is_over(self) -> bool:
        waited = len(self._progress.history) - 1 - self._progress.best_epoch
        return self._epoch >= self._settings.epochs or waited >= self._job.settings.patience

    # ---- epochs

    def _fit_head(self) -> None:
        """Fit the head on the frozen network's features, as a training of the head alone does."""
        train, validation = (self._features(split) for split in (TRAIN, VALIDATION))
        if len(np.unique(train.labels)) < len(self._photos.classes.labels):
            raise DlassetsError(f"Of a class no photo is left. {damage_of(self._job, self._progress.damaged)}")
        fitted = train_head(train, validation, self._job.settings)
        self._classifier.set_head(fitted.head)
        self._end_epoch(fitted.history[fitted.best_epoch]["train_loss"], validation)

    def _train_epoch(self) -> None:
        progress = self._progress
        self._classifier.train()
        began = time.perf_counter()
        for pixels, classes in self._photos.batches(self._epoch, progress.step):
            metrics = self._step(pixels, classes)
            progress.step += 1
            metrics["images_per_second"] = metrics.pop("images") / (time.perf_counter() - began)
            began = time.perf_counter()
            self._send(Event("step", self._steps_done, self._settings.epochs * self._photos.steps, metrics))
            if self._steps_done % self._settings.checkpoint_steps == 0 and progress.step < self._photos.steps:
                self._save_checkpoint()
        for statistic in self._classifier.statistics():
            statistic.copy_(self._group.sum(statistic) / self._group.size)
        self._note_damage(self._photos.damaged)
        if not progress.weight:
            raise DlassetsError(f"No photo is left to learn from. {damage_of(self._job, progress.damaged)}")
        self._end_epoch(progress.loss / progress.weight, self._features(VALIDATION))

    def _end_epoch(self, train_loss: float, validation: Examples) -> None:
        progress = self._progress
        validation_loss, accuracy = self._validated(validation)
        if not math.isfinite(validation_loss):
            raise DlassetsError(self._no_number("validation loss", f"epoch {self._epoch + 1}"))
        metrics = {"train_loss": train_loss, "validation_loss": validation_loss, "validation_accuracy": accuracy}
        if progress.damaged:
            metrics[LEFT_OUT] = len(progress.damaged)
        progress.history.append(metrics)
        best = progress.history[progress.best_epoch]["validation_loss"]
        if not self._best or validation_loss < best - self._job.settings.min_improvement:
            progress.best_epoch = len(progress.history) - 1
            self._best = {name: value.clone() for name, value in self._classifier.learned().items()}
        progress.step, progress.loss, progress.weight = 0, 0.0, 0.0
        self._save_checkpoint()
        self._send(Event("epoch", len(progress.history), self._settings.epochs + self._before, metrics))

    def _validated(self, validation: Examples) -> tuple[float, float]:
        """Return loss and accuracy over the rows of a class that can be right, alike on every process."""
        import torch

        logits = torch.from_numpy(self._classifier.head().logits(validation.features))
        classes = self._photos.classes.indices(torch.from_numpy(validation.labels))
        logits, classes = logits[classes >= 0], classes[classes >= 0]
        if not len(classes):
            damage = damage_of(self._job, self._progress.damaged)
            raise DlassetsError(f"No validation photo of a class that is learned is left. {damage}")
        loss = torch.nn.functional.cross_entropy(logits, classes)
        right = (logits.argmax(dim=1) == classes).double().mean()
        loss, accuracy = self._group.broadcast(torch.stack([loss, right]).to(self._group.device)).tolist()
        return loss, accuracy

    def _features(self, split: str) -> Examples:
        rows, network = self._photos.splits[split], self._classifier.network
        found = features_of(self._job, split, network, rows=rows, group=self._group, bfloat16=self._bfloat16)
        self._note_damage({*rows.paths} - {*found.paths})
        return found

    def _note_damage(self, paths: Collection[str]) -> None:
        """Write down what was left out; every process calls it, each with what it found."""
        known, of_all = self._progress.damaged, self._group.gather(sorted(paths))
        self._progress.damaged = sorted({*known, *chain.from_iterable(of_all)})

    # ---- steps

    def _step(self, pixels: torch.Tensor, classes: torch.Tensor) -> Metrics:
        """Take one step on this process's part of a batch; return what was measured of the whole of it."""
        import torch

        rate = learning_rate(self._steps_done, self._photos.steps, self._settings)
        for parameters in self._optimizer.param_groups:
            parameters["lr"] = rate * parameters["initial_lr"]
        loss, weight, images = self._summed_gradients(pixels, classes)
        if not images:  # the whole batch is damaged: nothing is learned from it
            return {"learning_rate": rate * self._settings.learning_rate, "images": 0}
        self._share_gradients(weight)
        norm = torch.nn.utils.clip_grad_norm_(self._classifier.parameters(), self._settings.clip_norm).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            quantity = "gradient" if math.isfinite(loss) else "loss"
            raise DlassetsError(self._no_number(quantity, f"step {self._steps_done + 1}"))
        self._optimizer.step()
        self._progress.loss += loss
        self._progress.weight += weight
        backbone_rate = rate * self._settings.learning_rate
        return {"train_loss": loss / weight, "learning_rate": backbone_rate, "gradient_norm": norm, "images": images}

    def _summed_gradients(self, pixels: torch.Tensor, classes: torch.Tensor) -> tuple[float, float, int]:
        """Leave the gradient of the summed loss of this process's rows; return loss, weight and rows of all processes.

        Where one of them is short of memory, all take the step again in halves.
        """
        while True:
            loss, weight, images, short = self._group.sum(self._own_gradients(pixels, classes)).tolist()
            if not short:
                return loss, weight, int(images)
            self._halve()

    def _own_gradients(self, pixels: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Return (4,): the loss summed over weighted rows, their weight, their number, and 1 where memory was short."""
        import torch

        # For what is random within the network.
        seeds = np.random.SeedSequence((self._job.settings.seed, self._steps_done, self._group.rank))
        torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0]))
        self._optimizer.zero_grad()
        sums = torch.zeros(4, dtype=torch.float64, device=self._group.device)
        share = min(len(pixels), 1)
        if not share:  # all of it is damaged: a grey photo of no weight takes the part that every process has in a step
            side = self._job.backbone.side
            pixels, classes = torch.full((1, side, side, 3), GREY, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
        try:
            for some, theirs in zip(*(_parts(rows, self._progress.parts) for rows in (pixels, classes)), strict=True):
                loss, weight = self._loss(some, theirs.to(self._group.device))
                (share * loss).backward()  # type: ignore[no-untyped-call]
                sums += share * torch.stack([loss.detach(), weight, *torch.tensor([len(some), 0.0]).to(loss)])
        except (RuntimeError, MemoryError) as error:
            if not _is_short_of_memory(error):
                raise
            sums[-1] = 1
        return sums

    def _loss(self, pixels: torch.Tensor, classes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss summed over rows, each with its class's weight, and the sum of those weights."""
        import torch

        settings = self._job.settings
        logits = self._classifier.logits(pixels, bfloat16=self._bfloat16)
        losses = torch.nn.functional.cross_entropy(
            logits, classes, reduction="none", label_smoothing=settings.label_smoothing
        )
        weights = torch.ones_like(losses)
        if settings.balance == "weights":
            weights = self._photos.classes.balanced().to(losses)[classes]
        return (losses * weights).sum(), weights.sum()

    def _share_gradients(self, weight: float) -> None:
        """Make each gradient that of the mean loss over all processes' rows."""
        import torch

        gradients = [one.grad for one in self._classifier.parameters() if one.grad is not None]
        whole = self._group.sum(torch.cat([gradient.flatten() for gradient in gradients])) / weight
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, shared in zip(gradients, torch.split(whole, sizes), strict=True):
            gradient.copy_(shared.view_as(gradient))

    def _halve(self) -> None:
        import torch

        size = self._settings.batch_size
        if self._progress.parts > 1:
            raise DlassetsError(_too_little_memory(f"half a batch of {size} photos", self._job, self._group))
        self._progress.parts = 2
        self._progress.remarks.append(
            f"There was too little memory for a batch of {size} photos: each is computed in two halves, with the same "
            "result, a little slower. A smaller training.pixels.batch_size is another training."
        )
        self._optimizer.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _no_number(self, quantity: str, moment: str) -> str:
        lower = f"Lower training.pixels.learning_rate ({self._settings.learning_rate}) and head_learning_rate"
        exact = ", or set training.pixels.mixed_precision to false," if self._bfloat16 else ""
        return f"The {quantity} is not a number at {moment}. {lower}{exact} and run again."

    def _send(self, event: Event) -> None:
        if self._group.is_main:
            self._report(event)

    # ---- checkpoints

    def _save_checkpoint(self) -> None:
        if self._checkpoints is None or not self._group.is_main:
            return
        tensors = {f"{_NOW}{name}": value for name, value in self._classifier.learned().items()}
        tensors |= {f"{_BEST}{name}": value for name, value in self._best.items()}
        for place, values in self._optimizer.state_dict()["state"].items():
            tensors |= {f"{_OPTIMIZER}{place}.{name}": value for name, value in values.items()}
        self._checkpoints.save(Checkpoint(self._steps_done, tensors, asdict(self._progress)))

    def _resume(self) -> bool:
        """Take up the newest checkpoint, the same on every process; return whether there is one."""
        found = self._newest_checkpoint()
        if found is None:
            return False
        self._progress = _Progress(**found.state)
        self._classifier.load_learned(_named(_NOW, found.tensors))
        self._best = _named(_BEST, found.tensors)
        state: dict[int, Tensors] = {}
        for name, value in _named(_OPTIMIZER, found.tensors).items():
            place, _, key = name.partition(".")
            state.setdefault(int(place), {})[key] = value
        now = self._optimizer.state_dict()
        self._optimizer.load_state_dict({"state": state, "param_groups": now["param_groups"]})
        return True

    def _newest_checkpoint(self) -> Checkpoint | None:
        import torch

        if self._checkpoints is None:
            return None
        found = self._checkpoints.newest() if self._group.is_main else None
        step = int(self._group.broadcast(torch.tensor(-1 if found is None else found.step, device=self._group.device)))
        return found if self._group.is_main or step < 0 else self._checkpoints.at(step)


def _optimizer(classifier: Classifier, settings: PixelSettings) -> torch.optim.AdamW:
    """Return AdamW with a rate for the backbone and one for the head, and decay of matrices alone: not of biases.

    Not the fused one, which on a CPU takes weights, gradients and moments that lie differently for the same (2.12).
    """
    import torch

    head = {id(value) for value in classifier.linear.parameters()}
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for value in classifier.parameters():
        rate = settings.head_learning_rate if id(value) in head else settings.learning_rate
        decay = settings.weight_decay if value.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(value)
    return torch.optim.AdamW(
        {"params": values, "lr": rate, "initial_lr": rate, "weight_decay": decay}
        for (rate, decay), values in groups.items()
    )


def _too_little_memory(task: str, job: Job, group: Group) -> str:
    on = f"in {group.size} processes" if group.size > 1 else f"on {group.device}"
    return (
        f"There is too little memory for {task} {on}. Set training.pixels.batch_size ({job.settings.pixels.batch_size})"
        " to less, train fewer blocks (training.last_n), or use a larger machine."
    )


def _parts(rows: torch.Tensor, count: int) -> tuple[torch.Tensor, ...]:
    return rows.tensor_split(count) if len(rows) >= count else (rows,)


def _named(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _is_short_of_memory(error: Exception) -> bool:
    """Tell from torch's words: only a GPU's allocator has an exception of its own for it."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _SHORT_OF_MEMORY)


@contextmanager
def _reproducible(device: str) -> Iterator[None]:
    """Compute the same twice, as far as the device can, and leave torch as it was."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read where a GPU's matrices are first multiplied
    settings: Any = torch.utils.deterministic  # its one setting has no type
    before = torch.are_deterministic_algorithms_enabled()
    filled = settings.fill_uninitialized_memory
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.use_deterministic_algorithms(True, warn_only=True)
        settings.fill_uninitialized_memory = False  # it finds errors, and costs time
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
            settings.fill_uninitialized_memory = filled
