"""The demo from end to end: twice, and killed at the worst moments."""

import itertools
import signal
import sys

import dagster as dg
import pytest

from dlassets.demo.annotator import OpenRequest, answer
from dlassets.demo.photos import (
    arrive_labelled,
    arrive_unlabelled,
    held_back_of_generated,
    photos_in,
    read_truth,
)
from dlassets.errors import DlassetsError
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import TABLES
from dlassets.resources.display import failure_of
from dlassets.storage.files import files_under
from dlassets.storage.lake import Lake
from dlassets_tests.contents import contents
from dlassets_tests.disk import disk_full_after
from dlassets_tests.engines.places import SECONDS
from dlassets_tests.errors import ERRORS
from dlassets_tests.programs import dlassets, dlassets_within, invoke

# The functions before or after which the power goes, in the order in which a run gets to them.
KILLS = [
    ("dlassets.demo.photos", "_copy", "after", 9),
    ("dlassets.intake.ingest.Intake", "_take_in_batch", "after", 1),
    ("dlassets.registry.lifecycle", "register", "after", 1),
    ("dlassets.labeling.folder.FolderService", "_lay_out", "after", 1),
    ("dlassets.demo.annotator", "_move", "after", 2),
    ("dlassets.lakehouse.labels", "update_labels", "before", 3),
    ("dlassets.registry.validation.validate", "validate", "after", 1),
]
KILLED = """
import os, pkgutil, signal, sys
place, name, moment, nth = sys.argv.pop(1), sys.argv.pop(1), sys.argv.pop(1), int(sys.argv.pop(1))
owner = pkgutil.resolve_name(place)
real, calls = getattr(owner, name), 0

def killed(*arguments, **named):
    global calls
    calls += 1
    if moment == "before" and calls == nth:
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*arguments, **named)
    if moment == "after" and calls == nth:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(owner, name, killed)
from dlassets.cli import main
main()
"""


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    """A lake after one demo, and what that printed."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", "")  # as it was: the demo sets it for its process, which here is that of the tests
        return root, invoke("demo", "--images", photos, DLASSETS_ROOT=str(root))


def test_the_demo_works_and_shows_what_it_did(finished, photos) -> None:
    root, ran = finished

    assert ran.exit_code == 0, ran.output
    rows = contents(root)
    held_back = sum(photo.is_held_back() for photo in photos_in(photos))
    assert len(rows["raw_images"]) == len(list(photos_in(photos)))
    assert sum(row["source"] == "human" for row in rows["labeled_images"]) == len(rows["human_labels"]) > 0
    assert sum(row["source"] == "folder" for row in rows["labeled_images"]) == len(rows["raw_images"]) - held_back
    for figure in ("accuracy before the answers", "accuracy after the answers", "label requests", "(champion)"):
        assert figure in ran.stdout
    for name in TABLES:
        assert f"table {name}" in ran.stdout
    assert f"DLASSETS_ROOT={root}" in ran.stdout


def test_every_answer_is_the_true_class(finished, photos) -> None:
    root, _ = finished
    true = {photo.image_id: int(photo.folder.split(".")[0]) for photo in photos_in(photos)}

    for row in contents(root)["labeled_images"]:
        assert row["label"] == true[row["image_id"]]


@pytest.mark.slow
def test_a_second_demo_changes_no_table(finished, photos) -> None:
    root, _ = finished
    before = {name: pin(Lake.at(str(root)), name).version for name in TABLES}
    rows = contents(root)

    ran = dlassets("demo", "--images", photos, DLASSETS_ROOT=str(root))

    assert ran.returncode == 0, ran.stderr
    assert {name: pin(Lake.at(str(root)), name).version for name in TABLES} == before
    assert contents(root) == rows


@pytest.mark.slow
def test_a_demo_killed_again_and_again_ends_as_one_that_never_was(finished, photos, tmp_path) -> None:
    command = (sys.executable, "-c", KILLED)
    for kill in KILLS:
        ran = dlassets(*map(str, kill), "demo", "--images", photos, command=command, DLASSETS_ROOT=str(tmp_path))
        assert ran.returncode == -signal.SIGKILL, (kill, ran.stdout, ran.stderr)

    ran = dlassets("demo", "--images", photos, DLASSETS_ROOT=str(tmp_path))

    assert ran.returncode == 0, ran.stderr
    root, _ = finished
    for (name, actual), expected in zip(contents(tmp_path).items(), contents(root).values(), strict=True):
        assert actual == expected, name


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", pytest.param("spark", marks=pytest.mark.spark)])
def test_in_a_bucket_the_demo_makes_what_it_makes_in_a_folder(engine, finished, photos, bucket, tmp_path) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    environment = {
        "DLASSETS_ENGINE": engine,
        "DLASSETS_MLFLOW__TRACKING_URI": store,
        "DAGSTER_HOME": str(tmp_path / "home"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }

    ran = dlassets_within(SECONDS, "demo", "--images", photos, DLASSETS_ROOT=f"s3://{bucket}/lake", **environment)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    root, _ = finished
    made, expected = contents(f"s3://{bucket}/lake", store), contents(root)
    for name, rows in expected.items():
        assert made[name] == rows, name
    kinds = {name.partition("/")[0] for name in files_under(f"s3://{bucket}/lake")}
    assert kinds == {"tables", "landing", "labeling", "mlflow", "demo", "reports", "tensorboard"}
    assert {path.name for path in tmp_path.iterdir()} <= {".being-made.lock", "mlflow.db", "home", "cache"}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_a_step_says_to_people_is_shown_as_it_was(error) -> None:
    @dg.op
    def step() -> None:
        raise RuntimeError("of no use to people") from error

    job = dg.GraphDefinition(name="failing", node_defs=[step]).to_job()

    assert failure_of(job.execute_in_process(raise_on_error=False)) == f"step: {error}"


def test_labelled_and_held_back_photos_are_all_of_them_once(photos, tmp_path) -> None:
    labelled, unlabelled = tmp_path / "labeled", tmp_path / "unlabeled"
    counts = [
        (
            arrive_labelled(photos, str(labelled)),
            arrive_unlabelled(photos, str(unlabelled), str(tmp_path), str(labelled)),
        )
        for _ in range(2)
    ]

    arrived = [path.read_bytes() for path in itertools.chain(labelled.glob("*/*"), unlabelled.iterdir())]
    assert sorted(arrived) == sorted(path.read_bytes() for path in photos.glob("*/*"))
    assert sum(counts[0]) == 80
    assert counts[1] == (0, 0)
    assert 10 < counts[0][1] < 38


def test_what_came_labelled_is_not_held_back_where_more_is_held_back_by_now(photos, tmp_path) -> None:
    labelled, unlabelled = tmp_path / "labeled", tmp_path / "unlabeled"
    before = arrive_labelled(photos, str(labelled), 0.3)

    now = (
        arrive_labelled(photos, str(labelled), 0.8),
        arrive_unlabelled(photos, str(unlabelled), str(tmp_path), str(labelled), 0.8),
    )

    assert now == (0, 80 - before)


@pytest.mark.parametrize(("per_class", "share"), [(4, 0.3), (20, 0.3), (40, 0.6), (80, 0.8), (500, 0.8)])
def test_of_generated_samples_some_sixteen_a_class_are_labelled_at_first(per_class, share) -> None:
    assert held_back_of_generated(per_class) == pytest.approx(share)


@pytest.mark.slow
def test_the_samples_and_one_s_own_photos_after_them_are_two_lakes(photos, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DLASSETS_ROOT", raising=False)
    for arguments in (("--classes", 3, "--per-class", 20), ("--images", photos)):
        ran = dlassets("demo", *arguments)
        assert ran.returncode == 0, ran.stderr

    assert {path.name for path in tmp_path.iterdir()} == {"lake", f"lake-{photos.name}"}
    assert len(contents(tmp_path / "lake")["raw_images"]) == 60
    assert len(contents(tmp_path / f"lake-{photos.name}")["raw_images"]) == len(list(photos_in(photos)))


def test_what_is_held_back_tells_its_class_nowhere_but_aside(photos, tmp_path) -> None:
    arrive_unlabelled(photos, str(tmp_path / "unlabeled"), str(tmp_path), str(tmp_path / "labeled"))
    truth = read_truth(str(tmp_path))

    held_back = {photo.image_id: photo.folder for photo in photos_in(photos) if photo.is_held_back()}
    assert truth == held_back
    assert {path.name for path in (tmp_path / "unlabeled").iterdir()} == {f"{key[:16]}.jpg" for key in held_back}


def test_a_full_disk_is_said_and_leaves_nothing_half_written(photos, tmp_path) -> None:
    with disk_full_after(100), pytest.raises(DlassetsError, match=r"truth.csv could not be written.*run again"):
        arrive_unlabelled(photos, str(tmp_path / "landing"), str(tmp_path / "aside"), str(tmp_path / "labeled"))

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_annotator_answers_each_request_once_by_both_ways(tmp_path) -> None:
    asked = [OpenRequest(f"request{place}", "batch", f"image{place}") for place in range(5)]
    truth = {f"image{place}": "003.hat" for place in range(4)}
    requests, answers = tmp_path / "requests", tmp_path / "answers"
    (requests / "batch").mkdir(parents=True)
    answers.mkdir()
    for request in asked:
        (requests / "batch" / f"{request.request_id}.jpg").touch()

    assert [answer(asked, truth, requests, answers) for _ in range(2)] == [4, 0]

    moved = {path.name for path in (answers / "003.hat").iterdir()}
    listed = (answers / "batch.csv").read_text().splitlines()
    assert moved == {"request0.jpg", "request2.jpg"}
    assert listed == ["request_id,label,annotator", "request1,003.hat,demo", "request3,003.hat,demo"]
