"""The model work of the demo and nothing else: read, embed and fit, once. Run by the benchmark of the demo's time.

No tables, no records, no tracking, no second model: what remains when all that makes the loop repeatable is left out.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dlassets.demo.photos import photos_in
from dlassets.learning.backbones import backbone_of
from dlassets.learning.embedding import BATCH, load_backbone
from dlassets.settings import FeatureSettings


def main(images: Path) -> None:
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    backbone = load_backbone(backbone_of(FeatureSettings()))
    photos = list(photos_in(images))
    chunks = [photos[start : start + BATCH] for start in range(0, len(photos), BATCH)]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        embedded = threads.map(lambda chunk: backbone.embed_bytes([p.path.read_bytes() for p in chunk]), chunks)
        features = np.concatenate(list(embedded))
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    probe.fit(features, [photo.folder for photo in photos])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
