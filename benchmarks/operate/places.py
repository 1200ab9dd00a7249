"""The whole loop (`dlassets demo`) on the same photos, by where the lake lies and where it is computed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.table import Table as Grid

from benchmarks.bench import Bench
from benchmarks.machine import load
from benchmarks.processes import clean_environment, run
from dlassets.errors import DlassetsError

LOCAL, SPARK = "local", "spark"
FOLDER, BUCKET, CLUSTER, BUCKET_CLUSTER = "a folder", "S3", "a folder, two workers", "S3, two workers"
SHARED = "dlassets up"
# What a place may take beside the folder on the same engine: so many times as long, or so many seconds more.
GOALS: Mapping[tuple[str, str], str] = {(BUCKET, LOCAL): "≤ 2.0 times", (CLUSTER, SPARK): "≤ 30 s more"}
_NAME, _REGION, _KEY, _SECRET = "lake", "us-east-1", "bench", "bench-secret"


@dataclass(frozen=True)
class Loop:
    """Seconds of the whole loop; None and why where the place cannot be had."""

    place: str
    engine: str
    seconds: float | None
    load: float
    why: str = ""


@dataclass(frozen=True)
class Loops:
    photos: int
    loops: list[Loop]

    def tables(self) -> list[Grid]:
        grid = Grid(
            "lake, cluster", "engine", "seconds", "beside the folder", "goal", "load before",
            title=f"dlassets demo on {self.photos:,} photos", title_justify="left",
        )  # fmt: skip
        for loop in self.loops:
            beside = next(each.seconds for each in self.loops if (each.place, each.engine) == (FOLDER, loop.engine))
            if loop.seconds is None or beside is None:
                grid.add_row(loop.place, loop.engine, "", loop.why, "", "")
                continue
            shown = "" if loop.place == FOLDER else f"{loop.seconds / beside:.2f} times, {loop.seconds - beside:+.0f} s"
            goal = GOALS.get((loop.place, loop.engine), "")
            grid.add_row(loop.place, loop.engine, f"{loop.seconds:.0f}", shown, goal, f"{loop.load:.1f}")
        return [grid]


def measure(bench: Bench) -> Loops:
    places: list[tuple[str, str, Callable[[Path], AbstractContextManager[dict[str, str]]]]] = [
        (FOLDER, LOCAL, _folder),
        (BUCKET, LOCAL, _bucket),
        (FOLDER, SPARK, _folder),
        (BUCKET, SPARK, _bucket),
        (CLUSTER, SPARK, _cluster),
        (BUCKET_CLUSTER, SPARK, _bucket_and_cluster),
        (SHARED, LOCAL, partial(_shared, engine=LOCAL, spark="none")),
        (SHARED, SPARK, partial(_shared, engine=SPARK, spark="cluster")),
    ]
    photos = sum(1 for path in bench.images.glob("*/*") if path.is_file())
    return Loops(photos, [_loop(bench, *place) for place in places])


def _loop(bench: Bench, place: str, engine: str, at: Callable[[Path], AbstractContextManager[dict[str, str]]]) -> Loop:
    bench.say(f"{place}, {engine}")
    folder = bench.place("loop")
    before = load()[0]
    try:
        with at(folder) as variables:
            home = {"DAGSTER_HOME": str(folder / "home")}
            environment = clean_environment(**{**home, "DLASSETS_ENGINE": engine, **variables})
            ran = run(
                [str(Path(sys.executable).with_name("dlassets")), "demo", "--images", str(bench.images)], environment
            )
    except DlassetsError as error:
        return Loop(place, engine, None, before, str(error).splitlines()[-1])
    return Loop(place, engine, ran.wall_s, before)


@contextmanager
def _folder(folder: Path) -> Iterator[dict[str, str]]:
    yield {"DLASSETS_ROOT": str(folder / _NAME)}


@contextmanager
def _bucket(folder: Path) -> Iterator[dict[str, str]]:
    """Have a bucket of versitygw: a real S3 server, that checks signatures and creates on a condition."""
    from dlassets.deployment.programs import programs
    from dlassets.web.ports import HOST, free_ports

    program = str(programs().s3)
    (port,) = free_ports(17070)
    buckets = folder / "buckets"
    (buckets / _NAME).mkdir(parents=True)
    command = [program, "--port", f"{HOST}:{port}", "--region", _REGION, "--quiet", "posix", str(buckets)]
    keys = {"ROOT_ACCESS_KEY": _KEY, "ROOT_SECRET_KEY": _SECRET}
    with (
        (folder / "s3.log").open("wb") as output,
        subprocess.Popen(command, env={**os.environ, **keys}, stdout=output, stderr=output) as server,
    ):
        try:
            yield {
                "DLASSETS_ROOT": f"s3://{_NAME}/lake",
                "DLASSETS_MLFLOW__TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
                "AWS_ENDPOINT_URL": f"http://{HOST}:{port}",
                "AWS_ALLOW_HTTP": "true",
                "AWS_REGION": _REGION,
                "AWS_ACCESS_KEY_ID": _KEY,
                "AWS_SECRET_ACCESS_KEY": _SECRET,
                "AWS_EC2_METADATA_DISABLED": "true",
            }
        finally:
            server.kill()


@contextmanager
def _cluster(folder: Path) -> Iterator[dict[str, str]]:
    from dlassets_tests.learning.training.cluster import cluster

    with cluster(folder, workers=2) as master:
        yield {"DLASSETS_SPARK__MASTER": master, "SPARK_LOCAL_IP": "127.0.0.1", "DLASSETS_ROOT": str(folder / _NAME)}


@contextmanager
def _shared(_: Path, engine: str, spark: str) -> Iterator[dict[str, str]]:
    """Have all that a team shares, in a folder that PostgreSQL's own user may look into."""
    from dlassets_tests.deployment.shared import Shared

    with up(engine, spark) as (home, _seconds):
        yield Shared(home, "").environment


@contextmanager
def up(engine: str, spark: str) -> Iterator[tuple[Path, float]]:
    """Have `dlassets up`: its folder, and the seconds until all was healthy."""
    command = str(Path(sys.executable).with_name("dlassets"))
    with tempfile.TemporaryDirectory(prefix="dlassets-bench-up-") as folder:
        Path(folder).chmod(0o755)
        home = Path(folder, "home")
        try:
            began = time.monotonic()
            run([command, "up", "--home", str(home), "--engine", engine, "--spark", spark], clean_environment())
            yield home, time.monotonic() - began
        finally:
            run([command, "down", "--home", str(home)], clean_environment())


@contextmanager
def _bucket_and_cluster(folder: Path) -> Iterator[dict[str, str]]:
    with _bucket(folder) as bucket, _cluster(folder) as master:
        yield {**master, **bucket}
