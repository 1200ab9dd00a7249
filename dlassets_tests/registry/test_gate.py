"""Which new versions take the champion's place, and what is said of each."""

import dataclasses
import math

import numpy as np
import pytest

from dlassets.errors import DlassetsError
from dlassets.learning.evaluation.evaluate import Evaluation, evaluate_probabilities
from dlassets.registry.gate import Gate, Verdict
from dlassets_tests.learning import examples

ONE = evaluate_probabilities(np.array([[1.0, 0.0]]), [1, 2], ["cat", "dog"], examples.examples([1], [[0.0]]))

DEFAULT = Gate()


def judged(right: list[bool], first: int = 0) -> Evaluation:
    """A model that is right on these of as many photos; `first` is the number of the first."""
    ids, predicted = tuple(f"image{first + place}" for place in range(len(right))), np.where(right, 1, 2)
    return dataclasses.replace(ONE, rows=len(right), image_ids=ids, truth=np.ones_like(predicted), predicted=predicted)


def verdict(both: int, gained: int, lost: int, neither: int = 0, gate: Gate = DEFAULT) -> Verdict:
    challenger = [True] * both + [True] * gained + [False] * lost + [False] * neither
    champion = [True] * both + [False] * gained + [True] * lost + [False] * neither
    return Verdict(judged(challenger), judged(champion), 1, gate)


def chance(lost: int, gained: int) -> float:
    """The chance of so many lost or more of as many coins, counted one by one."""
    number = lost + gained
    return sum(math.comb(number, k) for k in range(lost, number + 1)) / 2**number


@pytest.mark.parametrize(
    ("counts", "passed", "says"),
    [
        ((84, 4, 5, 10), True, "88 of 103 test photos where version 1 is on 89 (4 gained, 5 lost): not shown"),
        ((84, 4, 5, 10), True, "(4 gained, 5 lost): not shown to be worse (p = 0.50), passed"),
        ((90, 9, 1, 3), True, "99 of 103 test photos where version 1 is on 91 (9 gained, 1 lost): shown to be better"),
        ((90, 9, 1, 3), True, "(9 gained, 1 lost): shown to be better (p = 0.01), passed"),
        ((90, 2, 1, 10), True, "(2 gained, 1 lost): better, though chance may do as much (p = 0.50), passed"),
        ((90, 3, 3, 7), True, "(3 gained, 3 lost): as good, passed"),
        ((950, 0, 5, 45), False, "(0 gained, 5 lost): shown to be worse (p = 0.03), refused"),
        ((900, 0, 40, 60), False, "(0 gained, 40 lost): shown to be worse (p < 0.01), refused"),
        ((15, 0, 5), False, "(0 gained, 5 lost): shown to be worse (p = 0.03), refused"),
        ((16, 0, 4), False, "20.0% below, and 5.0% is the most that may be, though not shown to be worse (p = 0.06)"),
        ((19, 0, 1), True, "(0 gained, 1 lost): not shown to be worse (p = 0.50), passed"),
        ((50, 10, 16, 24), False, "6.0% below, and 5.0% is the most that may be"),
    ],
)  # fmt: skip
def test_a_version_is_promoted_unless_it_is_shown_to_be_worse_or_is_far_below(counts, passed, says) -> None:
    found = verdict(*counts)

    assert found.passed is passed
    assert says in found.explanation


def test_what_shows_it_is_the_exact_chance_of_as_many_lost_among_those_that_differ() -> None:
    for lost in range(1, 12):
        for gained in range(12):
            found = verdict(1_000, gained, lost, gate=Gate(tolerance=0.99))
            assert found.passed is (chance(lost, gained) >= 0.05), (lost, gained)


@pytest.mark.parametrize(
    ("gate", "passed"),
    [
        (Gate(confidence=1, tolerance=0.5), True),
        (Gate(confidence=0.99, tolerance=0.5), True),
        (Gate(confidence=0.95, tolerance=0.5), False),
        (Gate(confidence=1, tolerance=0.24), False),
        (Gate(confidence=1, tolerance=0.25), True),
        (Gate(confidence=1, tolerance=0), False),
    ],
)
def test_both_numbers_are_settings(gate, passed) -> None:
    assert verdict(15, 0, 5, gate=gate).passed is passed


def test_with_no_tolerance_one_photo_fewer_is_refused_and_as_many_are_not() -> None:
    assert not verdict(1_000, 0, 1, gate=Gate(tolerance=0)).passed
    assert verdict(1_000, 5, 5, gate=Gate(tolerance=0)).passed


def test_the_photos_that_count_are_those_that_both_were_asked_of() -> None:
    ours, theirs = judged([True, True, False, True]), judged([False, True, True], first=1)

    found = Verdict(ours, theirs, 7)

    assert found.explanation.startswith("right on 2 of 3 test photos where version 7 is on 2 (1 gained, 1 lost)")
    with pytest.raises(DlassetsError, match="share no test photo"):
        _ = Verdict(ours, judged([True], first=9), 7).passed
