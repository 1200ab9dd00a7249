"""Files that change after they came in, from landing zone to label request: what depended on the old bytes follows."""

import functools
import hashlib
import io
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dlassets.engines.base import Commit, Engine, Snapshot, Written
from dlassets.engines.local import LocalEngine
from dlassets.intake.ingest import ingest
from dlassets.labeling.answers import collect_answers
from dlassets.labeling.closing import close_requests
from dlassets.labeling.folder import FolderService
from dlassets.labeling.requests import send_requests
from dlassets.lakehouse.derived import Derivation
from dlassets.lakehouse.profiles import profile_images
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import IMAGE_FEATURES, IMAGE_PROFILES, TABLES
from dlassets.lakehouse.training_set import build_training_set, choose
from dlassets.learning.backbones import BackboneRef
from dlassets.learning.head import Head
from dlassets.monitoring.quality import RULES, check
from dlassets.registry.models import ModelVersion
from dlassets.registry.package import ModelPackage
from dlassets.scoring.batch import Scorer, score_new
from dlassets.scoring.current import update_current
from dlassets.settings import LabelingSettings, LabelSettings, ScoringSettings, Settings
from dlassets.storage.lake import Lake
from dlassets_tests.lakehouse.test_derived import derived_from, lengths
from dlassets_tests.tables import get, pins, take_labels

VERSION = "bytes-1"
EMBEDDED = LocalEngine()


def photo(shade: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (24, 16), (shade, 255 - shade, shade // 2)).save(buffer, "PNG")
    return buffer.getvalue()


def image_id(shade: int) -> str:
    return hashlib.sha256(photo(shade)).hexdigest()


def package() -> ModelPackage:
    """A model that is sure of class 1, whatever it is shown."""
    one = np.ones(1, np.float32)
    bias = np.array([9, 0], np.float32)
    return ModelPackage(
        Head((1, 12), ("cat", "dog"), np.zeros((2, 1), np.float32), bias, one, one), BackboneRef("any"), VERSION
    )


MODEL = ModelVersion("m", 1)


@dataclass
class Loop:
    """The assets' functions in the assets' order.

    `engine` labels, builds the training set, scores and asks. The rest, tried on both engines elsewhere, is done by the
    embedded one, in a fraction of the time.
    """

    engine: Engine
    lake: Lake
    conflicts: Literal["drop", "first", "ask"] = "drop"
    settings: Settings = field(init=False)

    def __post_init__(self) -> None:
        self.settings = Settings(root=self.lake.root, labels=LabelSettings(conflicts=self.conflicts))
        self.service = FolderService(Path(self.lake.requests), Path(self.lake.answers))
        for zone in self.settings.landing:
            self.file(zone).mkdir(parents=True, exist_ok=True)

    def file(self, path: str) -> Path:
        return Path(self.lake.zone(path))

    def put(self, path: str, shade: int, minutes: int = 0) -> None:
        """Write a photo whose file is `minutes` younger than a fixed time."""
        self.file(path).parent.mkdir(parents=True, exist_ok=True)
        self.file(path).write_bytes(photo(shade))
        os.utime(self.file(path), (1.7e9 + 60 * minutes, 1.7e9 + 60 * minutes))

    def take_in(self) -> None:
        ingest(EMBEDDED, self.lake, self.settings, {})
        for table, kernel in (
            (IMAGE_PROFILES, profile_images),
            (IMAGE_FEATURES, functools.partial(lengths, version=VERSION)),
        ):
            derived_from(EMBEDDED, self.lake, Derivation(table, kernel))
        self.label()

    def label(self) -> None:
        take_labels(self.engine, self.lake, self.settings)

    def learn(self) -> dict[str, int]:
        """The training set: label by path."""
        tables = pins(self.lake, "labeled_images", "image_features", "quarantined_files")
        choice = choose(self.engine, tables, VERSION, self.settings.labels)
        build_training_set(self.engine, choice, tables["image_features"], pin(self.lake, "training_set"), {})
        return {row["path"]: row["label"] for row in self.rows("training_set", "path, label")}

    def score(self, version: int = 1) -> Written:
        tables = pins(self.lake, "raw_images", "labeled_images", "image_features")
        scorer = Scorer(MODEL._replace(version=version), package(), ScoringSettings(top_k=2, labeled=False))
        written = score_new(self.engine, tables, pin(self.lake, "predictions"), scorer, self.settings.labels, {})
        current = pins(self.lake, "predictions", "raw_images", "deleted_files", "predictions_current")
        update_current(self.engine, current, MODEL, {})
        return written

    def ask(self) -> Written:
        settings = self.settings.model_copy(update={"labeling": LabelingSettings(threshold=0.5)})
        return send_requests(self.engine, self.lake, [self.service], self.pinned(), MODEL, settings, Commit())[0]

    def pinned(self) -> dict[str, Snapshot]:
        return {name: pin(self.lake, name) for name in TABLES}

    def answer(self, folder: str) -> None:
        """A person moves every photo that is asked about into a class folder, and the answers are collected."""
        for asked in Path(self.lake.requests).rglob("*.png"):
            shutil.move(asked, Path(self.lake.answers) / folder / asked.name)
        collect_answers(EMBEDDED, self.service, pin(self.lake, "human_labels"), self.pinned(), Commit())
        close_requests(EMBEDDED, self.lake, self.pinned(), MODEL, self.settings, Commit())

    def rows(self, table: str, columns: str) -> list[dict[str, Any]]:
        return get(EMBEDDED, self.lake, table, columns)

    def column(self, table: str, columns: str) -> list[Any]:
        rows = [tuple(row.values()) for row in self.rows(table, columns)]
        return sorted(row[0] if len(row) == 1 else row for row in rows)

    def broken(self) -> dict[str, str]:
        """The rules that are broken, with what is said of them; that a class has few photos goes without saying."""
        snapshots = {name: pin(self.lake, name) for name in TABLES}
        found = (check(EMBEDDED, rule, snapshots, self.settings.labels, MODEL) for rule in RULES)
        broken = {finding.rule.name: finding.remedy for finding in found if not finding.passed}
        broken.pop("every_class_can_be_learned", None)
        return broken


def test_what_depended_on_overwritten_bytes_follows_the_new(engine, lake) -> None:
    loop = Loop(EMBEDDED, lake)
    loop.put("labeled/001.cat/a.png", 10)
    loop.put("unlabeled/b.png", 20)
    loop.put("unlabeled/copy of b.png", 20)
    loop.take_in()
    loop.score()
    loop.score(version=0)
    both = [("unlabeled/b.png", image_id(20)), ("unlabeled/copy of b.png", image_id(20))]
    assert loop.column("predictions", "path, image_id") == sorted(both * 2)
    assert loop.column("image_profiles", "image_id") == sorted(map(image_id, (10, 20)))
    assert loop.column("image_features", "image_id") == sorted(map(image_id, (10, 20)))

    loop.engine = engine
    loop.put("labeled/001.cat/a.png", 11, minutes=1)
    loop.put("unlabeled/b.png", 21, minutes=1)
    loop.take_in()
    assert loop.broken().keys() >= {"predictions_are_of_current_bytes", "every_unlabelled_image_scored"}
    loop.score()

    new = {"labeled/001.cat/a.png": 11, "unlabeled/b.png": 21, "unlabeled/copy of b.png": 20}
    assert loop.column("raw_images", "path, image_id") == [(path, image_id(shade)) for path, shade in new.items()]
    assert loop.column("labeled_images", "path, image_id") == [("labeled/001.cat/a.png", image_id(11))]
    assert loop.column("predictions", "path, image_id, model_version") == sorted(
        [(path, image_id(20), 0) for path, _ in both]
        + [("unlabeled/b.png", image_id(21), 1), ("unlabeled/copy of b.png", image_id(20), 1)]
    )
    for made in ("image_profiles", "image_features"):
        assert set(loop.column(made, "image_id")) >= {image_id(shade) for shade in new.values()}
    assert loop.learn() == {"labeled/001.cat/a.png": 1}
    assert loop.broken() == {}


def test_people_decide_a_conflict_and_their_answer_holds_for_every_path(engine, lake) -> None:
    loop = Loop(EMBEDDED, lake, "ask")
    loop.put("labeled/001.cat/a.png", 10)
    loop.put("labeled/012.dog/b.png", 20)
    loop.take_in()
    assert loop.learn() == {"labeled/001.cat/a.png": 1, "labeled/012.dog/b.png": 12}
    loop.engine = engine
    loop.put("labeled/012.dog/a too.png", 10)
    loop.take_in()
    assert loop.learn() == {"labeled/012.dog/b.png": 12}
    assert loop.broken().keys() == {"equal_bytes_have_one_label", "every_unlabelled_image_scored"}

    loop.score()
    assert loop.ask().inserted == 1
    assert loop.column("label_requests", "image_id, strategy, status") == [(image_id(10), "label_conflict", "open")]
    assert loop.ask().changed is False
    assert "people are asked" in loop.broken()["equal_bytes_have_one_label"]
    loop.answer("012.dog")
    loop.label()

    assert loop.column("labeled_images", "path, label, source") == [
        ("labeled/001.cat/a.png", 12, "human"),
        ("labeled/012.dog/a too.png", 12, "human"),
        ("labeled/012.dog/b.png", 12, "folder"),
    ]
    assert loop.learn() == {"labeled/001.cat/a.png": 12, "labeled/012.dog/b.png": 12}
    assert loop.column("label_requests", "status") == ["answered"]
    loop.engine = EMBEDDED
    loop.put("labeled/001.cat/a third.png", 10)
    loop.take_in()
    loop.score()
    assert loop.ask().changed is False
    assert loop.broken() == {}


def test_a_conflict_goes_away_with_the_file_that_made_it(local_engine, lake) -> None:
    loop = Loop(local_engine, lake)
    loop.put("labeled/001.cat/a.png", 10, minutes=1)
    loop.put("labeled/012.dog/a.png", 10)
    loop.take_in()
    assert loop.learn() == {}
    assert loop.broken() == {
        "equal_bytes_have_one_label": "By labels.conflicts=drop, the training set leaves these images out. Delete the "
        "file in the wrong folder, or let people decide (labels.conflicts=ask)."
    }
    first = Loop(local_engine, lake, "first")
    assert first.learn() == {"labeled/012.dog/a.png": 12}
    assert "the oldest file counts" in first.broken()["equal_bytes_have_one_label"]

    loop.file("labeled/001.cat/a.png").unlink()
    loop.take_in()
    assert loop.learn() == {"labeled/012.dog/a.png": 12}
    assert loop.broken() == {}

    loop.put("labeled/001.cat/a.png", 10, minutes=2)
    loop.take_in()
    assert loop.learn() == {}
    loop.put("labeled/012.dog/a.png", 11, minutes=3)
    loop.take_in()
    assert loop.learn() == {"labeled/001.cat/a.png": 1, "labeled/012.dog/a.png": 12}


def test_a_request_about_bytes_that_are_gone_is_named_and_the_new_ones_are_asked_about(local_engine, lake) -> None:
    loop = Loop(local_engine, lake, "ask")
    for path in ("labeled/001.cat/a.png", "labeled/012.dog/a.png"):
        loop.put(path, 10)
    loop.take_in()
    loop.score()
    loop.ask()
    for path in ("labeled/001.cat/a.png", "labeled/012.dog/a.png"):
        loop.put(path, 11, minutes=1)
    loop.take_in()
    loop.score()

    assert loop.ask().inserted == 1
    assert loop.broken().keys() == {"equal_bytes_have_one_label", "requests_are_about_current_images"}
    loop.answer("012.dog")
    loop.label()

    # The answer about the old bytes changes no label; that about the new ones holds.
    assert loop.column("labeled_images", "image_id, label, source") == [(image_id(11), 12, "human")] * 2
    assert loop.broken() == {}
