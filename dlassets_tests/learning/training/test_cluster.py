"""Training on a Spark standalone cluster: a master and two workers on loopback, through Spark's TorchDistributor."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dlassets.engines.local import LocalEngine
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import TEST, TRAIN, VALIDATION
from dlassets.learning.training.job import Trained
from dlassets.storage.lake import Lake
from dlassets_tests.learning.examples import rows
from dlassets_tests.learning.training import cluster_driver
from dlassets_tests.learning.training.cluster import cluster
from dlassets_tests.learning.training.test_head_training import ARRAYS, LABELS, LAST_DIGITS, fit, part, put
from dlassets_tests.learning.training.trainings import STEPS, is_running, pids, wait_until

pytestmark = [pytest.mark.spark, pytest.mark.slow]

SECONDS = 400


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Iterator[Path]:
    """The folder in which the driver has left what the cluster did."""
    folder = tmp_path_factory.mktemp("cluster")
    train = rows(LABELS, spread=2.0)
    parts = [(TRAIN, part(train, slice(0, 25))), (TRAIN, part(train, slice(25, None)))]
    others = [(VALIDATION, rows(LABELS, seed=1, spread=2.0)), (TEST, rows([3], seed=2))]
    put(LocalEngine(), Lake.at(str(folder / "lake")), *parts, *others)
    program = [sys.executable, "-m", cluster_driver.__name__]
    with cluster(folder, workers=2) as address, (folder / "driver.log").open("wb") as log:
        driver = subprocess.run(
            [*program, address, folder],
            env=os.environ | {"PYTHONPATH": cluster_driver.CONF["spark.executorEnv.PYTHONPATH"]},
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            check=False,
        )
        assert driver.returncode == 0, (folder / "driver.log").read_text()
        yield folder


def said(folder: Path):
    return json.loads((folder / "said.json").read_text())


def test_two_executors_learn_what_one_process_learns(trained) -> None:
    alone, told = fit(pin(Lake.at(str(trained / "lake")), "training_set"))
    head = Trained.load(str(trained / "head")).head

    assert head.labels == alone.head.labels
    for name in ARRAYS:
        one, other = getattr(alone.head, name), getattr(head, name)
        assert np.abs(one - other).max() <= LAST_DIGITS * np.abs(one).max(), name
    assert said(trained / "head") == [event.number for event in told]


def test_a_training_goes_on_from_where_it_was_when_an_executor_s_process_is_killed(trained) -> None:
    begun_at = said(trained / "killed")["begun_at"]

    assert len(set(begun_at)) == 2
    assert max(begun_at) >= 3
    steps = (trained / "killed" / "steps").read_text().split()
    assert [int(step) for step in steps] == list(range(STEPS))


def test_an_error_of_the_user_s_on_an_executor_comes_back_as_it_was(trained) -> None:
    assert said(trained / "killed")["error"] == ["SettingsError", "training.l2 is odd: make it even."]


def test_no_process_is_left_on_the_executors_when_a_training_is_interrupted(trained) -> None:
    left = pids(trained / "stopped")

    assert len(left) == 2
    wait_until(lambda: not any(map(is_running, left)))


def test_what_the_processes_told_each_other_is_gone_in_the_end(trained) -> None:
    assert not list(trained.rglob("exchange-*"))
