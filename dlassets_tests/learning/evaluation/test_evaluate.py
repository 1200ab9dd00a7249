"""The numbers a model is judged by, against ones computed by hand, by scikit-learn, or long known."""

import numpy as np
import pytest

from dlassets.errors import DlassetsError
from dlassets.learning.evaluation.evaluate import evaluate, evaluate_probabilities, wilson_interval
from dlassets.learning.examples import Examples
from dlassets_tests.learning.examples import examples, head


def taken_for(truth: list[int], predicted: list[int], classes: tuple[int, ...]) -> Examples:
    """Examples of these true labels that `head(classes)` takes for `predicted`."""
    return examples(truth, np.eye(len(classes))[[classes.index(label) for label in predicted]] * 3)


def test_the_figures_of_a_small_case_are_those_computed_by_hand() -> None:
    rows = taken_for([3, 3, 3, 12, 12, 40], [3, 3, 12, 12, 3, 40], (3, 12, 40))

    found = evaluate(head((3, 12, 40)), rows)

    assert (found.rows, found.accuracy, found.majority_share) == (6, 4 / 6, 0.5)
    assert found.labels == (3, 12, 40)
    assert found.confusion.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(found.recall, [2 / 3, 1 / 2, 1])
    np.testing.assert_allclose(found.precision, [2 / 3, 1 / 2, 1])
    assert found.predicted.tolist() == [3, 3, 12, 12, 3, 40]
    np.testing.assert_allclose(found.confidence, np.exp(3) / (np.exp(3) + 2), rtol=1e-6)


def test_a_class_missing_in_the_test_rows_has_no_recall() -> None:
    found = evaluate(head((3, 12, 40)), taken_for([3, 12], [3, 40], (3, 12, 40)))

    assert found.recall.tolist() == [1, 0, 0]
    assert found.precision.tolist() == [1, 0, 0]
    assert found.untested == ("class 40",)
    assert found.recall_intervals[2].tolist() == [0, 1]
    assert found.precision_intervals[1].tolist() == [0, 1]
    # The means are over the classes that have rows.
    assert found.balanced_accuracy.value == 0.5


def test_a_class_that_the_head_does_not_know_is_a_mistake_under_its_name() -> None:
    rows = taken_for([3, 12, 7], [3, 12, 3], (3, 12))

    found = evaluate(head((3, 12)), rows)

    assert found.accuracy == 2 / 3
    assert found.labels == (3, 7, 12)
    assert found.names == ("class 3", "class 7", "class 12")
    assert found.unknown == ("class 7",)
    assert found.confusion.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]
    # Two rows of a confidence of e³ / (e³ + 1), and one of nothing at all.
    assert found.log_loss == pytest.approx((2 * np.log1p(np.exp(-3)) + np.log(2**52)) / 3)
    assert np.isfinite(found.log_loss)


def test_the_figures_are_scikit_learn_s() -> None:
    from sklearn import metrics

    classes, chance = (1, 5, 6, 200), np.random.default_rng(0)
    rows = taken_for(chance.choice(classes, 300, p=(0.6, 0.2, 0.1, 0.1)).tolist(), [1] * 300, classes)
    probabilities = chance.dirichlet([1, 1, 1, 1], 300)
    predicted = np.array(classes)[probabilities.argmax(axis=1)]

    found = evaluate_probabilities(probabilities, classes, ("one", "five", "six", "many"), rows)

    both = rows.labels, predicted
    assert found.predicted.tolist() == predicted.tolist()
    assert found.accuracy == metrics.accuracy_score(*both)
    assert found.confusion.tolist() == metrics.confusion_matrix(*both).tolist()
    np.testing.assert_allclose(found.recall, metrics.recall_score(*both, average=None))
    np.testing.assert_allclose(found.precision, metrics.precision_score(*both, average=None))
    assert found.macro_f1.value == pytest.approx(metrics.f1_score(*both, average="macro"))
    assert found.balanced_accuracy.value == pytest.approx(metrics.balanced_accuracy_score(*both))
    assert found.log_loss == pytest.approx(metrics.log_loss(rows.labels, probabilities, labels=classes))


def test_the_bootstrap_is_that_of_drawn_rows_and_repeats() -> None:
    from sklearn.metrics import f1_score

    classes, chance = (3, 12, 40), np.random.default_rng(1)
    truth = chance.choice(classes, 200, p=(0.7, 0.2, 0.1))
    predicted = np.where(chance.random(200) < 0.8, truth, chance.choice(classes, 200))
    rows = taken_for(truth.tolist(), predicted.tolist(), classes)

    found = evaluate(head(classes), rows).macro_f1

    draws = (chance.integers(0, 200, 200) for _ in range(1000))
    drawn = [f1_score(truth[places], predicted[places], average="macro") for places in draws]
    assert found.interval == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.015)
    assert found.interval[0] < found.value < found.interval[1]
    assert evaluate(head(classes), rows).macro_f1 == found


def test_the_intervals_of_a_class_are_wilson_s() -> None:
    found = evaluate(head((3, 12)), taken_for([3] * 10 + [12] * 5, [3] * 8 + [12] * 7, (3, 12)))

    assert found.recall_intervals.tolist() == [list(wilson_interval(8, 10)), list(wilson_interval(5, 5))]
    assert found.precision_intervals.tolist() == [list(wilson_interval(8, 8)), list(wilson_interval(5, 7))]


def test_no_rows_and_no_numbers_are_errors_that_say_so() -> None:
    rows = taken_for([3, 12], [3, 12], (3, 12))

    with pytest.raises(DlassetsError, match="no rows to evaluate"):
        evaluate(head((3, 12)), taken_for([], [], (3, 12)))
    with pytest.raises(DlassetsError, match=r"no numbers for 1 of 2 rows, such as labeled/1\.jpg"):
        evaluate_probabilities(np.array([[1, 0], [np.nan, 1]]), (3, 12), ("a", "b"), rows)


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
        (0, 0, 0.0, 1.0),
    ],
)
def test_the_wilson_interval_is_the_published_one(right, rows, low, high) -> None:
    assert wilson_interval(right, rows) == pytest.approx((low, high), abs=5e-5)
