"""Label Studio on this machine: requests sent, answers collected, and a look of the sensor at which nothing is new."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table as Grid

from benchmarks.bench import Bench
from benchmarks.processes import REPOSITORY, clean_environment
from dlassets.errors import DlassetsError

if TYPE_CHECKING:
    from dlassets.engines.schema import Table
    from dlassets.pipeline.session import Session

REQUESTS = 1_000
ANSWERED = (1_000, 10_000)
LOOKS = 20
GOAL_S = 0.2
_CLASSES = {2: "hat", 6: "shirt"}
_VERSION = 1


@dataclass(frozen=True)
class Labelled:
    """Wall seconds, of which so many went by until Label Studio had answered; and those of looks, by answered tasks."""

    requests: int
    start_s: float
    send_s: float
    send_there_s: float
    collect_s: float
    collect_there_s: float
    again_s: float
    looks_s: dict[str, list[float]]

    def tables(self) -> list[Grid]:
        grid = Grid(
            "Label Studio", "seconds", "its own", "of all", title=f"{self.requests} photos", title_justify="left"
        )
        grid.add_row("started", f"{self.start_s:.1f}", "", "")
        for name, seconds, there in (
            ("sent", self.send_s, self.send_there_s),
            ("collected", self.collect_s, self.collect_there_s),
        ):
            grid.add_row(name, f"{seconds:.1f}", f"{there:.1f}", f"{there / seconds:.0%}")
        grid.add_row("collected again", f"{self.again_s:.2f}", "", "")
        looks = Grid("a look with 0 new among", "median s", "slowest s", "goal", title_justify="left")
        for answered, took in self.looks_s.items():
            ordered = sorted(took)
            looks.add_row(answered, f"{ordered[len(ordered) // 2]:.3f}", f"{ordered[-1]:.3f}", f"≤ {GOAL_S}")
        return [grid, looks]


def measure(bench: Bench, requests: int = REQUESTS) -> Labelled:
    return Labelled(
        **bench.task(__name__, "run", images=str(bench.images), lake=str(bench.place("asked")), requests=requests)
    )


def run(images: str, lake: str, requests: int) -> dict[str, Any]:
    """Send, answer, collect and look. A task of benchmarks.worker. Raises DlassetsError where no server starts."""
    from dlassets.labeling.label_studio.service import LabelStudioService
    from dlassets.pipeline.session import Session
    from dlassets.pipeline.steps import human_labels
    from dlassets.settings import Settings

    settings = Settings.model_validate({"root": lake, "labeling": {"service": "labelstudio", "batch_limit": requests}})
    session = Session(settings)
    _photos(session, Path(images), requests)
    began = time.monotonic()
    with _label_studio(lake):
        figures: dict[str, Any] = {"requests": requests, "start_s": time.monotonic() - began}
        service = LabelStudioService(settings.labeling.label_studio, session.lake)
        began = time.monotonic()
        _send(session, service)
        figures |= {"send_s": time.monotonic() - began, "send_there_s": service.project.http.seconds}

        everything = {"selectedItems": {"all": True, "excluded": []}}
        project = service.project.address.rpartition("/")[2]
        service.project.http.post("/api/dm/actions/", everything, id="predictions_to_annotations", project=project)
        session = Session(settings)
        (service,) = (each for each in session.labeling.read if isinstance(each, LabelStudioService))
        began = time.monotonic()
        made = human_labels.run(session)
        figures |= {"collect_s": time.monotonic() - began, "collect_there_s": service.project.http.seconds}
        if (collected := made.written["human_labels"].inserted) != requests:
            raise DlassetsError(f"{collected} answers were collected of {requests}.")
        began = time.monotonic()
        human_labels.run(Session(settings))
        figures["again_s"] = time.monotonic() - began

        figures["looks_s"] = {}
        there = requests
        for answered in ANSWERED:
            while there < answered:
                service.project.add([_answered(there + nth) for nth in range(min(1_000, answered - there))])
                there += min(1_000, answered - there)
            figures["looks_s"][f"{answered:,}"] = _looks(settings)
    return figures


def _send(session: Session, service: Any) -> None:
    from dlassets.engines.base import Commit
    from dlassets.labeling.requests import send_requests
    from dlassets.lakehouse.snapshots import pin
    from dlassets.lakehouse.tables import TABLES
    from dlassets.registry.models import ModelVersion

    tables = {name: pin(session.lake, name) for name in TABLES}
    model = ModelVersion(session.model_name, _VERSION)
    send_requests(session.engine, session.lake, [service], tables, model, session.settings, Commit())


def _looks(settings: Any) -> list[float]:
    """Return what each look of the sensor takes, of which the first has what the daemon has at its own first."""
    import dagster as dg

    from dlassets.defs.automation import answers_sensor
    from dlassets.pipeline.session import Session

    sensor, cursor, seconds = answers_sensor(settings), None, []
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(LOOKS + 1):
            with dg.build_sensor_context(
                instance=instance, cursor=cursor, resources={"session": Session(settings)}
            ) as context:
                began = time.monotonic()
                tick = sensor.evaluate_tick(context)
                seconds.append(time.monotonic() - began)
            if cursor is not None and tick.run_requests:
                raise DlassetsError("A look found something new where nothing was.")
            cursor = tick.cursor
    return seconds[1:]


def _answered(nth: int) -> dict[str, Any]:
    from dlassets.labeling.label_studio.interface import result_of

    data = {"image": "/data/none.jpg", "request_id": f"b{nth:015x}", "about": ""}
    return {"data": data, "annotations": [{"result": result_of("002.hat"), "lead_time": 1}]}


def _photos(session: Session, images: Path, count: int) -> None:
    """Have a lake of so many photos that a model is unsure of."""
    from dlassets.lakehouse.tables import CLASSES, PREDICTIONS, RAW_IMAGES

    files = [file.read_bytes() for file in sorted(images.glob("*/*.jp*g"))]
    now, photos, scored = datetime.now(UTC), [], []
    for nth in range(count):
        content = files[nth % len(files)] + nth.to_bytes(4)  # what follows a JPEG's end is no part of the picture
        path, image_id = f"unlabeled/{nth:05}.jpg", hashlib.sha256(content).hexdigest()
        photos.append({"path": path, "image_id": image_id, "content": content, "length": len(content)})
        scored.append({"path": path, "image_id": image_id, "model_name": session.model_name, "model_version": _VERSION})
        scored[-1] |= {"predicted_label": 2, "predicted_name": "hat", "confidence": nth / count * 0.9, "margin": 0.1}
        scored[-1] |= {"scored_at": now, "top_k": []}
    for photo in photos:
        photo |= {
            "modificationTime": now,
            "landing": "unlabeled",
            "folder": "",
            "load_date": now.date(),
            "batch_id": "0",
        }
    _append(
        session,
        CLASSES,
        [
            {"label": label, "name": name, "aliases": [], "since": now, "said_by": "me"}
            for label, name in _CLASSES.items()
        ],
    )
    _append(session, RAW_IMAGES, photos)
    _append(session, PREDICTIONS, scored)


def _append(session: Session, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    import pyarrow as pa

    from dlassets.engines.base import Commit
    from dlassets.lakehouse.snapshots import pin

    complete = [{field.name: row.get(field.name) for field in table.schema} for row in rows]
    arrow = pa.Table.from_pylist(complete, schema=table.schema)
    session.engine.append(session.engine.rows(arrow), table, pin(session.lake, table.name).uri, Commit())


@contextmanager
def _label_studio(lake: str) -> Iterator[None]:
    """Have the lake's own Label Studio at work."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dlassets", "labelstudio"],
        cwd=REPOSITORY,
        env=clean_environment(DLASSETS_ROOT=lake, PYTHONPATH=os.environ.get("PYTHONPATH", "")),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = []
    try:
        for line in process.stdout or ():
            said.append(line)
            if "Ctrl-C" in line:
                break
        else:
            raise DlassetsError("".join(said))
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()
