"""A lake that grows by one ingest of a hundred small photos after the other: what the next tick takes, as it gets old.

The ingests in between are written straight into the tables, through the engine, in the commits that ticks would make:
what a tick reads is the same, and a thousand of them take a minute.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.ingest.usage import since_start
from benchmarks.ingest.worker import Figures, padded, ready, run_task, seconds_of
from dlassets.engines.base import Commit, Snapshot, Transaction
from dlassets.lakehouse.tables import (
    DELETED_FILES,
    IMAGE_FEATURES,
    IMAGE_PROFILES,
    LABELED_IMAGES,
    PREDICTIONS,
    RAW_IMAGES,
    TABLES,
)
from dlassets.settings import LandingZone, ScoringSettings, Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from dlassets.pipeline.session import Session

ZONE = "photos"
PHOTOS = 100
# A network of timm's for tests: what a backbone costs is not what is measured.
BACKBONE = "timm/test_vit"
_CLASSES = 5


def grow(
    root: str, zone: str, start: int, stop: int, care_every: int = 0, retention_hours: int | None = None
) -> Figures:
    """Give the lake the ingests from `start` to `stop`, and what the steps make of each; with care now and then.

    All of them are of this hour, so that care deletes nothing of them by the settings: `retention_hours` 0 lets it.
    """
    from dlassets.engines.local import LocalEngine
    from dlassets.lakehouse.maintenance import maintain
    from dlassets.lakehouse.snapshots import pin, transaction_version

    session = _session(root, zone)
    lake, engine = session.lake, LocalEngine()
    dimensions, took, care = _dimensions(session), 0.0, session.settings.maintenance
    if retention_hours is not None:
        care = care.model_copy(update={"retention_hours": retention_hours})
    for number in range(start, stop):
        for table, rows in _made(number, session.feature_version, dimensions):
            now = pin(lake, table.name)
            app_id = "dlassets/ingest" if table is RAW_IMAGES else f"dlassets/{table.name}"
            transaction = Transaction(app_id, transaction_version(now, app_id) + 1)
            engine.append(engine.rows(rows), table, now.uri, Commit({"asset": table.name}, transaction))
        if care_every and (number + 1) % care_every == 0:
            started = time.perf_counter()
            for table in TABLES.values():
                maintain(engine, lake, table, care)
            took = time.perf_counter() - started
    return {"care_s": took}


def next_ticks(root: str, zone: str, photos: str, number: int, times: int) -> Figures:
    """Ticks of this process: with nothing new, with a hundred new photos, and the ingest of those alone.

    Each is seconds and seconds of CPU. The first of each is a fresh process's, imports and backbone aside.
    """
    from dlassets.engines.local import LocalEngine
    from dlassets.intake.events import Manifest

    session = _session(root, zone)
    ready("local", session.settings)
    _warm(session, Path(photos))
    manifest = Manifest.of(session.lake, ZONE, session.settings.landing[ZONE])
    manifest.advance(manifest.end(), listed_at=dt.datetime.now(dt.UTC))
    start = since_start()
    nothing = [_cost(lambda: _tick(_session(root, zone))) for _ in range(times)]
    ingests, ticks, checks = [], [], []
    for turn in range(times):
        _land(Path(photos), Path(zone), f"{number:06d}-{turn}", manifest)
        fresh = _session(root, zone)
        ingests.append(_cost(partial(_ingest, fresh)))
        rest = _cost(partial(_follow, fresh))
        ticks.append([one + other for one, other in zip(ingests[-1], rest, strict=True)])
        checks.append(_cost(lambda: _check(_session(root, zone))))
    files = len(LocalEngine().sql("SELECT path FROM raw_images", {"raw_images": session.pin(RAW_IMAGES)}).arrow())
    return {"start_s": start, "nothing": nothing, "ingest": ingests, "tick": ticks, "checks": checks, "rows": files}


def _append_bare(table: str, contents: list[bytes], turn: int) -> None:
    from deltalake import write_deltalake

    write_deltalake(table, _bare_rows(contents, turn), mode="append")


def next_bare(table: str, rows_from: str, number: int, times: int) -> Figures:
    """Append the same bytes to a bare table with delta-rs alone, having brought it up to `number` appends."""
    from deltalake import DeltaTable

    contents = [path.read_bytes() for path in sorted(Path(rows_from).glob("*/*"))[:PHOTOS]]
    now = DeltaTable(table).version() + 1 if DeltaTable.is_deltatable(table) else 0
    for turn in range(now, number):
        _append_bare(table, contents, turn)
    seconds = [_cost(partial(_append_bare, table, contents, number + turn)) for turn in range(times)]
    return {"append": seconds}


def _cost(work: Callable[[], Any]) -> list[float]:
    """Return the seconds it takes, and the seconds of CPU: others may be using the machine."""
    started = time.process_time()
    wall = seconds_of(work)
    return [wall, time.process_time() - started]


def _bare_rows(contents: list[bytes], number: int) -> pa.Table:
    import pyarrow as pa

    paths = [f"{ZONE}/{number:06d}/{place:04d}.jpg" for place in range(len(contents))]
    return pa.table({"path": paths, "image_id": [sha256(c).hexdigest() for c in contents], "content": contents})


def _session(root: str, zone: str) -> Session:
    from dlassets.pipeline.session import Session

    landing = {ZONE: LandingZone.model_validate({"uri": zone, "discovery": "events", "labelled": False})}
    features = {"backbone": BACKBONE, "weights": "none", "runtime": "torch", "side": 160}
    ingest = {"reconcile_minutes": 1_000_000}
    sections = {"root": root, "landing": landing, "features": features, "ingest": ingest}
    return Session(Settings.model_validate(sections))


def _warm(session: Session, photos: Path) -> None:
    """Load the backbone, and have the kernels import what they import."""
    import pyarrow as pa

    from dlassets.lakehouse.profiles import profile_images
    from dlassets.learning.embedding import load_backbone

    load_backbone(session.backbone, session.settings.features.runtime)
    _dimensions(session)
    photo = next(photos.glob("*/*")).read_bytes()
    batch = pa.record_batch({"path": ["warm"], "image_id": ["0"], "content": pa.array([photo], pa.binary())})
    profile_images(batch)
    session.embedder(Snapshot("raw_images", "", 0)).kernel(session.backbone)(batch)


def _land(photos: Path, zone: Path, name: str, manifest: Any) -> None:
    folder = zone / name
    folder.mkdir(parents=True, exist_ok=True)
    for place, photo in enumerate(sorted(photos.glob("*/*"))[:PHOTOS]):
        data = photo.read_bytes() + name.encode()  # what follows a JPEG's end is passed over
        (folder / f"{place:04d}.jpg").write_bytes(data)
    manifest.record((f"{name}/{place:04d}.jpg", "created") for place in range(PHOTOS))


def _tick(session: Session) -> None:
    _ingest(session)
    _follow(session)


def _ingest(session: Session) -> None:
    from dlassets.pipeline import steps

    steps.ingested_files.run(session)


def _follow(session: Session) -> None:
    """Run what follows ingest; the champion is made up, since MLflow is not what is measured."""
    from dlassets.pipeline import steps
    from dlassets.registry.models import ModelVersion
    from dlassets.scoring.batch import Scorer, score_new

    for step in (steps.image_profiles, steps.classes, steps.human_labels, steps.labeled_images, steps.image_features):
        step.run(session)
    steps.training_set.run(session)
    names = (RAW_IMAGES, LABELED_IMAGES, IMAGE_FEATURES)
    tables = {table.name: session.pin(table) for table in names}
    scorer = Scorer(ModelVersion("image_classifier", 1), _package(session), ScoringSettings(top_k=3))
    score_new(
        session.engine, tables, session.pin(PREDICTIONS), scorer, session.settings.labels, {"asset": "predictions"}
    )


def _check(session: Session) -> None:
    """Run the rules that Dagster checks after a tick."""
    from dlassets.monitoring.quality import RULES, check
    from dlassets.registry.models import ModelVersion

    champion = ModelVersion("image_classifier", 1)
    for rule in RULES:
        tables = {name: session.pin(TABLES[name]) for name in rule.reads}
        check(session.engine, rule, tables, session.settings.labels, champion)


def _dimensions(session: Session) -> int:
    from dlassets.learning.backbones import dimensions_of

    return dimensions_of(session.backbone)


def _package(session: Session) -> Any:
    import numpy as np

    from dlassets.learning.head import Head
    from dlassets.registry.package import ModelPackage

    size = _dimensions(session)
    weight = np.random.default_rng(0).normal(size=(_CLASSES, size)).astype(np.float32)
    zeros, ones = np.zeros(size, np.float32), np.ones(size, np.float32)
    names = tuple(f"class {label}" for label in range(_CLASSES))
    head = Head(tuple(range(_CLASSES)), names, weight, np.zeros(_CLASSES, np.float32), zeros, ones)
    return ModelPackage(head, session.backbone, session.feature_version)


def _made(number: int, feature_version: str, dimensions: int) -> list[tuple[Any, pa.Table]]:
    """Return what one tick adds to each table."""
    import numpy as np
    import pyarrow as pa

    names = [f"{ZONE}/old-{number:06d}/{place:04d}.jpg" for place in range(PHOTOS)]
    keys = pa.table({"path": names, "image_id": [sha256(name.encode()).hexdigest() for name in names]})
    raw = keys.append_column("content", pa.array([name.encode() * 20 for name in names], pa.binary()))
    raw = raw.append_column("landing", pa.array([ZONE] * PHOTOS))
    features = np.random.default_rng(number).normal(size=PHOTOS * dimensions).astype(np.float32)
    lists = pa.ListArray.from_arrays(np.arange(0, PHOTOS * dimensions + 1, dimensions, dtype=np.int32), features)
    embedded = keys.append_column("features", lists).append_column(
        "feature_version", pa.array([feature_version] * PHOTOS)
    )
    scored = keys.append_column("model_name", pa.array(["image_classifier"] * PHOTOS))
    gone = keys.slice(0, 1).append_column("returned_at", pa.array([dt.datetime.now(dt.UTC)]))
    gone = gone.append_column("landing", pa.array([ZONE]))
    tables = ((RAW_IMAGES, raw), (IMAGE_PROFILES, keys), (IMAGE_FEATURES, embedded), (PREDICTIONS, scored))
    return [(table, padded(table, rows)) for table, rows in (*tables, (DELETED_FILES, gone))]


if __name__ == "__main__":
    run_task({task.__name__: task for task in (grow, next_ticks, next_bare)})
