"""Tables that a kernel makes of images: one row an image, made once, for new images only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Commit, Engine, Snapshot, Transaction, Written, counting
from dlassets.engines.schema import Table
from dlassets.lakehouse.content import REACHABLE, map_images
from dlassets.lakehouse.snapshots import pin, replanned, transaction_version
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa

    from dlassets.engines.base import Kernel, Progress

# A killed run loses at most the work of one commit.
IMAGES_PER_COMMIT = 10_000


def derive(
    engine: Engine,
    lake: Lake,
    raw_images: Snapshot,
    table: Table,
    kernel: Kernel,
    provenance: Mapping[str, Any],
    *,
    done_where: str = "TRUE",
    progress: Progress | None = None,
) -> Written:
    """Run `kernel` (path, image_id and content in, the table's columns out) over every image that the table lacks.

    A row that does not satisfy the SQL `done_where` (one of an older backbone, say) does not count as done.
    """

    def plan_and_write() -> Written:
        done = pin(lake, table.name)
        todo = images_without(engine, lake, raw_images, done, done_where)
        return _append(engine, lake, raw_images, done, table, todo, kernel, provenance, progress)

    return replanned(plan_and_write)


def images_without(
    engine: Engine, lake: Lake, raw_images: Snapshot, done: Snapshot, done_where: str = "TRUE"
) -> pa.Table:
    """Return one path of every image of `raw_images` that is to be had and `done` has no row of, least path first."""
    return engine.sql(
        f"""
        SELECT MIN(path) AS path FROM ({REACHABLE}) AS reachable
        WHERE image_id NOT IN (SELECT image_id FROM done WHERE {done_where})
        GROUP BY image_id ORDER BY path
        """,  # noqa: S608 - a condition of the caller's own
        {"raw_images": raw_images, "done": done, "deleted_files": pin(lake, "deleted_files")},
    ).arrow()


def _append(
    engine: Engine,
    lake: Lake,
    raw_images: Snapshot,
    done: Snapshot,
    table: Table,
    todo: pa.Table,
    kernel: Kernel,
    provenance: Mapping[str, Any],
    progress: Progress | None,
) -> Written:
    app_id = f"dlassets/{table.name}"
    next_version = transaction_version(done, app_id) + 1
    inserted, advance = 0, counting(progress, todo.num_rows)
    written = Written(done.version, changed=False)
    for number, keys in enumerate(_chunks(todo)):
        rows = map_images(engine, lake, raw_images, engine.rows(keys), kernel, table.columns, advance)
        commit = Commit(provenance, Transaction(app_id, next_version + number))
        written = engine.append(rows, table, done.uri, commit)
        inserted += written.inserted
    return Written(written.version, inserted, changed=inserted > 0)


def _chunks(table: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, table.num_rows, IMAGES_PER_COMMIT):
        yield table.slice(start, IMAGES_PER_COMMIT)
