"""Having every photo scored by a new head: over the features that are there, beside from pixels."""

from __future__ import annotations

import shutil
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table as Grid

from benchmarks.bench import Bench
from benchmarks.serving.lake import with_photos

if TYPE_CHECKING:
    from dlassets.pipeline.session import Session

PHOTOS = 10_000
TIMES = 50


@dataclass(frozen=True)
class Rescored:
    """Seconds of each run, for so many photos."""

    photos: int
    from_pixels_s: float
    over_features_s: list[float]

    def tables(self) -> list[Grid]:
        grid = Grid("scored", "seconds", "photos/s", title=f"{self.photos} photos by a new head", title_justify="left")
        over_features = statistics.median(self.over_features_s)
        for name, seconds in (("from pixels", self.from_pixels_s), ("over cached features", over_features)):
            grid.add_row(name, f"{seconds:.2f}", f"{self.photos / seconds:.0f}")
        goals = Grid("dlassets", "here", "goal", title_justify="left")
        goals.add_row("times from pixels", f"{self.from_pixels_s / over_features:.0f}", f"≥ {TIMES}")
        return [grid, goals]


def measure(bench: Bench, photos: int = PHOTOS) -> Rescored:
    lake, images = with_photos(bench, photos)
    found = bench.task(__name__, "score", lake=str(lake), runs=bench.runs)
    return Rescored(images, found["from_pixels_s"], found["over_features_s"])


def score(lake: str, runs: int) -> dict[str, object]:
    """Score from pixels, then by the other version over the features, so often. A task of benchmarks.worker."""
    from benchmarks.ingest.usage import Meter
    from dlassets.lakehouse.tables import PREDICTIONS
    from dlassets.learning.embedding import load_backbone
    from dlassets.pipeline import steps
    from dlassets.pipeline.session import Session
    from dlassets.settings import Settings

    settings = Settings(root=lake)
    session = Session(settings)
    client, name, first = session.mlflow.client, session.model_name, session.required_champion().version
    load_backbone(session.backbone)
    meter = Meter()
    steps.image_features.run(session)
    steps.predictions.run(session)
    from_pixels = meter.read().wall_s
    kept, over_features = shutil.copytree(_folder(session), f"{lake}/kept"), []
    client.set_registered_model_alias(name, "champion", str(3 - first))  # there are two
    for _ in range(runs):
        shutil.rmtree(_folder(session))
        shutil.copytree(kept, _folder(session))
        meter = Meter()
        written = steps.predictions.run(Session(settings)).written[PREDICTIONS.name]
        over_features.append(meter.read().wall_s)
        if not written.inserted:
            raise RuntimeError("The new head scored nothing.")
    return {"from_pixels_s": from_pixels, "over_features_s": over_features}


def _folder(session: Session) -> str:
    from dlassets.lakehouse.tables import PREDICTIONS
    from dlassets.storage.lake import local_path

    return str(local_path(session.lake.table(PREDICTIONS.name)))
