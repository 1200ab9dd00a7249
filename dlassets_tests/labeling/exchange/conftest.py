"""A lake that has asked about four photos, and what other services' files of them are taken in by."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dlassets.labeling.exchange.exporting import Export
from dlassets.labeling.exchange.importing import Import, Imported
from dlassets.labeling.exchange.registry import FORMATS
from dlassets.labeling.exchange.resolving import Known
from dlassets.labeling.requests import request_id
from dlassets.lakehouse.classes import classes_of
from dlassets.registry.models import ModelVersion
from dlassets.settings import Settings
from dlassets_tests.labeling.conftest import CLASSES, MODEL, Bench, image_id, labelled, raw_image

ASKED = ("ann", "bob", "cat", "dan")
# There, and nobody was asked about it.
UNASKED = "eve"


def request_of(name: str) -> str:
    return request_id(image_id(name), ModelVersion(MODEL, 3))


ANN, BOB, CAT, DAN = map(request_of, ASKED)


@dataclass
class Exchange:
    """A lake, and a folder in the place of its answers."""

    bench: Bench
    answers: Path

    def export(self, name: str, folder: Path, **more: Any) -> Path:
        pinned = ("raw_images", "deleted_files", "quarantined_files", "image_profiles", "classes", "label_requests")
        snapshots = {table: self.bench.pin(table) for table in pinned}
        settings = Settings(root=self.bench.lake.root)
        export = Export(self.bench.engine, self.bench.lake, settings, snapshots, FORMATS[name], **more)
        export.to(folder)
        return folder

    def take(self, path: Path, **how: Any) -> Imported:
        known = Known(self.bench.engine, self.bench.pin("label_requests"), self.bench.pin("raw_images"))
        classes = classes_of(self.bench.engine, self.bench.pin("classes"))
        return Import(known, str(self.answers), classes, **how).file(path)

    def said(self, imported: Imported) -> list[dict[str, Any]]:
        """Return the lines that are written, less where each comes from."""
        target = Path(imported.target)
        if not target.exists():
            return []
        lines = [json.loads(line) for line in target.read_text().splitlines()]
        assert {line.pop("service") for line in lines} <= {imported.format.name}
        assert all(line.pop("origin").startswith(f"{imported.file}, ") for line in lines)
        return lines


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    bench = Bench(tmp_path_factory.mktemp("asked"))
    bench.add("labeled_images", [labelled(name, label, f"labeled/{name}.jpg") for label, name in CLASSES.items()])
    bench.add("classes", [{"label": label, "name": name} for label, name in CLASSES.items()])
    bench.add_photos(*ASKED, UNASKED)
    twice = [raw_image(f"{folder} twice", f"unlabeled/{folder}/twice.jpg") for folder in "xy"]
    same = [raw_image("same", f"unlabeled/{folder}/same.jpg") for folder in "xy"]
    bench.add("raw_images", [*twice, *same])
    bench.score(dict(zip(ASKED, (0.1, 0.2, 0.3, 0.4), strict=True)))
    bench.send()
    return bench


@pytest.fixture
def exchange(asked: Bench, tmp_path: Path) -> Exchange:
    return Exchange(asked, tmp_path / "answers")


def by_request(lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {line.pop("request_id"): line for line in map(dict, lines)}


def counts(imported: Imported) -> tuple[int, int, int, int]:
    """Return how many answers, skipped, not answered yet and unusable there are."""
    return imported.answers, imported.skipped, imported.unanswered, imported.unusable
