"""Pictures that MLflow shows: PNGs that open and show something."""

import io

import numpy as np
import pytest
from PIL import Image

from dlassets.learning import pictures
from dlassets.learning.evaluation import evaluate
from dlassets.learning.head_training import train_head
from dlassets.settings import TrainingSettings
from dlassets_tests.learning.rows import rows


@pytest.fixture(scope="module")
def trained():
    return train_head(rows([3, 12] * 5), rows([3, 12], seed=1), TrainingSettings(epochs=3))


def opened(png: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(png))
    image.load()
    assert image.format == "PNG"
    return image.convert("RGB")


def colours(png: bytes) -> int:
    return len(np.unique(np.asarray(opened(png)).reshape(-1, 3), axis=0))


def photo(colour: tuple[int, int, int], mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), colour).convert(mode).save(file, "JPEG")
    return file.getvalue()


def test_the_confusion_matrix_grows_with_the_classes(trained) -> None:
    small = opened(pictures.confusion_matrix(evaluate(trained.head, rows([3, 12], seed=2))))
    large = opened(pictures.confusion_matrix(evaluate(trained.head, rows([3, 12, 5, 6, 7, 8], seed=2))))

    assert large.width > small.width
    assert large.height > small.height


def test_the_learning_curve_is_drawn_of_a_single_epoch_too(trained) -> None:
    assert colours(pictures.learning_curve(trained.history, trained.best_epoch)) > 3
    assert colours(pictures.learning_curve(trained.history[:1], 0)) > 3


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_gallery_shows_the_photos_themselves(mode) -> None:
    shown = np.asarray(opened(pictures.gallery([(photo((200, 200, 0), mode), "a caption")], "title"))).reshape(-1, 3)
    expected = np.asarray(Image.open(io.BytesIO(photo((200, 200, 0), mode))).convert("RGB"))[15, 20]

    close = (np.abs(shown.astype(int) - expected).max(axis=1) <= 4).mean()
    assert close > 0.02


def test_a_gallery_has_as_many_rows_as_it_needs() -> None:
    heights = [opened(pictures.gallery([(photo((9, 9, 9)), "x")] * count, "t")).height for count in (1, 6, 7)]

    assert heights[0] == heights[1] < heights[2]


def test_a_gallery_of_no_mistakes_is_a_picture_still() -> None:
    assert opened(pictures.gallery([], "0 of 12 test photos misclassified")).width > 0
