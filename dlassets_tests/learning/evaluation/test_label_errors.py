"""Wrong labels among right ones are found, and right ones are left alone."""

import numpy as np
import pytest

from dlassets.errors import DlassetsError
from dlassets.lakehouse.tables import LABEL_ERRORS
from dlassets.learning.evaluation.label_errors import LabelErrors, find_label_errors
from dlassets.learning.examples import Examples
from dlassets.learning.training.head_training import Chosen, train_head
from dlassets.settings import TrainingSettings
from dlassets_tests.learning.examples import examples, rows

CLASSES = (3, 12, 40, 77)
SETTINGS = TrainingSettings()


def relabelled(right: Examples, wrong: dict[int, int]) -> Examples:
    """The same rows with other labels at these places."""
    labels = right.labels.copy()
    labels[list(wrong)] = list(wrong.values())
    return examples(labels.tolist(), right.features, right.image_ids)


def flipped(right: Examples, share: float, seed: int = 0) -> tuple[Examples, dict[str, int]]:
    """The rows with this share of the labels replaced by others, and the right labels of those by image_id."""
    chance = np.random.default_rng(seed)
    places = chance.choice(len(right), int(share * len(right)), replace=False).tolist()
    others = {place: int(chance.choice([one for one in CLASSES if one != right.labels[place]])) for place in places}
    return relabelled(right, others), {right.image_ids[place]: int(right.labels[place]) for place in places}


@pytest.fixture(scope="module")
def right() -> Examples:
    return rows(CLASSES * 100, spread=0.7)


@pytest.fixture(scope="module")
def judged(right: Examples) -> tuple[LabelErrors, dict[str, int]]:
    """What is found of 20 wrong labels of 400, and the right ones by image_id."""
    some, wrong = flipped(right, 0.05)
    return find_label_errors(some, SETTINGS), wrong


def test_of_wrong_labels_most_are_found_with_few_false_alarms(judged) -> None:
    result, wrong = judged
    listed = set(result.errors["image_id"].to_pylist())

    assert len(wrong) == 20
    assert len(listed & wrong.keys()) >= 0.8 * len(wrong)
    assert len(listed - wrong.keys()) <= 4
    assert (result.checked, result.small_classes) == (400, {})


def test_they_have_the_table_s_columns_with_the_right_label_suggested_and_the_worst_first(judged) -> None:
    result, wrong = judged
    assert result.errors.schema == LABEL_ERRORS.schema
    errors = result.errors.to_pylist()
    suggested = [error["suggested_label"] == wrong[error["image_id"]] for error in errors if error["image_id"] in wrong]
    assert np.mean(suggested) > 0.9
    for error in errors:
        assert error["label_name"] == f"class {error['label']}"
        assert error["suggested_name"] == f"class {error['suggested_label']}" != error["label_name"]
        assert 0 <= error["quality"] < error["confidence"] <= 1
        assert error["path"] == f"labeled/{error['image_id']}.jpg"

    quality = [error["quality"] for error in errors]
    assert quality == sorted(quality)
    assert len(set(quality)) > 1


def test_right_labels_are_left_alone(right: Examples) -> None:
    assert find_label_errors(right, SETTINGS).errors.num_rows <= 2


def test_the_order_of_rows_changes_nothing_and_the_seed_the_folds(right: Examples) -> None:
    some = flipped(right, 0.05)[0]
    order = np.random.default_rng(5).permutation(len(some))
    shuffled = examples(some.labels[order], some.features[order], [some.image_ids[place] for place in order])

    errors = find_label_errors(some, SETTINGS).errors
    again = find_label_errors(shuffled, SETTINGS).errors
    other = find_label_errors(some, SETTINGS, seed=1).errors

    assert again["image_id"].to_pylist() == errors["image_id"].to_pylist()
    np.testing.assert_allclose(again["quality"], errors["quality"], atol=1e-3)
    assert other["quality"].to_pylist() != errors["quality"].to_pylist()


def test_no_row_is_judged_by_a_head_that_has_seen_it(right: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlassets.learning.evaluation import label_errors as module

    judged: list[set[str]] = []

    def watched(train: Examples, validation: Examples, settings: TrainingSettings, *, chosen: Chosen):
        learned, stopping = (
            set(np.array(some.image_ids)[of]) for some, of in zip((train, validation), chosen, strict=True)
        )
        judged.append(set(right.image_ids) - {*learned, *stopping})
        assert not learned & stopping
        return train_head(train, validation, settings, chosen=chosen)

    monkeypatch.setattr(module, "train_head", watched)
    find_label_errors(right, SETTINGS, folds=4)

    assert [len(fold) for fold in judged] == [100] * 4
    assert set.union(*judged) == set(right.image_ids)


def test_every_fold_has_its_share_of_each_class() -> None:
    from dlassets.learning.evaluation.label_errors import _folds

    some = rows([3] * 52 + [12] * 7 + [40] * 5)
    folds = _folds(some, 5, seed=0)

    for label, fewest in ((3, 10), (12, 1), (40, 1)):
        counts = np.bincount(folds[some.labels == label], minlength=5)
        assert counts.min() == fewest
        assert counts.max() - counts.min() <= 1


def test_a_class_with_fewer_rows_than_folds_is_named_and_not_judged() -> None:
    some = rows([3] * 30 + [12] * 30 + [40] * 4 + [77] * 5)

    result = find_label_errors(some, SETTINGS)

    assert result.small_classes == {"class 40": 4}
    assert result.checked == 65
    assert 40 not in result.errors["label"].to_pylist() + result.errors["suggested_label"].to_pylist()


@pytest.mark.parametrize("labels", [[], [3] * 20, [3] * 20 + [12] * 4])
def test_where_nothing_can_be_judged_nothing_is_listed(labels) -> None:
    result = find_label_errors(rows(labels) if labels else examples([], np.zeros((0, 8))), SETTINGS)

    assert (result.errors.num_rows, result.checked) == (0, 0)
    assert result.errors.schema == LABEL_ERRORS.schema


def test_progress_is_reported_by_fold_and_nothing_is_printed(
    right: Examples, capfd: pytest.CaptureFixture[str]
) -> None:
    progress: list[tuple[int, int]] = []

    find_label_errors(right, SETTINGS, folds=3, on_fold=lambda done, of: progress.append((done, of)))

    assert progress == [(1, 3), (2, 3), (3, 3)]
    assert capfd.readouterr() == ("", "")


def test_two_folds_are_refused(right: Examples) -> None:
    with pytest.raises(DlassetsError, match="Use 3 or more"):
        find_label_errors(right, SETTINGS, folds=2)
