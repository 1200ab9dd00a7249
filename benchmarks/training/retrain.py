"""What a hundred new labels cost: a head on cached features, against training on pixels and against the first training.

The head learns on features of a backbone that was trained on pixels before those labels came, as in a lake with
`features.weights: models:/…`. Photos are embedded when they arrive, so what the labels cost is the head alone; with
the embedding of their photos beside it.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table as Grid

from benchmarks.accuracy import paired_difference, redrawn_hashes, sides_of
from benchmarks.bench import Bench
from benchmarks.training.photos import embedded, labelled, training_set
from dlassets.engines.base import Snapshot
from dlassets.errors import DlassetsError
from dlassets.lakehouse.tables import TEST, TRAIN
from dlassets.lakehouse.training_set import PIXELS
from dlassets.learning.backbones import BackboneRef, backbone_of
from dlassets.learning.evaluation.evaluate import wilson_interval
from dlassets.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dlassets.learning.examples import Examples

    Mask = NDArray[np.bool_]

NEW_LABELS = 100
GOAL = 20

FULL = "all blocks on photos, all labels"
HEAD = "head, features of the blocks trained before"
HEAD_AND_PHOTOS = "the same, and the new photos embedded"
PLAIN = "head, plain features"
FIRST = "first training: all photos embedded, head, plain features"
BEFORE = "all blocks on photos, before the new labels"


@dataclass(frozen=True)
class Model:
    """`accuracy` on the test rows with its 95% interval; `minus_full` is paired, with its interval."""

    what: str
    labels: int
    seconds: float
    accuracy: float
    interval: tuple[float, float]
    minus_full: tuple[float, float, float]


@dataclass(frozen=True)
class Retrained:
    """`kept` is the epoch whose blocks were kept, of how many, of each training on photos: 0 is the head alone."""

    photos: int
    test_rows: int
    models: list[Model]
    kept: dict[str, tuple[int, int]]

    def tables(self) -> list[Grid]:
        kept = "; ".join(f"{what}: epoch {best} of {last}" for what, (best, last) in self.kept.items())
        grid = Grid(
            "what", "labels", "s", "full training / this", "accuracy", "95% interval", "minus full training, paired",
            title=f"{NEW_LABELS} new labels of {self.photos:,} photos, {self.test_rows} test rows",
            title_justify="left",
            caption=f"Goal: a head {GOAL} times as fast as the full training on photos, at equal accuracy\n"
            f"Kept, where 0 is the head alone: {kept}",
            caption_justify="left",
        )  # fmt: skip
        full = next(model.seconds for model in self.models if model.what == FULL)
        for model in self.models:
            grid.add_row(
                model.what,
                str(model.labels),
                f"{model.seconds:.3g}",
                f"{full / model.seconds:.0f}",
                f"{model.accuracy:.3f}",
                "{:.3f} to {:.3f}".format(*model.interval),
                "{:+.3f} ({:+.3f} to {:+.3f})".format(*model.minus_full),
            )
        return [grid]


def measure(bench: Bench) -> Retrained:
    """Train on photos before and after the labels come, and heads; a head's time is the median of `bench.runs`."""
    photos, plain = labelled(bench.images), backbone_of(Settings().features)
    sides = sides_of(photos.image_ids, Settings())
    earlier, test = ~newly_labelled(photos, sides), sides == TEST

    before, before_s = _on_photos(bench, "before", photos.taken(earlier), sides[earlier], plain)
    full, full_s = _on_photos(bench, "full", photos, sides, plain)
    features, speeds = {}, {}
    for ref in (plain, before, full):
        features[ref], speeds[ref] = embedded(bench, photos.paths, ref)

    def head(ref: BackboneRef, rows: Mask) -> tuple[Path, float]:
        return _head(bench, replace(photos.taken(rows), features=features[ref][rows]), sides[rows], ref)

    everything = np.ones_like(earlier)
    tuned_head, tuned_s = head(before, everything)
    plain_head, plain_s = head(plain, everything)
    first_head, first_s = head(plain, earlier)

    def right(folder: Path, ref: BackboneRef) -> Mask:
        is_right: Mask = _predictions(folder, features[ref][test]) == photos.labels[test]
        return is_right

    learned, learned_before = int((sides == TRAIN).sum()), int(((sides == TRAIN) & earlier).sum())
    rights = {
        FULL: (learned, full_s, right(bench.folder / "full", full)),
        HEAD: (learned, tuned_s, right(tuned_head, before)),
        HEAD_AND_PHOTOS: (learned, tuned_s + NEW_LABELS / speeds[before], right(tuned_head, before)),
        PLAIN: (learned, plain_s, right(plain_head, plain)),
        FIRST: (learned_before, first_s + len(photos) / speeds[plain], right(first_head, plain)),
        BEFORE: (learned_before, before_s, right(bench.folder / "before", before)),
    }
    models = [
        _model(what, labels, seconds, found, rights[FULL][2]) for what, (labels, seconds, found) in rights.items()
    ]
    kept = {FULL: _kept(bench.folder / "full"), BEFORE: _kept(bench.folder / "before")}
    return Retrained(len(photos), int(test.sum()), models, kept)


def newly_labelled(photos: Examples, sides: NDArray[np.str_]) -> Mask:
    """Return which training rows have their labels last: NEW_LABELS of them, drawn by a hash."""
    places = [int(place) for place in np.flatnonzero(sides == TRAIN)]
    if len(places) <= NEW_LABELS:
        raise DlassetsError(
            f"{len(places)} photos to learn from are too few for {NEW_LABELS} new labels: give a larger folder."
        )
    hashes = redrawn_hashes(photos.image_ids, draw=0)
    new = np.zeros(len(photos), dtype=bool)
    new[sorted(places, key=lambda place: hashes[place])[:NEW_LABELS]] = True
    return new


def _model(what: str, labels: int, seconds: float, right: Mask, full: Mask) -> Model:
    interval = wilson_interval(int(right.sum()), len(right))
    return Model(what, labels, seconds, float(right.mean()), interval, paired_difference(right, full))


def _kept(folder: Path) -> tuple[int, int]:
    from dlassets.learning.training.job import Trained

    trained = Trained.load(str(folder))
    return trained.best_epoch, len(trained.history) - 1


def _predictions(folder: Path, features: NDArray[np.float32]) -> NDArray[np.int64]:
    from dlassets.learning.training.job import Trained

    return Trained.load(str(folder)).head.predict(features)


def _on_photos(
    bench: Bench, name: str, rows: Examples, sides: NDArray[np.str_], ref: BackboneRef
) -> tuple[BackboneRef, float]:
    """Train all blocks; return the backbone as it then is, and the seconds it took."""
    table = training_set(bench.place(f"{name}-lake"), rows, sides, PIXELS)
    folder = bench.place(name)
    seconds = _task(bench, table, ref, "all", folder)
    return replace(ref, weights=str(folder / "weights.safetensors")), seconds


def _head(bench: Bench, rows: Examples, sides: NDArray[np.str_], ref: BackboneRef) -> tuple[Path, float]:
    """Train a head so often; return where it is, and the median of the seconds."""
    name = f"head-{len(list(bench.folder.glob('head-*')))}"
    table = training_set(bench.place(f"lake-of-{name}"), rows, sides, ref.name)
    folder = bench.place(name)
    return folder, statistics.median(_task(bench, table, ref, "head", folder) for _ in range(bench.runs))


def _task(bench: Bench, table: Snapshot, ref: BackboneRef, trainable: str, folder: Path) -> float:
    took = bench.task(
        __name__, "train", table=asdict(table), ref=asdict(ref), trainable=trainable, folder=str(folder),
    )  # fmt: skip
    return float(took["seconds"])


def train(table: dict[str, Any], ref: dict[str, Any], trainable: str, folder: str) -> dict[str, float]:
    """Train, from rows in Delta to a model in `folder`. A task of benchmarks.worker."""
    from dlassets.learning.training.job import Job
    from dlassets.learning.training.launch import Place, launch

    settings = Settings().training.model_copy(update={"trainable": trainable})
    job = Job(Snapshot(**table), BackboneRef(**ref), settings)
    began = time.perf_counter()
    launch(job, Place(), lambda _: None).save(folder)
    return {"seconds": time.perf_counter() - began}
