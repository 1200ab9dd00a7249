"""Labelled photos as they were at one moment, made ready for any backbone, without a change to the lake's own tables.

What is made of them lies under <root>/automl, a lake for each backbone and one for the photos themselves: made once,
and found again by the next search or by a script that trains on them.
"""

from __future__ import annotations

import functools
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dlassets.errors import DlassetsError
from dlassets.lakehouse.content import REACHABLE, map_images
from dlassets.lakehouse.labels import labels_in_force
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import IMAGE_FEATURES
from dlassets.settings import LabelSettings, LandingZone, Settings
from dlassets.storage.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa

    from dlassets.engines.base import Engine, Progress, Snapshot
    from dlassets.learning.backbones import BackboneRef, Runtime
    from dlassets.learning.evaluation.evaluate import Evaluation
    from dlassets.learning.training.job import Job, Trained

# A killed embedding loses at most the work of one commit.
IMAGES_PER_COMMIT = 2000
_SAMPLE = 32


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

    def training_set(
        self, backbone: BackboneRef, trainable: str = "head", progress: Progress | None = None
    ) -> Snapshot:
        """Return the rows to learn from: with the backbone's features for a head, else with the photos' bytes.

        They are made where they are not there yet, by the embedded engine, which `progress` hears of.
        """
        from dlassets.lakehouse.training_set import build_pixel_training_set, build_training_set
        from dlassets.learning.backbones import feature_version

        (raw, deleted, labeled), labels = self._pinned, LabelSettings(conflicts=self.conflicts)
        version = feature_version(backbone)
        bench = self._bench(version if trainable == "head" else "photos")
        current = pin(bench, "training_set")
        if trainable == "head":
            features = self._embedded(backbone, progress)
            build_training_set(_engine(), labeled, features, current, version, labels, self._origin)
        else:
            build_pixel_training_set(_engine(), self._lake, raw, deleted, labeled, current, labels, self._origin)
        return pin(bench, "training_set")

    def seconds_to_embed(self, backbone: BackboneRef) -> float:
        """Return how long this machine needs for those photos that the backbone has not embedded yet, as measured.

        What the measurement itself took is over: the backbone stays loaded.
        """
        from dlassets.learning.backbones import feature_version
        from dlassets.learning.embedding import load_backbone

        version = feature_version(backbone)
        paths = self._lacking(self._features(version), version)
        if not len(paths):
            return 0.0
        load_backbone(backbone, self.runtime)
        self._map(paths.slice(0, 1), backbone).arrow()  # the first one prepares
        sample = paths.slice(0, _SAMPLE)
        started = time.monotonic()
        self._map(sample, backbone).arrow()
        return (time.monotonic() - started) / len(sample) * len(paths)

    @property
    def _lake(self) -> Lake:
        return Lake.at(self.root)

    @property
    def _pinned(self) -> tuple[Snapshot, Snapshot, Snapshot]:
        from dlassets.engines.base import Snapshot

        lake = self._lake
        raw, deleted, labeled = (
            Snapshot(name, lake.table(name), getattr(self, name))
            for name in ("raw_images", "deleted_files", "labeled_images")
        )
        return raw, deleted, labeled

    @property
    def _origin(self) -> dict[str, Any]:
        from dlassets.lakehouse.provenance import Provenance

        return Provenance.of("training_set", self._pinned).as_dict()

    def _bench(self, name: str) -> Lake:
        return Lake.at(self._lake.under("automl", name))

    def _features(self, version: str) -> Snapshot:
        """Return the lake's own table of features, where that has all of them, else the one beside it."""
        if _has_table(self._lake, IMAGE_FEATURES.name):
            own = pin(self._lake, IMAGE_FEATURES.name)
            if not len(self._lacking(own, version)):
                return own
        return pin(self._bench(version), IMAGE_FEATURES.name)

    def _embedded(self, backbone: BackboneRef, progress: Progress | None) -> Snapshot:
        """Embed what is not embedded yet; return the table of features."""
        from dlassets.engines.base import Commit
        from dlassets.learning.backbones import feature_version

        version = feature_version(backbone)
        features = self._features(version)
        todo = self._lacking(features, version)
        done = 0

        def advance(images: int) -> None:
            nonlocal done
            done += images
            if progress is not None:
                progress(done, len(todo))

        for start in range(0, len(todo), IMAGES_PER_COMMIT):
            rows = self._map(todo.slice(start, IMAGES_PER_COMMIT), backbone, advance)
            _engine().append(rows, IMAGE_FEATURES, features.uri, Commit(self._origin))
        return pin(self._bench(version), IMAGE_FEATURES.name) if len(todo) else features

    def _lacking(self, features: Snapshot, version: str) -> pa.Table:
        """Return the path of every labelled image that has no features of this version and bytes to be had."""
        raw, deleted, labeled = self._pinned
        return (
            _engine()
            .sql(
                f"""
                SELECT in_force.path FROM ({labels_in_force(LabelSettings(conflicts=self.conflicts))}) AS in_force
                JOIN ({REACHABLE}) AS images ON images.path = in_force.path AND images.image_id = in_force.image_id
                WHERE in_force.image_id NOT IN (
                    SELECT image_id FROM image_features WHERE feature_version = '{version}')
                ORDER BY in_force.path
                """,  # noqa: S608 - constants, and a version that is this project's own
                {"labeled_images": labeled, "raw_images": raw, "deleted_files": deleted, "image_features": features},
            )
            .arrow()
        )

    def _map(self, paths: pa.Table, backbone: BackboneRef, advance: Any = None) -> Any:
        from dlassets.learning.embedding import embed_images

        kernel = functools.partial(embed_images, backbone=backbone, runtime=self.runtime)
        raw = self._pinned[0]
        return map_images(_engine(), self._lake, raw, _engine().rows(paths), kernel, IMAGE_FEATURES.columns, advance)


def photos_of_lake(settings: Settings) -> LabelledPhotos:
    """Return the labelled photos that the settings' lake has now. Raises DlassetsError where it has none."""
    from dlassets.lakehouse.snapshots import row_count

    lake = Lake.at(settings.root)
    # Where there is nothing, nothing is made: pinning a table creates it.
    if not _has_table(lake, "labeled_images") or not row_count(pin(lake, "labeled_images")):
        raise DlassetsError(
            f"The lake at {lake.root} has no labelled photos yet. Put photos into its labelled landing zone and "
            "materialize labeled_images, or name a folder of NNN.class folders with --images."
        )
    versions = {name: pin(lake, name).version for name in ("raw_images", "deleted_files", "labeled_images")}
    return LabelledPhotos(lake.root, **versions, conflicts=settings.labels.conflicts, runtime=settings.features.runtime)


def photos_of_folder(folder: Path, settings: Settings, progress: Progress | None = None) -> LabelledPhotos:
    """Take the photos of NNN.class folders into a lake of their own, under the settings' root, and return them.

    What has been taken in before is not read again. Raises DlassetsError where no folder's name says a class.
    """
    from dlassets.engines.base import Commit
    from dlassets.intake.ingest import ingest
    from dlassets.lakehouse.labels import update_labels
    from dlassets.lakehouse.provenance import Provenance
    from dlassets.lakehouse.snapshots import row_count

    folder = folder.resolve()
    name = f"{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    own = settings.model_copy(
        update={
            "root": Lake.at(settings.root).under("automl", "folders", name),
            "landing": {"given": LandingZone(uri=str(folder), labelled=True)},
        }
    )
    lake, engine = Lake.at(own.root), _engine()
    origin = Provenance.of("raw_images", []).as_dict()
    ingest(engine, lake, own, origin, progress)
    raw, deleted, human, labeled = (
        pin(lake, table) for table in ("raw_images", "deleted_files", "human_labels", "labeled_images")
    )
    update_labels(engine, raw, deleted, human, labeled, own.landing, own.split, Commit(origin))
    if not row_count(pin(lake, "labeled_images")):
        raise DlassetsError(
            f"{folder} has no labelled photos: it must hold folders named by class, such as 001.shirt, with photos."
        )
    return photos_of_lake(own)


def evaluated(job: Job, trained: Trained) -> Evaluation:
    """Return how good a trained model is on the test photos of its training set."""
    from dlassets.lakehouse.tables import TEST
    from dlassets.learning.backbones import network
    from dlassets.learning.evaluation.evaluate import evaluate
    from dlassets.learning.examples import read_split
    from dlassets.learning.training.pixels import features_of

    if job.settings.trainable == "head":
        return evaluate(trained.head, read_split(job.training_set, TEST))
    whole = network(job.backbone)
    whole.network.load_state_dict(trained.weights or {})
    return evaluate(trained.head, features_of(job, TEST, whole))


def _has_table(lake: Lake, name: str) -> bool:
    from deltalake.exceptions import TableNotFoundError

    from dlassets.engines.delta_log import open_table

    try:
        open_table(lake.table(name))
    except TableNotFoundError:
        return False
    return True


@functools.cache
def _engine() -> Engine:
    from dlassets.engines.local import LocalEngine

    return LocalEngine()
