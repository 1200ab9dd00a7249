"""A little of the soak: every step of an ingest killed once, a few signals, random sequences, and a lake on Spark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dlassets.engines.base import Engine
from dlassets.engines.local import LocalEngine
from dlassets.images.validate import Reason
from dlassets.intake.ingest import Intake
from dlassets_tests.soak.contents import bad, good
from dlassets_tests.soak.faults import STEPS
from dlassets_tests.soak.model import ZONES
from dlassets_tests.soak.operations import Setting, run, shortest
from dlassets_tests.soak.processes import Processes
from dlassets_tests.soak.world import PATHS, MismatchError, Tally, World

SEEDS = (0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2)))
OPERATIONS = 25


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with Processes() as running:
        yield running


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "lake", Tally())


def something_of_everything(world: World, turn: int) -> None:
    """New, changed, refused, deleted and returned files in both zones, told of and kept as files."""
    for zone in ZONES:
        world.write(f"{zone}/001.cat/new {turn}.jpg", good()[turn % len(good())])
        world.write(f"{zone}/001.cat/bad.png", bad()[turn % len(bad())])
        world.write(f"{zone}/001.cat/changed.jpg", good()[(turn + 1) % len(good())])
        world.write(f"{zone}/001.cat/good or bad", (good()[turn % 6], bad()[1])[turn % 2])
        passing = f"{zone}/001.cat/passing.jpg"
        if passing in world.model.disk:
            world.delete(passing)
        else:
            world.write(passing, good()[3])
    world.tell()


@pytest.mark.slow
def test_killed_at_every_step_the_next_ingest_makes_it_whole(world: World) -> None:
    world.set(events=frozenset(ZONES), storage="files")
    world.ingest()
    for turn, step in enumerate(STEPS):
        something_of_everything(world, turn)
        assert world.ingest_killed(step, nth=1), step
        world.ingest()


@pytest.mark.slow
def test_killed_by_a_signal_the_next_ingest_makes_it_whole(tmp_path: Path, processes: Processes) -> None:
    world = World(tmp_path / "lake", Tally(), processes=processes)
    world.set(events=frozenset(["unlabeled"]))
    for turn, step in enumerate(("after the commit to raw_images", "within the commit to raw_images", None)):
        something_of_everything(world, turn)
        world.ingest_sigkilled(step, seconds=0.01 if step else 0.1)
    something_of_everything(world, 3)
    world.ingest_twice_in_processes("before the commit to quarantined_files")
    world.ingest()
    assert world.tally.faults["SIGKILL: after the commit to raw_images"] == 1


def test_every_name_every_reason_and_every_way_to_change_is_seen(world: World) -> None:
    for number, path in enumerate(PATHS):
        if number % 3 == 0 or path.startswith("labeled/001.cat/"):
            world.write(path, good()[number % len(good())])
    cats = [path for path in world.paths if path.startswith("labeled/001.cat/") and "_temp" not in path]
    for path, content in zip(cats, bad(), strict=False):
        world.write(path, content)
    world.write("unlabeled/locked.jpg", good()[0], readable=False)
    world.ingest()
    assert {*world.tally.reasons} == {*Reason} - {Reason.LINK_OUTSIDE, Reason.FAILED, Reason.FORMAT_OFF}, (
        "the world has no links, nor later steps, and every format is on"
    )

    mended, worse, other, retouched, same_length, same_time, gone, moved, one, two, copied = cats[:11]
    world.write(mended, good()[0])
    world.write(worse, bad()[4])
    world.touch(other)
    for path in (retouched, same_length, same_time, gone, moved, one, copied):
        world.write(path, good()[3])
    world.ingest()
    world.write(mended, bad()[4])
    world.touch(retouched)
    world.overwrite_by_as_many_bytes(same_length, 1)
    world.overwrite_at_the_same_time(same_time, good()[1])
    world.delete(gone)
    world.rename(moved, "unlabeled/moved in.jpg")
    world.swap(one, two)
    world.duplicate(copied, "labeled/012_dog/labelled otherwise.jpg", same_time=True)
    world.move_folder("unlabeled/a/b/c/d", "unlabeled/über uns/写真")
    world.ingest()
    world.write(gone, good()[5])
    world.restore(mended)
    world.restore(moved)
    world.set(max_file_bytes=1000)
    world.write("unlabeled/large.bmp", good()[3])
    world.ingest()
    world.set(max_file_bytes=10_000)
    world.ingest()


def test_two_at_once_take_in_each_file_once(world: World) -> None:
    world.set(files_per_batch=1)
    for turn in range(2):
        something_of_everything(world, turn)
        world.ingest_twice_at_once()
    world.ingest()


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_to_files_the_tables_hold_what_they_should(seed: int) -> None:
    run(Setting(Tally()), seed, range(OPERATIONS))


@pytest.mark.spark
@pytest.mark.slow
def test_on_spark_after_kills_and_a_lost_checkpoint_as_well(tmp_path: Path, spark_engine: Engine) -> None:
    world = World(tmp_path / "lake", Tally(), (spark_engine, LocalEngine()))
    world.set(events=frozenset(["unlabeled"]))
    something_of_everything(world, 0)
    assert world.ingest_killed("after the commit to raw_images", nth=1)
    world.lose_checkpoint()
    world.ingest()
    something_of_everything(world, 1)
    assert world.ingest_killed("before the commit to deleted_files", nth=1)
    world.use(world.engines[1])
    world.ingest()


@pytest.mark.slow
def test_a_mistake_is_found_and_told_in_few_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Intake, "_record_changes", lambda *_: None)

    fewest, error = shortest(Setting(Tally()), 8, range(OPERATIONS))

    assert isinstance(error, MismatchError)
    assert "deleted" in str(error)
    assert len(fewest) <= 4
