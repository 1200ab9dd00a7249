"""Tables that a kernel makes of images: one row an image, made once, for new images only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Commit, Engine, Kernel, Progress, Snapshot, Transaction, Written, counting
from dlassets.engines.schema import Table
from dlassets.lakehouse.content import USABLE
from dlassets.lakehouse.failures import attempted, failed_images, note
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.snapshots import pin, replanned, transaction_version
from dlassets.lakehouse.tables import QUARANTINED_FILES
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa

# A killed run loses at most the work of one commit.
IMAGES_PER_COMMIT = 10_000


@dataclass(frozen=True)
class Derivation:
    """What a kernel (path, image_id and content in, the table's columns out) makes of images.

    `images` is SQL for the path and image_id of those that the table is to have; a row of it that does not satisfy the
    SQL `done_where` (one of an older backbone, say) does not count as done.
    """

    table: Table
    kernel: Kernel
    done_where: str = "TRUE"
    images: str = USABLE


def derive(
    photos: Photos,
    lake: Lake,
    derivation: Derivation,
    inputs: Mapping[str, Snapshot],
    provenance: Mapping[str, Any],
    progress: Progress | None = None,
) -> Written:
    """Run the kernel over every image that the lake's table lacks, as `inputs` have images now.

    `inputs` are the tables that `derivation.images` reads, quarantined_files among them. Photos that the kernel fails
    for are noted there, unless they are another lake's: those are left out, and tried again.
    """

    def plan_and_write() -> Written:
        done = pin(lake, derivation.table.name)
        todo = images_without(photos.engine, done, derivation, inputs)
        return _append(photos, lake, done, derivation, todo, provenance, progress)

    written = replanned(plan_and_write)
    now = {**inputs, QUARANTINED_FILES.name: pin(photos.lake, QUARANTINED_FILES.name)}
    return replace(written, quarantined=failed_images(photos.engine, now))


def images_without(engine: Engine, done: Snapshot, derivation: Derivation, inputs: Mapping[str, Snapshot]) -> pa.Table:
    """Return one path of every image that `done` has no row of, least path first."""
    query = f"""
        SELECT MIN(path) AS path FROM ({derivation.images}) AS images
        WHERE image_id NOT IN (SELECT image_id FROM done WHERE {derivation.done_where})
        GROUP BY image_id ORDER BY path
    """  # noqa: S608 - conditions of the caller's own
    return engine.sql(query, {**inputs, "done": done}).arrow()


def _append(
    photos: Photos,
    lake: Lake,
    done: Snapshot,
    derivation: Derivation,
    todo: pa.Table,
    provenance: Mapping[str, Any],
    progress: Progress | None,
) -> Written:
    table = derivation.table
    app_id = f"dlassets/{table.name}"
    next_version = transaction_version(done, app_id) + 1
    inserted, advance = 0, counting(progress, todo.num_rows)
    failed: list[str] = []
    written = Written(done.version, changed=False)
    for number, start in enumerate(range(0, todo.num_rows, IMAGES_PER_COMMIT)):
        keys = photos.engine.rows(todo.slice(start, IMAGES_PER_COMMIT))
        rows, failures = attempted(photos, keys, derivation.kernel, table.columns, advance)
        commit = Commit(provenance, Transaction(app_id, next_version + number))
        written = photos.engine.append(rows, table, done.uri, commit)
        inserted += written.inserted
        if photos.lake == lake:
            failed += note(photos, failures, table.name, Commit(provenance))
    left_out = todo.num_rows - inserted - len(failed)
    return Written(written.version, inserted, changed=inserted > 0, left_out=left_out, failed=tuple(failed))
