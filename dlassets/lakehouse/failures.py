"""Photos that a step fails for: each is left out and noted, and no other waits for it.

What is noted stands in `quarantined_files`, with the step's table as its `stage`. A photo that is noted is left out by
every step (see `refusals.FAILED`): it is neither tried again by the same code, nor learned from, nor sent to people.
"""

from __future__ import annotations

import datetime as dt
import functools
import io
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dlassets import __version__
from dlassets.engines.base import Advance, Commit, Engine, Kernel, Rows, Snapshot
from dlassets.engines.schema import Column, schema_of
from dlassets.errors import DlassetsError
from dlassets.images.validate import LONGEST_DETAIL, Reason
from dlassets.lakehouse.content import REACHABLE
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.refusals import FAILED
from dlassets.lakehouse.snapshots import pin, replanned, row_count
from dlassets.lakehouse.tables import QUARANTINED_FILES
from dlassets.storage.stores import one_line

if TYPE_CHECKING:
    import pyarrow as pa

FAILURE = Column("failure", "string", "What was raised for the photo; null where nothing was.")

_log = logging.getLogger(__name__)


def attempted(
    photos: Photos, paths: Rows, kernel: Kernel, returns: Sequence[Column], advance: Advance | None = None
) -> tuple[Rows, Rows]:
    """Run `kernel` as `Photos.map` does; return what it makes, and image_id and failure of photos that it raises for.

    `returns` has the column image_id. What it raises for any photo is raised here. A photo that there was no memory
    for, or that could not be read just now, is in neither: that says nothing of it.
    """
    columns = (*returns, FAILURE)
    tried = photos.map(paths, functools.partial(_apart, kernel, columns), columns, advance)
    return tried.split_by_null(FAILURE.name)


def note(photos: Photos, failed: Rows, stage: str, commit: Commit) -> list[str]:
    """Write what `attempted` failed for into `quarantined_files`; return a path of each image, in order."""
    import pyarrow as pa

    failures = failed.arrow().select(["image_id", FAILURE.name])
    if not failures.num_rows:
        return []
    query = """
        SELECT images.path, images.modificationTime, images.length, images.landing, images.batch_id, images.image_id,
            failures.failure AS detail
        FROM raw_images AS images JOIN failures ON failures.image_id = images.image_id ORDER BY images.path
    """
    engine = photos.engine
    files = engine.sql(query, {"raw_images": photos.raw_images, "failures": engine.rows(failures)}).arrow().to_pylist()
    today = dt.datetime.now(dt.UTC).date()
    common = {"reason": str(Reason.FAILED), "stage": stage, "code_version": __version__, "load_date": today}
    rows = pa.Table.from_pylist([{**file, **common} for file in files], schema=QUARANTINED_FILES.schema)

    def write() -> None:
        engine.merge(engine.rows(rows), QUARANTINED_FILES, pin(photos.lake, QUARANTINED_FILES.name).uri, commit)

    replanned(write)
    return sorted({file["image_id"]: file["path"] for file in reversed(files)}.values())


def failed_images(engine: Engine, tables: Mapping[str, Snapshot], images: str = REACHABLE) -> int:
    """Return how many of the images that SQL gives the image_id of are left out, since a step has failed for them.

    `tables` are those that `images` reads, and quarantined_files.
    """
    if not row_count(tables[QUARANTINED_FILES.name]):
        return 0
    query = f"SELECT COUNT(DISTINCT image_id) AS number FROM ({images}) AS images WHERE image_id IN ({FAILED})"  # noqa: S608
    return int(engine.sql(query, tables).arrow()["number"][0].as_py())


def _apart(kernel: Kernel, columns: Sequence[Column], batch: pa.RecordBatch) -> pa.RecordBatch:
    """Kernel: `kernel` on the whole batch; where that raises, on one photo after the other."""
    import pyarrow as pa

    schema = schema_of(columns)
    failures = []
    try:
        made = [kernel(batch)]
    except Exception:  # noqa: BLE001 - raised again where it is of no one photo
        kernel(_sound(batch.schema))  # where it fails for any photo, no photo is to blame
        made = []
        for place in range(batch.num_rows):
            row = batch.slice(place, 1)
            try:
                made.append(kernel(row))
            except (MemoryError, OSError) as error:
                _log.warning("%s is left out for now: %s", row["path"][0].as_py(), _message(error))
            except Exception as error:  # noqa: BLE001 - of one photo, whatever it is
                failures.append({"image_id": row["image_id"][0].as_py(), FAILURE.name: _message(error)})
    nothing = [part.append_column(FAILURE.name, pa.nulls(part.num_rows, pa.string())) for part in made]
    whole = [part.select(schema.names).cast(schema) for part in nothing]
    if len(whole) == 1 and not failures:
        return whole[0]
    return pa.concat_batches([*whole, pa.RecordBatch.from_pylist(failures, schema=schema)])


def _sound(schema: pa.Schema) -> pa.RecordBatch:
    """Return photos that nothing is wrong with, one for each decoder."""
    import pyarrow as pa
    from PIL import Image

    rows = []
    for format_ in ("JPEG", "PNG"):
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64), "grey").save(buffer, format_)
        rows.append({"path": f"sound.{format_}", "image_id": format_, "content": buffer.getvalue()})
    return pa.RecordBatch.from_pylist(rows, schema=schema)


def _message(error: Exception) -> str:
    """Return what an error says, in one line; one that is not of this package with its kind."""
    text = str(error) if isinstance(error, DlassetsError) else f"{type(error).__name__}: {error}"
    return one_line(text)[:LONGEST_DETAIL]
