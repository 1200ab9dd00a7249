"""Sending images to people.

A batch is written down before it is sent: its rows stand in `label_requests` as `planned`, then the service gets the
photos, then the rows become `open`. A run killed anywhere leaves a plan that the next one carries out to the letter,
even if other predictions, another model or other settings would by then choose other images.

What a model version asks joins the newest batch of that version, until that is full or too old: a photo a minute makes
no folder a minute.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from dlassets.engines.base import Commit, Engine, Rows, Snapshot, Transaction, Written
from dlassets.labeling.honeypots import with_honeypots
from dlassets.labeling.overlap import answers_wanted
from dlassets.labeling.selection.choice import select_requests
from dlassets.labeling.services import Batch, LabelingService, Request
from dlassets.labeling.standing import goes_to
from dlassets.lakehouse.classes import known_classes, with_classes_in_force
from dlassets.lakehouse.content import USABLE
from dlassets.lakehouse.failures import failed_images
from dlassets.lakehouse.photos import Photos
from dlassets.lakehouse.snapshots import pin, replanned, transaction_version
from dlassets.lakehouse.tables import CLASSES, HONEYPOT, LABEL_REQUESTS, OPEN, PLANNED
from dlassets.registry.models import ModelVersion
from dlassets.settings import LabelingSettings, Settings
from dlassets.storage.files import micro_batches
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa

_APP_ID = f"dlassets/{LABEL_REQUESTS.name}"
_IMAGES = ("raw_images", "deleted_files", "quarantined_files")

# Image bytes in this process at once, on their way from the table to the service.
CHUNK_BYTES = 64 * 2**20


def request_id(image_id: str, model: ModelVersion, strategy: str = "") -> str:
    """Return the name of the request for one image and model version: 16 hexadecimal digits, of which the first is `a`.

    Of digits alone, or with an `e` among them, a spreadsheet would make a number, and save that; of this it makes none.
    A honeypot has a name of its own, since people may have been asked what the image is before; none sees which is one.
    """
    asked = [image_id, model.name, str(model.version), *([strategy] if strategy == HONEYPOT else [])]
    return "a" + hashlib.sha256("\n".join(asked).encode()).hexdigest()[:15]


def batch_id(model_version: int, request_ids: Iterable[str]) -> str:
    """Return the name of the batch that begins with these requests, whatever their order."""
    digest = hashlib.sha256("\n".join(sorted(request_ids)).encode()).hexdigest()
    return f"v{model_version}-{digest[:8]}"


def send_requests(
    engine: Engine,
    lake: Lake,
    services: Sequence[LabelingService],
    snapshots: Mapping[str, Snapshot],
    model: ModelVersion | None,
    settings: Settings,
    commit: Commit,
) -> tuple[Written, int]:
    """Choose images, send them to people and write them into `label_requests`; finish what a killed run had planned.

    Each goes to all of the services, and so does what is open and went to others before. Without a model none are
    chosen. `snapshots` holds raw_images, deleted_files, quarantined_files, classes, predictions, labeled_images,
    image_profiles, image_features and, where `labeling.relabel_limit` is not 0, label_errors; where
    `labeling.honeypot_share` is not 0, label_errors and consensus. `inserted` counts the
    requests that are new, `updated` those of an earlier run that were sent now. `left_out` wait for their photos, which
    are gone or damaged; of the `quarantined` photos nobody is asked. Nothing to send, no new version. Returned is also
    how many photos there are to ask about that the budgets leave for later.
    """
    names = ",".join(service.name for service in services)

    def plan() -> tuple[Written, int]:
        requests = pin(lake, LABEL_REQUESTS.name)
        if model is None:
            return Written(requests.version, changed=False), 0
        tables = {**snapshots, requests.name: requests}
        chosen, candidates = select_requests(engine, tables, model, settings)
        # Of two runs that choose at once, one is refused and chooses anew.
        transaction = Transaction(_APP_ID, transaction_version(requests, _APP_ID) + 1)
        begun = _newest_batch(engine, requests, model, names)
        asked = with_honeypots(engine, tables, chosen.to_pylist(), model, settings)
        if chosen.num_rows < candidates:  # no room for more: what honeypots crowd out has its turn later
            asked = asked[: chosen.num_rows]
        rows = engine.rows(_plan(asked, model, names, begun, settings.labeling))
        # One that was withdrawn, and is asked again by the same model, has its row already.
        written = engine.merge(rows, LABEL_REQUESTS, requests.uri, replace(commit, transaction=transaction))
        unasked = candidates - sum(row["strategy"] != HONEYPOT for row in asked)
        return replace(written, inserted=len(asked), updated=0), unasked

    planned, unasked = replanned(plan)
    requests = replace(pin(lake, LABEL_REQUESTS.name), version=planned.version)
    everywhere = " AND ".join(goes_to(service.name) for service in services)
    unsent = f"r.status = '{PLANNED}' OR (r.status = '{OPEN}' AND NOT ({everywhere}))"
    rows = with_photo(engine, _named(snapshots), requests, unsent)
    sent = _send_all(Photos(engine, lake, snapshots["raw_images"]), services, snapshots, rows, planned, commit)
    quarantined = failed_images(engine, {name: snapshots[name] for name in _IMAGES})
    updated = max(0, sent.updated - planned.inserted)
    return replace(sent, inserted=planned.inserted, updated=updated, quarantined=quarantined), unasked


def send_lost(
    engine: Engine, lake: Lake, service: LabelingService, snapshots: Mapping[str, Snapshot], commit: Commit
) -> Written:
    """Send the open requests once more that went to a service and are no longer there: somebody has deleted them.

    None lost, no new version; `updated` counts those that were, `left_out` those whose photo is gone. `snapshots` holds
    raw_images, deleted_files, quarantined_files and classes. Raises DlassetsError where the service cannot say, or
    cannot be sent to.
    """
    import pyarrow as pa

    requests = pin(lake, LABEL_REQUESTS.name)
    written = Written(requests.version, changed=False)
    lost = service.lost(_waiting(engine, service, requests))
    if not lost:
        return written
    tables: dict[str, Snapshot | Rows] = {
        **_named(snapshots),
        "lost": engine.rows(pa.table({"request_id": sorted(lost)})),
    }
    rows = with_photo(engine, tables, requests, "r.request_id IN (SELECT request_id FROM lost)")
    return _send_all(Photos(engine, lake, snapshots["raw_images"]), [service], snapshots, rows, written, commit)


def without_photo(engine: Engine, service: LabelingService, label_requests: Snapshot) -> list[str]:
    """Return the open requests that went to a service where people have no photo of them."""
    waiting = _waiting(engine, service, label_requests)
    return sorted(waiting - service.photos(waiting)) if waiting else []


def _waiting(engine: Engine, service: LabelingService, label_requests: Snapshot) -> set[str]:
    query = f"SELECT request_id FROM label_requests AS r WHERE status = '{OPEN}' AND {goes_to(service.name)}"  # noqa: S608 - constants
    return set(engine.sql(query, {"label_requests": label_requests}).arrow()["request_id"].to_pylist())


def _named(snapshots: Mapping[str, Snapshot]) -> dict[str, Snapshot]:
    return {name: snapshots[name] for name in (*_IMAGES, CLASSES.name)}


@dataclass(frozen=True)
class _Begun:
    """A batch that others may join: how many requests it has, and since when."""

    batch_id: str
    requests: int
    since: datetime


def _newest_batch(engine: Engine, requests: Snapshot, model: ModelVersion, service: str) -> _Begun | None:
    """Return the batch of this model version that was begun last, if there is one."""
    query = f"""
        SELECT batch_id, COUNT(*) AS requests, MIN(requested_at) AS since FROM label_requests
        WHERE service = '{service}' AND batch_id LIKE 'v{model.version:d}-%' AND requested_at IS NOT NULL
        GROUP BY batch_id ORDER BY since DESC, requests, batch_id LIMIT 1
    """  # noqa: S608 - a class's own name, and a number
    found = engine.sql(query, {LABEL_REQUESTS.name: requests}).arrow().to_pylist()
    return _Begun(**found[0]) if found else None


def _plan(
    chosen: Sequence[Mapping[str, Any]],
    model: ModelVersion,
    service: str,
    begun: _Begun | None,
    settings: LabelingSettings,
) -> pa.Table:
    """Return the chosen images as requests that are yet to be sent: in the batch that was begun, and in new ones."""
    import pyarrow as pa

    now = datetime.now(UTC)
    rows = [
        {
            **row,
            "request_id": request_id(row["image_id"], model, row["strategy"]),
            "answers_wanted": None if row["strategy"] == HONEYPOT else answers_wanted(row["image_id"], settings),
        }
        for row in chosen
    ]
    common = {
        "requested_at": now,
        "status": PLANNED,
        "service": service,
        "external_id": None,
        "reason": None,
        "closed_at": None,
    }
    planned = []
    if begun is not None and now - begun.since < timedelta(hours=settings.batch_hours):
        room = max(0, settings.batch_size - begun.requests)
        planned, rows = [{**row, "batch_id": begun.batch_id} for row in rows[:room]], rows[room:]
    for start in range(0, len(rows), settings.batch_size):
        together = rows[start : start + settings.batch_size]
        name = batch_id(model.version, (row["request_id"] for row in together))
        planned += [{**row, "batch_id": name} for row in together]
    return pa.Table.from_pylist([{**row, **common} for row in planned], schema=LABEL_REQUESTS.schema)


def with_photo(
    engine: Engine, images: Mapping[str, Snapshot | Rows], requests: Snapshot, which: str
) -> list[dict[str, Any]]:
    """Return the requests, batch by batch, whose photo is still to be had, with where that is and its length in bytes.

    That is under another path with the same bytes, where it is no longer under its own. `which` is SQL over
    `label_requests` AS r, and whatever `images` has beside raw_images, deleted_files, quarantined_files and classes.
    """
    query = f"""
        WITH chosen AS (
            SELECT r.*, images.path AS now_at, ROW_NUMBER() OVER (
                PARTITION BY r.request_id
                ORDER BY CASE WHEN images.path = r.path THEN 0 ELSE 1 END, images.path) AS place
            FROM ({with_classes_in_force(LABEL_REQUESTS)}) AS r
            JOIN ({USABLE}) AS images ON images.image_id = r.image_id
            WHERE {which}
        )
        SELECT chosen.*, raw_images.length FROM chosen JOIN raw_images ON raw_images.path = chosen.now_at
        WHERE chosen.place = 1 ORDER BY chosen.batch_id, chosen.now_at
    """  # noqa: S608 - constants
    rows = engine.sql(query, {**images, "label_requests": requests}).arrow()
    return list(rows.drop_columns("path").rename_columns({"now_at": "path"}).to_pylist())


def _send_all(
    photos: Photos,
    services: Sequence[LabelingService],
    snapshots: Mapping[str, Snapshot],
    rows: Sequence[Mapping[str, Any]],
    before: Written,
    commit: Commit,
) -> Written:
    """Send requests whose photo is whole, batch by batch, and write down that they are open: `updated` are so many.

    The others, `left_out`, wait for their photos. `before` is the last write of the table.
    """
    engine, uri = photos.engine, photos.lake.table(LABEL_REQUESTS.name)
    batches = [list(batch) for _, batch in groupby(rows, key=lambda row: row["batch_id"])]
    whole = list(filter(None, (_with_photos(photos, batch) for batch in batches)))
    classes = known_classes(engine, snapshots[CLASSES.name]) if whole else {}
    written = replace(before, inserted=0, updated=0)
    for batch in whole:
        opened = engine.rows(_send(photos, services, batch, classes))
        written = written.and_then(replanned(functools.partial(engine.merge, opened, LABEL_REQUESTS, uri, commit)))
    sent = sum(map(len, whole))
    return replace(written, updated=sent, left_out=len(rows) - sent)


def _with_photos(photos: Photos, planned: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the requests whose photo is whole: the others join their batch when theirs is."""
    whole = photos.readable([row["path"] for row in planned])
    return [row for row in planned if row["path"] in whole]


def _send(
    photos: Photos, services: Sequence[LabelingService], rows: Sequence[Mapping[str, Any]], classes: Mapping[int, str]
) -> pa.Table:
    """Give one batch to the services and return its rows as they are now."""
    import pyarrow as pa

    requests = [Request(**{name: row[name] for name in Request.__dataclass_fields__}) for row in rows]
    batch, shown = Batch(rows[0]["batch_id"], requests, classes), PhotosOf(photos, rows)
    external = {service.name: service.send(batch, shown) for service in services}
    opened = []
    for row in rows:
        names = _external(row) | {name: ids[row["request_id"]] for name, ids in external.items()}
        opened.append({**row, "status": OPEN, "service": ",".join(names), "external_id": ",".join(names.values())})
    return pa.Table.from_pylist(opened, schema=LABEL_REQUESTS.schema)


def _external(row: Mapping[str, Any]) -> dict[str, str]:
    """Return what each service that has a request calls it."""
    if row["status"] == PLANNED:
        return {}
    return dict(zip(row["service"].split(","), row["external_id"].split(","), strict=True))


@dataclass(frozen=True)
class PhotosOf:
    """Request id and bytes of each photo that a batch is about."""

    photos: Photos
    rows: Sequence[Mapping[str, Any]]

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        import pyarrow as pa

        rows = pa.Table.from_pylist(self.rows).select(["path", "request_id", "length"])
        for chunk in micro_batches(rows, len(self.rows), CHUNK_BYTES):
            ids = dict(zip(chunk["path"].to_pylist(), chunk["request_id"].to_pylist(), strict=True))
            for path, content in self.photos.bytes_of(list(ids)).items():
                yield ids[path], content
