"""What people would rather look at: how right and how sure a model is, how it learned, the photos it got wrong."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dlassets.images.decode import ImageError, Pixels, decode_rgb
from dlassets.learning.evaluation.evaluate import Evaluation
from dlassets.learning.evaluation.slices import Slice, significantly_worse

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN = 256  # pixels of a photo's longer side
_LINE, _ROW = 24, 2.8  # letters in a line of a photo's caption, and inches of the photo with three such lines
_USUAL, _RIGHT, _WORSE, _FEW = "tab:blue", "tab:orange", "tab:red", "lightsteelblue"


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, its sides in inches, of 100 pixels each in the PNG."""
    import matplotlib as mpl

    # Figure itself, not pyplot: no global state, so pictures can be drawn in any thread.
    from matplotlib.figure import Figure

    mpl.rcParams["text.parse_math"] = False  # names of files and classes are no formulas, whatever is in them
    warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # it is drawn as a box
    return Figure(figsize=(width, height), dpi=100, layout="constrained")


def as_png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    # As figure.savefig would, but for a drawing in vain before: that lays out what is laid out here again.
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def confusion_matrix(evaluation: Evaluation) -> bytes:
    """Return a PNG of the confusion matrix: true class by row, predicted by column."""
    size = 2.5 + 0.45 * len(evaluation.labels)
    figure = new_figure(size + 1, size)
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
    return as_png(figure)


def per_class(evaluation: Evaluation) -> bytes:
    """Return a PNG of each class's recall and precision, with their intervals at 95%."""
    figure = new_figure(8, 1.4 + 0.5 * len(evaluation.labels))
    axes = figure.subplots()
    places = np.arange(len(evaluation.labels))
    measures = (
        ("recall", evaluation.recall, evaluation.recall_intervals, _USUAL, -0.2),
        ("precision", evaluation.precision, evaluation.precision_intervals, _RIGHT, 0.2),
    )
    for name, shares, intervals, colour, shift in measures:
        axes.barh(places + shift, shares, height=0.36, label=name, color=colour, alpha=0.7)
        axes.hlines(places + shift, *intervals.T, color="black", linewidth=1)
    counts = evaluation.confusion.sum(axis=1)
    axes.set_yticks(places, [f"{name} ({rows})" for name, rows in zip(evaluation.names, counts, strict=True)])
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_title(f"macro F1 {evaluation.macro_f1.value:.3f}; rows in brackets, lines: 95%", fontsize=10)
    axes.legend(fontsize=8, loc="lower left")
    return as_png(figure)


def calibration_plot(before: Evaluation, after: Evaluation) -> bytes:
    """Return a PNG of how often a model was right by how sure it was, before and after it was calibrated."""
    return reliability_plot({"before": before, "after": after})


def reliability_plot(evaluations: Mapping[str, Evaluation]) -> bytes:
    """Return a PNG of how often models were right by how sure they were, beside each other by what they are called.

    A calibrated model is on the diagonal; the bars below say how many rows a point stands for (a reliability diagram:
    Guo et al., 2017).
    """
    figure = new_figure(4.5 * len(evaluations), 4.6)
    grid = figure.subplots(2, len(evaluations), sharex=True, height_ratios=(3, 1), squeeze=False)
    for (shares, rows), (name, evaluation) in zip(grid.T, evaluations.items(), strict=True):
        _reliability_diagram(shares, rows, evaluation)
        shares.set_title(f"{name}: calibration error {evaluation.reliability.error:.3f}", fontsize=10)
    return as_png(figure)


def _reliability_diagram(shares: Axes, rows: Axes, evaluation: Evaluation) -> None:
    found = evaluation.reliability
    some = found.counts > 0
    edges = np.linspace(0, 1, len(found.counts) + 1)
    shares.plot([0, 1], [0, 1], color="grey", linestyle=":")
    shares.vlines(found.confidence[some], found.accuracy[some], found.confidence[some], color=_WORSE, alpha=0.5)
    shares.plot(found.confidence[some], found.accuracy[some], marker="o", color=_USUAL)
    shares.set(xlim=(0, 1), ylim=(0, 1), ylabel="right")
    rows.bar(edges[:-1], found.counts, width=np.diff(edges), align="edge", color=_USUAL, edgecolor="white")
    rows.set(xlabel="confidence", ylabel="rows")


def slices_chart(slices: Sequence[Slice], evaluation: Evaluation) -> bytes:
    """Return a PNG of the accuracy of slices, as points in their intervals at 95%, beside that of all rows.

    Red are those that are significantly worse than the rest, light those with too few rows to say much.
    """
    worse = significantly_worse(slices)
    figure = new_figure(8, 1.4 + 0.28 * max(1, len(slices)))
    axes = figure.subplots()
    for place, each in enumerate(slices):
        colour = _WORSE if each in worse else _FEW if each.has_few else _USUAL
        # The interval is what is coloured: it is there for an accuracy of 0, too.
        axes.hlines(place, *each.interval, color=colour, linewidth=9)
        axes.plot(each.accuracy, place, marker="o", color="black", markersize=4, clip_on=False)
    axes.axvspan(*evaluation.interval, color="grey", alpha=0.2, zorder=0)
    axes.axvline(evaluation.accuracy, color="grey", linestyle=":")
    names = [f"{each.dimension}: {each.value} ({each.rows})" for each in slices]
    axes.set_yticks(range(len(slices)), names, fontsize=8)
    axes.set_ylim(max(1, len(slices)) - 0.5, -0.5)
    axes.set_xlim(-0.01, 1.01)
    axes.set_title("accuracy by slice; red: worse than the rest, light: few rows, line: all rows", fontsize=10)
    return as_png(figure)


def gained_and_lost(changes: Sequence[tuple[str, int, int]], title: str) -> bytes:
    """Return a PNG of how many photos one model gained on another, to the right, and lost, by what they are of."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(8, 1.4 + 0.28 * max(1, len(changes)))
    axes = figure.subplots()
    places = range(len(changes))
    axes.barh(places, [gained for _, gained, _ in changes], color=_USUAL, label="gained")
    axes.barh(places, [-lost for _, _, lost in changes], color=_WORSE, label="lost")
    axes.axvline(0, color="black", linewidth=1)
    most = max(1, *(max(gained, lost) for _, gained, lost in changes))
    axes.set_xlim(-1.1 * most, 1.1 * most)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(lambda count, _: f"{abs(count):g}")
    axes.set_yticks(places, [shortened(name, 2 * _LINE) for name, _, _ in changes], fontsize=8)
    axes.set_ylim(max(1, len(changes)) - 0.5, -0.5)
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, loc="lower right")
    return as_png(figure)


def bars(shares: Mapping[str, Mapping[str, float]], title: str) -> bytes:
    """Return a PNG of shares of 0 to 1: a bar for each name within each model, models beside each other."""
    figure = new_figure(8, 3.2)
    axes = figure.subplots()
    width = 0.8 / len(shares)
    for place, (model, by_name) in enumerate(shares.items()):
        lefts = np.arange(len(by_name)) + (place - (len(shares) - 1) / 2) * width
        drawn = axes.bar(lefts, list(by_name.values()), width, label=model, color=(_USUAL, _RIGHT)[place % 2])
        axes.bar_label(drawn, fmt="%.2f", fontsize=7)
        axes.set_xticks(range(len(by_name)), list(by_name), fontsize=8)
    axes.set_ylim(0, 1.08)
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, loc="lower left")
    return as_png(figure)


def learning_curve(history: Sequence[Mapping[str, float]], best_epoch: int) -> bytes:
    """Return a PNG of loss, accuracy and whatever else was measured, by epoch; not each epoch needs to have each."""
    groups: dict[str, list[str]] = {"loss": [], "accuracy": []}
    for name in dict.fromkeys(name for epoch in history for name in epoch):
        groups.setdefault(next((kind for kind in ("loss", "accuracy") if name.endswith(kind)), name), []).append(name)
    drawn = {title: members for title, members in groups.items() if members}
    figure = new_figure(4 * max(2, len(drawn)), 3.2)
    for axes, (title, members) in zip(figure.subplots(1, max(2, len(drawn))), drawn.items(), strict=False):
        for name in members:
            points = [(epoch, metrics[name]) for epoch, metrics in enumerate(history) if name in metrics]
            axes.plot(*zip(*points, strict=True), label=name.replace("_", " "), marker="." if len(points) == 1 else "")
        axes.axvline(best_epoch, color="grey", linestyle=":", label="kept")
        axes.set_xlabel("epoch")
        axes.set_title(title.replace("_", " "), fontsize=9)
        axes.legend(fontsize=8)
    return as_png(figure)


def shortened(name: str, letters: int = _LINE) -> str:
    """Return a name with its middle left out where it is longer: its beginning and its end tell it from others."""
    name = "".join(letter if letter.isprintable() else "?" for letter in name)
    if len(name) <= letters:
        return name
    end = (letters - 1) // 2
    return f"{name[: letters - 1 - end]}…{name[-end:]}"


def _wrapped(caption: str) -> str:
    return "\n".join(textwrap.fill(line, _LINE) for line in caption.splitlines())


def gallery(photos: Sequence[tuple[bytes, str]], title: str, columns: int = 6) -> bytes:
    """Return a PNG that shows photos, each a file's bytes with its caption: this alone of what does not decode."""
    from PIL import Image

    rows = max(1, -(-len(photos) // columns))
    figure = new_figure(2 * columns, _ROW * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, (content, caption) in zip(grid.flat, photos, strict=False):
        with suppress(ImageError):
            image = Image.fromarray(decode_rgb(content, _SHOWN))
            image.thumbnail((_SHOWN, _SHOWN))
            axes.imshow(image)
        axes.set_title(_wrapped(caption), fontsize=8)
    figure.suptitle(title, fontsize=11)
    return as_png(figure)


def saliency_sheet(photos: Sequence[tuple[Pixels, NDArray[np.float32], str]], pairs: int = 4) -> bytes:
    """Return a PNG of photos beside themselves overlaid with what a model saw in them, `pairs` a row.

    Each is its pixels, (height, width, 3), its saliency, (height, width) of 0 to 1, and its caption.
    """
    rows = max(1, -(-len(photos) // pairs))
    figure = new_figure(4 * pairs, _ROW * rows + 0.4)
    grid = figure.subplots(rows, 2 * pairs, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for (plain, overlaid), (pixels, seen, caption) in zip(grid.reshape(-1, 2), photos, strict=False):
        plain.imshow(pixels)
        plain.set_title(_wrapped(caption), fontsize=8)
        overlaid.imshow(pixels.mean(axis=2), cmap="gray", vmin=0, vmax=255)
        overlaid.imshow(seen, cmap="inferno", vmin=0, vmax=1, alpha=0.7 * seen)
    figure.suptitle("What speaks for the predicted class (Grad-CAM)", fontsize=11)
    return as_png(figure)
