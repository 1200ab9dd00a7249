"""Train a linear head in torch on cached features, with early stopping.

Its rows are small (5 kB), so each process reads its shard once and keeps it in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from dlassets.errors import DlassetsError
from dlassets.learning.head import Head
from dlassets.learning.job import Trained
from dlassets.learning.rows import Rows
from dlassets.settings import TrainingSettings

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from dlassets.learning.job import Metrics

STEPS_PER_EPOCH = 5
FEW_NUMBERS = 2**24


def train_head(
    train: Rows, validation: Rows, settings: TrainingSettings, on_epoch: Callable[[int, Metrics], None] | None = None
) -> Trained:
    """Fit a softmax head with an L2 penalty; keep the weights of the best validation loss.

    The problem is convex and its rows are few and ready, so an epoch is a few L-BFGS steps on all of them (Liu and
    Nocedal, 1989): no learning rate to choose, and the same rows and settings give the same weights. Raises
    DlassetsError where validation shares no class with training, or the loss is no longer a number.
    """
    import torch

    torch.manual_seed(settings.seed)
    names = dict(zip(train.labels.tolist(), train.names, strict=True))
    labels = tuple(sorted(names))
    # One scale for all features: their differences in spread are what the backbone has to say.
    mean, scale = train.features.mean(axis=0), np.full(train.features.shape[1], train.features.std() + 1e-6, np.float32)
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
    with _threads_for(learned[0]):
        history, best_epoch = _fit(linear, learned, (inputs[known], targets[known]), settings, on_epoch)
    head = Head(
        labels=labels,
        names=tuple(names[label] for label in labels),
        weight=linear.weight.detach().numpy(),
        bias=linear.bias.detach().numpy(),
        mean=mean,
        scale=scale,
    )
    return Trained(head, history, best_epoch)


def _fit(
    linear: torch.nn.Linear,
    train: tuple[torch.Tensor, torch.Tensor],
    validation: tuple[torch.Tensor, torch.Tensor],
    settings: TrainingSettings,
    on_epoch: Callable[[int, Metrics], None] | None,
) -> tuple[list[Metrics], int]:
    """Fit `linear` in place, ending with the weights of the best epoch; return what each epoch gave, and that epoch."""
    import torch

    optimizer = torch.optim.LBFGS(linear.parameters(), max_iter=STEPS_PER_EPOCH, line_search_fn="strong_wolfe")
    loss_of = torch.nn.functional.cross_entropy

    def penalised_loss() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = loss_of(linear(train[0]), train[1]) + settings.l2 / 2 * linear.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    history: list[Metrics] = []
    best_epoch, best_loss, best_state = 0, float("inf"), linear.state_dict()
    for epoch in range(settings.epochs):
        loss = optimizer.step(penalised_loss).item()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            logits = linear(validation[0])
            validation_loss = loss_of(logits, validation[1]).item()
            accuracy = (logits.argmax(dim=1) == validation[1]).float().mean().item()
        history.append({"train_loss": loss, "validation_loss": validation_loss, "validation_accuracy": accuracy})
        if on_epoch is not None:
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
    rows: Rows, mean: NDArray[np.float32], scale: NDArray[np.float32], labels: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    return torch.from_numpy((rows.features - mean) / scale), torch.from_numpy(_indices(rows.labels, labels))


def _indices(labels: NDArray[np.int64], classes: tuple[int, ...]) -> NDArray[np.int64]:
    """Return each label's place in `classes`, or -1."""
    places = {label: place for place, label in enumerate(classes)}
    return np.array([places.get(label, -1) for label in labels.tolist()], dtype=np.int64)
