"""The whole loop on a Spark elsewhere: a standalone cluster, a Connect server, and both; in a folder and on S3."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dlassets_tests.contents import contents
from dlassets_tests.engines.places import CLUSTER, CONNECT, CONNECT_TO_CLUSTER, SECONDS, spark_elsewhere
from dlassets_tests.programs import dlassets_within

pytestmark = [pytest.mark.spark, pytest.mark.slow]

PHOTOS = ("--classes", "3", "--per-class", "12")
# What a version is on blurred photos is no part of the loop, and takes as long as all the rest of its validation.
FEW = {"DLASSETS_VALIDATION__SAMPLE": "0"}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the engine `local` makes of the same photos."""
    root = tmp_path_factory.mktemp("local") / "lake"
    ran = dlassets_within(SECONDS, "demo", *PHOTOS, DLASSETS_ROOT=str(root), **FEW)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return contents(root)


@pytest.fixture(scope="module", params=[CLUSTER, CONNECT, CONNECT_TO_CLUSTER])
def place(request: pytest.FixtureRequest, s3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with spark_elsewhere(request.param, tmp_path_factory.mktemp("spark"), s3) as variables:
        yield variables


@pytest.fixture(params=["folder", "bucket"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The variables of a new lake; of one in a bucket, MLflow's database and Dagster's home are here."""
    if request.param == "folder":
        return {"DLASSETS_ROOT": str(tmp_path / "lake")}
    bucket = request.getfixturevalue("bucket")
    return {
        "DLASSETS_ROOT": f"s3a://{bucket}/lake",
        "DLASSETS_MLFLOW__TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "DAGSTER_HOME": str(tmp_path / "home"),
    }


def test_the_demo_makes_there_what_the_engine_local_makes(expected, place, lake) -> None:
    ran = dlassets_within(SECONDS, "demo", *PHOTOS, **FEW, **place, **lake)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    made = contents(lake["DLASSETS_ROOT"], lake.get("DLASSETS_MLFLOW__TRACKING_URI"))
    for name, rows in expected.items():
        assert made[name] == rows, name
