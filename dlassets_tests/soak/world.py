"""One lake and the model of it: file operations, ingests with and without faults, and the comparison after each."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

from dlassets.engines.base import Engine, Snapshot
from dlassets.engines.local import LocalEngine, dataset_of
from dlassets.errors import ConflictError
from dlassets.intake.events import Manifest
from dlassets.intake.ingest import Ingested, ingest, listing_due
from dlassets.intake.waiting import waiting_files
from dlassets.lakehouse.maintenance import maintain
from dlassets.lakehouse.tables import TABLES
from dlassets.settings import IngestSettings, LandingZone, MaintenanceSettings, Settings
from dlassets.storage.lake import Lake
from dlassets.storage.local_files import encode_path
from dlassets_tests.soak import faults
from dlassets_tests.soak.contents import FOLDERS, NAMES, Content, good
from dlassets_tests.soak.faults import at_step, killed_at, modes_hold
from dlassets_tests.soak.model import BAD, ZONES, EventFile, File, Model, Outcome, Row, State, Tables, differences
from dlassets_tests.soak.processes import Job, Processes

PATHS = tuple(
    f"{zone}/{folder}/{name}".replace("//", "/") for zone in ZONES for folder in FOLDERS[zone] for name in NAMES
)
# Events that nobody can read.
GARBAGE = (
    b"garbage",
    b"[]",
    b'{"path": 3}',
    b'{"path": "../x.jpg"}',
    b'{"path": "/elsewhere/x.jpg"}',
    b'{"path": "x.jpg", "event": "renamed"}',
    b"\xff\xfe\x00",
)
# What may stand in place of what was noted of a zone's events, and whether all files are to be listed then.
DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], bytes], bool]] = {
    "emptied": (lambda _: b"", True),
    "garbage": (lambda _: b"\xff\x00garbage", True),
    "half": (lambda state: json.dumps(state).encode()[:-3], True),
    "no object": (lambda _: b"[1]", True),
    "no files": (lambda state: json.dumps({"listed_at": state.get("listed_at")}).encode(), False),
    "files of another kind": (lambda state: json.dumps(state | {"files": {"x": [1]}}).encode(), False),
    "no listing": (lambda state: json.dumps(state | {"listed_at": "yesterday"}).encode(), True),
}


class MismatchError(AssertionError):
    pass


@dataclass
class Tally:
    """What was done, over any number of worlds."""

    operations: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    worlds: int = 0


class World:
    """It begins on the first of `engines`. Without `processes`, nothing is killed by a signal."""

    def __init__(
        self, root: Path, tally: Tally, engines: Sequence[Engine] = (LocalEngine(),), processes: Processes | None = None
    ) -> None:
        self.lake, self.model, self.tally = Lake.at(str(root)), Model(), tally
        self.engines, self.engine, self.processes = engines, engines[0], processes
        self.log: list[str] = []
        self._mtime = 1_700_000_000_000
        self._old: dict[str, File] = {}  # a state of each path that is no more
        self._untold: list[str] = []
        self._columns: set[str] = set()
        tally.worlds += 1
        for zone in ZONES:
            folder = Path(self.lake.zone(zone))
            folder.mkdir(parents=True)
            (folder / "loop").symlink_to(".")
            (folder / "dangling.jpg").symlink_to("nowhere")

    # --- files --------------------------------------------------------------------------------------------------------

    @property
    def paths(self) -> list[str]:
        return sorted(self.model.disk)

    def write(self, path: str, content: Content, *, readable: bool = True) -> None:
        self._did("write" if path not in self.model.disk else "overwrite", path, content.reason or len(content.data))
        self._mtime += 1
        self._put(path, File(content, self._mtime, readable))

    def overwrite_by_as_many_bytes(self, path: str, shift: int) -> None:
        now = self.model.disk[path].content
        others = [content for content in good() if len(content.data) == len(now.data) and content != now]
        if others:
            self._did("overwrite by as many bytes", path)
            self._mtime += 1
            self._put(path, File(others[shift % len(others)], self._mtime))

    def overwrite_at_the_same_time(self, path: str, content: Content) -> None:
        """Change a file but not its time: its length alone tells."""
        now = self.model.disk[path]
        if len(content.data) != now.length:
            self._did("overwrite at the same time", path, len(content.data))
            self._put(path, replace(now, content=content))

    def touch(self, path: str) -> None:
        self._did("touch", path)
        self._mtime += 1
        self._put(path, replace(self.model.disk[path], mtime=self._mtime))

    def delete(self, path: str) -> None:
        self._did("delete", path)
        self._place(path).unlink()
        self._drop(path)

    def restore(self, path: str) -> None:
        """Bring back an earlier state of a path as it was, its time included."""
        self._did("restore", path)
        self._put(path, self._old[path])

    @property
    def restorable(self) -> list[str]:
        return sorted(self._old)

    def rename(self, path: str, to: str) -> None:
        self._did("rename", path, to)
        self._move(path, to)

    def swap(self, path: str, other: str) -> None:
        self._did("swap", path, other)
        first, second = self.model.disk[path], self.model.disk[other]
        self._put(path, second)
        self._put(other, first)

    def duplicate(self, path: str, to: str, same_time: bool) -> None:
        self._did("duplicate", path, to)
        self._mtime += 1
        file = self.model.disk[path]
        self._put(to, file if same_time else replace(file, mtime=self._mtime))

    def move_folder(self, folder: str, to: str) -> None:
        """Move all that lies in a folder (`<zone>/<folder>`), and not below it, to another."""
        names = [path for path in self.paths if str(PurePath(path).parent) == folder]
        if folder != to and names:
            self._did("move a folder", folder, to)
            for path in names:
                self._move(path, f"{to}/{PurePath(path).name}")

    def _put(self, path: str, file: File) -> None:
        if path in self.model.disk:
            self._old[path] = self.model.disk[path]
        place = self._place(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.write_bytes(file.content.data)
        if not file.readable:
            place.chmod(0)
        # A time that is no whole number of milliseconds, as real ones are.
        os.utime(place, ns=(0, file.mtime * 1_000_000 + 345_678))
        self.model.disk[path] = file
        self._untold.append(path)

    def _move(self, path: str, to: str) -> None:
        place = self._place(to)
        place.parent.mkdir(parents=True, exist_ok=True)
        self._place(path).rename(place)
        if to in self.model.disk and to != path:
            self._old[to] = self.model.disk[to]
        file = self.model.disk[path]
        self._drop(path)
        self.model.disk[to] = file
        self._untold.append(to)

    def _drop(self, path: str) -> None:
        self._old[path] = self.model.disk.pop(path)
        self._untold.append(path)

    def _place(self, path: str) -> Path:
        return Path(os.fsdecode(encode_path(self.lake.zone(path))))

    # --- events -------------------------------------------------------------------------------------------------------

    def tell(self, skip: int = 0, *more: str) -> None:
        """Note events of what happened since the last time, but for every `skip`-th, and of `more` paths."""
        told = [path for number, path in enumerate(self._untold, 1) if not skip or number % skip]
        self._untold.clear()
        self._did("note events", *told, *more)
        for zone in ZONES:
            paths = [path for path in (*told, *more) if path.startswith(f"{zone}/")]
            self._manifest(zone).record(
                (path.partition("/")[2], "created" if path in self.model.disk else "deleted") for path in paths
            )
            if paths:
                self._noted(zone, "by note", *paths)

    def append(self, zone: str, text: bytes, *lines: str | None, half: str | None = None) -> None:
        """Have a producer add to its file of events: `lines` is what the whole lines of `text` say."""
        file = Path(self.lake.events(zone), "producer.jsonl")
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as opened:
            opened.write(text)
        self._noted(zone, "producer", *lines, half=half)

    def produce(self, path: str, form: int) -> None:
        """Have a producer tell of a path in one of the forms that are understood."""
        zone, _, within = path.partition("/")
        if self.model.events[zone].files.get("producer", EventFile()).half is not None:
            return
        place = self.lake.zone(path)
        url, relative = {"path": f"file://{quote(place)}", "at": "now"}, {"path": f"./{within}"}
        said = ({"path": within}, {"path": place, "event": "deleted"}, url, relative)[form]
        self._did("produce an event", path, form)
        self.append(zone, json.dumps(said).encode() + b"\n", path)

    def produce_garbage(self, zone: str, which: int) -> None:
        """Have a producer write a line that nobody can read; the rest of a line that is half there, if one is."""
        self._did("produce garbage", zone, which)
        self.append(zone, GARBAGE[which % len(GARBAGE)] + b"\n", BAD)

    def produce_half(self, path: str) -> None:
        """Have a producer write half a line, or the second half of the one that is half there."""
        zone, _, within = path.partition("/")
        half = self.model.events[zone].files.get("producer", EventFile()).half
        if half is None:
            self._did("produce half an event", path)
            text = json.dumps({"path": within}).encode()
            self.append(zone, text[: len(text) // 2], half=path)
            return
        self._did("produce the other half", half)
        text = json.dumps({"path": half.partition("/")[2]}).encode()
        self.append(zone, text[len(text) // 2 :] + b"\n", half)

    def lose_events(self, zone: str) -> None:
        self._did("say that events were lost", zone)
        self._manifest(zone).request_listing()
        self.model.events[zone] = replace(self.model.events[zone], due=True)

    def tidy_events(self, zone: str) -> None:
        self._did("tidy events", zone)
        deleted = self._manifest(zone).tidy(older_than_days=0)
        events = self.model.events[zone]
        read = [name for name, file in events.files.items() if file.read == len(file.lines) > 0 and file.half is None]
        self._must(deleted == len(read), f"{deleted} files of events were tidied away, and {len(read)} were read")
        left = {name: file for name, file in events.files.items() if name not in read}
        self.model.events[zone] = replace(events, files=left)

    def _noted(self, zone: str, name: str, *lines: str | None, half: str | None = None) -> None:
        events = self.model.events[zone]
        file = events.files.get(name, EventFile())
        after = replace(file, lines=(*file.lines, *lines), half=half)
        self.model.events[zone] = replace(events, files={**events.files, name: after})

    def _manifest(self, zone: str) -> Manifest:
        return Manifest.of(self.lake, zone, self.settings.landing[zone])

    # --- what is noted beside the tables ------------------------------------------------------------------------------

    def lose_checkpoint(self, zone: str | None = None) -> None:
        """Delete what is noted of a zone; of all zones, by default."""
        self._did("lose the checkpoint", zone, fault="checkpoint lost")
        lost = self.lake.checkpoint(f"ingest-{zone}") if zone else self.lake.under("checkpoints")
        shutil.rmtree(lost, ignore_errors=True)
        for name in [zone] if zone else ZONES:
            self.model.events[name] = self.model.events[name].lost(due=True)

    def damage_state(self, zone: str, how: str) -> None:
        file = Path(self.lake.checkpoint(f"ingest-{zone}"), "events.json")
        if not file.exists():
            return
        self._did("damage the state of events", zone, how, fault="state of events damaged")
        damaged, due = DAMAGES[how]
        try:
            state = json.loads(file.read_bytes())
        except ValueError:
            state = {}
        file.write_bytes(damaged(state if isinstance(state, dict) else {}))
        events = self.model.events[zone]
        self.model.events[zone] = replace(events, due=True) if how == "no listing" else events.lost(due)

    # --- settings -----------------------------------------------------------------------------------------------------

    def set(self, **options: Any) -> None:
        self._did("change settings", options)
        self.model.options = replace(self.model.options, **options)

    @property
    def has_spark(self) -> bool:
        return any(engine.name == "spark" for engine in self.engines)

    def use(self, engine: Engine) -> None:
        self._did("change the engine", engine.name)
        self.engine = engine

    @property
    def settings(self) -> Settings:
        options = self.model.options
        return Settings(
            root=self.lake.root,
            landing={
                zone: LandingZone(
                    uri=zone,
                    labelled=labelled,
                    pattern="" if labelled else options.pattern,
                    discovery="events" if zone in options.events else "listing",
                )
                for zone, labelled in ZONES.items()
            },
            ingest=IngestSettings(
                storage=options.storage,
                max_file_bytes=options.max_file_bytes,
                files_per_batch=options.files_per_batch,
                capture=options.capture,
            ),
        )

    # --- ingests ------------------------------------------------------------------------------------------------------

    def ingest(self) -> None:
        self._did("ingest")
        outcome, before = self.model.ingested(), self._versions()
        with modes_hold():
            done = ingest(self.engine, self.lake, self.settings, said())
        self._compare(outcome, before, done)

    def ingest_killed(self, step: str, nth: int) -> bool:
        """Ingest until the n-th `step`; return whether it came to that. Where it does not, it ends as any."""
        self._did("ingest, killed in process", step, nth)
        outcome, before = self.model.ingested(), self._versions()
        done = None
        with modes_hold(), killed_at(self.engine, step, nth) as death:
            try:
                done = ingest(self.engine, self.lake, self.settings, said())
            except BaseException:
                # What passes through Arrow and delta-rs comes out as an error of theirs.
                if not death.came:
                    raise
        if done is None:
            self.tally.faults[f"killed in process: {step}"] += 1
            self._adopt(outcome)
        else:
            self._compare(outcome, before, done)
        return done is None

    def ingest_sigkilled(self, step: str | None = None, nth: int = 1, seconds: float | None = None) -> bool:
        """As `ingest_killed`, in a process of its own; without a step, killed after so many seconds."""
        self._did("ingest, killed by SIGKILL", step, nth, seconds)
        assert self.processes is not None
        outcome, before = self.model.ingested(), self._versions()
        (ended,) = self.processes.run(self._job(step=step, nth=nth, seconds=seconds))
        if ended.killed:
            self.tally.faults[f"SIGKILL: {step or 'at any moment'}"] += 1
            self._adopt(outcome)
        else:
            self._must(ended.done is not None, f"the ingest failed: {ended.error}")
            self._compare(outcome, before, ended.done)  # type: ignore[arg-type]  # it must be there
        return ended.killed

    def ingest_twice_at_once(self) -> None:
        """In two threads, which meet before their first commit where both have one to make."""
        self._did("ingest twice at once, in threads", fault="two at once, threads")
        outcome, barrier = self.model.ingested(), threading.Barrier(2)

        def meet() -> None:
            with suppress(threading.BrokenBarrierError):
                barrier.wait(timeout=10 if self.engine.name == "spark" else 0.5)

        def run(engine: Engine) -> Ingested | ConflictError:
            try:
                return ingest(engine, self.lake, self.settings, said())
            except ConflictError as error:
                return error

        engines = self.engine, LocalEngine()
        steps = {step: meet for step in faults.COMMITS if step.startswith("before")}
        with modes_hold(), at_step(engines[0], steps), at_step(engines[1], steps), ThreadPoolExecutor(2) as pool:
            self._both(outcome, list(pool.map(run, engines)))

    def ingest_twice_in_processes(self, step: str | None = None, nth: int = 1) -> None:
        """In two processes; with a step, one of them is killed there."""
        self._did("ingest twice at once, in processes", step, nth, fault="two at once, processes")
        assert self.processes is not None
        outcome = self.model.ingested()
        ended = self.processes.run(self._job(step=step, nth=nth), self._job())
        for one in ended:
            self._must(one.killed or one.error is None or one.conflict, f"an ingest failed: {one.error}")
        if ended[0].killed:
            self.tally.faults[f"SIGKILL beside another: {step}"] += 1
        self._both(outcome, [one.done or ConflictError(str(one.error)) for one in ended])

    def _both(self, outcome: Outcome, done: Sequence[Ingested | ConflictError]) -> None:
        finished = [one for one in done if isinstance(one, Ingested)]
        self._must(bool(finished), f"both ingests lost to each other: {done}")
        self._finish(outcome)
        if len(finished) == 2:
            for name in ("images", "replaced", "quarantined"):
                both = sum(getattr(one, name) for one in finished)
                self._must(both == getattr(outcome.counts, name), f"{name}: {both} in both, not as {outcome.counts}")

    def ingest_while_files_change(self, nth: int, change: str, path: str, content: Content) -> None:
        """Ingest, and when it reads the n-th file, overwrite, delete or write one; then ingest again."""
        self._did(f"ingest while a file is {change}", nth, path)
        outcome, touched, times = self.model.ingested(), set[str](), [0]
        lock = threading.Lock()

        def change_file() -> None:
            with lock:
                times[0] += 1
                if times[0] == nth:
                    touched.add(path)
                    self._change(change, path, content)

        with modes_hold(), at_step(self.engine, {"a file read": change_file}):
            ingest(self.engine, self.lake, self.settings, said())
        if touched:
            self.tally.faults[f"a file {change} while it is taken in"] += 1
        self._finish(outcome, loose=touched)
        self.ingest()

    def ingest_by_sensors(self, change: str | None = None, path: str = "", content: Content | None = None) -> None:
        """As the zones' sensors and the runs that they start do, with a file changed between the first and its run."""
        self._did("ingest by sensors", change, path or None)
        outcome, before, done = self.model.ingested(), self._versions(), list[Ingested]()
        with modes_hold():
            for zone in ZONES:
                waiting = waiting_files(self.lake, self.settings, zone)
                if waiting.handover is not None:
                    waiting.handover.write(waiting.listing)
                if change is not None and content is not None and not done:
                    self.tally.faults[f"a file {change} between a listing and its run"] += 1
                    self._change(change, path, content)
                done.append(ingest(self.engine, self.lake, self.settings, said(), listed_zone=zone))
                self._must(not Path(self.lake.listing(zone)).exists(), f"the listing of {zone} was left")
        if change is None:
            counts = {name: sum(getattr(one, name) for one in done) for name in vars(outcome.counts)}
            self._compare(outcome, before, Ingested(**counts))
        else:
            self._finish(outcome, loose=[path])
            self.ingest()

    def _change(self, change: str, path: str, content: Content) -> None:
        if change == "written":
            self.write(path, content)
        elif path in self.model.disk:
            self.delete(path)

    def maintain(self) -> None:
        """Care for the tables while nothing else runs, and keep nothing for anybody."""
        self._did("maintain")
        for name in faults.TABLES:
            if self._version(name) >= 0:
                self.engine.maintain(TABLES[name], self.lake.table(name), vacuum_hours=0)
        self._agree(self._read(), [self.model.tables])

    def maintain_meanwhile(self) -> None:
        """Care for the tables while an ingest runs."""
        self._did("ingest while tables are maintained", fault="maintenance meanwhile")
        outcome = self.model.ingested()
        settings = MaintenanceSettings(retention_hours=24, z_order={"deleted_files": ("path",)})

        def care() -> None:
            for name in faults.TABLES:
                maintain(LocalEngine(), self.lake, TABLES[name], settings)

        with modes_hold(), ThreadPoolExecutor(2) as pool:
            caring = pool.submit(care)
            ingesting = pool.submit(ingest, self.engine, self.lake, self.settings, said())
            caring.result()
            self._counted(outcome, ingesting.result())
        self._finish(outcome)

    def _job(self, **kill: Any) -> Job:
        return Job(settings=self.settings.model_dump_json(), **kill)

    # --- comparison ---------------------------------------------------------------------------------------------------

    def _compare(self, outcome: Outcome, before: dict[str, int], done: Ingested) -> None:
        """Compare everything after an ingest that ran to its end alone."""
        after = self._versions()
        self._counted(outcome, done)
        grown = not self._columns.issuperset(self.model.options.capture)
        self._columns.update(self.model.options.capture)
        for name, entries in outcome.tables.parts().items():
            if grown and name == "raw_images":
                continue
            changes = entries != self.model.tables.parts()[name]
            moved = after[name] > max(before[name], 0)  # the version that makes a table has no rows
            self._must(changes == moved, f"{name} went from version {before[name]} to {after[name]}")
        self._finish(outcome)

    def _counted(self, outcome: Outcome, done: Ingested) -> None:
        said = {name: getattr(done, name) for name in vars(outcome.counts)}
        self._must(said == vars(outcome.counts), f"it says {said}, and should say {outcome.counts}")

    def _finish(self, outcome: Outcome, loose: Collection[str] = ()) -> None:
        actual = self._read()
        self._agree(actual, [outcome.tables], loose)
        self.model.events = outcome.events
        for zone in self.model.options.events:
            self._must(self._seen(zone) == self._expected(zone), f"events of {zone}: {self._seen(zone)} wait")
        self._move_to(actual)

    def _adopt(self, outcome: Outcome) -> None:
        """Take over what a killed ingest left, having checked that each row is as before or as after it."""
        actual = self._read()
        self._agree(actual, [self.model.tables, outcome.tables])
        for zone in self.model.options.events:
            before, events = self._expected(zone), self.model.events[zone]
            self.model.events[zone] = outcome.events[zone]
            after, found = self._expected(zone), self._seen(zone)
            if found != after:
                self.model.events[zone] = events
                self._must(found == before, f"events of {zone}: {found}, neither {before} nor {after}")
            elif before != after:
                lacking = [line for line in differences(actual, [outcome.tables]) if f"'{zone}/" in line]
                self._must(not lacking, "its events count as read, and it was not taken in:\n" + "\n".join(lacking))
        self._move_to(actual)

    def _agree(self, actual: Tables, expected: Sequence[Tables], loose: Collection[str] = ()) -> None:
        self.tally.compared += 1
        found = differences(actual, expected, loose)
        self._must(not found, "\n".join(found))

    def _move_to(self, actual: Tables) -> None:
        new = [reason for state, reason in actual.refused.items() if state not in self.model.tables.refused]
        self.tally.reasons.update(new)
        self.tally.rows["taken in"] += sum(self.model.tables.raw.get(path) != row for path, row in actual.raw.items())
        self.model.tables = actual

    def _expected(self, zone: str) -> tuple[bool, int, frozenset[str]]:
        everything, told = self.model.events[zone].seen(self.model.visible)
        return everything, len(self.model.events[zone].unread), told

    def _seen(self, zone: str) -> tuple[bool, int, frozenset[str]]:
        """Return what an ingest would find in the events of a zone: the same as `_expected`."""
        manifest = self._manifest(zone)
        pending = manifest.pending()
        everything = bool(pending.bad_lines) or listing_due(manifest, self.settings)
        return everything, pending.lines, frozenset(f"{zone}/{path}" for path in pending.paths)

    def _read(self) -> Tables:
        """Return what the tables hold, having checked what holds of each row by itself."""
        raw = [(row["path"], self._row(row)) for row in self._rows("raw_images")]
        refused = [
            (State(row["path"], _milliseconds(row["modificationTime"]), row["length"]), row["reason"])
            for row in self._rows("quarantined_files")
        ]
        gone = [(row["path"], row["returned_at"] is None) for row in self._rows("deleted_files")]
        for name, rows in (("raw_images", raw), ("quarantined_files", refused), ("deleted_files", gone)):
            twice = [key for key, times in Counter(key for key, _ in rows).items() if times > 1]
            self._must(not twice, f"{name} has more than one row of {twice}")
        return Tables(dict(raw), dict(refused), dict(gone))

    def _row(self, row: dict[str, Any]) -> Row:
        location, content = row["location"], row["content"]
        if location is not None and location.startswith("files/"):
            content = Path(self.lake.under(location)).read_bytes()
        if content is not None:
            found = hashlib.sha256(content).hexdigest()
            self._must(found == row["image_id"], f"raw_images: {row['path']!r} has other bytes than its image_id says")
        self._must(content is not None or location is not None, f"raw_images: {row['path']!r} has no bytes")
        time = _milliseconds(row["modificationTime"])
        return Row(time, row["length"], row["image_id"], row["landing"], row["folder"], location)

    def _rows(self, name: str) -> list[dict[str, Any]]:
        version = self._version(name)
        if version < 0:
            return []
        return dataset_of(Snapshot(name, self.lake.table(name), version)).to_table().to_pylist()

    def _versions(self) -> dict[str, int]:
        return {name: self._version(name) for name in faults.TABLES}

    def _version(self, name: str) -> int:
        from deltalake import DeltaTable

        uri = self.lake.table(name)
        return DeltaTable(uri).version() if DeltaTable.is_deltatable(uri) else -1

    def _did(self, operation: str, *what: Any, fault: str | None = None) -> None:
        self.tally.operations[operation] += 1
        if fault is not None:
            self.tally.faults[fault] += 1
        said = " ".join((operation, *(repr(one) for one in what if one is not None)))
        self.log.append(said.replace("x" * 251, "x…x"))

    def _must(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise MismatchError("\n".join((otherwise, f"With {self.model.options}, after:", *self.log)))


def said() -> dict[str, str]:
    """What an ingest says of itself: the name of its run, that no other has."""
    return {"run_id": uuid.uuid4().hex}


def _milliseconds(time: Any) -> int:
    return round(time.timestamp() * 1000)
