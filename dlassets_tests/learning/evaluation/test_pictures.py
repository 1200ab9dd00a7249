"""Pictures that MLflow shows: PNGs that open and show something."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dlassets.learning.evaluation import pictures
from dlassets.learning.evaluation.evaluate import evaluate
from dlassets.learning.evaluation.slices import slices
from dlassets.learning.training.head_training import train_head
from dlassets.settings import TrainingSettings
from dlassets_tests.images.corpus import encoded
from dlassets_tests.learning.examples import rows


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


def has_colour(png: bytes, red: int, green: int, blue: int) -> bool:
    """Whether a good part of the picture is about of this colour."""
    pixels = np.asarray(opened(png)).astype(int).reshape(-1, 3)
    return bool((np.abs(pixels - (red, green, blue)).max(axis=1) < 24).mean() > 0.003)


def photo(colour: tuple[int, int, int], mode: str = "RGB") -> bytes:
    return encoded(Image.new("RGB", (40, 30), colour).convert(mode), "JPEG")


def test_the_confusion_matrix_grows_with_the_classes(trained) -> None:
    small = opened(pictures.confusion_matrix(evaluate(trained.head, rows([3, 12], seed=2))))
    large = opened(pictures.confusion_matrix(evaluate(trained.head, rows([3, 12, 5, 6, 7, 8], seed=2))))

    assert large.width > small.width
    assert large.height > small.height


def test_the_learning_curve_shows_what_was_measured_and_copes_with_what_was_not(trained) -> None:
    assert colours(pictures.learning_curve(trained.history, trained.best_epoch)) > 3
    assert colours(pictures.learning_curve(trained.history[:1], 0)) > 3
    measured = [{name: epoch[name] for name in ("train_loss", "validation_loss")} for epoch in trained.history]
    gaps = [{"train_loss": 2.0}, {"train_loss": 1.0, "validation_loss": 1.5}, {"validation_accuracy": 0.5}]
    more = [{**epoch, "learning_rate": 0.1 / (place + 1)} for place, epoch in enumerate(gaps)]

    assert opened(pictures.learning_curve(gaps, 1)).size == opened(pictures.learning_curve(measured, 1)).size
    assert opened(pictures.learning_curve(more, 1)).width > opened(pictures.learning_curve(gaps, 1)).width
    assert opened(pictures.learning_curve([], 0)).width > 0


def test_the_bars_of_classes_grow_with_them(trained) -> None:
    few, many = (evaluate(trained.head, rows(labels, seed=2)) for labels in ([3, 12], [3, 12, 5, 6, 7, 8]))

    assert opened(pictures.per_class(many)).height > opened(pictures.per_class(few)).height
    assert has_colour(pictures.per_class(few), 98, 160, 202)  # the bars of recall: blue, seven tenths of it


def test_the_calibration_plot_shows_both_evaluations(trained) -> None:
    sure = evaluate(replace(trained.head, temperature=0.01), rows([3, 12] * 20, seed=2, spread=3.0))
    unsure = evaluate(replace(trained.head, temperature=100), rows([3, 12] * 20, seed=2, spread=3.0))

    plots = {pictures.calibration_plot(*pair) for pair in ((sure, sure), (sure, unsure), (unsure, sure))}

    assert len(plots) == 3
    assert all(colours(plot) > 3 for plot in plots)


def test_a_slice_that_is_worse_is_red_and_one_of_few_rows_is_not_blue_as_the_others(trained) -> None:
    red, blue = (214, 39, 40), (31, 119, 180)
    usual = evaluate(trained.head, rows([3, 12] * 40, seed=2))
    worse = evaluate(trained.head, rows([3, 12, 5] * 40, seed=2))  # which does not know class 5
    few = evaluate(trained.head, rows([3, 12] * 5, seed=2))

    charts = [pictures.slices_chart(slices(each), each) for each in (usual, worse, few)]

    assert [has_colour(chart, *red) for chart in charts] == [False, True, False]
    assert [has_colour(chart, *blue) for chart in charts] == [True, True, False]


def test_a_saliency_sheet_shows_a_photo_as_it_is_and_overlaid() -> None:
    pixels = np.zeros((224, 224, 3), np.uint8)
    pixels[:, :] = (0, 200, 0)
    nothing, everything = np.zeros((224, 224), np.float32), np.ones((224, 224), np.float32)

    plain, seen = (pictures.saliency_sheet([(pixels, each, "a caption")]) for each in (nothing, everything))

    assert has_colour(plain, 0, 200, 0)
    assert has_colour(seen, 0, 200, 0)
    assert has_colour(plain, 67, 67, 67)  # the photo in grey, on which what was seen is laid
    assert not has_colour(seen, 67, 67, 67)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_gallery_shows_the_photos_themselves(mode) -> None:
    shown = np.asarray(opened(pictures.gallery([(photo((200, 200, 0), mode), "a caption")], "title"))).reshape(-1, 3)
    expected = np.asarray(Image.open(io.BytesIO(photo((200, 200, 0), mode))).convert("RGB"))[15, 20]

    close = (np.abs(shown.astype(int) - expected).max(axis=1) <= 4).mean()
    assert close > 0.02


def test_a_long_name_is_shortened_in_its_middle() -> None:
    assert pictures.shortened("IMG_1.jpg") == "IMG_1.jpg"
    assert pictures.shortened("IMG_20230101_123456_of a very long name.jpg") == "IMG_20230101…ng name.jpg"
    assert len(pictures.shortened("x" * 99)) == 24
    assert pictures.shortened("a\nb\x00.jpg") == "a?b?.jpg"


def test_a_caption_of_several_lines_or_with_signs_of_a_formula_is_drawn(recwarn) -> None:
    pictures.gallery([(photo((9, 9, 9)), "a$\\frac{$b.jpg\n写真")], "$\\frac{$")

    assert not recwarn.list


def test_a_photo_that_does_not_decode_keeps_no_other_from_being_shown() -> None:
    shown = pictures.gallery([(b"no photo", "x"), (photo((200, 20, 20)), "y")], "title")

    assert has_colour(shown, 200, 20, 20)


def test_a_gallery_and_a_saliency_sheet_have_as_many_rows_as_they_need_and_may_have_no_photo() -> None:
    one = (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.float32), "x")
    sheets = [pictures.saliency_sheet([one] * count) for count in (0, 1, 4, 5)]
    galleries = [pictures.gallery([(photo((9, 9, 9)), "x")] * count, "t") for count in (0, 1, 6, 7)]

    for none, single, row, more in (map(opened, sheets), map(opened, galleries)):
        assert none.height == single.height == row.height < more.height
