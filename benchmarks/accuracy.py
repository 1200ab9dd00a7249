"""How good the registered models are, before and after people's answers, beside a plain linear probe on the same rows.

The project runs its loop on a lake of its own. Its test split is judged whole: the rows are all photos that the hash
puts on the test side, with their true classes, and not only those whose label the lake knows (the models ask for the
hard ones, so those are not a fair sample).
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table as Grid

from benchmarks.processes import demo
from dlassets.demo.photos import Photo, photos_in
from dlassets.engines.base import Snapshot
from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError
from dlassets.images.folders import class_of_folder
from dlassets.lakehouse.hashing import split_of
from dlassets.lakehouse.split_groups import GROUPS
from dlassets.lakehouse.tables import LABELED_IMAGES, RAW_IMAGES, TEST, TRAIN, TRAINING_SET, VALIDATION
from dlassets.learning.backbones import backbone_of
from dlassets.learning.embedding import load_backbone
from dlassets.learning.evaluation.evaluate import Z_95, wilson_interval
from dlassets.learning.examples import Examples, read_split
from dlassets.learning.training.head_training import train_head
from dlassets.pipeline.session import Session
from dlassets.registry.lifecycle import versions_of
from dlassets.registry.model_registry import load_version
from dlassets.registry.package import ModelPackage
from dlassets.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Predict = Callable[[NDArray[np.float32]], NDArray[np.int64]]

PEER = "linear probe, C by validation"
PEER_DEFAULT = "linear probe, C = 1"
HEAD = "dlassets"
_CS = (0.01, 0.1, 1.0)
_TRAINED_BY = "dlassets.training_set_version"


@dataclass(frozen=True)
class Score:
    """One model on the test rows; intervals are at 95%.

    `minus_ours` is a peer's accuracy minus that of dlassets' model of the same `when`, paired, with its interval.
    """

    when: str
    model: str
    labels: int
    accuracy: float
    interval: tuple[float, float]
    minus_ours: tuple[float, float, float] | None


@dataclass(frozen=True)
class Redrawn:
    """Means over re-drawn splits; `minus_ours` is each peer's mean difference to dlassets, and its spread."""

    when: str
    labels: float
    accuracy: dict[str, float]
    minus_ours: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Accuracy:
    images: int
    test_rows: int
    scores: list[Score]
    draws: int
    redrawn: list[Redrawn]

    def tables(self) -> list[Grid]:
        one = Grid(
            "", "model", "labels learned from", "accuracy", "95% interval", "minus dlassets, paired",
            title=f"Accuracy on the same {self.test_rows} test rows (of {self.images:,} photos)", title_justify="left",
        )  # fmt: skip
        for score in self.scores:
            low, high = score.interval
            one.add_row(
                score.when if score.model.startswith(HEAD) else "",
                score.model,
                str(score.labels),
                f"{score.accuracy:.3f}",
                f"{low:.3f} to {high:.3f}",
                "" if score.minus_ours is None else "{:+.3f} ({:+.3f} to {:+.3f})".format(*score.minus_ours),
                end_section=score.model == PEER_DEFAULT,
            )
        many = Grid(
            "", "labels learned from", HEAD, PEER, "minus dlassets", PEER_DEFAULT, "minus dlassets",
            title=f"Mean accuracy over {self.draws} re-drawn splits of the same photos (± spread of the differences)",
            title_justify="left",
        )  # fmt: skip
        for mean in self.redrawn:
            peers = [
                text
                for peer in (PEER, PEER_DEFAULT)
                for text in (f"{mean.accuracy[peer]:.3f}", "{:+.3f} ± {:.3f}".format(*mean.minus_ours[peer]))
            ]
            many.add_row(mean.when, f"{mean.labels:.0f}", f"{mean.accuracy[HEAD]:.3f}", *peers)
        return [one, many]


def measure(images: Path, engine: str, folder: Path, draws: int) -> Accuracy:
    """Run the loop on a lake of its own in `folder`, then judge its first and its last model, and their peers."""
    import sklearn.linear_model  # noqa: F401 - both are loaded before the limit, which is on what is loaded
    import torch  # noqa: F401 - as above
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    root = folder / f"accuracy-{engine}"
    demo(images, root, engine)
    # The matrices are small: threads wait for each other longer than they work, on a busy machine many times as long.
    with threadpool_limits(1):
        return _judge(images, Session(Settings(root=str(root))), draws)


def _judge(images: Path, session: Session, draws: int) -> Accuracy:
    photos = _photos(images, session)
    groups = groups_of(photos.image_ids, session)
    sides = sides_of(groups, session.settings)
    test = photos.taken(sides == TEST)
    scores = []
    for when, name, package, learned_from in _registered(session):
        train, validation = read_split(learned_from, TRAIN), read_split(learned_from, VALIDATION)
        scores += _scores(when, f"{HEAD}, {name}", package.head.predict, train, validation, test)
    train, validation = photos.taken(sides == TRAIN), photos.taken(sides == VALIDATION)
    head = train_head(train, validation, session.settings.training).head
    scores += _scores("had all been labelled", f"{HEAD}, trained here", head.predict, train, validation, test)
    return Accuracy(
        len(photos), len(test), scores, draws, _redrawn(photos, groups, session.settings, draws) if draws else []
    )


def _photos(images: Path, session: Session) -> Examples:
    """Return the photos the lake took in, with their true classes, embedded here from their bytes."""
    taken_in = session.engine.sql(
        "SELECT DISTINCT image_id FROM raw_images", {RAW_IMAGES.name: session.pin(RAW_IMAGES)}
    ).arrow()
    usable = set(taken_in["image_id"].to_pylist())
    photos = {photo.image_id: photo for photo in photos_in(images) if photo.image_id in usable}
    chosen = [photos[image_id] for image_id in sorted(photos)]
    backbone = load_backbone(backbone_of(session.settings.features))
    return replace(rows_of(chosen), features=backbone.embed_bytes([photo.path.read_bytes() for photo in chosen]))


def rows_of(photos: Sequence[Photo]) -> Examples:
    """Return photos with the labels that their folders say, without features."""
    labels = [_label(photo.folder) for photo in photos]
    return Examples(
        paths=[str(photo.path) for photo in photos],
        image_ids=[photo.image_id for photo in photos],
        labels=np.array([label for label, _ in labels], dtype=np.int64),
        names=[name for _, name in labels],
        features=np.empty((len(photos), 0), np.float32),
    )


def _label(folder: str) -> tuple[int, str]:
    found = class_of_folder(folder)
    if found is None or found.label is None:
        raise DlassetsError(f"Folder {folder!r} does not begin with a number: name it like 012.name, or take it out.")
    return found.label, found.name or str(found.label)


def _registered(session: Session) -> list[tuple[str, str, ModelPackage, Snapshot]]:
    """Return the first and the last registered version, with the training set that each learned from."""
    mlflow = session.mlflow
    model = session.settings.registry.model_name
    versions = versions_of(mlflow.client, model)
    found = []
    for when, version in (("before the answers", versions[0]), ("after the answers", versions[-1])):
        run = mlflow.client.get_run(mlflow.client.get_model_version(model, str(version)).run_id)
        uri = session.lake.table(TRAINING_SET.name)
        learned_from = Snapshot(TRAINING_SET.name, uri, int(run.data.tags[_TRAINED_BY]))
        found.append((when, f"version {version}", load_version(session.registry, version), learned_from))
    return found


def groups_of(image_ids: Sequence[str], session: Session) -> list[str]:
    """Return the image that decides each one's side: of those that the lake has no label of, itself."""
    found = session.engine.sql(GROUPS, {LABELED_IMAGES.name: session.pin(LABELED_IMAGES)}).arrow()
    decided = dict(zip(found["image_id"].to_pylist(), found["split_group"].to_pylist(), strict=True))
    return [decided.get(image_id, image_id) for image_id in image_ids]


def sides_of(image_ids: Sequence[str], settings: Settings) -> NDArray[np.str_]:
    """Return train, validation or test for each image, by the project's own rule."""
    import pyarrow as pa

    engine = LocalEngine()
    rows = engine.rows(pa.table({"place": range(len(image_ids)), "image_id": list(image_ids)}))
    query = f"SELECT {split_of('image_id', settings.split)} AS split FROM photos ORDER BY place"
    return np.array(engine.sql(query, {"photos": rows}).arrow()["split"].to_pylist())


def probes(train: Examples, validation: Examples) -> dict[str, Predict]:
    """Fit the peers: scikit-learn's logistic regression on standardised features, of several C the best, and C = 1."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fitted = {c: make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000)) for c in _CS}
    for model in fitted.values():
        model.fit(train.features, train.labels)
    best = max(fitted.values(), key=lambda model: model.score(validation.features, validation.labels))
    return {PEER: best.predict, PEER_DEFAULT: fitted[1.0].predict}


def _scores(
    when: str, name: str, predict: Predict, train: Examples, validation: Examples, test: Examples
) -> list[Score]:
    """Judge a model of dlassets, and the probes that learn from the same rows."""
    ours = predict(test.features) == test.labels
    scores = [_score(when, name, len(train), ours, None)]
    for peer, predict_as_peer in probes(train, validation).items():
        right = predict_as_peer(test.features) == test.labels
        scores.append(_score(when, peer, len(train), right, paired_difference(right, ours)))
    return scores


def _score(
    when: str, model: str, labels: int, right: NDArray[np.bool_], minus_ours: tuple[float, float, float] | None
) -> Score:
    return Score(when, model, labels, float(right.mean()), wilson_interval(int(right.sum()), len(right)), minus_ours)


def paired_difference(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Return the accuracy of `one` minus that of `other` on the same rows, and its 95% interval (Wald, paired).

    Narrower than two intervals side by side, since rows that both get right or wrong say nothing.
    """
    only_one, only_other, rows = int((one & ~other).sum()), int((other & ~one).sum()), len(one)
    difference = (only_one - only_other) / rows
    half = Z_95 * math.sqrt(only_one + only_other - rows * difference**2) / rows
    return difference, difference - half, difference + half


def _redrawn(photos: Examples, groups: Sequence[str], settings: Settings, draws: int) -> list[Redrawn]:
    """Draw split and held-back part anew, by the same rules on other hashes: one split's test rows may be lucky."""
    whens = ("70% labelled, as before the answers", "all labelled")
    accuracies: dict[str, list[dict[str, float]]] = {when: [] for when in whens}
    labels: dict[str, list[int]] = {when: [] for when in whens}
    for draw in range(draws):
        hashes = redrawn_hashes(groups, draw)
        sides = sides_of(hashes, settings)
        labelled = ~np.array([Photo(Path(), "", image_id).is_held_back() for image_id in hashes])
        test = photos.taken(sides == TEST)
        for when, known in zip(whens, (labelled, np.ones_like(labelled)), strict=True):
            train, validation = photos.taken((sides == TRAIN) & known), photos.taken((sides == VALIDATION) & known)
            models = {
                HEAD: train_head(train, validation, settings.training).head.predict,
                **probes(train, validation),
            }
            right = {name: float((predict(test.features) == test.labels).mean()) for name, predict in models.items()}
            accuracies[when].append(right)
            labels[when].append(len(train))
    return [Redrawn(when, statistics.mean(labels[when]), *_means(accuracies[when])) for when in whens]


def redrawn_hashes(image_ids: Sequence[str], draw: int) -> list[str]:
    """Return other hashes for the images, the same ones each time for the same draw."""
    return [hashlib.sha256(f"{draw}:{image_id}".encode()).hexdigest() for image_id in image_ids]


def _means(draws: Sequence[dict[str, float]]) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Return each model's mean, and each peer's mean difference to dlassets with its standard deviation."""
    means = {name: statistics.mean(draw[name] for draw in draws) for name in (HEAD, PEER, PEER_DEFAULT)}
    minus_ours = {}
    for peer in (PEER, PEER_DEFAULT):
        differences = [draw[peer] - draw[HEAD] for draw in draws]
        minus_ours[peer] = (statistics.mean(differences), statistics.pstdev(differences))
    return means, minus_ours
