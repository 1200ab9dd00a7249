"""A lake of a few scored photos, and the folder service beside it."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from dlassets import __version__
from dlassets.engines.base import Commit, Engine, Snapshot, Written
from dlassets.engines.local import LocalEngine
from dlassets.images.folders import class_folder
from dlassets.labeling.answers import collect_answers
from dlassets.labeling.closing import close_requests, reopen_requests
from dlassets.labeling.folder import FolderService
from dlassets.labeling.requests import request_id, send_lost, send_requests
from dlassets.labeling.services import Refusal
from dlassets.labeling.standing import show_standing
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import TABLES
from dlassets.registry.models import ModelVersion
from dlassets.settings import LabelingSettings, LabelSettings, Settings
from dlassets.storage.lake import Lake
from dlassets_tests.label_studio_servers import LabelStudioServer, label_studio
from dlassets_tests.tables import NOON, arrow, get
from dlassets_tests.tables import put as put_rows

Conflicts = Literal["drop", "first", "ask"]
MODEL = "image_classifier"
READ = (
    "raw_images",
    "deleted_files",
    "quarantined_files",
    "classes",
    "predictions",
    "labeled_images",
    "image_profiles",
    "image_features",
    "label_errors",
    "human_labels",
    "consensus",
)
CLASSES = {2: "hat", 6: "shirt", 10: "t-shirt"}


def photo(name: str) -> bytes:
    """Bytes that begin as a JPEG's do."""
    return b"\xff\xd8\xff\xe0" + name.encode() * 10


def image_id(name: str) -> str:
    return hashlib.sha256(photo(name)).hexdigest()


@dataclass
class Bench:
    """What the asset bodies will have: an engine, a lake and a service, and the tables pinned at each step."""

    root: Path
    engine: Engine = field(default_factory=LocalEngine)

    def __post_init__(self) -> None:
        self.lake = Lake.at(str(self.root / "lake"))
        self.service: Any = FolderService(Path(self.lake.requests), Path(self.lake.answers))

    @property
    def requests(self) -> Path:
        return Path(self.lake.requests)

    @property
    def answers(self) -> Path:
        return Path(self.lake.answers)

    def pin(self, name: str) -> Snapshot:
        return pin(self.lake, name)

    def add(self, name: str, rows: list[dict[str, Any]]) -> None:
        put_rows(self.lake, name, *rows)

    def rows(self, name: str) -> list[dict[str, Any]]:
        return get(self.engine, self.lake, name)

    def add_photos(self, *names: str) -> None:
        self.add("raw_images", [raw_image(name) for name in names])

    def replace_photo(self, row: dict[str, Any]) -> None:
        rows = self.engine.rows(arrow("raw_images", row))
        uri = self.pin("raw_images").uri
        self.engine.replace(rows, TABLES["raw_images"], uri, Commit(), {"path": [row["path"]]})

    def replace_requests(self, *rows: dict[str, Any]) -> None:
        table = TABLES["label_requests"]
        self.engine.merge(self.engine.rows(arrow(table.name, *rows)), table, self.pin(table.name).uri, Commit())

    def score(self, confidences: dict[str, float], version: int = 3, model: str = MODEL) -> None:
        self.add("predictions", [prediction(name, c, version, model) for name, c in confidences.items()])

    @property
    def snapshots(self) -> dict[str, Snapshot]:
        return {name: self.pin(name) for name in READ}

    def send(self, version: int | None = 3, conflicts: Conflicts = "drop", **settings: Any) -> Written:
        return self.send_and_count(version, conflicts, **settings)[0]

    def send_and_count(
        self, version: int | None = 3, conflicts: Conflicts = "drop", **settings: Any
    ) -> tuple[Written, int]:
        chosen = _settings(conflicts, settings)
        return send_requests(self.engine, self.lake, [self.service], self.snapshots, _model(version), chosen, Commit())

    def send_lost(self) -> Written:
        return send_lost(self.engine, self.lake, self.service, self.snapshots, Commit())

    def collect(self, classes: dict[int, str] = CLASSES) -> Written:
        return self.collect_and_refuse(classes)[0]

    def collect_and_refuse(self, classes: dict[int, str] = CLASSES) -> tuple[Written, list[Refusal]]:
        """Collect what was answered, where these are the classes."""
        if classes != {row["label"]: row["name"] for row in self.rows("classes")}:
            rows = arrow("classes", *({"label": label, "name": name} for label, name in classes.items()))
            self.engine.replace(self.engine.rows(rows), TABLES["classes"], self.pin("classes").uri, Commit())
        return self.collect_as_it_is()

    def collect_as_it_is(self) -> tuple[Written, list[Refusal]]:
        sources = {name: self.pin(name) for name in ("label_requests", "raw_images", "classes")}
        return collect_answers(self.engine, self.service, self.pin("human_labels"), sources, Commit())

    def reopen(self, **settings: Any) -> Written:
        return reopen_requests(self.engine, self.lake, self.snapshots, LabelingSettings(**settings), Commit())

    def close(self, version: int | None = None, conflicts: Conflicts = "drop", **settings: Any) -> Written:
        chosen = _settings(conflicts, settings)
        return close_requests(self.engine, self.lake, self.snapshots, _model(version), chosen, Commit())[0]

    def show(self) -> None:
        shown = {name: self.pin(name) for name in ("label_requests", "human_labels", "classes")}
        show_standing(self.engine, self.service, shown)


def _settings(conflicts: Conflicts, labeling: dict[str, Any]) -> Settings:
    return Settings(labeling=LabelingSettings(**labeling), labels=LabelSettings(conflicts=conflicts))


def _model(version: int | None) -> ModelVersion | None:
    return None if version is None else ModelVersion(MODEL, version)


def labelled(name: str, label: int, path: str) -> dict[str, Any]:
    told = {"label": label, "label_name": CLASSES[label], "source": "folder", "split": "train"}
    return {"path": path, "image_id": image_id(name), **told}


def doubted(name: str, label: int, quality: float) -> dict[str, Any]:
    """A label that looks wrong: the photo looks like a t-shirt."""
    return {
        **labelled(name, label, f"labeled/{label:03}.{CLASSES[label]}/{name}.jpg"),
        "suggested_label": 10,
        "suggested_name": "t-shirt",
        "quality": quality,
        "confidence": 0.75,
    }


def failed(name: str) -> dict[str, Any]:
    """A step has failed for the photo."""
    row = {"path": f"unlabeled/{name}.jpg", "image_id": image_id(name), "reason": "failed", "stage": "image_profiles"}
    return {**row, "code_version": __version__}


def raw_image(name: str, path: str | None = None) -> dict[str, Any]:
    content = photo(name)
    return {
        "path": path or f"unlabeled/{name}.jpg",
        "length": len(content),
        "content": content,
        "image_id": image_id(name),
        "landing": "unlabeled",
    }


def prediction(name: str, confidence: float, version: int = 3, model: str = MODEL) -> dict[str, Any]:
    return {
        "path": f"unlabeled/{name}.jpg",
        "image_id": image_id(name),
        "model_name": model,
        "model_version": version,
        "predicted_label": 2,
        "predicted_name": "hat",
        "confidence": confidence,
        "margin": confidence,
        "top_k": [],
    }


A, B = (request_id(image_id(name), ModelVersion(MODEL, 3)) for name in "ab")


def put(bench: Bench, name: str, content: str, seconds_after_noon: int = 0) -> None:
    path = bench.answers / name
    path.write_text(content)
    time = NOON.timestamp() + seconds_after_noon
    os.utime(path, (time, time))


def move(bench: Bench, photo: str, folder: str) -> None:
    """Move a photo, from wherever it lies, into a class folder."""
    (source,) = bench.requests.parent.rglob(f"{photo}.jpg")
    source.rename(bench.answers / folder / source.name)


@pytest.fixture(scope="session")
def lake_that_asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once, since many tests begin with it."""
    bench = known_by_one_photo(tmp_path_factory.mktemp("asked"))
    bench.add_photos("a", "b")
    bench.score({"a": 0.5, "b": 0.4})
    bench.send()
    return bench.root


@pytest.fixture
def asked(lake_that_asked: Path, tmp_path: Path) -> Bench:
    """A lake where people were asked about photos a and b."""
    shutil.copytree(lake_that_asked, tmp_path, dirs_exist_ok=True)
    return Bench(tmp_path)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """It knows every class by one photo."""
    return known_by_one_photo(tmp_path)


def known_by_one_photo(root: Path) -> Bench:
    bench = Bench(root)
    known = [labelled(name, label, f"labeled/{class_folder(label, name)}/known.jpg") for label, name in CLASSES.items()]
    bench.add("labeled_images", known)
    bench.add("classes", [{"label": label, "name": name} for label, name in CLASSES.items()])
    return bench


@pytest.fixture(scope="session")
def label_studio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudioServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DAGSTER_HOME", raising=False)
        with label_studio(tmp_path_factory.mktemp("label-studio")) as server:
            yield server


@pytest.fixture
def studio(bench: Bench, label_studio_server: LabelStudioServer) -> Bench:
    """Three photos that a model is not sure of, and Label Studio to ask people in."""
    bench.service = label_studio_server.service(bench.lake)
    bench.add_photos("a", "b", "c")
    bench.score({"a": 0.5, "b": 0.25, "c": 0.75})
    return bench
