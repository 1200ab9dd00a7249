"""Labelled photos as they were at one moment, made ready for any backbone, without a change to the lake's own tables.

What is made of them lies under <root>/automl, a lake for each backbone and one for the photos themselves: made once, by
the pipeline's own steps, and found again by the next search or by a script that trains on them.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dlassets.engines.base import Snapshot
from dlassets.errors import DlassetsError
from dlassets.lakehouse.snapshots import newest
from dlassets.lakehouse.tables import DELETED_FILES, IMAGE_FEATURES, LABELED_IMAGES, RAW_IMAGES, TRAINING_SET
from dlassets.pipeline import steps
from dlassets.pipeline.report import Report
from dlassets.pipeline.session import Session
from dlassets.settings import LandingZone, Settings
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    from dlassets.learning.backbones import BackboneRef, Runtime

_SAMPLE = 32
_PINNED = (RAW_IMAGES, DELETED_FILES, LABELED_IMAGES)


@dataclass(frozen=True)
class LabelledPhotos:
    """The photos of the lake at `root` that have a label, at these versions of its tables.

    `conflicts` is the setting labels.conflicts, `runtime` the setting features.runtime.
    """

    root: str
    raw_images: int
    deleted_files: int
    labeled_images: int
    conflicts: Literal["drop", "first", "ask"] = "drop"
    runtime: Runtime = "auto"

    def training_set(self, backbone: BackboneRef, trainable: str = "head", report: Report | None = None) -> Snapshot:
        """Return the rows to learn from: with the backbone's features for a head, else with the photos' bytes.

        They are made where they are not there yet, by the embedded engine; `report` is told how far that is.
        """
        session = self._session(backbone, trainable)
        if trainable == "head" and session.makes(IMAGE_FEATURES):
            steps.labelled_image_features.run(session, report)
        steps.training_set.run(session, report)
        return session.pin(TRAINING_SET)

    def seconds_to_embed(self, backbone: BackboneRef) -> float:
        """Return how long this machine needs for those photos that the backbone has not embedded yet, as measured.

        What the measurement itself took is over: the backbone stays loaded.
        """
        from dlassets.learning.embedding import load_backbone

        session = self._session(backbone)
        if not (paths := _lacking(session)):
            return 0.0
        load_backbone(backbone, self.runtime)
        embedder, sample = session.embedder(session.pin(RAW_IMAGES)), paths[:_SAMPLE]
        embedder.features(sample[:1], backbone)  # the first one prepares
        started = time.monotonic()
        embedder.features(sample, backbone)
        return (time.monotonic() - started) / len(sample) * len(paths)

    def _session(self, backbone: BackboneRef, trainable: str = "head") -> Session:
        """Return a session on the lake that is made of these photos, beside the one that they lie in.

        It reads that one's own features, where those are of all of them.
        """
        from dlassets.learning.backbones import feature_version

        lake = Lake.at(self.root)
        settings = Settings.model_validate(
            {
                "root": lake.under("automl", feature_version(backbone) if trainable == "head" else "photos"),
                "labels": {"conflicts": self.conflicts},
                "features": {"runtime": self.runtime},
                "training": {"trainable": trainable},
            }
        )
        at = {table.name: Snapshot(table.name, lake.table(table.name), getattr(self, table.name)) for table in _PINNED}
        photos = Session(settings.model_copy(update={"root": self.root}), at=at, embeds_with=backbone)
        session = Session(settings, source=photos, own={TRAINING_SET.name}, embeds_with=backbone)
        if newest(lake, IMAGE_FEATURES.name) is not None and not _lacking(session):
            return session
        return session.changed(own={TRAINING_SET.name, IMAGE_FEATURES.name})


def photos_of_lake(settings: Settings) -> LabelledPhotos:
    """Return the labelled photos that the settings' lake has now. Raises DlassetsError where it has none."""
    session = Session(settings)
    # Where there is nothing, nothing is made: pinning a table creates it.
    if newest(session.lake, LABELED_IMAGES.name) is None or not session.measure(LABELED_IMAGES)[1]:
        raise DlassetsError(
            f"The lake at {session.lake.root} has no labelled photos yet. Put photos into its labelled landing zone "
            "and materialize labeled_images, or name a folder of class folders with --images."
        )
    versions = {table.name: session.pin(table).version for table in _PINNED}
    conflicts, runtime = settings.labels.conflicts, settings.features.runtime
    return LabelledPhotos(session.lake.root, **versions, conflicts=conflicts, runtime=runtime)


def photos_of_folder(folder: Path, settings: Settings, report: Report | None = None) -> LabelledPhotos:
    """Take the photos of class folders into a lake of their own, under the settings' root, and return them.

    What has been taken in before is not read again. Raises DlassetsError where no folder's name says a class.
    """
    folder = folder.resolve()
    name = f"{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    own = settings.model_copy(
        update={
            "root": Lake.at(settings.root).under("automl", "folders", name),
            "engine": "local",
            "landing": {"given": LandingZone(uri=str(folder), labelled=True)},
        }
    )
    session = Session(own)
    for step in (steps.ingested_files, steps.classes, steps.image_profiles):
        step.run(session, report)
    steps.labeled_images.run(session)
    if not session.measure(LABELED_IMAGES)[1]:
        raise DlassetsError(
            f"{folder} has no labelled photos: it must hold folders named by class, such as 001.shirt, with photos."
        )
    return photos_of_lake(own)


def _lacking(session: Session) -> list[str]:
    """Return a path of every labelled image that is to be had and has no features of the session's version."""
    return steps.images_to_embed(session, steps.labelled_image_features.hand_out(session))
