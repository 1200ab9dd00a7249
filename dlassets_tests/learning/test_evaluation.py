"""The numbers a model is judged by, against ones computed by hand, by scikit-learn, or long known."""

import numpy as np
import pytest

from dlassets.learning.evaluation import evaluate, wilson_interval
from dlassets.learning.head import Head
from dlassets.learning.rows import Rows


def head(*labels: int) -> Head:
    """A head that says the class whose place the features point at."""
    count = len(labels)
    return Head(
        labels=labels,
        names=tuple(f"class {label}" for label in labels),
        weight=np.eye(count, dtype=np.float32),
        bias=np.zeros(count, np.float32),
        mean=np.zeros(count, np.float32),
        scale=np.ones(count, np.float32),
    )


def said(truth: list[int], predicted: list[int], classes: tuple[int, ...]) -> Rows:
    """Rows of these true labels that `head(*classes)` takes for `predicted`."""
    return Rows(
        paths=[f"{place}.jpg" for place in range(len(truth))],
        image_ids=[str(place) for place in range(len(truth))],
        labels=np.array(truth, dtype=np.int64),
        names=[f"class {label}" for label in truth],
        features=np.eye(len(classes), dtype=np.float32)[[classes.index(label) for label in predicted]] * 3,
    )


def test_the_figures_of_a_small_case_are_those_computed_by_hand() -> None:
    rows = said([3, 3, 3, 12, 12, 40], [3, 3, 12, 12, 3, 40], (3, 12, 40))

    found = evaluate(head(3, 12, 40), rows)

    assert (found.rows, found.accuracy, found.majority_share) == (6, 4 / 6, 0.5)
    assert found.labels == (3, 12, 40)
    assert found.confusion.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(found.recall, [2 / 3, 1 / 2, 1])
    np.testing.assert_allclose(found.precision, [2 / 3, 1 / 2, 1])
    assert found.predicted.tolist() == [3, 3, 12, 12, 3, 40]
    np.testing.assert_allclose(found.confidence, np.exp(3) / (np.exp(3) + 2), rtol=1e-6)


def test_the_figures_are_scikit_learn_s() -> None:
    from sklearn.metrics import accuracy_score, confusion_matrix, precision_score, recall_score

    classes, chance = (1, 5, 6, 200), np.random.default_rng(0)
    truth, predicted = chance.choice(classes, 200).tolist(), chance.choice(classes, 200).tolist()

    found = evaluate(head(*classes), said(truth, predicted, classes))

    assert found.accuracy == accuracy_score(truth, predicted)
    assert found.confusion.tolist() == confusion_matrix(truth, predicted, labels=classes).tolist()
    np.testing.assert_allclose(found.recall, recall_score(truth, predicted, labels=classes, average=None))
    np.testing.assert_allclose(found.precision, precision_score(truth, predicted, labels=classes, average=None))


def test_a_class_missing_in_the_test_rows_has_no_recall() -> None:
    found = evaluate(head(3, 12, 40), said([3, 12], [3, 40], (3, 12, 40)))

    assert found.recall.tolist() == [1, 0, 0]
    assert found.precision.tolist() == [1, 0, 0]


def test_a_class_that_the_head_does_not_know_is_a_mistake_under_its_name() -> None:
    rows = said([3, 12, 7], [3, 12, 3], (3, 12))

    found = evaluate(head(3, 12), rows)

    assert found.accuracy == 2 / 3
    assert found.labels == (3, 7, 12)
    assert found.names == ("class 3", "class 7", "class 12")
    assert found.confusion.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("right", "rows", "low", "high"),
    [
        # The first four are Newcombe's examples (Statistics in Medicine 17, 1998).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
    ],
)
def test_the_wilson_interval_is_the_published_one(right, rows, low, high) -> None:
    assert wilson_interval(right, rows) == pytest.approx((low, high), abs=5e-5)
