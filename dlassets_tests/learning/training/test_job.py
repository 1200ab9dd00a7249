"""A job and what it gave, written down and read again: the same, on disk and in object storage."""

import dataclasses

import numpy as np
import pytest

from dlassets.engines.base import Snapshot
from dlassets.learning.backbones import BackboneRef
from dlassets.learning.training.job import Job, Trained
from dlassets.settings import TrainingSettings
from dlassets_tests.learning.training.trainings import trained

SETTINGS = TrainingSettings(trainable="last_n", l2=0.1, pixels={"workers": 2}, compute={"processes": 2})


def assert_equal(one: Trained, other: Trained) -> None:
    for name in ("weight", "bias", "mean", "scale"):
        left, right = getattr(one.head, name), getattr(other.head, name)
        assert (left.dtype, left.tolist()) == (right.dtype, right.tolist())
    assert (one.head.labels, one.head.names) == (other.head.labels, other.head.names)
    assert one.head.temperature == other.head.temperature
    assert (one.history, one.best_epoch, one.remarks) == (other.history, other.best_epoch, other.remarks)
    assert one.left_out == other.left_out


def test_a_job_is_the_same_after_json() -> None:
    job = Job(Snapshot("training_set", "s3://lake/tables/training_set", 7), BackboneRef("b", "none"), SETTINGS, "f")

    assert Job.from_json(job.to_json()) == job


def test_what_was_learned_is_the_same_after_a_folder(tmp_path) -> None:
    import torch

    weights = {"conv.weight": torch.randn(4, 3).T, "bn.num_batches_tracked": torch.tensor(3)}
    learned = dataclasses.replace(trained("it went well"), weights=weights, left_out=("a.jpg",))
    learned = dataclasses.replace(learned, head=dataclasses.replace(learned.head, temperature=1.7))

    learned.save(str(tmp_path / "a folder"))
    read = Trained.load(str(tmp_path / "a folder"))

    assert_equal(read, learned)
    assert {name: (tensor.dtype, tensor.tolist()) for name, tensor in read.weights.items()} == {
        name: (tensor.dtype, tensor.tolist()) for name, tensor in weights.items()
    }


def test_a_slice_of_a_matrix_is_saved_as_the_numbers_that_it_shows(tmp_path) -> None:
    learned = trained()
    transposed = np.arange(4, dtype=np.float32).reshape(2, 2).T
    dataclasses.replace(learned, head=dataclasses.replace(learned.head, weight=transposed)).save(str(tmp_path))

    assert Trained.load(str(tmp_path)).head.weight.tolist() == [[0, 2], [1, 3]]


def test_a_head_alone_has_no_weights_and_what_was_not_saved_to_its_end_is_no_result(tmp_path) -> None:
    trained().save(str(tmp_path))
    assert Trained.load(str(tmp_path)).weights is None
    (tmp_path / "trained.json").unlink()

    with pytest.raises(FileNotFoundError):
        Trained.load(str(tmp_path))
