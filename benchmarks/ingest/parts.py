"""The parts of the benchmark, each a table of figures: what is measured, by whom, and what the goal is."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.table import Table as Grid

from benchmarks.ingest import landing
from benchmarks.ingest.data import Original, names, originals, thumbnails, written
from benchmarks.ingest.history import PHOTOS
from benchmarks.ingest.landing import Landing
from benchmarks.ingest.worker import FIGURES
from benchmarks.processes import clean_environment, run
from dlassets.errors import DlassetsError

LOCAL, SPARK = "local", "spark"
PLAIN, COPY, BARE = "plain Spark job", "cp -r", "bare loop"
BARE_WAYS = {f"{BARE}, 2 threads": False, f"{BARE}, 2 processes": True}
# Of the plain job's images/s, and of the faster bare loop's.
TAKE_IN_GOALS = {LOCAL: (10.0, 0.7), SPARK: (2.0, None)}
EVENT_TICK_GOAL_S, MERGE_GOAL_S = 0.3, 0.1
MERGED = 1000
HISTORY_GOAL, INGESTS_A_NIGHT = 1.5, 24


@dataclass(frozen=True)
class Bench:
    """What to measure on: photos, counts, engines, and a folder for all that is made. `say` tells of progress."""

    images: Path
    folder: Path
    photos: int = 3781
    small: int = 50_000
    plain_small: int = 10_000
    ticks: tuple[int, ...] = (4_000, 50_000, 500_000)
    memory: tuple[int, ...] = (5_000, 50_000)
    predictions: tuple[int, ...] = (4_000, 40_000, 400_000)
    copies: tuple[int, ...] = (1, 10)
    landing: int = 100
    sensor_seconds: int = 2
    history: tuple[int, ...] = (1, 50, 100, 300, 1_000)
    runs: int = 5
    spark_runs: int = 2
    engines: tuple[str, ...] = (LOCAL, SPARK)
    peers: bool = True
    say: Callable[[str], None] = field(default=print, compare=False)

    @cached_property
    def large(self) -> list[Original]:
        return originals(self.images)

    @cached_property
    def thumbs(self) -> list[Original]:
        return thumbnails(self.large)

    def zone(self, count: int, *, small: bool = False) -> Path:
        """Return a folder of so many distinct photos, made the first time."""
        kind = "small" if small else "photos"
        return written(self.thumbs if small else self.large, count, self.folder / "data" / f"{kind}-{count}")

    @property
    def spark(self) -> bool:
        return SPARK in self.engines

    @property
    def plain(self) -> bool:
        return self.spark and self.peers

    def task(self, task: str, module: str = "worker", **arguments: Any) -> dict[str, Any]:
        """Run a worker's task in a process of its own and return its figures."""
        shown = (f"{name}={value}" for name, value in arguments.items() if name not in {"root", "photo"})
        self.say(f"{task} {', '.join(shown).replace(f'{self.folder}/', '')}")
        ran = run(
            [sys.executable, "-m", f"benchmarks.ingest.{module}", task, json.dumps(arguments)], clean_environment()
        )
        said = [line for _, line in ran.lines if line.startswith(FIGURES)]
        if not said:
            raise DlassetsError(f"The task {task} ended without figures: {ran.lines[-5:]}")
        figures: dict[str, Any] = json.loads(said[-1].removeprefix(FIGURES))
        return figures

    def root(self, name: str) -> Path:
        """Return an empty folder for a lake."""
        root = self.folder / "lakes" / name
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        return root


# Taking in -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Taken:
    """Medians over `runs` processes; `start_s` is until all was imported and a session stood, and not in the others.

    `peak_mib` is 0 where it is not known.
    """

    who: str
    images: int
    runs: int
    start_s: float
    wall_s: float
    cpu_s: float
    peak_mib: float

    @property
    def per_second(self) -> float:
        return self.images / self.wall_s

    @classmethod
    def of(cls, who: str, figures: Sequence[Mapping[str, Any]]) -> Taken:
        def median(*keys: str) -> float:
            values = []
            for one in figures:
                value: Any = one
                for key in keys:
                    value = value[key]
                values.append(float(value))
            return statistics.median(values)

        used = (median("used", name) for name in ("wall_s", "cpu_s", "peak_mib"))
        return cls(who, int(figures[0]["images"]), len(figures), median("start_s"), *used)


@dataclass(frozen=True)
class TakeIn:
    """Everybody on the same photos; `plain_ticks` are the plain job's further runs, with nothing new."""

    what: str
    taken: list[Taken]
    plain_ticks: list[float]

    def per_second(self, name: str) -> float | None:
        """Return the best rate of those whose name begins so."""
        return max((one.per_second for one in self.taken if one.who.startswith(name)), default=None)

    def tables(self) -> list[Grid]:
        grid = Grid(
            "by", "images", "runs", "images/s", "of the plain job", "of the bare loop", "goals", "wall", "CPU", "peak",
            "start, not counted", title=f"Taking in {self.what}, medians", title_justify="left",
        )  # fmt: skip
        plain, bare = self.per_second(PLAIN), self.per_second(BARE)
        for one in self.taken:
            goals = TAKE_IN_GOALS.get(one.who.removeprefix("dlassets, "), (None, None))
            grid.add_row(
                one.who,
                f"{one.images:,}",
                str(one.runs),
                f"{one.per_second:,.0f}",
                "" if plain is None else f"{one.per_second / plain:.1f}x",
                "" if bare is None else f"{one.per_second / bare:.2f}",
                ", ".join(
                    text.format(goal)
                    for text, goal in zip(("≥{:.0f}x plain", "≥{} of bare"), goals, strict=True)
                    if goal is not None
                ),
                f"{one.wall_s:.2f} s",
                f"{one.cpu_s:.2f} s",
                f"{one.peak_mib:,.0f} MiB" if one.peak_mib else "",
                f"{one.start_s:.1f} s",
            )
        return [grid]


def take_in(bench: Bench, *, small: bool = False) -> TakeIn:
    """Have everybody take the same photos in, in turn, so that a busy minute hits them alike."""
    count = bench.small if small else bench.photos
    zone = str(bench.zone(count, small=small))
    slow = 1 if small else bench.spark_runs
    found: dict[str, list[dict[str, Any]]] = {}
    ticks: list[float] = []

    for turn in range(bench.runs):
        if bench.peers:
            found.setdefault(COPY, []).append(_copied(zone, bench.root("copy"), count))
            for who, processes in BARE_WAYS.items():
                root = str(bench.root("bare") / "table")
                found.setdefault(who, []).append(bench.task("bare_loop", zone=zone, root=root, processes=processes))
        for engine in bench.engines:
            if engine == LOCAL or turn < slow:
                figures = bench.task("take_in", engine=engine, zone=zone, root=str(bench.root("lake")))
                found.setdefault(f"dlassets, {engine}", []).append(figures)
        if bench.plain and turn < slow:
            fewer = min(count, bench.plain_small) if small else count
            root = str(bench.root("plain"))
            figures = bench.task(
                "plain_job", zone=str(bench.zone(fewer, small=small)), root=root, again=0 if turn or small else 2
            )
            ticks += figures["ticks"]
            found.setdefault(PLAIN if fewer == count else f"{PLAIN}, on {fewer:,}", []).append(figures)
    what = f"{count:,} {'small ' if small else ''}photos"
    return TakeIn(what, [Taken.of(who, figures) for who, figures in found.items()], ticks)


def _copied(zone: str, root: Path, images: int) -> dict[str, Any]:
    ran = run(["cp", "-r", zone, str(root / "copy")], clean_environment())
    # No peak: until it is cp, the process is a copy of this one, and the peak is this one's.
    used = {"wall_s": ran.wall_s, "cpu_s": ran.cpu_s, "peak_mib": 0.0}
    return {"images": images, "start_s": 0.0, "used": used}


@dataclass(frozen=True)
class Stages:
    """Seconds of CPU of each stage alone, in one thread; `whole` is what taking in takes, in as many as it likes."""

    images: int
    cpu_s: dict[str, float]
    whole_cpu_s: float
    whole_wall_s: float

    def tables(self) -> list[Grid]:
        grid = Grid(
            "stage", "CPU", "a photo", title=f"Where the time goes, {self.images:,} photos", title_justify="left"
        )
        alone = sum(self.cpu_s.values())
        rows = {**self.cpu_s, "all stages, each alone": alone, "taken in by dlassets, local": self.whole_cpu_s}
        for name, seconds in rows.items():
            grid.add_row(name, f"{seconds:.2f} s", f"{seconds / self.images * 1e6:.0f} µs")
        grid.add_row("its wall time", f"{self.whole_wall_s:.2f} s", f"{self.whole_wall_s / self.images * 1e6:.0f} µs")
        return [grid]


def stages(bench: Bench) -> Stages:
    zone = str(bench.zone(bench.photos))
    alone = [bench.task("stages", zone=zone, root=str(bench.root("stages"))) for _ in range(bench.runs)]
    whole = Taken.of(
        LOCAL,
        [bench.task("take_in", engine=LOCAL, zone=zone, root=str(bench.root("lake"))) for _ in range(bench.runs)],
    )
    cpu = {name: statistics.median(one["cpu_s"][name] for one in alone) for name in alone[0]["cpu_s"]}
    return Stages(alone[0]["images"], cpu, whole.cpu_s, whole.wall_s)


# Ticks ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tick:
    """`first_s` is in a fresh process, imports and session aside; `median_s` of those after it.

    `with_one_s` is a tick that takes one new file in, the median.
    """

    by: str
    files: int
    first_s: float
    median_s: float
    with_one_s: float | None = None
    goal_s: float | None = None


@dataclass(frozen=True)
class Ticks:
    ticks: list[Tick]

    def tables(self) -> list[Grid]:
        grid = Grid(
            "by", "files", "first", "later, median", "goal", "one new file, median",
            title="A tick with nothing new", title_justify="left",
        )  # fmt: skip
        for tick in self.ticks:
            grid.add_row(
                tick.by,
                f"{tick.files:,}",
                _seconds(tick.first_s),
                _seconds(tick.median_s),
                "" if tick.goal_s is None else f"≤{tick.goal_s} s",
                _seconds(tick.with_one_s),
            )
        return [grid]


def ticks(bench: Bench, plain_ticks: Sequence[float] = ()) -> Ticks:
    """Ticks of a lake that has all files of its zone. `plain_ticks` are the plain job's, where it ran already."""
    found = []
    folder = bench.root("ticks")
    photo = str(next(bench.zone(bench.photos).glob("*/*.jpg")))
    for discovery in ("events", "listing"):
        for files in bench.ticks:
            root, zone = folder / f"{discovery}-{files}", folder / f"zone-{discovery}-{files}"
            if discovery == "listing":
                names(files, zone)
            bench.task("fill", root=str(root), zone=str(zone), files=files if discovery == "events" else None)
            for engine in bench.engines:
                if engine == SPARK and files > 50_000:
                    continue
                with_one = photo if discovery == "events" and engine == LOCAL else None
                figures = bench.task(
                    "tick",
                    engine=engine,
                    root=str(root),
                    zone=str(zone),
                    discovery=discovery,
                    times=bench.runs if engine == LOCAL else 3,
                    photo=with_one,
                )
                goal = EVENT_TICK_GOAL_S if discovery == "events" and engine == LOCAL else None
                found.append(_tick(f"dlassets, {engine}, {discovery}", files, figures, goal))
    if bench.plain:
        if not plain_ticks:
            zone = bench.zone(bench.photos)
            plain_ticks = bench.task("plain_job", zone=str(zone), root=str(bench.root("plain")), again=2)["ticks"]
        found.append(Tick(PLAIN, bench.photos, plain_ticks[0], statistics.median(plain_ticks[1:] or plain_ticks)))
    return Ticks(found)


def _tick(by: str, files: int, figures: Mapping[str, Any], goal: float | None) -> Tick:
    first, *later = figures["ticks"]
    with_one = statistics.median(figures["with_one"]) if figures["with_one"] else None
    return Tick(by, files, first, statistics.median(later or [first]), with_one, goal)


# A lake that gets old ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """Seconds of the first time, in a fresh process, and the median of those after it; CPU of the first, and of those.

    Others may use the machine while it is measured: the CPU says what it costs then too.
    """

    first_s: float
    later_s: float
    first_cpu_s: float
    later_cpu_s: float

    @classmethod
    def of(cls, measured: Sequence[Sequence[float]]) -> Cost:
        first, *later = measured
        walls, cpus = zip(*(later or [first]), strict=True)
        return cls(first[0], statistics.median(walls), first[1], statistics.median(cpus))

    def __str__(self) -> str:
        return f"{_seconds(self.first_s)}, {_seconds(self.later_s)} ({_seconds(self.later_cpu_s)})"


@dataclass(frozen=True)
class Aged:
    """What the next ticks cost after so many ingests, with care of the tables each night or without any.

    `ingest` and `tick` take a hundred new photos in, the latter with the steps that follow; `nothing` is such a tick
    without a photo, `checks` the rules on all tables, `bare` an append of the same bytes by delta-rs alone.
    """

    care: bool
    ingests: int
    ingest: Cost
    tick: Cost
    nothing: Cost
    checks: Cost
    bare: Cost


@dataclass(frozen=True)
class History:
    aged: list[Aged]

    def tables(self) -> list[Grid]:
        grid = Grid(
            "care", "ingests before", "ingest of 100", "of the first", "goal", "tick with 100", "nothing new", "checks",
            "bare append", title="As a lake gets old: first in a process, later (CPU of later)", title_justify="left",
        )  # fmt: skip
        first = {one.care: one.ingest for one in reversed(self.aged)}
        for one in self.aged:
            young = first[one.care]
            grid.add_row(
                "nightly" if one.care else "none",
                f"{one.ingests:,}",
                str(one.ingest),
                f"{one.ingest.later_s / young.later_s:.2f}x ({one.ingest.later_cpu_s / young.later_cpu_s:.2f}x)",
                f"≤{HISTORY_GOAL}x",
                *map(str, (one.tick, one.nothing, one.checks, one.bare)),
            )
        return [grid]


def history(bench: Bench) -> History:
    """Let a lake grow, and measure the next ticks now and then: without care of its tables, and with it."""
    zone = bench.zone(PHOTOS, small=True)
    found = []
    for care in (False, True):
        root, landing_zone = bench.root(f"history-{care}"), bench.root(f"landing-{care}")
        table = bench.root(f"bare-{care}") / "table"
        done = 0
        for ingests in bench.history:
            bench.task(
                "grow",
                "history",
                root=str(root),
                zone=str(landing_zone),
                start=done,
                stop=ingests,
                care_every=INGESTS_A_NIGHT if care else 0,
            )
            done = ingests
            figures = bench.task(
                "next_ticks",
                "history",
                root=str(root),
                zone=str(landing_zone),
                photos=str(zone),
                number=ingests,
                times=bench.runs,
            )
            bare = bench.task(
                "next_bare", "history", table=str(table), rows_from=str(zone), number=ingests, times=bench.runs
            )
            found.append(
                Aged(
                    care,
                    ingests,
                    ingest=Cost.of(figures["ingest"]),
                    tick=Cost.of(figures["tick"]),
                    nothing=Cost.of(figures["nothing"]),
                    checks=Cost.of(figures["checks"]),
                    bare=Cost.of(bare["append"]),
                )
            )
    return History(found)


# Merges and replacements ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """The same change made again and again, of other rows each time."""

    by: str
    table: str
    rows: int
    changed: int
    times: int
    first_s: float
    median_s: float
    last_s: float
    peak_mib: float
    goal_s: float | None = None


@dataclass(frozen=True)
class Changes:
    title: str
    changes: list[Change]

    def tables(self) -> list[Grid]:
        grid = Grid(
            "by", "table, and its changed rows", "rows", "changed", "first", "median", "last", "times", "goal", "peak",
            title=self.title, title_justify="left",
        )  # fmt: skip
        for one in self.changes:
            grid.add_row(
                one.by,
                one.table,
                f"{one.rows:,}",
                f"{one.changed:,}",
                *(_seconds(value) for value in (one.first_s, one.median_s, one.last_s)),
                str(one.times),
                "" if one.goal_s is None else f"≤{one.goal_s} s",
                f"{one.peak_mib:,.0f} MiB",
            )
        return [grid]


def merges(bench: Bench) -> Changes:
    """MERGE 1,000 changed rows as the table grows: narrow predictions, and the plain job's table with its bytes."""
    found = []
    kinds = [(LOCAL, False), (LOCAL, True), (SPARK, True)]
    for engine, spread in (kind for kind in kinds if kind[0] in bench.engines):
        for rows in bench.predictions:
            changed, root = min(MERGED, rows), str(bench.root("merge"))
            figures = bench.task("merge", engine=engine, root=root, rows=rows, changed=changed, times=10, spread=spread)
            goal = MERGE_GOAL_S if engine == LOCAL else None
            which = f"predictions, {'spread over all' if spread else 'neighbours'}"
            found.append(_change(f"dlassets, {engine}", which, changed, figures, goal))
    if bench.plain:
        zone = str(bench.zone(bench.photos))
        for copies in bench.copies:
            changed = min(MERGED, bench.photos)
            figures = bench.task(
                "plain_merge", zone=zone, root=str(bench.root("merge")), copies=copies, changed=changed, times=3
            )
            found.append(_change(PLAIN, "photos and bytes, spread over all", changed, figures))
    return Changes("MERGE of changed rows", found)


def replacements(bench: Bench) -> Changes:
    """Put overwritten photos in place of their old rows."""
    found = []
    zone = str(bench.zone(bench.photos))
    for engine in bench.engines:
        for copies in bench.copies:
            root = str(bench.root("replace"))
            for changed in (10, min(MERGED, bench.photos)):
                figures = bench.task(
                    "replace", engine=engine, zone=zone, root=root, copies=copies, changed=changed, times=3
                )
                found.append(_change(f"dlassets, {engine}", "raw_images, spread over all", changed, figures))
    return Changes("Overwritten photos in place of their old rows", found)


def _change(by: str, table: str, changed: int, figures: Mapping[str, Any], goal: float | None = None) -> Change:
    seconds = figures["seconds"]
    return Change(
        by=by,
        table=table,
        rows=figures["rows"],
        changed=changed,
        times=len(seconds),
        first_s=seconds[0],
        median_s=statistics.median(seconds),
        last_s=seconds[-1],
        peak_mib=figures["used"]["peak_mib"],
        goal_s=goal,
    )


# Memory and storage --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Peaks:
    """Peak memory of the process, and of all that it started, while taking so many small files in."""

    taken: list[Taken]

    def tables(self) -> list[Grid]:
        grid = Grid("by", "files", "peak", "wall", title="Peak memory while taking files in", title_justify="left")
        for one in self.taken:
            grid.add_row(one.who, f"{one.images:,}", f"{one.peak_mib:,.0f} MiB", f"{one.wall_s:.1f} s")
        return [grid]


def memory(bench: Bench) -> Peaks:
    found = []
    for engine in bench.engines:
        for files in bench.memory:
            zone = str(bench.zone(files, small=True))
            figures = bench.task("take_in", engine=engine, zone=zone, root=str(bench.root("lake")))
            found.append(Taken.of(f"dlassets, {engine}", [figures]))
    return Peaks(found)


@dataclass(frozen=True)
class Form:
    """One storage form: taking photos in, what lies on the disk then, and reading all bytes back."""

    engine: str
    storage: str
    images: int
    per_second: float
    disk_mib: float
    photos_mib: float
    read_back_per_second: float


@dataclass(frozen=True)
class Forms:
    forms: list[Form]

    def tables(self) -> list[Grid]:
        grid = Grid(
            "bytes are kept in", "engine", "taken in", "read back", "lake on disk", "the photos alone",
            title="Storage forms, medians", title_justify="left",
        )  # fmt: skip
        for form in self.forms:
            grid.add_row(
                form.storage,
                form.engine,
                f"{form.per_second:,.0f} images/s",
                f"{form.read_back_per_second:,.0f} images/s",
                f"{form.disk_mib:,.1f} MiB",
                f"{form.photos_mib:,.1f} MiB",
            )
        return [grid]


def storage(bench: Bench) -> Forms:
    zone = bench.zone(bench.photos)
    found = []
    for engine in bench.engines:
        for form in ("table", "files", "landing"):
            into, back, disk = [], [], 0.0
            for _ in range(bench.runs if engine == LOCAL else 1):
                root = bench.root("lake")
                into.append(bench.task("take_in", engine=engine, zone=str(zone), root=str(root), storage=form))
                disk = _mib(root)
                back.append(bench.task("read_back", engine=engine, root=str(root)))
            taken, read = Taken.of(engine, into), Taken.of(engine, back)
            if read.images != taken.images:
                raise DlassetsError(f"{taken.images} photos were taken in, and {read.images} read back.")
            found.append(Form(engine, form, taken.images, taken.per_second, disk, _mib(zone), read.per_second))
    return Forms(found)


def _mib(folder: Path) -> float:
    """Return what the files below a folder hold."""
    return sum(os.path.getsize(Path(at, name)) for at, _, files in os.walk(folder) for name in files) / 2**20  # noqa: PTH202


# Landing -------------------------------------------------------------------------------------------------------------


def landings(bench: Bench) -> Landing:
    """Measure from a file's landing to its row; the sensor as it can be set, and at Dagster's own 30 seconds."""
    folder, photos, files = bench.root("landing"), bench.large, bench.landing
    bench.say(f"dlassets watch, {files} files")
    lags = landing.watch(photos, folder, files, 0.5)
    bench.say(f"sensor every {bench.sensor_seconds} s, {files} files")
    lags += landing.sensor(photos, folder, files, 1.0, bench.sensor_seconds, goal=True)
    if bench.peers:
        bench.say(f"sensor every 30 s, {files} files")
        lags += landing.sensor(photos, folder, files, 1.0, 30, goal=False)
    return Landing(lags)


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f} s" if value >= 10 else f"{value:.2f} s" if value >= 0.1 else f"{value * 1000:.1f} ms"
