"""Which device a process of a training computes on. How processes work together is tested with `launch`."""

import pytest

from dlassets.errors import DlassetsError
from dlassets.learning.training.group import Group, device_of
from dlassets.settings import ComputeSettings


@pytest.fixture
def gpus(monkeypatch):
    """Have torch find so many GPUs: a stand-in, since whether this machine has any is not the test's to say."""
    import torch

    def found(number: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)

    return found


@pytest.mark.parametrize(
    ("device", "found", "rank", "size", "expected"),
    [
        ("cpu", 2, 1, 2, "cpu"),
        ("auto", 0, 0, 1, "cpu"),
        ("auto", 1, 0, 1, "cuda:0"),
        ("auto", 1, 1, 2, "cpu"),
        ("auto", 2, 1, 2, "cuda:1"),
        ("cuda", 2, 1, 2, "cuda:1"),
    ],
)
def test_each_process_has_a_gpu_of_its_own_or_none(gpus, device, found, rank, size, expected) -> None:
    gpus(found)

    assert device_of(ComputeSettings(device=device), rank, size) == expected


@pytest.mark.parametrize(("found", "size"), [(0, 1), (1, 2)])
def test_gpus_that_are_asked_for_and_absent_are_said_to_be(gpus, found, size) -> None:
    gpus(found)

    with pytest.raises(DlassetsError, match=f"torch finds {found} GPUs here for {size} processes.*auto or cpu"):
        device_of(ComputeSettings(device="cuda"), 0, size)


def test_a_process_alone_has_its_own_numbers() -> None:
    import torch

    group = Group()

    assert group.sum(torch.tensor([2.0])).tolist() == [2]
    assert group.broadcast(torch.tensor([2.0])).tolist() == [2]
    assert group.gather({"a": [1]}) == [{"a": [1]}]
    assert group.is_main
