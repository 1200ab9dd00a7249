"""Train a linear head in torch on cached features, as strongly penalised as the validation rows would have it.

Its rows are small (5 kB), so each process reads its shard once and keeps it in memory.

How strong a penalty is right depends on the rows: it is far weaker for many classes, which each have a small share of
the mean loss, than for few, and weaker for rows that are easily told apart than for those that are not. So there is no
number for all, and heads are fitted along a path of penalties, each from where the last one ended (Friedman, Hastie and
Tibshirani, 2010). The one is kept whose loss on the validation rows is least *after* its temperature: a strong penalty
makes a head unsure, which calibration puts right, and its loss before that says little of how often it is right.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count, repeat
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from dlassets.errors import DlassetsError
from dlassets.lakehouse.tables import TRAIN, VALIDATION
from dlassets.learning.calibration import fit_temperature
from dlassets.learning.examples import Examples, Splits, parts_of, read_split, read_splits, targets_of
from dlassets.learning.head import Head
from dlassets.learning.training.group import ALONE, Group
from dlassets.learning.training.job import CALIBRATED_LOSS, Event, Job, Metrics, OnEvent, Trained
from dlassets.settings import TrainingSettings

if TYPE_CHECKING:
    import torch

STEPS_PER_EPOCH = 5
# Each epoch of a path has a penalty so much of the last one's, from the strongest, so many times the usual, which is
# what is expected, give or take `_DECADES`, before a row is looked at. That is for one feature and one class: a row is
# as long, squared, as it has features, and of more classes each has less of the mean loss to set against its penalty.
_USUAL, _STRONGEST, _RATIO, _DECADES = 3e-4, 30.0, 10**-0.5, 0.5
# Enough to come near the minimum: what is far from it depends on the last digits of sums.
STEPS_PER_PENALTY = 20
FEW_NUMBERS = 2**24

Result = TypeVar("Result")
# The places of rows among those of training, and of validation.
Chosen = tuple[NDArray[np.int64], NDArray[np.int64]]


def fit_head(job: Job, group: Group, report: OnEvent, splits: Splits | None = None) -> Trained:
    """Train a head on the features in the job's training set, of which each process of a group reads a shard.

    One alone learns from `splits`, where they have been read already. Raises DlassetsError where there is too little to
    learn from, or fewer row groups than processes.
    """
    if group.size == 1:
        splits = splits or read_splits(job.training_set)
        train, validation = splits[TRAIN], splits[VALIDATION]
    else:
        read_splits(job.training_set, features=False)  # says what is missing, before a shard is found to have nothing
        train = read_split(job.training_set, TRAIN, shard=(group.rank, group.size))
        validation = read_split(job.training_set, VALIDATION)

    def on_epoch(epoch: int, metrics: Metrics) -> None:
        report(Event("epoch", epoch + 1, job.settings.epochs, metrics))

    return train_head(train, validation, job.settings, on_epoch, group)


def train_head(
    train: Examples,
    validation: Examples,
    settings: TrainingSettings,
    on_epoch: Callable[[int, Metrics], None] | None = None,
    group: Group = ALONE,
    chosen: Chosen | None = None,
) -> Trained:
    """Fit a softmax head with an L2 penalty; keep the weights of the epoch that the validation rows fit best.

    The problem is convex and its rows are few and ready, so an epoch is a few L-BFGS steps on all of them (Liu and
    Nocedal, 1989): no learning rate to choose, and the same rows and settings give the same weights. Where `l2` is
    unset each epoch has the next penalty of the path (see above); else all have that one, and the best is the one
    with the least validation loss as it is. In a group each
    process has its own `train` and the same `validation`: what they learn is what one would from all of the rows, but
    for the last digits of sums. With `chosen`, those rows alone are learned from, and tell when to stop; none is
    copied. Rank 0 alone calls `on_epoch`. Raises DlassetsError where validation shares no class with training, or
    the loss is no longer a number.
    """
    import torch

    torch.manual_seed(settings.seed)
    places, validation_places = (np.arange(len(train)), np.arange(len(validation))) if chosen is None else chosen
    names = _all_names(train, places, group)
    labels = tuple(names)
    mean, scale = _spread(train.features, places, group)
    # A class that validation has and training lacks cannot be right; it has no say in when to stop.
    known = validation_places[np.isin(validation.labels[validation_places], labels)]
    if not len(known):
        raise DlassetsError(
            "The validation split has no image of a class that the training split has. Put more photos of each class "
            "into the labelled landing zone."
        )
    learned, validated = (
        _Rows(rows.features, targets_of(rows.labels[of], labels), of, (mean, scale), group.device)
        for rows, of in ((train, places), (validation, known))
    )
    linear = torch.nn.Linear(len(mean), len(labels))
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    linear = linear.to(group.device)
    with _one_thread_each():
        loss = _SharedLoss(linear, learned, settings, group)
        history, best_epoch = _fit(linear, loss, validated, settings, on_epoch, group)
    weight, bias = (value.detach().cpu().numpy() for value in (linear.weight, linear.bias))
    return Trained(Head(labels, tuple(names.values()), weight, bias, mean, scale), history, best_epoch)


class _Rows:
    """Some rows of (rows, features) as a head takes them: less their mean and over their scale; and their classes.

    Few are made so once. Of many, that would be a second copy of them all: they are made anew, a part at a time,
    whenever they are gone through, by as many threads as torch has, each with room for one part. It takes no longer,
    since a part stays in the processor's cache; and what comes of them is the same on any number of threads.
    """

    def __init__(
        self,
        features: NDArray[np.float32],
        targets: NDArray[np.int64],
        places: NDArray[np.int64],
        spread: tuple[NDArray[np.float32], NDArray[np.float32]],
        device: str,
    ) -> None:
        import torch

        self.targets = torch.from_numpy(targets).to(device)
        self._features, self._places = torch.from_numpy(features), torch.from_numpy(places)
        self._mean, self._scale = (torch.from_numpy(values) for values in spread)
        self._kept: torch.Tensor | None = None
        if self.are_few or device != "cpu":  # a GPU has room for them all, and is far from them here
            self._kept = torch.cat([self._made(part).to(device) for part in self._parts()])
            return
        threads = torch.get_num_threads()  # a process of several on one machine has its share of them
        # Kept for as long as the rows are: a thread made anew takes memory anew, and does not give it back.
        self._pool = ThreadPoolExecutor(threads)
        self._rooms: SimpleQueue[torch.Tensor] = SimpleQueue()
        for _ in range(threads):
            self._rooms.put(torch.empty(max(part.stop - part.start for part in self._parts()), len(self._mean)))

    @property
    def are_few(self) -> bool:
        return len(self._places) * len(self._mean) < FEW_NUMBERS

    def map(self, function: Callable[[slice, torch.Tensor], Result]) -> list[Result]:
        """Return what `function` makes of each part of the rows, in order: it is given which they are, and the part.

        A part is overwritten once the function has returned.
        """
        if self._kept is not None:
            return [function(slice(0, len(self._places)), self._kept)]

        def of_part(part: slice) -> Result:
            room = self._rooms.get()
            try:
                return function(part, self._made(part, room[: part.stop - part.start]))
            finally:
                self._rooms.put(room)

        return list(self._pool.map(of_part, self._parts()))

    def _parts(self) -> Iterator[slice]:
        return parts_of(len(self._places), len(self._mean))

    def _made(self, part: slice, room: torch.Tensor | None = None) -> torch.Tensor:
        import torch

        chosen = torch.index_select(self._features, 0, self._places[part], out=room)
        return chosen.sub_(self._mean).div_(self._scale)


class _SharedLoss:
    """The mean loss over all processes' rows: each works on its own, and all are given the sum."""

    def __init__(self, linear: torch.nn.Linear, rows: _Rows, settings: TrainingSettings, group: Group) -> None:
        import torch

        self.l2 = np.nan  # of no penalty that a head is fitted with
        self._linear, self._rows, self._settings, self._group = linear, rows, settings, group
        counts = group.sum(torch.bincount(rows.targets, minlength=linear.out_features))
        # Each class as a whole weighs the same. Of all rows at once, drawing rare ones more often would be no other.
        of_class = torch.ones(len(counts)) if settings.balance == "none" else 1 / counts.cpu()
        weights = of_class.to(group.device)[rows.targets]
        self._weights = weights / group.sum(weights.sum())

    def __call__(self) -> torch.Tensor:
        """Return the loss with its penalty, (), and leave its gradient in the parameters."""
        self._linear.zero_grad()
        penalty = self.l2 / 2 * self._linear.weight.square().sum() / self._group.size
        penalty.backward()  # type: ignore[no-untyped-call]
        total = penalty.detach().double()
        for loss, gradient in self._rows.map(self._of_part):
            total = total + loss
            for parameter, added in zip(self._linear.parameters(), gradient, strict=True):
                parameter.grad = added if parameter.grad is None else parameter.grad + added
        for parameter in self._linear.parameters():
            if parameter.grad is not None:
                parameter.grad = self._group.sum(parameter.grad)
        return self._group.sum(total)

    def _of_part(self, part: slice, inputs: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return the loss of some rows and its gradient."""
        import torch

        with torch.enable_grad():  # a thread has its own say
            losses = torch.nn.functional.cross_entropy(
                self._linear(inputs),
                self._rows.targets[part],
                reduction="none",
                label_smoothing=self._settings.label_smoothing,
            )
            # In float64: the line search's first guess is of differences in the last digits of float32, and would
            # differ by how many rows are added up at a time.
            loss = (losses.double() * self._weights[part]).sum()
        return loss.detach(), torch.autograd.grad(loss, list(self._linear.parameters()))


def _lbfgs(linear: torch.nn.Linear, steps: int) -> torch.optim.LBFGS:
    """Return the optimizer of some steps, without the import of torch's compiler.

    That takes a process more than a second, which is longer than most heads need. It would come for one method's sake,
    that none of them may compile; torch looks first whether the function itself says what to run in its place.
    """
    import torch

    plain = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    plain.__dict__.setdefault("__dynamo_disable", plain)
    return torch.optim.LBFGS(linear.parameters(), max_iter=steps, line_search_fn="strong_wolfe")


def _fit(
    linear: torch.nn.Linear,
    penalised_loss: _SharedLoss,
    validation: _Rows,
    settings: TrainingSettings,
    on_epoch: Callable[[int, Metrics], None] | None,
    group: Group,
) -> tuple[list[Metrics], int]:
    """Fit `linear` in place, ending with the weights of the best epoch; return what each epoch gave, and that epoch."""
    import torch

    usual = _USUAL * linear.in_features / linear.out_features
    history: list[Metrics] = []
    best_epoch, least, best_state = 0, float("inf"), linear.state_dict()
    for epoch, (l2, steps) in zip(range(settings.epochs), _penalties(settings.l2, usual), strict=False):
        if l2 != penalised_loss.l2:  # what steps have learned of the loss holds for one penalty alone
            penalised_loss.l2 = l2
            optimizer = _lbfgs(linear, steps)
        before = [parameter.detach().clone() for parameter in linear.parameters()]
        loss = optimizer.step(penalised_loss).item()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            logits = torch.cat(validation.map(lambda _, inputs: linear(inputs).detach()))
            losses = torch.nn.functional.cross_entropy(logits, validation.targets)
            right = (logits.argmax(dim=1) == validation.targets).float().mean()
            is_moved = torch.stack([(old != new).any() for old, new in zip(before, linear.parameters(), strict=True)])
        told = torch.stack([losses, right, is_moved.any().float()])
        validation_loss, accuracy, moved = group.broadcast(told).tolist()
        if not (np.isfinite(loss) and np.isfinite(validation_loss)):
            raise DlassetsError(
                f"The loss is not a number after epoch {epoch}. Look for features that are not numbers in the training "
                f"set, or set training.l2 to more than {l2:.2g}, and run again."
            )
        metrics = {"train_loss": loss, "validation_loss": validation_loss, "validation_accuracy": accuracy}
        judged_by = validation_loss
        if settings.l2 is None:
            calibrated = _calibrated_loss(logits, validation.targets, group)
            metrics |= {CALIBRATED_LOSS: calibrated, "l2": l2}
            # A normal prior on the decimal logarithm, as the temperature has one: a handful of rows decides little.
            judged_by = calibrated + (np.log10(l2 / usual) / _DECADES) ** 2 / 2 / len(logits)
        history.append(metrics)
        if on_epoch is not None and group.is_main:
            on_epoch(epoch, metrics)
        if judged_by < least - settings.min_improvement:
            best_epoch, least = epoch, judged_by
            best_state = {name: value.clone() for name, value in linear.state_dict().items()}
        elif epoch - best_epoch >= settings.patience or not moved:
            break  # an epoch that has moved nothing is at the minimum, as far as float32 tells: none after it is better
    linear.load_state_dict(best_state)
    return history, best_epoch


def _penalties(l2: float | None, usual: float) -> Iterator[tuple[float, int]]:
    """Yield each epoch's penalty, the one that is set or those of the path, and how many steps it has."""
    if l2 is not None:
        return repeat((l2, STEPS_PER_EPOCH))
    return ((usual * _STRONGEST * _RATIO**epoch, STEPS_PER_PENALTY) for epoch in count())


def _calibrated_loss(logits: torch.Tensor, targets: torch.Tensor, group: Group) -> float:
    """Return the mean loss of the rows once their temperature is fitted, the same on every process."""
    import torch

    temperature = fit_temperature(logits.double().cpu().numpy(), targets.cpu().numpy())
    loss = torch.nn.functional.cross_entropy(logits.double() / temperature, targets)
    return group.broadcast(loss).item()


def _all_names(train: Examples, places: NDArray[np.int64], group: Group) -> dict[int, str]:
    """Return the name of each label that these rows of any process have, in the order of labels."""
    names: dict[int, str] = {}
    found = {(int(train.labels[place]), train.names[place]) for place in places.tolist()}
    for shard in group.gather(sorted(found)):
        names |= dict(shard)
    return dict(sorted(names.items()))


def _spread(
    features: NDArray[np.float32], places: NDArray[np.int64], group: Group
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean of each feature and one scale for all: their differences in spread say something of a photo."""
    import torch

    width = features.shape[1]
    total = np.zeros(width + 2)
    total[-1] = len(places) * width
    for part in parts_of(len(places), width):
        rows = features[places[part]]
        total[:width] += rows.sum(axis=0, dtype=np.float64)
        total[width] += np.einsum("rf,rf->", rows, rows, dtype=np.float64)  # of no copy in float64
    *sums, squares, count = group.sum(torch.from_numpy(total).to(group.device)).cpu().numpy()
    overall = np.sum(sums) / count
    spread = np.sqrt(squares / count - overall**2)
    mean = np.array(sums) * width / count
    return mean.astype(np.float32), np.full(width, spread + 1e-6, np.float32)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Have torch compute on the thread that asks it to.

    L-BFGS is thousands of products of few rows each, over which torch's own threads would wait for each other.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
