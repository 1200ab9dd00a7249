"""What goes wrong on a cluster in the middle of a step: an executor, the driver, the store fails; nothing is lost."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from dlassets.engines.local import LocalEngine
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.settings import Settings
from dlassets.storage.files import write_whole
from dlassets.storage.lake import Lake
from dlassets_tests.engines.places import CLUSTER, SECONDS, spark_elsewhere
from dlassets_tests.storage.server import Faults
from dlassets_tests.tables import get

pytestmark = [pytest.mark.spark, pytest.mark.slow]

# A run of two steps, in small batches. It says what it is about to do, and waits for a line before it does.
RUN = """
import sys
from dlassets.engines.spark import SparkRows
from dlassets.intake.ingest import Intake
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.settings import load_settings

def told(owner, name, what):
    real = getattr(owner, name)
    def tell_and_do(*arguments, **named):
        print(what, flush=True)
        sys.stdin.readline()
        return real(*arguments, **named)
    setattr(owner, name, tell_and_do)

told(Intake, "_take_in_batch", "a batch?")
told(SparkRows, "keep", "rows?")
session = Session(load_settings())
for step in (steps.ingested_files, steps.image_profiles):
    print(step.name, flush=True)
    step.run(session)
print("done", flush=True)
"""


class Run:
    """A driver in a process of its own."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._said = ""
        self._process = subprocess.Popen(
            [sys.executable, "-c", RUN],
            env={**os.environ, **environment, "DLASSETS_INGEST__FILES_PER_BATCH": "8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def goes_on_to(self, *lines: str) -> None:
        """Let it go on until it has said these lines, in this order and perhaps others between."""
        for line in lines:
            self._next()
            while self._said != line:
                assert self._said, f"it ended before it said: {line}"
                self._next()

    def _next(self) -> None:
        if self._said.endswith("?"):
            self.go_on()
        self._said = self._process.stdout.readline().rstrip("\n")

    def go_on(self) -> None:
        """Let it do what it has asked for."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._said = ""

    def ends(self) -> None:
        self.goes_on_to("done")
        assert self._process.wait(SECONDS) == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spark")


@pytest.fixture(scope="module")
def place(folder: Path, s3) -> Iterator[dict[str, str]]:
    with spark_elsewhere(CLUSTER, folder, s3) as variables:
        yield variables


def photos_arrive(photos: Path, root: str) -> str:
    """Put some photos into a new lake; return its root."""
    for photo in sorted(photos.glob("*/*"))[::3]:
        write_whole(Lake.at(root).zone(f"labeled/{photo.parent.name}/{photo.name}"), photo.read_bytes())
    write_whole(Lake.at(root).zone("unlabeled/.here"), b"")
    return root


def tables(root: str) -> dict[str, Any]:
    columns = {"raw_images": "path, image_id, length", "image_profiles": "image_id, width, height"}
    return {name: get(LocalEngine(), Lake.at(root), name, some) for name, some in columns.items()}


@pytest.fixture(scope="module")
def expected(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    session = Session(Settings(root=photos_arrive(photos, str(tmp_path_factory.mktemp("local")))))
    for step in (steps.ingested_files, steps.image_profiles):
        step.run(session)
    return tables(session.settings.root)


def executors(folder: Path) -> list[psutil.Process]:
    """Return the JVMs that work for a driver: each has a folder below its worker's."""
    java = [process for process in psutil.process_iter(["name", "cwd"]) if process.info["name"] == "java"]
    return [process for process in java if f"{process.info['cwd']}".startswith(f"{folder}/work-")]


def seconds_of_python(executor: psutil.Process) -> float:
    total = 0.0
    for process in executor.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:2])
    return total


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_step_whose_executor_is_killed_ends_right(place, folder, photos, expected, tmp_path) -> None:
    root = photos_arrive(photos, str(tmp_path))
    run = Run({**place, "DLASSETS_ROOT": root})
    run.goes_on_to("image_profiles", "rows?")
    lost, other = executors(folder)
    before = seconds_of_python(lost)
    run.go_on()
    wait_until(lambda: seconds_of_python(lost) > before)
    lost.kill()

    run.ends()

    assert other.is_running() is False  # it has gone with the driver
    assert tables(root) == expected


def test_a_run_whose_driver_was_killed_ends_right_when_it_is_run_again(place, photos, expected, tmp_path) -> None:
    root = photos_arrive(photos, str(tmp_path))
    killed = Run({**place, "DLASSETS_ROOT": root})
    killed.goes_on_to("a batch?", "a batch?", "rows?")
    killed.kill()
    assert 0 < len(tables(root)["raw_images"]) < len(expected["raw_images"])

    Run({**place, "DLASSETS_ROOT": root}).ends()

    assert tables(root) == expected


def test_steps_on_a_store_that_is_busy_slow_and_breaks_off_end_right(place, photos, expected, s3, bucket) -> None:
    root = photos_arrive(photos, f"s3a://{bucket}/lake")
    with s3.faults(Faults(busy_every=50, slow_every=40, cut_every=45)):
        Run({**place, "DLASSETS_ROOT": root}).ends()
        injected = s3.injected

    assert min(injected.values()) > 0
    assert tables(root) == expected
