"""What a head says of features, by hand."""

import numpy as np

from dlassets_tests.learning.examples import head

HEAD = head((3, 12, 40), [[1, 0], [0, 1], [0, 0]], bias=[0, 0, 1], mean=[1, 1], scale=[2, 1])


def test_probabilities_are_the_softmax_of_the_standardised_features() -> None:
    # (5 - 1) / 2 = 2 and (2 - 1) / 1 = 1, so the logits are 2, 1 and 1.
    expected = np.exp([2, 1, 1]) / np.exp([2, 1, 1]).sum()

    np.testing.assert_allclose(HEAD.probabilities(np.array([[5, 2]], np.float32)), [expected], rtol=1e-6)


def test_predictions_are_labels_and_not_places() -> None:
    assert HEAD.predict(np.array([[9, 1], [1, 9], [1, 1]], np.float32)).tolist() == [3, 12, 40]
    assert HEAD.predict(np.zeros((0, 2), np.float32)).tolist() == []


def test_large_logits_do_not_overflow() -> None:
    probabilities = HEAD.probabilities(np.array([[1e6, 0], [-1e6, -1e6]], np.float32))

    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
