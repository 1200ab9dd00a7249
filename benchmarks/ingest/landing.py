"""How long after a photo landed its row can be read, by whom it is noticed: `dlassets watch`, and Dagster's sensor."""

from __future__ import annotations

import math
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table as Grid

from benchmarks.ingest.data import Original
from benchmarks.processes import REPOSITORY, clean_environment
from dlassets.errors import DlassetsError
from dlassets.resources.instance import dagster_home
from dlassets.storage.lake import Lake

ZONE = "labeled"
GOALS = {"dlassets watch": 1.0, "sensor": 10.0}
POLL_SECONDS = 0.02
START_SECONDS = 180.0
PATIENCE_SECONDS = 120.0
_GRACE_SECONDS = 30.0


@dataclass(frozen=True)
class Lag:
    """Seconds from a file's closing until a table opened afresh shows it. The limit of `pace` is seconds a file."""

    noticed_by: str
    landed: str
    files: int
    p50_s: float
    p95_s: float
    most_s: float
    goal_s: float | None


@dataclass(frozen=True)
class Landing:
    lags: list[Lag] = field(default_factory=list)

    def tables(self) -> list[Grid]:
        grid = Grid(
            "noticed by", "files landed", "files", "p50", "p95", "longest", "goal, p95",
            title="From a file's landing until its row can be read", title_justify="left",
        )  # fmt: skip
        for lag in self.lags:
            grid.add_row(
                lag.noticed_by,
                lag.landed,
                str(lag.files),
                *(f"{value:.2f} s" for value in (lag.p50_s, lag.p95_s, lag.most_s)),
                "" if lag.goal_s is None else f"≤{lag.goal_s:.0f} s",
            )
        return [grid]


class Reader(threading.Thread):
    """Opens a Delta table afresh, again and again, and notes when each value of a column is first there."""

    def __init__(self, uri: str, column: str = "path") -> None:
        super().__init__(daemon=True)
        self.seen: dict[str, float] = {}
        self._uri, self._column = uri, column
        self._ending = threading.Event()

    def run(self) -> None:
        from deltalake import DeltaTable

        last = -1
        while not self._ending.wait(POLL_SECONDS):
            if not DeltaTable.is_deltatable(self._uri):
                continue
            table = DeltaTable(self._uri)
            if table.version() == last:
                continue
            last = table.version()
            values = table.to_pyarrow_dataset().to_table(columns=[self._column])[self._column].to_pylist()
            now = time.monotonic()
            for value in values:
                self.seen.setdefault(value, now)

    def stop(self) -> None:
        self._ending.set()
        self.join()

    def wait_for(self, paths: Sequence[str], seconds: float, alive: Callable[[], None]) -> None:
        """Raises DlassetsError where they are not all there after so many seconds; `alive` may raise before."""
        until = time.monotonic() + seconds
        while missing := [path for path in paths if path not in self.seen]:
            alive()
            if time.monotonic() > until:
                raise DlassetsError(
                    f"{len(missing)} of {len(paths)} files were not in the table after {seconds:.0f} s."
                )
            time.sleep(POLL_SECONDS)


def watch(photos: Sequence[Original], folder: Path, files: int, pace: float) -> list[Lag]:
    """Measure `dlassets watch`, on half of the files one by one, every `pace` seconds, and on half in two bursts."""
    root = folder / "watch"
    environment = clean_environment(DLASSETS_ROOT=str(root), DLASSETS_LANDING=_zone("events"))
    command = [str(Path(sys.executable).with_name("dlassets")), "watch", ZONE]
    return _lags("dlassets watch", GOALS["dlassets watch"], command, environment, root, photos, files, pace)


def sensor(photos: Sequence[Original], folder: Path, files: int, pace: float, seconds: int, goal: bool) -> list[Lag]:
    """As watch, for Dagster's daemon whose sensor looks every `seconds`, and its runs of `ingest_pipeline`."""
    root = folder / f"sensor-{seconds}"
    environment = clean_environment(
        DLASSETS_ROOT=str(root),
        DLASSETS_LANDING=_zone("listing"),
        DLASSETS_AUTOMATION__SENSORS="true",
        DLASSETS_AUTOMATION__SENSOR_SECONDS=str(seconds),
    )
    environment["DAGSTER_HOME"] = str(dagster_home(Lake.at(str(root))))
    command = [str(Path(sys.executable).with_name("dagster-daemon")), "run", "-m", "dlassets.definitions"]
    name = f"sensor every {seconds} s"
    return _lags(name, GOALS["sensor"] if goal else None, command, environment, root, photos, files, pace)


def _zone(discovery: str) -> str:
    return f"{{{ZONE}: {{uri: {ZONE}, labelled: true, discovery: {discovery}}}}}"


def _lags(
    name: str,
    goal: float | None,
    command: Sequence[str],
    environment: Mapping[str, str],
    root: Path,
    photos: Sequence[Original],
    files: int,
    pace: float,
) -> list[Lag]:
    zone = root / "landing" / ZONE
    (root / "landing" / "unlabeled").mkdir(parents=True)  # the other zone of the defaults: nothing arrives there
    for photo in photos:
        (zone / photo.folder).mkdir(parents=True, exist_ok=True)
    landed: dict[str, float] = {}

    def land(number: int) -> str:
        photo = photos[number % len(photos)]
        path = f"{photo.folder}/{number:06d}.jpg"
        (zone / path).write_bytes(photo.copy(number))
        landed[f"{ZONE}/{path}"] = time.monotonic()
        return f"{ZONE}/{path}"

    reader = Reader(str(root / "tables" / "raw_images"))
    with running(command, environment, root / "process.log") as alive:
        reader.start()
        try:
            reader.wait_for([land(0)], START_SECONDS, alive)  # until it is up, and the first use of everything is over
            single = []
            for number in range(1, files // 2 + 1):
                single.append(land(number))
                time.sleep(pace)
            reader.wait_for(single, PATIENCE_SECONDS, alive)
            bursts: list[str] = []
            for burst in range(2):
                start = len(landed)
                end = files // 2 + (burst + 1) * files // 4 + 1
                bursts += [land(number) for number in range(start, end)]
                reader.wait_for(bursts, PATIENCE_SECONDS, alive)
        finally:
            reader.stop()

    def lag(how: str, paths: Sequence[str]) -> Lag:
        seconds = sorted(reader.seen[path] - landed[path] for path in paths)
        p95 = seconds[math.ceil(0.95 * len(seconds)) - 1]
        return Lag(name, how, len(seconds), statistics.median(seconds), p95, seconds[-1], goal)

    return [lag(f"one every {pace:g} s", single), lag(f"{len(bursts) // 2} at once, twice", bursts)]


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[Callable[[], None]]:
    """Run a program in a process group of its own until the end; gives what raises where it ended by itself."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=output, stderr=output, start_new_session=True
        ) as process,
    ):

        def alive() -> None:
            if process.poll() is not None:
                said = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
                raise DlassetsError(f"{' '.join(command)} ended with {process.returncode}:\n{said}")

        try:
            yield alive
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_GRACE_SECONDS)
            finally:
                _end_group(process.pid)


def _end_group(leader: int) -> None:
    """End what is left of a process group that this program started."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
