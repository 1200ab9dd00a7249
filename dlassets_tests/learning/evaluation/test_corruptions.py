"""What is done to photos: visible, mild, and the same each time."""

import numpy as np
import pytest

from dlassets.images.decode import as_seen
from dlassets.learning.evaluation.corruptions import CORRUPTIONS


@pytest.fixture(scope="module")
def pixels(photos):
    return as_seen(min(photos.glob("*/*")).read_bytes())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_photo_changes_visibly_and_the_same_way_each_time(pixels, name) -> None:
    before = pixels.copy()

    once, again = (CORRUPTIONS[name](pixels, "id") for _ in range(2))

    assert once.shape == pixels.shape
    assert once.dtype == np.uint8
    assert (once == again).all()
    assert (pixels == before).all()
    difference = np.abs(once.astype(int) - pixels).mean()
    assert 1 < difference < 80


def test_each_does_what_it_is_called(pixels) -> None:
    changed = {name: corrupt(pixels, "id").astype(float) for name, corrupt in CORRUPTIONS.items()}

    assert changed["darker"].mean() == pytest.approx(0.6 * pixels.mean(), rel=0.02)
    assert changed["brighter"].mean() > pixels.mean() * 1.1
    assert np.abs(np.diff(changed["blur"], axis=0)).mean() < np.abs(np.diff(pixels.astype(float), axis=0)).mean()
    assert np.abs(np.diff(changed["noise"], axis=0)).mean() > np.abs(np.diff(pixels.astype(float), axis=0)).mean()
    assert (CORRUPTIONS["noise"](pixels, "another") != changed["noise"]).any()
