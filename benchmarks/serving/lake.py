"""A lake whose champion is served: photos of the given folder, taken in, labelled and learned from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.bench import Bench
from dlassets.settings import Settings

if TYPE_CHECKING:
    from dlassets.registry.package import ModelPackage

# Photos that are learned from, and those that clients send.
LEARNED, SENT = 600, 64
ZONE = "labeled"


def champion_lake(bench: Bench) -> Path:
    """Return the folder of a lake with two registered versions, made once a benchmark."""
    lake = bench.folder / "served"
    if not lake.exists():
        bench.task(__name__, "make", images=str(bench.images), lake=str(lake))
    return lake


def sent(bench: Bench) -> Path:
    """Return a folder of the photos that clients send in turn."""
    folder = bench.folder / "sent"
    if not folder.exists():
        folder.mkdir()
        for number, photo in enumerate(_spread(bench.images, SENT)):
            shutil.copy(photo, folder / f"{number:03d}{photo.suffix}")
    return folder


def make(images: str, lake: str) -> None:
    """Take the photos in, and train and register two versions. A task of benchmarks.worker."""
    from dlassets.pipeline.session import Session
    from dlassets.pipeline.steps import STEPS

    for photo in _spread(Path(images), LEARNED):
        folder = Path(lake, "landing", ZONE, photo.parent.name)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, folder / photo.name)
    Path(lake, "landing", "unlabeled").mkdir()  # the other zone of the defaults
    wanted = [step for step in STEPS if step.name not in {"tuned_hyperparameters", "label_errors", "edge_model"}]
    for step in wanted:
        step.run(Session(Settings(root=lake)))
    again = Settings.model_validate({"root": lake, "training": {"seed": 1}})
    for step in wanted:
        if step.name in {"trained_model", "registered_version", "validated_version"}:
            step.run(Session(again))


def _spread(images: Path, count: int) -> list[Path]:
    """Return so many of the photos, of all classes alike."""
    photos = sorted(images.glob("*/*.jp*g"))
    return photos[:: max(1, len(photos) // count)][:count]


def package_of(lake: str) -> ModelPackage:
    """Return the champion's package."""
    from dlassets.pipeline.session import Session

    session = Session(Settings(root=lake))
    return session.package(session.required_champion())


def with_photos(bench: Bench, photos: int) -> tuple[Path, int]:
    """Return a lake of its own with the champion, and so many photos to be scored: how many there are."""
    lake = bench.place("scored")
    shutil.copytree(champion_lake(bench), lake, dirs_exist_ok=True)
    for table in (lake / "tables").iterdir():
        if table.name not in {"model_versions", "model_events", "classes"}:
            shutil.rmtree(table)
    shutil.rmtree(lake / "landing")
    images = bench.task(
        "benchmarks.training.embedders", "written", images=str(bench.images), lake=str(lake), photos=photos
    )
    return lake, int(images)
