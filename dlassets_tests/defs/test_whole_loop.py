"""The whole loop while nobody touches Dagster: `dlassets dev` runs, photos arrive, people answer, and that is all."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from dlassets.demo.annotator import OpenRequest, answer
from dlassets.engines.local import LocalEngine
from dlassets.images.digest import image_id_of
from dlassets.resources.instance import dagster_home
from dlassets.storage.lake import Lake
from dlassets_tests.pipelines import Pipelines, arrive, new_lake
from dlassets_tests.servers import serving
from dlassets_tests.tables import get

pytestmark = pytest.mark.slow
SETTINGS: dict[str, Any] = {
    "automation": {"sensors": True, "sensor_seconds": 1},
    "labeling": {"threshold": 1, "retrain_after": 10},
    "validation": {"sample": 0, "blocking": ["loads_in_a_clean_process"]},
}
# Of each class so many photos are labelled; the last arrives when the second model is there.
LABELLED, LATE = 14, 19
SECONDS = 240


def until(happens: Callable[[], Any], instance: dg.DagsterInstance) -> Any:
    """Return what is waited for, once it is there; no run may fail meanwhile."""
    deadline = time.monotonic() + SECONDS
    while not (found := happens()):
        failed = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        assert [run.job_name for run in failed] == []
        assert time.monotonic() < deadline, [(run.job_name, run.status.value) for run in instance.get_runs(limit=20)]
        time.sleep(0.5)
    return found


@pytest.fixture
def trained(tmp_path: Path, photos: Path) -> Iterator[Pipelines]:
    """A lake whose labelled photos a first champion has learned from."""
    root = tmp_path / "lake"
    with dg.DagsterInstance.from_config(str(dagster_home(Lake.at(str(root))))) as instance:
        pipelines = new_lake(root, instance, **SETTINGS)
        arrive(photos, pipelines, LABELLED)
        shutil.rmtree(pipelines.zone("unlabeled"))
        pipelines.zone("unlabeled").mkdir()
        assert pipelines.run("training_pipeline").success
        yield pipelines


def unlabelled_photos_come(photos: Path, pipelines: Pipelines, places: range) -> None:
    for folder in sorted(photos.iterdir()):
        for photo in sorted(folder.iterdir())[places.start : places.stop]:
            shutil.copyfile(photo, pipelines.zone("unlabeled") / f"{folder.name[:3]}-{photo.name}")


def test_from_answers_to_a_better_model_and_its_next_questions(trained, photos, tmp_path) -> None:
    lake, engine = trained.lake, LocalEngine()
    truth = {image_id_of(photo.read_bytes()): photo.parent.name for photo in photos.glob("*/*")}

    def requests(version: int) -> list[dict[str, Any]]:
        rows = get(engine, lake, "label_requests")
        return [row for row in rows if row["status"] == "open" and row["batch_id"].startswith(f"v{version}-")]

    def scored_by() -> Counter[int]:
        return Counter(row["model_version"] for row in get(engine, lake, "predictions_current", "model_version"))

    profile = tmp_path / "profile.yaml"
    profile.write_text(yaml.safe_dump(SETTINGS))
    with serving(tmp_path, module="dlassets.definitions", DLASSETS_PROFILE=str(profile)):
        unlabelled_photos_come(photos, trained, range(LABELLED, LATE))
        asked = until(lambda: len(requests(1)) >= 12 and requests(1), trained.instance)
        of_people = [OpenRequest(row["request_id"], row["batch_id"], row["image_id"]) for row in asked]
        assert answer(of_people, truth, lake.requests, lake.answers) == len(asked)

        # Merged, trained, validated, promoted, scored: all by sensors.
        until(lambda: scored_by()[2] == sum(scored_by().values()) > 0, trained.instance)
        labels = {row["image_id"]: row for row in get(engine, lake, "labeled_images") if row["source"] == "human"}
        assert {id_: row["label_name"] for id_, row in labels.items()} == {
            row["image_id"]: truth[row["image_id"]].split(".")[-1] for row in asked
        }
        learned = {row["image_id"] for row in get(engine, lake, "training_set", "image_id")}
        assert labels.keys() <= learned

        unlabelled_photos_come(photos, trained, range(LATE, 20))
        next_ones = until(lambda: requests(2), trained.instance)
        assert {row["image_id"] for row in next_ones}.isdisjoint(labels)
        runs = Counter(run.job_name for run in trained.instance.get_runs() if run.tags.get("dagster/sensor_name"))
        assert runs["training_pipeline"] == 1
