"""What people would rather look at: the confusion matrix, the learning curve, the photos a model got wrong."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlassets.learning.evaluation import Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def confusion_matrix(evaluation: Evaluation) -> bytes:
    """Return a PNG of the confusion matrix: true class by row, predicted by column."""
    size = 2.5 + 0.45 * len(evaluation.labels)
    figure = _figure(size + 1, size)
    axes = figure.subplots()
    shares = evaluation.confusion / np.maximum(evaluation.confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(evaluation.names)), evaluation.names, rotation=45, ha="right")
    axes.set_yticks(range(len(evaluation.names)), evaluation.names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    low, high = evaluation.interval
    axes.set_title(f"accuracy {evaluation.accuracy:.3f} ({low:.3f} to {high:.3f}), {evaluation.rows} rows", fontsize=10)
    for (row, column), count in np.ndenumerate(evaluation.confusion):
        if count:
            dark = shares[row, column] > 0.5  # noqa: PLR2004 - half of the colour scale
            axes.text(column, row, str(count), ha="center", va="center", color="white" if dark else "black", fontsize=8)
    return _png(figure)


def learning_curve(history: Sequence[Mapping[str, float]], best_epoch: int) -> bytes:
    """Return a PNG of loss and accuracy by epoch."""
    figure = _figure(8, 3.2)
    losses, accuracy = figure.subplots(1, 2)
    for axes, names in ((losses, ("train_loss", "validation_loss")), (accuracy, ("validation_accuracy",))):
        for name in names:
            axes.plot([epoch[name] for epoch in history], label=name.replace("_", " "))
        axes.axvline(best_epoch, color="grey", linestyle=":", label="kept")
        axes.set_xlabel("epoch")
        axes.legend(fontsize=8)
    return _png(figure)


def gallery(photos: Sequence[tuple[bytes, str]], title: str, columns: int = 6) -> bytes:
    """Return a PNG that shows photos, each a file's bytes with its caption."""
    from PIL import Image

    rows = max(1, -(-len(photos) // columns))
    figure = _figure(2 * columns, 2.5 * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, (content, caption) in zip(grid.flat, photos, strict=False):
        with Image.open(io.BytesIO(content)) as image:
            image.draft("RGB", (256, 256))
            image.thumbnail((256, 256))
            axes.imshow(image.convert("RGB"))
        axes.set_title(textwrap.fill(caption, 24), fontsize=8)
    figure.suptitle(title, fontsize=11)
    return _png(figure)


def _figure(width: float, height: float) -> Figure:
    # Figure itself, not pyplot: no global state, so pictures can be drawn in any thread.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
