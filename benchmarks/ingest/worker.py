"""`python -m benchmarks.ingest.worker TASK ARGUMENTS`: one task in a process of its own, its figures as JSON.

A task gets everything ready (imports, a session, rows to work on), and measures from then on.
"""

from __future__ import annotations

import datetime as dt
import importlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.ingest import bare, plain
from benchmarks.ingest.usage import Meter, since_start
from dlassets.engines.base import Commit, Engine, Snapshot
from dlassets.settings import LandingZone, Settings
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa

    from dlassets.engines.schema import Table
    from dlassets.intake.events import Manifest

FIGURES = "figures: "
ZONE = "photos"
# Rows of a fake table's file: about what maintenance leaves of photos, and far more than a batch of ingest writes.
_FILE_ROWS = 10_000

Figures = Mapping[str, Any]


def take_in(engine: str, zone: str, root: str, storage: str = "table", again: int = 0) -> Figures:
    """Take a zone in with dlassets; then `again` ticks with nothing new."""
    from dlassets.intake.ingest import ingest

    settings = _settings(root, zone, ingest={"storage": storage})
    lake = Lake.at(root)
    runs_on = ready(engine, settings)
    start, meter = since_start(), Meter()
    done = ingest(runs_on, lake, settings, {})
    used = meter.read()
    ticks = [seconds_of(lambda: ingest(runs_on, lake, settings, {})) for _ in range(again)]
    return {"start_s": start, "images": done.images, "refused": done.quarantined, "used": asdict(used), "ticks": ticks}


def plain_job(zone: str, root: str, again: int = 0) -> Figures:
    """As take_in, by the plain Spark job."""
    spark = plain.session()
    start, meter = since_start(), Meter()
    plain.take_in(spark, zone, f"{root}/table", f"{root}/checkpoint")
    used = meter.read()
    ticks = [
        seconds_of(lambda: plain.take_in(spark, zone, f"{root}/table", f"{root}/checkpoint")) for _ in range(again)
    ]
    return {"start_s": start, "images": _rows(f"{root}/table"), "used": asdict(used), "ticks": ticks}


def bare_loop(zone: str, root: str, processes: bool) -> Figures:
    """As take_in, by the bare loop."""
    start, used = bare.loop(zone, root, processes=processes)
    return {"start_s": start, "images": _rows(root), "used": asdict(used), "ticks": []}


def fill(root: str, zone: str, files: int | None = None) -> Figures:
    """Give a lake rows of the files of a zone as if they had been taken in, or of `files` that are not there."""
    import pyarrow as pa

    from dlassets.intake.listing import list_files
    from dlassets.lakehouse.tables import RAW_IMAGES

    lake, settings = Lake.at(root), _settings(root, zone)
    if files is None:
        listing = list_files(ZONE, settings.landing[ZONE], zone)
    else:
        now = dt.datetime.now(dt.UTC)
        paths = [f"{ZONE}/{number // 1000:03d}.names/{number:09d}.jpg" for number in range(files)]
        listing = pa.table({"path": paths, "modificationTime": [now] * files, "length": [10] * files})
    _append_all(lake, RAW_IMAGES, listing)
    return {"rows": listing.num_rows}


def tick(engine: str, root: str, zone: str, discovery: str, times: int, photo: str | None = None) -> Figures:
    """Ticks with nothing new; and, given a photo, ticks with one new file, which is that photo under another name."""
    from dlassets.intake.events import Manifest
    from dlassets.intake.ingest import ingest

    lake = Lake.at(root)
    settings = _settings(root, zone, discovery=discovery)
    manifest = Manifest.of(lake, ZONE, settings.landing[ZONE])
    runs_on = ready(engine, settings)
    if discovery == "events":
        came_by_events(manifest, lake)
    start, meter = since_start(), Meter()
    seconds = [seconds_of(lambda: ingest(runs_on, lake, settings, {})) for _ in range(times)]
    used, with_one = meter.read(), []
    for number in range(times if photo else 0):
        name = f"000.new/{discovery}-{engine}-{number}.jpg"
        Path(zone, name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(photo), f"{zone}/{name}")
        manifest.record([(name, "created")])
        with_one.append(seconds_of(lambda: ingest(runs_on, lake, settings, {})))
    return {
        "start_s": start,
        "used": asdict(used),
        "ticks": seconds,
        "with_one": with_one,
        "rows": _rows(lake.table("raw_images")),
    }


def came_by_events(manifest: Manifest, lake: Lake) -> None:
    """Have it be as if each file of a lake had come by an event, and all had been listed just now."""
    known = _paths(lake.table("raw_images"))
    manifest.record((path.removeprefix(f"{ZONE}/"), "created") for path in known)
    manifest.advance(manifest.end(), listed_at=dt.datetime.now(dt.UTC))


def merge(engine: str, root: str, rows: int, changed: int, times: int, spread: bool) -> Figures:
    """Merge `changed` rows into a table of `rows` predictions, `times` times, each time others.

    They are `spread` over the whole table, so that each of its files has some, or neighbours, as a day's photos are.
    """
    import pyarrow as pa

    from dlassets.lakehouse.snapshots import pin
    from dlassets.lakehouse.tables import PREDICTIONS

    lake = Lake.at(root)
    runs_on = ready(engine, _settings(root, "nowhere"))
    keys = pa.table({"path": [f"{ZONE}/{number:09d}.jpg" for number in range(rows)]})
    _append_all(lake, PREDICTIONS, keys)
    uri = pin(lake, PREDICTIONS.name).uri
    start, meter, seconds = since_start(), Meter(), []
    step = max(rows // changed, 1)
    for turn in range(times):
        first = turn * (rows - changed) // times
        places = range(turn % step, rows, step)[:changed] if spread else range(first, first + changed)
        some = padded(PREDICTIONS, keys.take(list(places)))
        source = runs_on.rows(some)
        seconds.append(seconds_of(partial(runs_on.merge, source, PREDICTIONS, uri, Commit())))
    return {"start_s": start, "used": asdict(meter.read()), "seconds": seconds, "rows": _rows(uri)}


def plain_merge(zone: str, root: str, copies: int, changed: int, times: int) -> Figures:
    """Merge `changed` rows into the plain job's table, which has the photos' bytes as well."""
    import pyarrow as pa
    from deltalake import write_deltalake

    table = f"{root}/table"
    for batch in _photos(zone, copies):
        wide = batch.append_column("predicted_label", pa.nulls(batch.num_rows, pa.int64()))
        wide = wide.append_column("confidence", pa.nulls(batch.num_rows, pa.float64()))
        # Files of the size that the plain job leaves, compressed as Spark does.
        write_deltalake(table, wide, mode="append", target_file_size=2**20)
    paths = _paths(table)
    spark = plain.session()
    start, meter, seconds = since_start(), Meter(), []
    step = max(len(paths) // changed, 1)
    for turn in range(times):
        some = paths[turn % step :: step][:changed]
        rows = pa.table({"path": some, "predicted_label": [turn] * len(some), "confidence": [0.5] * len(some)})
        source = spark.createDataFrame(rows)
        seconds.append(seconds_of(partial(plain.merge, spark, table, source)))
    return {"start_s": start, "used": asdict(meter.read()), "seconds": seconds, "rows": len(paths)}


def replace(engine: str, zone: str, root: str, copies: int, changed: int, times: int) -> Figures:
    """Put `changed` photos in place of those of the same paths in `raw_images`, as for overwritten files."""
    from dlassets.lakehouse.snapshots import pin
    from dlassets.lakehouse.tables import RAW_IMAGES

    lake = Lake.at(root)
    runs_on = ready(engine, _settings(root, zone))
    uri = pin(lake, RAW_IMAGES.name).uri
    if not _rows(uri):
        for batch in _photos(zone, copies):
            _append_all(lake, RAW_IMAGES, batch)
    paths = _paths(uri)
    start, meter, seconds = since_start(), Meter(), []
    step = max(len(paths) // changed, 1)
    for turn in range(times):
        some = paths[turn % step :: step][:changed]
        new = padded(RAW_IMAGES, _photos_named(zone, some))
        source = runs_on.rows(new)
        seconds.append(seconds_of(partial(runs_on.replace, source, RAW_IMAGES, uri, Commit(), where={"path": some})))
    return {"start_s": start, "used": asdict(meter.read()), "seconds": seconds, "rows": _rows(uri)}


def read_back(engine: str, root: str) -> Figures:
    """Go through the bytes of every photo of a lake, with a kernel that does nothing with them."""
    from dlassets.engines.schema import Column
    from dlassets.lakehouse.content import map_images
    from dlassets.lakehouse.snapshots import pin
    from dlassets.lakehouse.tables import PATH, RAW_IMAGES

    lake = Lake.at(root)
    runs_on = ready(engine, _settings(root, "nowhere"))
    raw = pin(lake, RAW_IMAGES.name)
    paths = runs_on.sql("SELECT path FROM raw_images", {RAW_IMAGES.name: raw})
    returns = (PATH, Column("bytes", "bigint", "How many there are."))
    start, meter = since_start(), Meter()
    read = map_images(runs_on, lake, raw, paths, _bytes_of, returns).arrow()
    return {
        "start_s": start,
        "images": read.num_rows,
        "bytes": sum(read["bytes"].to_pylist()),
        "used": asdict(meter.read()),
    }


def stages(zone: str, root: str) -> Figures:
    """What each stage of taking photos in costs alone, in one thread, seconds of CPU."""
    import pyarrow as pa

    from dlassets.images.decode import MAX_PIXELS
    from dlassets.images.validate import check_image
    from dlassets.intake.listing import list_files
    from dlassets.lakehouse.tables import RAW_IMAGES
    from dlassets.storage.files import read_bytes

    ready("local", _settings(root, zone))
    taken: dict[str, float] = {}

    def stage(name: str, work: Callable[[], Any]) -> Any:
        started = time.process_time()
        result = work()
        taken[name] = time.process_time() - started
        return result

    filesystem = pa.fs.LocalFileSystem()
    listing = stage("list", lambda: list_files(ZONE, _settings(root, zone).landing[ZONE], zone))
    names = [zone + path.removeprefix(ZONE) for path in listing["path"].to_pylist()]
    contents = stage("read", lambda: [read_bytes(filesystem, name) for name in names])
    stage("hash", lambda: [sha256(data).hexdigest() for data in contents])
    stage("decode", lambda: [check_image(data, MAX_PIXELS) for data in contents])
    column = stage("to Arrow", lambda: pa.array(contents, pa.binary()))
    table = listing.append_column("content", column)
    stage("write", lambda: _append_all(Lake.at(root), RAW_IMAGES, table, 1000))
    return {"images": len(names), "cpu_s": taken}


def _settings(root: str, zone: str, discovery: str = "listing", **sections: Any) -> Settings:
    landing = {ZONE: LandingZone.model_validate({"uri": zone, "labelled": True, "discovery": discovery})}
    return Settings.model_validate({"root": root, "landing": landing, **sections})


def ready(engine: str, settings: Settings) -> Engine:
    """Return the engine, with all that it imports and starts."""
    for name in ("deltalake", "duckdb", "pyarrow.dataset", "pyarrow.fs", "simplejpeg"):
        importlib.import_module(name)
    from dlassets.pipeline.session import Session

    made = Session(settings.model_copy(update={"engine": engine})).engine
    if engine == "spark":
        made.sql("SELECT 1 AS ready", {}).arrow()
    return made


def _append_all(lake: Lake, table: Table, rows: pa.Table, file_rows: int = _FILE_ROWS) -> None:
    """Append rows to a table of the lake, its other columns made up."""
    from dlassets.engines.local import LocalEngine
    from dlassets.lakehouse.snapshots import pin

    engine, uri = LocalEngine(), pin(lake, table.name).uri
    for start in range(0, rows.num_rows, file_rows):
        engine.append(engine.rows(padded(table, rows.slice(start, file_rows))), table, uri, Commit())


def padded(table: Table, rows: pa.Table) -> pa.Table:
    """Return the rows with all of the table's columns."""
    import pyarrow as pa

    made_up = {
        pa.string(): "made up",
        pa.int64(): 1,
        pa.float64(): 0.5,
        pa.timestamp("us", "UTC"): dt.datetime.now(dt.UTC),
        pa.date32(): dt.datetime.now(dt.UTC).date(),
    }
    columns = {}
    for field in table.schema:
        if field.name in rows.column_names:
            columns[field.name] = rows[field.name].cast(field.type)
        elif field.name == "image_id":
            columns[field.name] = pa.array([sha256(path.encode()).hexdigest() for path in rows["path"].to_pylist()])
        elif field.nullable:
            columns[field.name] = pa.nulls(rows.num_rows, field.type)
        else:
            columns[field.name] = pa.repeat(pa.scalar(made_up[field.type], field.type), rows.num_rows)
    return pa.table(columns, schema=table.schema)


def _photos(zone: str, copies: int) -> Iterator[pa.Table]:
    """Yield a zone's photos with their bytes, `copies` times under other paths, a thousand at a time."""
    names = [f"{copy:03d}/{name}" for copy in range(copies) for name in _files_of(zone)]
    for start in range(0, len(names), 1000):
        yield _photos_named(zone, names[start : start + 1000])


def _photos_named(zone: str, names: list[str]) -> pa.Table:
    import pyarrow as pa

    contents = [Path(zone, name.split("/", 1)[1]).read_bytes() for name in names]
    return pa.table(
        {
            "path": names,
            "modificationTime": pa.array([dt.datetime.now(dt.UTC)] * len(names), pa.timestamp("us", "UTC")),
            "length": [len(content) for content in contents],
            "content": pa.array(contents, pa.binary()),
        }
    )


def _files_of(zone: str) -> list[str]:
    return sorted(str(path.relative_to(zone)) for path in Path(zone).glob("*/*"))


def _bytes_of(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Kernel: how many bytes each photo has."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = pc.binary_length(batch["content"]).cast(pa.int64())
    return pa.RecordBatch.from_arrays([batch["path"], lengths], names=["path", "bytes"])


def _rows(uri: str) -> int:
    from dlassets.lakehouse.snapshots import row_count

    return row_count(Snapshot("", uri, _version(uri)))


def _version(uri: str) -> int:
    from deltalake import DeltaTable

    return int(DeltaTable(uri).version())


def _paths(uri: str) -> list[str]:
    from deltalake import DeltaTable

    paths: list[str] = DeltaTable(uri).to_pyarrow_dataset().to_table(columns=["path"])["path"].to_pylist()
    return sorted(paths)


def seconds_of(work: Callable[[], Any]) -> float:
    """Return how long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


TASKS: Mapping[str, Callable[..., Figures]] = {
    task.__name__: task
    for task in (take_in, plain_job, bare_loop, fill, tick, merge, plain_merge, replace, read_back, stages)
}


def run_task(tasks: Mapping[str, Callable[..., Figures]]) -> None:
    """Run the task that the command line names, and print its figures."""
    figures = tasks[sys.argv[1]](**json.loads(sys.argv[2]))
    print(FIGURES + json.dumps(figures), flush=True)


if __name__ == "__main__":
    run_task(TASKS)
