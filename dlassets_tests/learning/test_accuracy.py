"""The head on real and on generated photos, beside a plain linear probe on the same rows."""

import math
from pathlib import Path

import pytest

from dlassets.demo.photos import photos_in
from dlassets.learning.backbones import BackboneRef
from dlassets.learning.embedding import load_backbone
from dlassets.learning.evaluation.evaluate import evaluate
from dlassets.learning.examples import Examples
from dlassets.learning.training.head_training import train_head
from dlassets.settings import TrainingSettings

# Right of the thousand photos of clothes' 157 test rows.
OF_CLOTHES, ROWS_OF_CLOTHES = 0.815, 157


def splits(folder: Path) -> dict[str, Examples]:
    """Examples of train, validation and test: 70, 15 and 15 of a hundred, by the hash of the bytes."""
    import numpy as np

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


def accuracies(folder: Path) -> tuple[float, float, int]:
    """The head's accuracy, a linear probe's on the same rows, and how many rows those are."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    of = splits(folder)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    probe.fit(of["train"].features, of["train"].labels)
    head = train_head(of["train"], of["validation"], TrainingSettings()).head
    return evaluate(head, of["test"]).accuracy, probe.score(of["test"].features, of["test"].labels), len(of["test"])


def tolerance(rows: int) -> float:
    """One and a half standard errors of a difference, where both are wrong on mostly the same rows."""
    return 0.75 / math.sqrt(rows)


def test_the_head_is_no_worse_than_a_linear_probe(few_photos: Path) -> None:
    accuracy, peer, rows = accuracies(few_photos)

    assert accuracy >= peer - tolerance(rows)
    assert accuracy > 0.5


@pytest.mark.slow
def test_so_it_is_on_all_real_photos(real_photos: Path | None) -> None:
    if real_photos is None:
        pytest.skip("no --photos")
    accuracy, peer, rows = accuracies(real_photos)

    assert accuracy >= peer - tolerance(rows)
    if rows == ROWS_OF_CLOTHES:
        assert accuracy >= OF_CLOTHES - tolerance(rows)
