"""Augmentation: what a generator draws, and nothing else, decides what a photo becomes."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dlassets.images.decode import USUAL_VIEW, ImageError, View, decode_rgb, resize_center_crop
from dlassets.learning.training.augment import GREY, LEAST_AREA, RATIOS, crop_of, load, load_augmented
from dlassets_tests.images.corpus import encoded, flat

CHANGING = ["light", "strong"]


@pytest.fixture(scope="module")
def photo(photos: Path) -> bytes:
    return next(photos.rglob("*.jpg")).read_bytes()


def augmented(photo: bytes, kind, seed: int) -> np.ndarray:
    return load_augmented(photo, np.random.default_rng(seed), kind).numpy()


def test_without_augmentation_a_photo_is_what_scoring_sees(photo) -> None:
    seen = resize_center_crop(decode_rgb(photo, USUAL_VIEW.at_least))

    assert np.abs(load(photo).numpy().astype(int) - seen).max() <= 1  # Pillow and torch round otherwise
    assert np.array_equal(augmented(photo, "none", 1), load(photo).numpy())


@pytest.mark.parametrize("kind", CHANGING)
def test_the_same_draw_gives_the_same_pixels_and_another_draw_others(photo, kind) -> None:
    first, again, other = (augmented(photo, kind, seed) for seed in (1, 1, 2))

    assert first.shape == (224, 224, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 1


@pytest.mark.parametrize("kind", ["none", *CHANGING])
def test_a_photo_comes_as_large_as_the_backbone_is_shown_it(photo, kind) -> None:
    pixels = load_augmented(photo, np.random.default_rng(0), kind, View(side=96, crop=0.7))

    assert pixels.shape == (96, 96, 3)


@pytest.mark.parametrize("kind", CHANGING)
def test_threads_do_not_draw_from_each_other(photo, kind) -> None:
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda seed: augmented(photo, kind, seed), range(16)))

    assert all(np.array_equal(pixels, augmented(photo, kind, seed)) for seed, pixels in enumerate(together))


def test_strong_erases_a_patch_of_half_the_photos(photo) -> None:
    inner = np.s_[40:184, 40:184]  # a turn leaves grey in the corners alone
    grey = [(augmented(photo, "strong", seed)[inner] == GREY).all(axis=2).mean() for seed in range(40)]

    assert 10 <= sum(share > 0.02 for share in grey) <= 30


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (224, 224), (400, 533), (3000, 200)])
def test_a_crop_lies_within_the_photo(size) -> None:
    height, width = size
    for seed in range(200):
        top, left, tall, wide = crop_of(height, width, np.random.default_rng(seed))
        assert 0 <= top <= height - tall
        assert 0 <= left <= width - wide
        assert tall > 0
        assert wide > 0


def test_a_crop_has_the_area_and_shape_it_may() -> None:
    crops = np.array([crop_of(400, 533, np.random.default_rng(seed)) for seed in range(300)])
    areas, ratios = crops[:, 2] * crops[:, 3] / (400 * 533), crops[:, 3] / crops[:, 2]

    assert LEAST_AREA * 0.99 <= areas.min() < 0.4
    assert 0.9 < areas.max() <= 1
    assert RATIOS[0] * 0.99 <= ratios.min() < 0.8
    assert 1.25 < ratios.max() <= RATIOS[1] * 1.01


@pytest.mark.parametrize("kind", ["none", *CHANGING])
def test_tiny_and_very_long_photos_come_in_the_same_shape(kind) -> None:
    for size in ((1, 1), (700, 2)):
        assert augmented(encoded(flat((255, 0, 0), *size), "PNG"), kind, 0).shape == (224, 224, 3)


@pytest.mark.parametrize("kind", ["none", *CHANGING])
def test_bytes_that_are_no_photo_are_refused(kind) -> None:
    with pytest.raises(ImageError):
        augmented(b"no photo", kind, 0)
