"""Slices of an evaluation, by hand, and whether the ones that are named are worse indeed."""

import numpy as np
import pytest

from dlassets.errors import DlassetsError
from dlassets.learning.evaluation.evaluate import Evaluation, evaluate_probabilities, wilson_interval
from dlassets.learning.evaluation.slices import Slice, holm, significantly_worse, slices
from dlassets_tests.learning.examples import examples


def evaluation(truth: list[int], predicted: list[int]) -> Evaluation:
    """Of images 0, 1, … with these labels."""
    classes = sorted({*truth, *predicted})
    probabilities = np.eye(len(classes))[np.searchsorted(classes, predicted)]
    names = [f"class {label}" for label in classes]
    return evaluate_probabilities(probabilities, classes, names, examples(truth, np.zeros((len(truth), 0))))


def counted(slices: list[Slice]) -> dict[tuple[str, str], tuple[int, int]]:
    return {(each.dimension, each.value): (each.right, each.rows) for each in slices}


def test_slices_by_class_size_brightness_and_source_are_those_counted_by_hand() -> None:
    import pyarrow as pa

    attributes = pa.table(
        {
            "image_id": ["3", "2", "1", "0", "elsewhere", "5"],
            "width": pa.array([255, 4000, 512, 400, 1, None], pa.int32()),
            "height": pa.array([800, 1024, 600, 256, 1, 100], pa.int32()),
            "brightness": [84.9, 170.0, 85.0, None, 1.0, 200.0],
            "source": ["folder", "human", None, "folder", "nobody", "human"],
        }
    )

    found = slices(evaluation([3, 3, 12, 12, 12, 12], [3, 12, 12, 12, 3, 12]), attributes)

    assert counted(found) == {
        ("class", "class 3"): (1, 2),
        ("class", "class 12"): (3, 4),
        ("short side", "below 256"): (1, 1),
        ("short side", "256 to 511"): (1, 1),
        ("short side", "512 to 1023"): (0, 1),
        ("short side", "1024 and more"): (1, 1),
        ("short side", "unknown"): (1, 2),
        ("brightness", "dark"): (1, 1),
        ("brightness", "medium"): (0, 1),
        ("brightness", "bright"): (2, 2),
        ("brightness", "unknown"): (1, 2),
        ("source", "folder"): (2, 2),
        ("source", "human"): (2, 2),
        ("source", "unknown"): (0, 2),
    }
    assert [each.value for each in found if each.dimension == "brightness"] == ["dark", "medium", "bright", "unknown"]
    assert all(each.interval == wilson_interval(each.right, each.rows) for each in found)
    assert all(each.has_few for each in found)


def test_without_attributes_the_classes_are_left() -> None:
    found = slices(evaluation([3] * 30 + [12] * 29, [3] * 59))

    assert counted(found) == {("class", "class 3"): (30, 30), ("class", "class 12"): (0, 29)}
    assert [each.has_few for each in found] == [False, True]


def test_the_p_value_is_fisher_s() -> None:
    from scipy.stats import fisher_exact

    bad, rest = slices(evaluation([3] * 12 + [12] * 40, [3] * 6 + [12] * 46))

    assert (bad.right, bad.rows, rest.right, rest.rows) == (6, 12, 40, 40)
    assert bad.p_value == pytest.approx(fisher_exact([[6, 6], [40, 0]], alternative="less").pvalue)
    assert rest.p_value == pytest.approx(1)


def test_a_slice_that_is_much_worse_is_named_and_a_slightly_worse_one_is_not() -> None:
    truth = [1] * 100 + [2] * 100 + [3] * 100
    predicted = [1] * 90 + [2] * 10 + [2] * 86 + [1] * 14 + [3] * 60 + [1] * 40

    assert [each.value for each in significantly_worse(slices(evaluation(truth, predicted)))] == ["class 3"]


def test_a_slice_of_two_rows_is_not_named_and_nor_is_a_model_without_mistakes() -> None:
    assert significantly_worse(slices(evaluation([1] * 2 + [2] * 8, [2] * 1 + [1] + [2] * 6 + [1] * 2))) == []
    assert significantly_worse(slices(evaluation([1] * 200 + [2] * 100, [1] * 200 + [2] * 100))) == []


def test_holm_s_correction_is_the_one_by_hand() -> None:
    # By hand: 4 x 0.01, 3 x 0.013, which may not be less, 2 x 0.03, and 1 x 0.9.
    assert holm([0.03, 0.01, 0.9, 0.013]) == pytest.approx([0.06, 0.04, 0.9, 0.04])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


def test_slices_that_differ_by_chance_alone_are_seldom_named() -> None:
    chance = np.random.default_rng(0)
    named = 0
    for _ in range(200):
        truth = chance.integers(0, 12, 300)
        predicted = np.where(chance.random(300) < 0.8, truth, (truth + 1) % 12)
        named += bool(significantly_worse(slices(evaluation(truth.tolist(), predicted.tolist()))))

    assert named / 200 <= 0.05 + 0.03  # of 200 trials, two standard errors


def test_two_rows_of_one_image_are_refused() -> None:
    import pyarrow as pa

    with pytest.raises(DlassetsError, match="3 rows of attributes for 2 images"):
        slices(evaluation([1, 2], [1, 2]), pa.table({"image_id": ["0", "1", "1"], "source": ["a", "b", "c"]}))
