"""The limit: a loop that lists, reads, decodes, hashes and writes with delta-rs, and keeps none of the promises.

It does the same work on a photo, in batches of the same size, with the write of one batch beside the work on the next.
No file is looked up, refused or told of, and running it again doubles everything.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import importlib
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.ingest.usage import Meter, Used, since_start
from dlassets.settings import IngestSettings

if TYPE_CHECKING:
    import pyarrow as pa

WORKERS = 2
_BATCH = IngestSettings().files_per_batch
_STEP = 64


def loop(zone: str, table: str, *, processes: bool) -> tuple[float, Used]:
    """Take a folder of JPEGs in, by two threads or by two processes that write half of the batches each.

    Returns the seconds until all was ready, and what it took from then on.
    """
    with _pool(processes) as pool:
        list(pool.map(_imported, range(WORKERS)))
        _create(table)
        start, meter = since_start(), Meter()
        files = _listed(zone)
        if processes:
            halves = [list(_cut(files, _BATCH))[worker::WORKERS] for worker in range(WORKERS)]
            list(pool.map(_take_in_alone, halves, [table] * WORKERS))
        else:
            _take_in(files, table, pool)
        return start, meter.read()


def _pool(processes: bool) -> AbstractContextManager[Executor]:
    if not processes:
        return ThreadPoolExecutor(WORKERS)
    return ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("forkserver"))


def _imported(_: int) -> None:
    """Start-up is not what is measured."""
    for name in ("deltalake", "pyarrow", "simplejpeg"):
        importlib.import_module(name)


def _create(table: str) -> None:
    from deltalake import DeltaTable

    DeltaTable.create(table, schema=_schema(), partition_by=["load_date"])


def _listed(zone: str) -> list[str]:
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(zone) for name in names)  # noqa: PTH118


def _take_in(files: Sequence[str], table: str, pool: Executor) -> None:
    writing: Future[None] | None = None
    with ThreadPoolExecutor(1) as writer:
        for batch in _cut(files, _BATCH):
            parts = list(pool.map(_checked, _cut(batch, _STEP)))
            if writing is not None:
                writing.result()
            writing = writer.submit(_write, parts, table)
    if writing is not None:
        writing.result()


def _take_in_alone(batches: Sequence[Sequence[str]], table: str) -> None:
    for batch in batches:
        _write([_checked(part) for part in _cut(batch, _STEP)], table)


def _checked(files: Sequence[str]) -> pa.RecordBatch:
    import pyarrow as pa
    import simplejpeg

    contents, image_ids, times = [], [], []
    for file in files:
        data = Path(file).read_bytes()
        simplejpeg.decode_jpeg_header(data, strict=False)
        simplejpeg.decode_jpeg(data, colorspace="GRAY", min_height=1, min_width=1, strict=True)
        contents.append(data)
        image_ids.append(hashlib.sha256(data).hexdigest())
        times.append(os.stat(file).st_mtime_ns // 1000)  # noqa: PTH116 - it is text
    today = dt.datetime.now(dt.UTC).date()
    columns = [files, times, list(map(len, contents)), contents, image_ids, [today] * len(files)]
    return pa.record_batch(
        [pa.array(values, field.type) for values, field in zip(columns, _schema(), strict=True)], schema=_schema()
    )


def _write(parts: Sequence[pa.RecordBatch], table: str) -> None:
    import pyarrow as pa
    from deltalake import WriterProperties, write_deltalake

    write_deltalake(
        table,
        pa.RecordBatchReader.from_batches(_schema(), parts),
        mode="append",
        writer_properties=WriterProperties(compression="UNCOMPRESSED", max_row_group_size=256),
    )


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        {
            "path": pa.string(),
            "modificationTime": pa.timestamp("us", "UTC"),
            "length": pa.int64(),
            "content": pa.binary(),
            "image_id": pa.string(),
            "load_date": pa.date32(),
        }
    )


def _cut(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))
