"""A training's curves as TensorBoard itself reads them."""

from pathlib import Path

import pytest

from dlassets.learning.training.curves import curves
from dlassets.learning.training.job import Event
from dlassets.storage.files import files_under, read_whole, write_whole
from dlassets_tests.programs import python


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves of a folder: at which step each had which value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_reads_each_step_and_epoch(tmp_path) -> None:
    with curves(str(tmp_path / "run")) as write:
        for number in (1, 2):
            write(Event("step", number, 4, {"loss": 4.0 / number}))
        write(Event("epoch", 1, 2, {"loss": 3.0, "validation_loss": 2.5}))
        assert read(tmp_path / "run")["loss"] == [(0, 3.0)]  # while it goes on
        write(Event("epoch", 2, 2, {"loss": 1.0, "validation_loss": 2.0}))

    assert read(tmp_path / "run") == {
        "step/loss": [(0, 4.0), (1, 2.0)],
        "loss": [(0, 3.0), (1, 1.0)],
        "validation_loss": [(0, 2.5), (1, 2.0)],
    }


def test_in_a_bucket_they_are_seen_after_each_epoch_and_at_the_end(bucket, tmp_path) -> None:
    run = f"s3://{bucket}/run"

    def seen() -> dict[str, list[tuple[int, float]]]:
        for name in files_under(run):
            write_whole(tmp_path / "seen" / name, read_whole(f"{run}/{name}"))
        return read(tmp_path / "seen")

    with curves(run) as write:
        write(Event("epoch", 1, 2, {"loss": 3.0}))
        assert seen() == {"loss": [(0, 3.0)]}
        write(Event("step", 1, 2, {"loss": 2.0}))

    assert seen() == {"loss": [(0, 3.0)], "step/loss": [(0, 2.0)]}


def test_a_folder_that_cannot_be_is_told(tmp_path) -> None:
    (tmp_path / "run").write_text("a file")

    with pytest.raises(OSError, match="exists"), curves(str(tmp_path / "run")):
        pass


def test_it_takes_no_torch_and_no_tensorflow(tmp_path) -> None:
    program = f"""
import sys
from pathlib import Path
from dlassets.learning.training.curves import curves
with curves({str(tmp_path)!r}):
    print({{"torch", "tensorflow"}} & sys.modules.keys())
"""
    assert python(program).strip() == "set()"
