"""What blur, noise, light and compression cost: models on a few test photos, as they are and as they become."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dlassets.images.decode import ImageError, Pixels, View, as_seen
from dlassets.images.digest import image_id_of
from dlassets.lakehouse.photos import Photos
from dlassets.learning.backbones import Runtime
from dlassets.learning.embedding import BATCH, load_backbone
from dlassets.learning.evaluation.corruptions import CORRUPTIONS
from dlassets.learning.examples import Examples
from dlassets.registry.package import ModelPackage

AS_THEY_ARE = "as they are"


@dataclass(frozen=True)
class Robustness:
    """`accuracies` are of each model, by what was done to the `photos` photos; first of all nothing was."""

    photos: int = 0
    accuracies: list[dict[str, float]] = field(default_factory=list)

    def lost(self, model: int) -> dict[str, float]:
        """Return how much accuracy each thing that was done cost a model."""
        accuracy = self.accuracies[model]
        return {name: accuracy[AS_THEY_ARE] - accuracy[name] for name in CORRUPTIONS}


def robustness(packages: Sequence[ModelPackage], rows: Examples, photos: Photos, runtime: Runtime) -> Robustness:
    """Ask models of one backbone, the same for all, about what becomes of the photos of these rows.

    A photo whose bytes are gone, others by now, or do not decode is left out.
    """
    backbone = load_backbone(packages[0].backbone, runtime)
    content = photos.bytes_of(rows.paths)
    features: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    labels: list[int] = []
    for chunk in _chunks(rows, content, backbone.view):
        shown = np.stack([pixels for _, pixels in chunk])
        features[AS_THEY_ARE].append(backbone.embed(shown))
        labels += [rows.labels[place] for place, _ in chunk]
        for name, corrupt in CORRUPTIONS.items():
            changed = np.stack([corrupt(pixels, rows.image_ids[place]) for place, pixels in chunk])
            features[name].append(backbone.embed(changed))
    if not labels:
        return Robustness()
    seen = {name: np.concatenate(parts) for name, parts in features.items()}
    return Robustness(
        len(labels),
        [
            {name: float((package.head.predict(vectors) == labels).mean()) for name, vectors in seen.items()}
            for package in packages
        ],
    )


def _chunks(rows: Examples, content: dict[str, bytes], view: View) -> Iterator[list[tuple[int, Pixels]]]:
    """Yield the rows' places and what a network sees of them, as many as it is shown at once."""
    chunk = []
    for place, (path, image_id) in enumerate(zip(rows.paths, rows.image_ids, strict=True)):
        if path not in content or image_id_of(content[path]) != image_id:
            continue
        with suppress(ImageError):
            chunk.append((place, as_seen(content[path], view)))
        if len(chunk) == BATCH:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
