"""Whether a confidence means what it says: against numbers by hand, and logits whose right temperature is known."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dlassets.errors import DlassetsError
from dlassets.learning.calibration import calibrated, error_by_chance, fit_temperature, reliability
from dlassets.learning.evaluation.evaluate import evaluate
from dlassets.learning.examples import UNKNOWN, targets_of
from dlassets.learning.training.head_training import train_head
from dlassets.settings import TrainingSettings
from dlassets_tests.learning.examples import rows


def softmax(logits):
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def drawn(count: int, classes: int = 5, seed: int = 0):
    """Logits, and targets that are drawn by the probabilities that they are of: calibrated at a temperature of 1."""
    chance = np.random.default_rng(seed)
    logits = chance.normal(0, 2, (count, classes))
    targets = (softmax(logits).cumsum(axis=1) < chance.random((count, 1))).sum(axis=1)
    return logits, targets


def calibration_error(probabilities, targets) -> float:
    return reliability(probabilities.max(axis=1), probabilities.argmax(axis=1) == targets).error


@pytest.mark.parametrize("temperature", [0.25, 1.0, 4.0])
def test_the_temperature_that_logits_were_made_with_is_found(temperature) -> None:
    logits, targets = drawn(5000)

    assert fit_temperature(logits * temperature, targets) == pytest.approx(temperature, rel=0.05)


def test_the_temperature_is_the_likeliest_one() -> None:
    logits, targets = drawn(2000)
    found = fit_temperature(logits * 3, targets)

    def likelihood(temperature: float) -> float:
        return float(np.log(softmax(logits * 3 / temperature)[np.arange(len(targets)), targets]).mean())

    assert likelihood(found) > max(likelihood(found * 1.1), likelihood(found / 1.1), likelihood(1.0))


def test_dividing_by_the_temperature_brings_the_calibration_error_down() -> None:
    fitted_on, judged_on = drawn(1000, seed=1), drawn(4000, seed=2)

    temperature = fit_temperature(fitted_on[0] * 3, fitted_on[1])
    before = calibration_error(softmax(judged_on[0] * 3), judged_on[1])
    after = calibration_error(softmax(judged_on[0] * 3 / temperature), judged_on[1])

    assert before > 0.15
    assert after < 0.03


def test_without_a_row_of_a_known_class_nothing_is_scaled() -> None:
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, np.int64)) == pytest.approx(1, abs=1e-5)
    assert fit_temperature(np.eye(3), np.full(3, UNKNOWN)) == pytest.approx(1, abs=1e-5)


def test_a_row_of_an_unknown_class_has_no_say() -> None:
    logits, targets = drawn(300)
    more = np.vstack([logits, [[50.0, 0, 0, 0, 0]]])

    assert fit_temperature(more, np.append(targets, UNKNOWN)) == fit_temperature(logits, targets)


def test_few_rows_without_a_mistake_or_with_nothing_else_stay_within_the_bounds() -> None:
    wrong = fit_temperature(np.tile([[1e6, 0.0]], (100, 1)), np.ones(100, np.int64))
    certain = fit_temperature(np.array([[2.0, 0.0], [0.0, 2.0]]), np.array([0, 1]))
    many = fit_temperature(np.tile([[2.0, 0.0], [0.0, 2.0]], (500, 1)), np.tile([0, 1], 500))

    assert 0.5 < certain < 1
    assert 0.05 <= many < 0.5
    assert wrong == pytest.approx(20, rel=0.01)


def test_logits_that_are_no_numbers_are_an_error_that_says_where_to_look() -> None:
    with pytest.raises(DlassetsError, match="features that are no numbers"):
        fit_temperature(np.array([[np.nan, 0.0]]), np.array([0]))


def test_a_calibrated_head_says_the_same_classes_and_is_less_sure() -> None:
    validation = rows([3, 12, 40, 77] * 40, seed=1, spread=2.0)
    head = train_head(rows([3, 12, 40] * 40, spread=2.0), validation, TrainingSettings()).head
    head = replace(head, weight=head.weight * 4, bias=head.bias * 4)  # far too sure of itself

    scaled = calibrated(head, validation)

    assert scaled.temperature > 2
    assert scaled.predict(validation.features).tolist() == head.predict(validation.features).tolist()
    test = rows([3, 12, 40] * 200, seed=2, spread=2.0)
    assert evaluate(scaled, test).reliability.error < evaluate(head, test).reliability.error
    assert evaluate(scaled, test).log_loss < evaluate(head, test).log_loss


def test_the_calibration_error_is_the_one_computed_by_hand() -> None:
    # Bins of a fifth: 0.3 and 0.4 (right, wrong) are one, 0.9 and 0.95 (right, right) another.
    sure = np.array([0.3, 0.4, 0.9, 0.95])

    found = reliability(sure, np.array([True, False, True, True]), bins=5)

    assert found.counts.tolist() == [0, 2, 0, 0, 2]
    assert_allclose(found.confidence, [0, 0.35, 0, 0, 0.925])
    assert_allclose(found.accuracy, [0, 0.5, 0, 0, 1])
    assert found.error == pytest.approx((2 * 0.15 + 2 * 0.075) / 4)


def test_certain_and_clueless_models_have_the_errors_that_they_deserve() -> None:
    certain = np.array([[1.0, 0.0]] * 4)

    assert calibration_error(certain, np.array([0, 0, 0, 0])) == 0
    assert calibration_error(certain, np.array([0, 0, 0, 1])) == pytest.approx(0.25)
    assert calibration_error(certain, np.full(4, UNKNOWN)) == 1
    assert calibration_error(np.full((4, 2), 0.5), np.array([0, 1, 0, 1])) == 0


def test_targets_are_places_and_not_labels() -> None:
    assert targets_of(np.array([40, 3, 7]), (3, 12, 40)).tolist() == [2, 0, UNKNOWN]


def test_what_chance_does_to_a_calibrated_model_is_seldom_more_and_less_with_more_rows() -> None:
    chance = np.random.default_rng(1)
    sure = chance.uniform(0.5, 1, 100)

    limit = error_by_chance(sure)

    errors = [reliability(sure, chance.random(100) < sure).error for _ in range(400)]
    assert 0.01 < np.mean(np.array(errors) > limit) < 0.1
    assert error_by_chance(np.tile(sure, 100)) < limit / 5
    assert error_by_chance(sure) == limit
    assert error_by_chance(np.ones(5)) == 0
