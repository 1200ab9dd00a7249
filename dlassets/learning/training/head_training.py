"""Train a linear head in torch on cached features, with early stopping.

Its rows are small (5 kB), so each process reads its shard once and keeps it in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dlassets.errors import DlassetsError
from dlassets.lakehouse.tables import TRAIN, VALIDATION
from dlassets.learning.examples import Examples, Splits, read_split, read_splits, targets_of
from dlassets.learning.head import Head
from dlassets.learning.training.group import ALONE, Group
from dlassets.learning.training.job import Event, Job, Metrics, OnEvent, Trained
from dlassets.settings import TrainingSettings

if TYPE_CHECKING:
    import torch

STEPS_PER_EPOCH = 5
FEW_NUMBERS = 2**24


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
) -> Trained:
    """Fit a softmax head with an L2 penalty; keep the weights of the best validation loss.

    The problem is convex and its rows are few and ready, so an epoch is a few L-BFGS steps on all of them (Liu and
    Nocedal, 1989): no learning rate to choose, and the same rows and settings give the same weights. In a group each
    process has its own `train` and the same `validation`: what they learn is what one would from all of the rows, but
    for the last digits of sums. Rank 0 alone calls `on_epoch`. Raises DlassetsError where validation shares no class
    with training, or the loss is no longer a number.
    """
    import torch

    torch.manual_seed(settings.seed)
    names = _all_names(train, group)
    labels = tuple(names)
    mean, scale = _spread(train, group)
    learned, (inputs, targets) = _tensors(train, mean, scale, labels), _tensors(validation, mean, scale, labels)
    # A class that validation has and training lacks cannot be right; it has no say in when to stop.
    known = targets >= 0
    if not known.any():
        raise DlassetsError(
            "The validation split has no image of a class that the training split has. Put more photos of each class "
            "into the labelled landing zone."
        )
    linear = torch.nn.Linear(inputs.shape[1], len(labels))
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    linear = linear.to(group.device)
    known_rows = inputs[known].to(group.device), targets[known].to(group.device)
    with _threads_for(learned[0]):
        loss = _SharedLoss(linear, learned, settings, group)
        history, best_epoch = _fit(linear, loss, known_rows, settings, on_epoch, group)
    weight, bias = (value.detach().cpu().numpy() for value in (linear.weight, linear.bias))
    return Trained(Head(labels, tuple(names.values()), weight, bias, mean, scale), history, best_epoch)


class _SharedLoss:
    """The mean loss over all processes' rows: each works on its own, and all are given the sum."""

    def __init__(
        self, linear: torch.nn.Linear, rows: tuple[torch.Tensor, torch.Tensor], settings: TrainingSettings, group: Group
    ) -> None:
        import torch

        self._linear, self._settings, self._group = linear, settings, group
        self._inputs, self._targets = (tensor.to(group.device) for tensor in rows)
        counts = group.sum(torch.bincount(self._targets, minlength=linear.out_features))
        # Each class as a whole weighs the same. Of all rows at once, drawing rare ones more often would be no other.
        of_class = torch.ones(len(counts)) if settings.balance == "none" else 1 / counts.cpu()
        weights = of_class.to(group.device)[self._targets]
        self._weights = weights / group.sum(weights.sum())

    def __call__(self) -> torch.Tensor:
        """Return the loss with its penalty, (), and leave its gradient in the parameters."""
        import torch

        self._linear.zero_grad()
        losses = torch.nn.functional.cross_entropy(
            self._linear(self._inputs), self._targets, reduction="none", label_smoothing=self._settings.label_smoothing
        )
        penalty = self._settings.l2 / 2 * self._linear.weight.square().sum()
        loss = (losses * self._weights).sum() + penalty / self._group.size
        loss.backward()  # type: ignore[no-untyped-call]
        for parameter in self._linear.parameters():
            if parameter.grad is not None:
                parameter.grad = self._group.sum(parameter.grad)
        return self._group.sum(loss.detach())


def _fit(
    linear: torch.nn.Linear,
    penalised_loss: _SharedLoss,
    validation: tuple[torch.Tensor, torch.Tensor],
    settings: TrainingSettings,
    on_epoch: Callable[[int, Metrics], None] | None,
    group: Group,
) -> tuple[list[Metrics], int]:
    """Fit `linear` in place, ending with the weights of the best epoch; return what each epoch gave, and that epoch."""
    import torch

    optimizer = torch.optim.LBFGS(linear.parameters(), max_iter=STEPS_PER_EPOCH, line_search_fn="strong_wolfe")
    history: list[Metrics] = []
    best_epoch, best_loss, best_state = 0, float("inf"), linear.state_dict()
    for epoch in range(settings.epochs):
        loss = optimizer.step(penalised_loss).item()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            logits = linear(validation[0])
            losses = torch.nn.functional.cross_entropy(logits, validation[1])
            right = (logits.argmax(dim=1) == validation[1]).float().mean()
        validation_loss, accuracy = group.broadcast(torch.stack([losses, right])).tolist()
        history.append({"train_loss": loss, "validation_loss": validation_loss, "validation_accuracy": accuracy})
        if on_epoch is not None and group.is_main:
            on_epoch(epoch, history[-1])
        if not (np.isfinite(loss) and np.isfinite(validation_loss)):
            raise DlassetsError(
                f"The loss is not a number after epoch {epoch}. Look for features that are not numbers in the training "
                f"set, or raise training.l2 ({settings.l2}), and run again."
            )
        if validation_loss < best_loss - settings.min_improvement:
            best_epoch, best_loss = epoch, validation_loss
            best_state = {name: value.clone() for name, value in linear.state_dict().items()}
        elif epoch - best_epoch >= settings.patience:
            break
    linear.load_state_dict(best_state)
    return history, best_epoch


def _all_names(train: Examples, group: Group) -> dict[int, str]:
    """Return the name of each label that any process has, in the order of labels."""
    names: dict[int, str] = {}
    for shard in group.gather(sorted(set(zip(train.labels.tolist(), train.names, strict=True)))):
        names |= dict(shard)
    return dict(sorted(names.items()))


def _spread(train: Examples, group: Group) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean of each feature and one scale for all: their differences in spread say something of a photo."""
    import torch

    features = train.features
    sums = features.sum(axis=0, dtype=np.float64)
    squares = np.einsum("rf,rf->", features, features, dtype=np.float64)  # of no copy in float64
    found = torch.from_numpy(np.array([*sums, squares, features.size])).to(group.device)
    *sums, squares, count = group.sum(found).cpu().numpy()
    overall = np.sum(sums) / count
    spread = np.sqrt(squares / count - overall**2)
    mean = np.array(sums) * len(sums) / count
    return mean.astype(np.float32), np.full(len(sums), spread + 1e-6, np.float32)


@contextmanager
def _threads_for(inputs: torch.Tensor) -> Iterator[None]:
    """Fit few rows on one thread: L-BFGS is thousands of tiny products, over which threads wait for each other."""
    import torch

    before = torch.get_num_threads()
    if inputs.numel() < FEW_NUMBERS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _tensors(
    rows: Examples, mean: NDArray[np.float32], scale: NDArray[np.float32], labels: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    return torch.from_numpy((rows.features - mean) / scale), torch.from_numpy(targets_of(rows.labels, labels))
