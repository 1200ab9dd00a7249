"""Agreement beyond chance: as scikit-learn has it, and as Fleiss published it."""

import numpy as np
import pytest

from dlassets.labeling.agreement import cohen_kappa, fleiss_kappa, group_kappa, kappa_with_others
from dlassets.labeling.overlap import UNANSWERED, Answers


def answers_of(labels: list[list[int]]) -> Answers:
    made = np.array(labels)
    people = [f"person {place}" for place in range(made.shape[1])]
    images = [f"image {place}" for place in range(len(made))]
    return Answers(images, people, made, np.zeros(len(made), "datetime64[us]"))


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("wrong", [0.0, 0.3, 0.9])
def test_cohen_s_kappa_is_scikit_learn_s(classes, wrong) -> None:
    from sklearn.metrics import cohen_kappa_score

    random = np.random.default_rng(classes)
    one = random.integers(classes, size=60) * 7 + 2
    other = np.where(random.random(60) < wrong, random.permutation(one), one)

    assert cohen_kappa(one, other) == pytest.approx(cohen_kappa_score(one, other), abs=1e-12)


def test_people_who_give_one_label_only_agree_no_more_than_by_chance() -> None:
    same = np.array([3, 3, 3])

    assert (cohen_kappa(same, same), cohen_kappa(same[:0], same[:0])) == (None, None)
    assert cohen_kappa(same, same + 1) == 0


def test_fleiss_kappa_of_a_published_example() -> None:
    # Ten subjects, fourteen raters, five categories: the worked example of Wikipedia's article, kappa 0.210.
    table = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]

    assert fleiss_kappa(np.array(table)) == pytest.approx(0.20993, abs=1e-5)


def test_images_with_one_answer_say_nothing_of_a_group() -> None:
    counts = np.array([[2, 0], [0, 2], [1, 0]])

    assert fleiss_kappa(counts) == 1
    assert fleiss_kappa(counts[2:]) is None
    assert fleiss_kappa(counts[:1]) is None


def test_a_person_s_kappa_is_a_mean_by_images_in_common() -> None:
    both = [[place % 2, place % 2, UNANSWERED] for place in range(10)]
    others = [[place % 2, UNANSWERED, 1 - place % 2] for place in range(30)]
    few = [[UNANSWERED, 0, 1]] * 9

    answers = answers_of(both + others + few)

    kappa, common = kappa_with_others(answers, 0)
    assert common == 40
    assert kappa == pytest.approx((10 * 1 + 30 * -1) / 40)
    assert kappa_with_others(answers, 1) == (1, 10)
    assert kappa_with_others(answers_of(few), 1) == (None, 0)


def test_a_group_s_kappa_counts_who_said_what() -> None:
    labels = [[2, 2, 6], [6, 6, 6], [2, UNANSWERED, 2], [10, UNANSWERED, UNANSWERED]]
    counts = np.array([[2, 1, 0], [0, 3, 0], [2, 0, 0], [0, 0, 1]])

    assert group_kappa(answers_of(labels)) == fleiss_kappa(counts)
    assert group_kappa(answers_of([[UNANSWERED, UNANSWERED]])) is None
