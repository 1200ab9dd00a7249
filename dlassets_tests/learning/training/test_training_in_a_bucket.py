"""Training in several processes and a study, on a Spark elsewhere, of a training set that lies on S3."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dlassets.engines.local import LocalEngine
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import TEST, TRAIN, VALIDATION
from dlassets.learning.training.job import Trained
from dlassets.storage.files import files_under
from dlassets.storage.lake import Lake
from dlassets_tests.engines.places import CLUSTER, CONNECT_TO_CLUSTER, SECONDS, spark_elsewhere
from dlassets_tests.learning.examples import rows
from dlassets_tests.learning.training import bucket_driver
from dlassets_tests.learning.training.test_head_training import ARRAYS, LABELS, LAST_DIGITS, fit, part, put
from dlassets_tests.mlflow_servers import MlflowServer
from dlassets_tests.programs import dlassets_within

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.fixture(params=[CLUSTER, CONNECT_TO_CLUSTER])
def place(request: pytest.FixtureRequest, s3, tmp_path: Path) -> Iterator[dict[str, str]]:
    server = MlflowServer(tmp_path)
    with spark_elsewhere(request.param, tmp_path, s3) as variables:
        server.start()
        try:
            yield {**variables, "DLASSETS_MLFLOW__TRACKING_URI": server.uri}
        finally:
            server.kill()


def test_executors_learn_from_a_bucket_what_one_process_learns_and_try_settings(place, bucket, tmp_path) -> None:
    lake = Lake.at(f"s3a://{bucket}/lake")
    train = rows(LABELS, spread=2.0)
    parts = [(TRAIN, part(train, slice(0, 25))), (TRAIN, part(train, slice(25, None)))]  # a file for each process
    others = [(VALIDATION, rows(LABELS, seed=1, spread=2.0)), (TEST, rows([3], seed=2))]
    put(LocalEngine(), lake, *parts, *others)

    program = (sys.executable, "-m", bucket_driver.__name__)
    ran = dlassets_within(SECONDS, tmp_path, command=program, DLASSETS_ROOT=lake.root, **place)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = json.loads((tmp_path / "said.json").read_text())
    alone, told = fit(pin(lake, "training_set"))
    head = Trained.load(str(tmp_path / "head")).head
    assert head.labels == alone.head.labels
    for name in ARRAYS:
        one, other = getattr(alone.head, name), getattr(head, name)
        assert np.abs(one - other).max() <= LAST_DIGITS * np.abs(one).max(), name
    assert said["epochs"] == [event.number for event in told]
    assert said["trials"][0] == {"l2": 0.05}
    assert said["chosen"] in said["trials"]
    assert len(said["trials"]) == 2
    assert not any("exchange" in name for name in files_under(lake.root))
