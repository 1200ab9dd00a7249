"""Checkpoints: read back as they were written, and never where a byte is wrong or the training is another."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from dlassets.engines.base import Snapshot
from dlassets.errors import DlassetsError
from dlassets.learning.backbones import BackboneRef
from dlassets.learning.training import checkpoints
from dlassets.learning.training.checkpoints import Checkpoint, Checkpoints, fingerprint
from dlassets.learning.training.job import Job
from dlassets.settings import TrainingSettings
from dlassets_tests.killing import overtaken_at

MINE, ANOTHERS = "0" * 12, "f" * 12


def checkpoint(step: int) -> Checkpoint:
    import torch

    tensors = {"weight": torch.full((2, 3), step / 7), "steps": torch.tensor(step)}
    return Checkpoint(step, tensors, {"history": [{"loss": 1 / 3}], "remarks": ["half a batch"]})


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def a_job(version: int = 3, **settings: object) -> Job:
    snapshot = Snapshot("training_set", "lake/tables/training_set", version)
    return Job(snapshot, BackboneRef("efficientnet_lite0"), TrainingSettings.model_validate(settings))


def assert_equal(one: Checkpoint | None, other: Checkpoint) -> None:
    assert one is not None
    left, right = ({name: value.tolist() for name, value in each.tensors.items()} for each in (one, other))
    assert (one.step, one.state, left) == (other.step, other.state, right)


def test_the_newest_is_read_as_it_was_written_and_only_two_are_kept(tmp_path) -> None:
    kept = Checkpoints(str(tmp_path / "new" / "folder"), MINE)
    for step in (8, 9, 10, 100):
        kept.save(checkpoint(step))

    assert len(files(tmp_path / "new" / "folder")) == 2
    assert_equal(kept.newest(), checkpoint(100))
    assert_equal(kept.at(10), checkpoint(10))


def test_there_is_none_in_an_empty_folder_or_where_no_folder_is(tmp_path) -> None:
    assert Checkpoints(str(tmp_path), MINE).newest() is None
    assert Checkpoints(str(tmp_path / "none"), MINE).newest() is None


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[:-1], id="cut short"),
        pytest.param(lambda data: data[:0], id="empty"),
        pytest.param(lambda data: data[:-1] + bytes([data[-1] ^ 1]), id="one bit of a tensor"),
        pytest.param(lambda data: data.replace(b"half", b"calf"), id="one letter of the state"),
    ],
)
def test_a_damaged_one_is_passed_over_for_the_one_before(tmp_path, damage, caplog) -> None:
    kept = Checkpoints(str(tmp_path), MINE)
    kept.save(checkpoint(1))
    kept.save(checkpoint(2))
    newest = files(tmp_path)[-1]
    newest.write_bytes(damage(newest.read_bytes()))

    assert_equal(kept.newest(), checkpoint(1))
    assert f"{newest.name} is damaged" in caplog.text


def test_another_trainings_are_neither_read_nor_removed(tmp_path) -> None:
    theirs = Checkpoints(str(tmp_path), ANOTHERS)
    theirs.save(checkpoint(50))
    mine = Checkpoints(str(tmp_path), MINE)
    assert mine.newest() is None
    for step in range(4):
        mine.save(checkpoint(step))

    assert_equal(mine.newest(), checkpoint(3))
    assert_equal(theirs.newest(), checkpoint(50))


@pytest.mark.parametrize("is_old", [True, False])
def test_what_is_half_written_is_no_checkpoint_and_goes_once_nobody_can_be_writing_it(tmp_path, is_old) -> None:
    kept = Checkpoints(str(tmp_path), MINE)
    kept.save(checkpoint(1))
    begun = tmp_path / f".writing-{MINE}-0123"
    begun.write_bytes(b"half of it")
    if is_old:
        aged(begun)

    assert_equal(kept.newest(), checkpoint(1))
    kept.save(checkpoint(2))
    assert begun.exists() is not is_old


def aged(file: Path) -> None:
    """Have a file be last written to in 1970."""
    os.utime(file, (1, 1))


def test_one_that_another_process_removes_first_is_no_failure(tmp_path) -> None:
    one, other = (Checkpoints(str(tmp_path), MINE) for _ in range(2))
    for step in range(2):
        one.save(checkpoint(step))

    with overtaken_at(checkpoints, "remove_file", lambda: other.save(checkpoint(3))):
        one.save(checkpoint(2))

    assert_equal(one.newest(), checkpoint(3))
    assert len(files(tmp_path)) == 2


def test_who_ends_a_training_leaves_what_another_on_the_same_inputs_goes_on_in(tmp_path) -> None:
    folder = tmp_path / "training"
    Checkpoints(str(folder), MINE).save(checkpoint(1))
    for name in ("exchange-dead", "exchange-alive"):
        (folder / name).mkdir()
        (folder / name / "job.json").write_text("{}")
    aged(folder / "exchange-dead" / "job.json")

    checkpoints.clear(str(folder))
    assert [file.relative_to(folder).as_posix() for file in folder.rglob("*.*")] == ["exchange-alive/job.json"]

    aged(folder / "exchange-alive" / "job.json")
    checkpoints.clear(str(folder))
    assert not folder.exists()
    checkpoints.clear(str(folder))


def test_a_process_that_does_not_see_what_the_first_saw_says_so(tmp_path) -> None:
    with pytest.raises(DlassetsError, match=r"step 7 .* Put the folder where all of them reach it"):
        Checkpoints(str(tmp_path), MINE).at(7)


def test_a_folder_that_takes_no_files_is_refused_by_name(tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(DlassetsError, match=r"No checkpoint could be written to .*file/folder"):
        Checkpoints(str(tmp_path / "file" / "folder"), MINE).save(checkpoint(1))


def test_they_lie_in_object_storage_as_well(s3, monkeypatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    s3.create("checkpoints")
    kept = Checkpoints("s3://checkpoints/a/training", MINE)
    for step in range(3):
        kept.save(checkpoint(step))

    assert_equal(kept.newest(), checkpoint(2))
    assert_equal(kept.at(1), checkpoint(1))
    listed = s3.client.list_objects_v2(Bucket="checkpoints", Prefix="a/training/")["Contents"]
    assert len([item for item in listed if item["Key"].endswith(".safetensors")]) == 2


@pytest.mark.parametrize(
    "other",
    [
        a_job(seed=1),
        a_job(pixels={"learning_rate": 1e-5}),
        a_job(trainable="all"),
        a_job(version=4),
        replace(a_job(), backbone=BackboneRef("efficientnet_lite0", "none")),
        replace(a_job(), backbone=BackboneRef("efficientnet_lite0", side=260)),
    ],
)
def test_other_rows_settings_or_backbones_are_another_training(other) -> None:
    assert fingerprint(other) != fingerprint(a_job())


def test_where_and_with_how_many_processes_it_runs_makes_no_other_training() -> None:
    elsewhere = a_job(compute={"processes": 2, "attempts": 5}, pixels={"workers": 7, "checkpoint_steps": 1})

    assert fingerprint(elsewhere) == fingerprint(a_job())
