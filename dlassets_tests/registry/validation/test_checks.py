"""Each check alone: the number it finds, the limit it is held against, what it says, and that it can fail."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from dlassets.learning.evaluation.corruptions import CORRUPTIONS
from dlassets.learning.evaluation.evaluate import Evaluation, evaluate_probabilities
from dlassets.registry.gate import Gate, Verdict
from dlassets.registry.model_log import signature
from dlassets.registry.validation import checks
from dlassets.registry.validation.checks import Described, kappa
from dlassets.registry.validation.clean_process import Answer
from dlassets.registry.validation.regressions import comparisons
from dlassets.registry.validation.robustness import AS_THEY_ARE, Robustness
from dlassets.registry.validation.validation import Check
from dlassets.settings import ValidationSettings
from dlassets_tests.learning.examples import examples

SETTINGS = ValidationSettings()
ANSWERED = Answer(None, 3, 0.75, 1.0, load_seconds=0.5, one_ms=20.0, together_ms=3.0, peak_mb=200.0)


def evaluation(truth: Sequence[int], predicted: Sequence[int], confidence: float = 0.8) -> Evaluation:
    """A model that says this of photos of these classes, 1 to 3, each with the same confidence."""
    probabilities = np.full((len(truth), 3), (1 - confidence) / 2)
    probabilities[np.arange(len(truth)), np.array(predicted) - 1] = confidence
    rows = examples(truth, np.zeros((len(truth), 1)))
    return evaluate_probabilities(probabilities, (1, 2, 3), ("class 1", "class 2", "class 3"), rows)


def verdict(truth: Sequence[int], ours: Sequence[int], theirs: Sequence[int] | None) -> Verdict:
    champion = None if theirs is None else evaluation(truth, theirs)
    return Verdict(evaluation(truth, ours), champion, None if theirs is None else 7, Gate())


def numbers(check: Check) -> tuple[Any, ...]:
    return check.passed, check.value, check.limit, check.bound


def test_a_package_that_loads_says_how_long_it_took_and_one_that_does_not_says_why() -> None:
    assert numbers(checks.loads(ANSWERED, 120)) == (True, 0.5, 120, "at most")
    failed = checks.loads(Answer(failure="it had given no answer after 120 s"), 120)
    assert numbers(failed) == (False, None, 120, "at most")
    assert failed.sentence == "it does not load in a clean process: it had given no answer after 120 s"


@pytest.mark.parametrize(
    ("described", "answer", "says"),
    [
        ({}, {"confidence": 0.76}, None),
        ({"problem": "it has no input example"}, {}, "it has no input example"),
        ({"signature": None}, {}, "it has no signature"),
        ({"label": 12}, {}, "its example is 3 (0.750) in a clean process, and 12 (0.750) here"),
        ({"confidence": 0.9}, {}, "its example is 3 (0.750) in a clean process, and 3 (0.900) here"),
        ({}, {"total": 1.5}, "its confidences are none: the largest is 0.75, and their sum 1.5"),
        ({}, {"confidence": float("nan")}, "its confidences are none: the largest is nan, and their sum 1"),
        ({}, {"failure": "gone"}, "it has not answered its example"),
    ],
)
def test_an_example_has_to_have_an_answer_that_makes_sense_and_is_the_same_here(described, answer, says) -> None:
    made = dataclasses.replace(Described(signature(), label=3, confidence=0.75), **described)

    check = checks.example(made, dataclasses.replace(ANSWERED, **answer))

    assert check.passed is (says is None)
    assert check.sentence == (
        says or "it takes bytes of photos, and answers its example as it does here (confidence 0.760)"
    )


def test_a_signature_of_something_else_is_none() -> None:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, Schema

    other = ModelSignature(Schema([ColSpec("double", "x")]), Schema([ColSpec("double", "y")]))

    check = checks.example(Described(other, label=3, confidence=0.75), ANSWERED)

    assert not check.passed
    assert check.sentence.startswith("its signature is not bytes of photos in a column `content`")


def test_the_gate_is_the_paired_test_with_its_margin_as_limit() -> None:
    truth = [1] * 100

    lost = checks.gate(verdict(truth, [1] * 95 + [2] * 5, [1] * 100))
    held = checks.gate(verdict(truth, [1] * 99 + [2], [1] * 100))
    first = checks.gate(verdict(truth, [2] * 100, None))

    assert numbers(lost) == (False, 0.05, 0.05, "at most")
    assert lost.sentence.endswith("(0 gained, 5 lost): shown to be worse (p = 0.03), refused")
    assert numbers(held) == (True, 0.01, 0.05, "at most")
    assert numbers(first) == (True, None, 0.05, "at most")
    assert first.sentence == "right on 0 of 100 test photos: no champion to be worse than, passed"


def test_accuracy_has_its_interval_and_the_least_that_is_asked_for() -> None:
    found = evaluation([1] * 100, [1] * 80 + [2] * 20)

    check = checks.accurate(found, SETTINGS)

    assert numbers(check) == (True, 0.8, 0.0, "at least")
    assert check.sentence == "right on 80 of 100 test photos, 0.800 (95% interval: 0.711 to 0.867)"
    assert not checks.accurate(found, ValidationSettings(accuracy=0.81)).passed


def test_a_class_that_became_worse_is_named_though_the_whole_is_as_good() -> None:
    truth = [1] * 40 + [2] * 40 + [3] * 40
    champion = [1] * 40 + [2] * 40 + [1] * 15 + [3] * 25
    ours = [1] * 40 + [1] * 12 + [2] * 28 + [3] * 40
    compared = verdict(truth, ours, champion)

    check = checks.slices(comparisons(compared, None), 7, SETTINGS)

    assert checks.gate(compared).passed
    assert numbers(check) == (False, 1, 0, "at most")
    assert check.sentence == (
        "on 1 of 3 classes and slices of the test photos it is shown to be worse than version 7: class class 2 "
        "(0 gained, 12 lost of 40), p < 0.01"
    )
    second = comparisons(compared, None)[1]
    assert (second.rows, second.right, second.champion_right) == (40, 28, 40)
    assert second.p_value == pytest.approx(0.5**12)
    assert second.corrected == pytest.approx(3 * 0.5**12)


def test_with_many_classes_one_that_is_worse_by_chance_is_not_named() -> None:
    truth = [1] * 40 + [2] * 40 + [3] * 40
    compared = verdict(truth, [1] * 35 + [2] * 45 + [3] * 40, truth)

    check = checks.slices(comparisons(compared, None), 7, SETTINGS)

    assert comparisons(compared, None)[0].p_value == pytest.approx(0.5**5)  # below 0.05, and not of three
    assert numbers(check) == (True, 0, 0, "at most")
    assert checks.slices([], None, SETTINGS).sentence == "there was no champion to compare it with"


def test_slices_are_of_the_photos_that_both_were_asked_of() -> None:
    import pyarrow as pa

    truth = [1] * 4
    ours, theirs = evaluation(truth, [1, 1, 2, 2]), evaluation(truth, [1, 2, 1, 1])
    theirs = dataclasses.replace(theirs, image_ids=("3", "2", "1", "9"))
    attributes = pa.table({"image_id": ["0", "1", "2", "3"], "source": ["human", "human", "folder", "folder"]})

    found = comparisons(Verdict(ours, theirs, 7), attributes)

    assert [(each.dimension, each.value, each.rows, each.gained, each.lost) for each in found] == [
        ("class", "class 1", 3, 0, 1),
        ("source", "folder", 2, 0, 1),
        ("source", "human", 1, 0, 0),
    ]


def test_a_model_that_is_too_sure_is_not_calibrated_unless_few_photos_say_so() -> None:
    many = checks.calibrated(verdict([1] * 400, [1] * 284 + [2] * 116, None), SETTINGS)
    few = checks.calibrated(verdict([1] * 10, [1] * 7 + [2] * 3, None), SETTINGS)

    assert numbers(many) == (True, pytest.approx(0.09), 0.1, "at most")
    assert not checks.calibrated(verdict([1] * 400, [1] * 240 + [2] * 160, None), SETTINGS).passed
    assert few.passed
    assert few.limit == pytest.approx(0.2, abs=0.1)
    assert (
        few.sentence
        == f"confidence and accuracy are 0.100 apart on average; of 10 photos, {few.limit:.3f} may be chance"
    )


def test_agreement_is_the_share_of_equal_answers_right_or_wrong() -> None:
    compared = verdict([1] * 10, [1] * 5 + [2] * 5, [1] * 5 + [3] * 3 + [2] * 2)

    check = checks.agrees(compared, SETTINGS)

    assert numbers(check) == (True, 0.7, 0.5, "at least")
    assert check.sentence.startswith("it says the same as version 7 of 70.0% of 10 test photos (Cohen's kappa 0.5")
    assert not checks.agrees(compared, ValidationSettings(agreement=0.75)).passed
    assert checks.agrees(verdict([1], [1], None), SETTINGS).passed


def test_kappa_is_cohen_s() -> None:
    from sklearn.metrics import cohen_kappa_score

    chance = np.random.default_rng(0)
    one, other = chance.integers(1, 4, 50), chance.integers(1, 4, 50)

    assert kappa(one, other) == pytest.approx(cohen_kappa_score(one, other))
    assert kappa(one, one) == kappa(np.ones(3, int), np.ones(3, int)) == 1


def robust(photos: int, lost: float) -> Robustness:
    ours = {AS_THEY_ARE: 0.9} | dict.fromkeys(CORRUPTIONS, 0.9) | {"noise": 0.9 - lost}
    return Robustness(photos, [ours, {AS_THEY_ARE: 0.9} | dict.fromkeys(CORRUPTIONS, 0.8)])


def test_the_worst_that_is_done_to_photos_decides_and_few_photos_may_lose_more() -> None:
    check = checks.robust(robust(200, 0.4), 7, SETTINGS)

    assert numbers(check) == (False, pytest.approx(0.4), 0.3, "at most")
    assert check.sentence == (
        "of 200 test photos it is right on 0.900, and worst with noise: 0.500, 0.400 lost (version 7 loses 0.100); of "
        "so many, 0.300 may be chance"
    )
    assert checks.robust(robust(17, 0.4), 7, SETTINGS).passed
    assert checks.robust(robust(200, 0.2), 7, SETTINGS).passed
    assert checks.robust(Robustness(), 7, SETTINGS).sentence == "no photo was looked at"


def test_speed_and_size_have_limits() -> None:
    assert numbers(checks.fast(ANSWERED, SETTINGS)) == (True, 20.0, 500, "at most")
    assert not checks.fast(ANSWERED, ValidationSettings(milliseconds=19)).passed
    assert not checks.fast(Answer(failure="gone"), SETTINGS).passed
    assert numbers(checks.small(0.5, SETTINGS)) == (True, 0.5, 500, "at most")
    assert not checks.small(0.5, ValidationSettings(megabytes=0.4)).passed
