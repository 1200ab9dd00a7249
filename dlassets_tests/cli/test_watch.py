"""`dlassets watch` and `stream` as processes: killed and started again, stopped by signals; and what they refuse."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dlassets.engines.local import LocalEngine
from dlassets.intake.events import Manifest
from dlassets.settings import LandingZone, Settings
from dlassets.storage.lake import Lake
from dlassets_tests.programs import COMMAND, invoke, python
from dlassets_tests.stores import give_store
from dlassets_tests.tables import get

ENGINE = LocalEngine()
EVENTS = "{unlabeled: {uri: unlabeled, labelled: false, discovery: events}}"


class Process:
    def __init__(self, lake: Lake, *arguments: str) -> None:
        self._said = Path(lake.root, "said.txt")
        with self._said.open("a") as out:
            self._process = subprocess.Popen(
                [*COMMAND, *arguments],
                env=os.environ | {"DLASSETS_ROOT": lake.root},
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
            )

    @property
    def said(self) -> str:
        return self._said.read_text()

    def until(self, holds: Callable[[], object]) -> None:
        end = time.monotonic() + 120
        while not holds():
            if time.monotonic() > end or self._process.poll() is not None:
                pytest.fail(f"it did not happen: {self.said}")
            time.sleep(0.02)

    def end(self, number: int) -> int:
        self._process.send_signal(number)
        return self._process.wait(60)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake.at(str(tmp_path / "lake"))
    for zone in ("labeled", "unlabeled"):
        Path(lake.zone(zone)).mkdir(parents=True)
    return lake


@pytest.fixture
def start(lake: Lake) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(*arguments: str) -> Process:
        started.append(Process(lake, *arguments))
        return started[-1]

    yield start
    for process in started:
        process._process.kill()
        process._process.wait()


def paths(lake: Lake, table: str = "raw_images") -> list[str]:
    return [row["path"] for row in get(ENGINE, lake, table, "path")]


def test_watch_killed_and_started_again_takes_every_photo_in_once(lake, start, photos) -> None:
    some = sorted(photos.glob("*/*.jpg"))[:24]
    zone = Path(lake.zone("unlabeled"))
    names = [f"{number:02d}.jpg" for number in range(len(some))]
    process = start("watch")
    process.until(lambda: "watching" in process.said)
    for number, (photo, name) in enumerate(zip(some, names, strict=True)):
        shutil.copyfile(photo, zone / name)
        if number == 8:
            process.until(lambda: paths(lake))
        if number == 16:  # while a batch is under way, most likely
            assert process.end(signal.SIGKILL) == -signal.SIGKILL
    process = start("watch")
    process.until(lambda: len(paths(lake)) >= len(some))
    assert paths(lake) == [f"unlabeled/{name}" for name in names]
    assert process.end(signal.SIGTERM) == 0
    assert process.said.endswith(" stopped\n")
    assert paths(lake) == [f"unlabeled/{name}" for name in names]


@pytest.mark.slow
def test_stream_looks_at_each_photo_and_stops_with_0(lake, start, photos) -> None:
    give_store(Settings(root=lake.root))
    process = start("stream", "unlabeled")
    process.until(lambda: "watching unlabeled" in process.said)
    shutil.copyfile(next(photos.glob("*/*.jpg")), Path(lake.zone("unlabeled")) / "a.jpg")
    process.until(lambda: get(ENGINE, lake, "image_features", "image_id"))
    process.until(lambda: "1 new, 1 profiled, 1 embedded" in process.said)
    assert process.end(signal.SIGINT) == 0
    assert process.said.count("No version of image_classifier is champion yet") == 1


@pytest.fixture
def signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_only_note_writes_the_manifest_and_takes_nothing_in(lake, start, photos, monkeypatch) -> None:
    monkeypatch.setenv("DLASSETS_LANDING", EVENTS)
    manifest = Manifest.of(lake, "unlabeled", LandingZone(uri="unlabeled", labelled=False))
    process = start("watch", "--only-note")
    process.until(Path(lake.events("unlabeled"), "missed").exists)
    shutil.copyfile(next(photos.glob("*/*.jpg")), Path(lake.zone("unlabeled")) / "a.jpg")
    process.until(manifest.pending)

    assert (process.end(signal.SIGTERM), manifest.pending().paths) == (0, ("a.jpg",))
    assert not Path(lake.table("raw_images")).exists()


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (["watch", "nope"], {}, "No landing zone 'nope'. Declared are: labeled, unlabeled."),
        (["stream", "nope"], {}, "No landing zone 'nope'"),
        (["watch", "--only-note"], {}, "Nobody would read the events of labeled, unlabeled"),
        (
            ["watch", "--only-note"],
            {"DLASSETS_LANDING": "{far: {uri: 's3a://photos/in', labelled: false, discovery: events}}"},
            "far cannot be watched from here",
        ),
    ],
)
@pytest.mark.usefixtures("signals")
def test_what_cannot_be_watched_is_said_with_exit_code_2(lake, arguments, settings, said) -> None:
    result = invoke(*arguments, DLASSETS_ROOT=lake.root, **settings)
    assert (result.exit_code, said in result.output) == (2, True)


def test_help_of_the_command_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom dlassets.cli import main\n"
        "try: main(['watch', '--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'mlflow', 'pyarrow', 'dagster') if m in sys.modules])"
    )
    assert python(program).endswith("[]\n")
