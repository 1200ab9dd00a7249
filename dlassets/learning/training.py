"""Train a linear head in torch on one pinned version of `training_set`, read by Petastorm, with early stopping.

The rows of a head are small (5 kB), so each process reads its shard once and keeps it in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlassets.engines.base import Snapshot
from dlassets.errors import DlassetsError
from dlassets.lakehouse.tables import TEST, TRAIN, VALIDATION
from dlassets.learning.head import Head
from dlassets.learning.petastorm import read_columns
from dlassets.settings import TrainingSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Metrics = dict[str, float]


@dataclass(frozen=True)
class Rows:
    """Rows of one split, ordered by image_id: the order of files must not change what is learned."""

    paths: list[str]
    image_ids: list[str]
    labels: NDArray[np.int64]
    names: list[str]
    features: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Trained:
    head: Head
    history: list[Metrics]
    best_epoch: int


def read_split(training_set: Snapshot, split: str, shard: tuple[int, int] = (0, 1)) -> Rows:
    """Read one split of a pinned version through Petastorm; `shard` is (rank, world size)."""
    columns = ["path", "image_id", "label", "label_name", "features"]
    read = read_columns(training_set.uri, training_set.version, columns, [("split", "=", split)], shard=shard)
    order = np.argsort(read["image_id"].astype(str), kind="stable")
    return Rows(
        paths=list(read["path"][order]),
        image_ids=list(read["image_id"][order]),
        labels=read["label"][order].astype(np.int64),
        names=list(read["label_name"][order]),
        features=np.ascontiguousarray(read["features"][order], dtype=np.float32),
    )


def read_splits(training_set: Snapshot) -> dict[str, Rows]:
    """Read all three splits. Raises DlassetsError where there is too little to learn from."""
    splits = {split: read_split(training_set, split) for split in (TRAIN, VALIDATION, TEST)}
    if any(not len(rows) for rows in splits.values()):
        counts = ", ".join(f"{split} {len(rows)}" for split, rows in splits.items())
        raise DlassetsError(
            f"There are too few labelled images to learn from: {counts}. Put more photos into the labelled landing "
            "zone: each split needs at least one, and a few dozen a class make a model."
        )
    if len(classes := set(splits[TRAIN].labels.tolist())) < 2:  # noqa: PLR2004 - telling apart takes two
        raise DlassetsError(
            f"The training split has one class only ({splits[TRAIN].names[0]}, label {classes.pop()}). A classifier "
            "needs two: put photos of another class into the labelled landing zone."
        )
    return splits


def train_head(
    train: Rows, validation: Rows, settings: TrainingSettings, on_epoch: Callable[[int, Metrics], None] | None = None
) -> Trained:
    """Fit a softmax head by AdamW; keep the weights of the best validation loss. Same rows and settings, same weights.

    Raises DlassetsError where the loss is no longer a number.
    """
    import torch

    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    names = dict(zip(train.labels.tolist(), train.names, strict=True))
    labels = tuple(sorted(names))
    mean, scale = train.features.mean(axis=0), train.features.std(axis=0) + 1e-6
    inputs = {rows: torch.from_numpy((rows_.features - mean) / scale) for rows, rows_ in _both(train, validation)}
    # A class that validation has and training lacks cannot be right; it is left out of the stopping rule.
    targets = {rows: torch.from_numpy(_indices(rows_.labels, labels)) for rows, rows_ in _both(train, validation)}
    known = targets[VALIDATION] >= 0

    linear = torch.nn.Linear(inputs[TRAIN].shape[1], len(labels))
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    optimizer = torch.optim.AdamW(linear.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    loss_of = torch.nn.functional.cross_entropy
    history: list[Metrics] = []
    best_epoch, best_loss, best_state = 0, float("inf"), {}
    for epoch in range(settings.epochs):
        losses = []
        for rows in torch.split(torch.randperm(len(train), generator=generator), settings.batch_size):
            loss = loss_of(linear(inputs[TRAIN][rows]), targets[TRAIN][rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        with torch.no_grad():
            logits = linear(inputs[VALIDATION][known])
            validation_loss = loss_of(logits, targets[VALIDATION][known]).item()
            accuracy = (logits.argmax(dim=1) == targets[VALIDATION][known]).float().mean().item()
        metrics = {
            "train_loss": float(np.mean(losses)),
            "validation_loss": validation_loss,
            "validation_accuracy": accuracy,
        }
        history.append(metrics)
        if on_epoch is not None:
            on_epoch(epoch, metrics)
        if not np.isfinite(metrics["train_loss"]):
            raise DlassetsError(
                f"The training loss is not a number after epoch {epoch}. Lower training.learning_rate "
                f"({settings.learning_rate}) and run again."
            )
        if validation_loss < best_loss:
            best_epoch, best_loss = epoch, validation_loss
            best_state = {name: value.clone() for name, value in linear.state_dict().items()}
        elif epoch - best_epoch >= settings.patience:
            break
    head = Head(
        labels=labels,
        names=tuple(names[label] for label in labels),
        weight=best_state["weight"].numpy(),
        bias=best_state["bias"].numpy(),
        mean=mean,
        scale=scale,
    )
    return Trained(head, history, best_epoch)


def _both(train: Rows, validation: Rows) -> tuple[tuple[str, Rows], tuple[str, Rows]]:
    return (TRAIN, train), (VALIDATION, validation)


def _indices(labels: NDArray[np.int64], classes: tuple[int, ...]) -> NDArray[np.int64]:
    """Return each label's place in `classes`, or -1."""
    places = {label: place for place, label in enumerate(classes)}
    return np.array([places.get(label, -1) for label in labels.tolist()], dtype=np.int64)
