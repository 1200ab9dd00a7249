"""The head on real or generated photos, beside a plain linear probe on the same rows."""

from pathlib import Path

import pytest

from dlassets.demo.photos import photos_in
from dlassets.learning.backbones import BackboneRef
from dlassets.learning.embedding import load_backbone
from dlassets.learning.evaluation.evaluate import evaluate
from dlassets.learning.examples import Examples
from dlassets.learning.training.head_training import train_head
from dlassets.settings import TrainingSettings

# Of a hundred and fifty test rows, one and a half standard errors of a difference.
TOLERANCE = 0.06


@pytest.fixture(scope="module")
def splits(real_photos: Path | None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Examples]:
    """Examples of train, validation and test: 70, 15 and 15 of a hundred, by the hash of the bytes."""
    import numpy as np

    from dlassets.samples.generated import generate

    folder = real_photos
    if folder is None:
        folder = tmp_path_factory.mktemp("generated")
        generate(folder, classes=10, per_class=40, seed=3)
    photos = sorted(photos_in(folder), key=lambda photo: photo.image_id)
    photos = [photo for photo in photos if photo.folder[:3].isdigit()]
    features = load_backbone(BackboneRef("efficientnet_lite0")).embed_bytes(
        [photo.path.read_bytes() for photo in photos]
    )
    shares = np.array([int(photo.image_id[:8], 16) / 16**8 for photo in photos])

    def rows(low: float, high: float) -> Examples:
        chosen = np.flatnonzero((shares >= low) & (shares < high))
        return Examples(
            paths=[str(photos[place].path) for place in chosen],
            image_ids=[photos[place].image_id for place in chosen],
            labels=np.array([int(photos[place].folder[:3]) for place in chosen]),
            names=[photos[place].folder[4:] for place in chosen],
            features=features[chosen],
        )

    return {"train": rows(0, 0.7), "validation": rows(0.7, 0.85), "test": rows(0.85, 1)}


def test_the_head_is_no_worse_than_a_linear_probe(splits: dict[str, Examples], real_photos: Path | None) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    probe.fit(splits["train"].features, splits["train"].labels)
    peer = probe.score(splits["test"].features, splits["test"].labels)

    head = train_head(splits["train"], splits["validation"], TrainingSettings()).head
    accuracy = evaluate(head, splits["test"]).accuracy

    assert accuracy >= peer - TOLERANCE
    if real_photos is not None and len(splits["test"]) == 157:  # the thousand photos of clothes
        assert accuracy >= 0.815 - TOLERANCE
