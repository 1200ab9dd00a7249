"""A lake that goes through everything once, step by step: photos of every kind come, change and go, people answer."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dlassets.engines.base import Snapshot
from dlassets.engines.local import LocalEngine
from dlassets.images.digest import image_id_of
from dlassets.intake.damage import HOLDERS
from dlassets.intake.quarantine import drop, refused_files, retry
from dlassets.labeling.requests import without_photo
from dlassets.lakehouse.classes import merge_classes, name_class, problems_of_folders
from dlassets.lakehouse.listed_labels import claims_of_lists
from dlassets.lakehouse.snapshots import pin
from dlassets.lakehouse.tables import TABLES
from dlassets.monitoring.gallery import write_gallery
from dlassets.monitoring.outcomes import judged_answers, mistakes_of, scored_last
from dlassets.monitoring.quality import RULES, check
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Step
from dlassets.registry.evaluated import evaluated_runs, lacking_rows
from dlassets.registry.lineage import unknown_models
from dlassets.registry.models import ModelVersion
from dlassets.scoring.online import Served
from dlassets.scoring.served import RequestLog
from dlassets_tests.tables import get

# A study of settings and the bundle for devices have tests of their own, and are the same whoever wrote the rows.
EVERY_STEP = tuple(step for step in steps.STEPS if step not in {steps.tuned_hyperparameters, steps.edge_model})
_TRAINING = (steps.trained_model, steps.registered_version, steps.validated_version)
# Of weights that may differ in their last digits, and of the run that learned them.
_DIGESTS = {"package", "run_id"}
# When it was that something happened.
_TIMES = {
    "scored_at",
    "requested_at",
    "closed_at",
    "answered_at",
    "decided_at",
    "first_answer_at",
    "last_answer_at",
    "labeled_at",
    "deleted_at",
    "returned_at",
    "dropped_at",
    "load_date",
    "since",
    "merged_at",
    "said_at",
    "read_at",
    "evaluated_at",
    "received_at",
    "received_on",
    "period_start",
    "period_end",
    "reported_on",
    "reported_at",
}
# A function of the day among others.
_NAMES_OF_DAYS = {"measure_id"}
# How long something took, which is another time on another engine.
_SPANS = {"time_to_answer", "queue_age"}


@dataclass
class Whole:
    session: Session

    def zone(self, path: str) -> Path:
        return Path(self.session.lake.zone(path))

    def put(self, path: str, content: bytes, minutes: int = 0) -> None:
        """Write a file that is `minutes` younger than a fixed time."""
        self.zone(path).parent.mkdir(parents=True, exist_ok=True)
        self.zone(path).write_bytes(content)
        os.utime(self.zone(path), (1.7e9 + 60 * minutes, 1.7e9 + 60 * minutes))

    def live(self, photos: Path) -> None:
        """Go twice around the loop; train in the first round alone."""
        engine, lake, settings = self.session.engine, self.session.lake, self.session.settings
        self._photos_arrive(photos)
        self._run(*EVERY_STEP)
        self._photos_are_asked_about()
        self.people_answer()
        self.people_contradict()
        self._run(steps.human_labels)
        self.photos_change()
        unwanted, _, mended = sorted(refused_files(engine, lake), key=lambda file: file.path, reverse=True)
        drop(engine, lake, settings, [unwanted], {})
        retry(engine, lake, settings, [mended], {})
        self._run(*(step for step in EVERY_STEP if step not in _TRAINING))

    def look(self) -> dict[str, Any]:
        """Return what is found by looking at the tables, which changes none of them."""
        session = self.session
        tables = {name: pin(session.lake, name) for name in TABLES}
        labels, champion = session.settings.labels, session.champion()
        gallery = write_gallery(session.engine, session.lake, tables, session.settings)
        photos = session.photos(tables["raw_images"])
        runs = evaluated_runs(session.mlflow, session.lake)
        return {
            "broken": {f"{r.table} {r.name}": check(session.engine, r, tables, labels, champion).broken for r in RULES},
            "gallery": (gallery.images, gallery.files, gallery.defects, gallery.near_duplicate_groups, gallery.refused),
            "no class": problems_of_folders(session.engine, tables, session.settings),
            "listed": claims_of_lists(session.engine, tables, session.settings),
            "unknown models": unknown_models(session.engine, session.lake, session.mlflow.client),
            "events": [
                (e.number, e.model_version, e.event, e.from_state, e.to_state)
                for e in session.registry.history().events
            ],
            "damaged": [holder.damaged(photos, holder.paths(photos), None) for holder in HOLDERS],
            "refused": [(f.path, f.state) for f in refused_files(session.engine, session.lake, everything=True)],
            "lacking rows": lacking_rows(session.engine, tables["evaluated_rows"], runs),
            "wrong": [self._mistakes(run.info.run_id, tables) for run in runs],
            "scored": None if champion is None else self._scored(champion, tables),
            "judged": judged_answers(
                session.engine, tables["served_requests"], tables["labeled_images"], tables["classes"], labels
            ),
            "without photo": [
                without_photo(session.engine, each, tables["label_requests"]) for each in session.labeling.read
            ],
        }

    def _mistakes(self, run_id: str, tables: Mapping[str, Snapshot]) -> Any:
        mistakes = mistakes_of(self.session.engine, tables["evaluated_rows"], tables["classes"], run_id)
        return mistakes.rows, mistakes.wrong, sorted(row["path"] for row in mistakes.surest)

    def _scored(self, champion: ModelVersion, tables: Mapping[str, Snapshot]) -> Any:
        scored = scored_last(self.session.engine, tables["predictions"], champion)
        return sorted((name, photos) for name, photos, _ in scored.classes), sum(scored.by_confidence)

    def _run(self, *chosen: Step) -> None:
        for step in chosen:
            step.run(self.session)

    def _photos_are_asked_about(self) -> None:
        """A server answers about a photo that is there, and is yet to merge what it has written down."""
        photo = min(self.zone("labeled").glob("*/*.jpg")).read_bytes()
        top = [{"label": 1, "name": "one", "confidence": 0.75}, {"label": 2, "name": "two", "confidence": 0.25}]
        answer = {"label": 1, "name": "one", "confidence": 0.75, "margin": 0.5, "top_k": top}
        model, now = self.session.required_champion(), datetime.now(UTC)
        with RequestLog(self.session.settings, merge_seconds=1e6) as log:
            log([Served("a request", now, image_id_of(photo), photo, "raw", answer, model, "champion", 0.25)])
            log._seal()
            self._run(steps.served_requests)

    def _photos_arrive(self, photos: Path) -> None:
        """Some have a label and some not, one is in two classes, a list names two, and three files are no photos."""
        for folder in sorted(photos.iterdir()):
            for place, photo in enumerate(sorted(folder.iterdir())[:10]):
                target = (
                    f"labeled/{folder.name}/{photo.name}" if place < 8 else f"unlabeled/{folder.name[:3]}-{photo.name}"
                )
                self.put(target, photo.read_bytes(), place)
        one, other = sorted(self.zone("labeled").iterdir())[:2]
        content = min(one.iterdir()).read_bytes()
        self.put(f"labeled/{other.name}/twice.jpg", content, 20)
        self.put(f"labeled/{one.name}/cut.jpg", content[:300])
        mark = other.name[:3]
        for place, photo in enumerate(sorted(other.iterdir())[:2]):
            self.put(f"listed/{mark}-{'ab'[place]}.jpg", photo.read_bytes() + b"\0" * (place + 1))
        listed = f"photo,label\n{mark}-a,{other.name}\n{mark}-b,2026-01-31\nc.jpg,{one.name}\n"
        self.put("listed/labels.csv", listed.encode())
        self.put("unlabeled/empty.jpg", b"")
        self.put("unlabeled/text.jpg", b"no photo")

    def people_answer(self) -> None:
        """Every photo that was sent is moved into the class that its path names, one after the other by their names."""
        classes = {folder.name[:3]: folder.name for folder in self.zone("labeled").iterdir()}
        moves = {}
        for row in get(LocalEngine(), self.session.lake, "label_requests", "request_id, batch_id, path"):
            (photo,) = Path(self.session.lake.requests, row["batch_id"]).glob(f"{row['request_id']}.*")
            moves[Path(self.session.lake.answers, classes[row["path"].split("/")[1][:3]], photo.name)] = photo
        for target in sorted(moves):  # as answers are read that came in the same tick of the clock
            target.parent.mkdir(parents=True, exist_ok=True)
            moves[target].rename(target)

    def people_contradict(self) -> None:
        """Somebody says of a photo, unasked, that it is of another class than its folder's, and two classes are one."""
        one, other = sorted(self.zone("labeled").iterdir())[:2]
        path = f"labeled/{one.name}/{max(one.iterdir()).name}"
        said = {"path": path, "label": other.name, "annotator": "Bo", "service": "page", "seconds": 2.5}
        Path(self.session.lake.answers, "more.json").write_text(json.dumps(said))
        engine, lake = self.session.engine, self.session.lake
        named = name_class(engine, pin(lake, "classes"), "of nothing", "Bo")
        merge_classes(engine, pin(lake, "classes"), named.label, int(one.name[:3]), "Bo")

    def photos_change(self) -> None:
        """One has other bytes, one is gone, a list says something else, and a file that was refused is a photo."""
        folder = min(self.zone("labeled").iterdir())
        changed, gone = sorted(folder.glob("*.jpg"))[2:4]
        content = changed.read_bytes()
        self.put(f"labeled/{folder.name}/{changed.name}", content + b"\0", 30)
        self.put(f"labeled/{folder.name}/cut.jpg", content + b"\0\0", 30)
        gone.unlink()
        (listed,) = self.zone("listed").glob("*-b.jpg")
        self.put("listed/labels.csv", f"photo,label\n{listed.name},{folder.name}\n".encode(), 30)


@dataclass
class Comparable:
    """The rows of a table but for times: what must be equal, and numbers that may differ in their last digits."""

    exact: list[Any]
    numbers: Any


def comparable(whole: Whole, table: str) -> Comparable:
    rows = []
    for row in get(LocalEngine(), whole.session.lake, table):
        numbers: list[float] = []
        left_out = _TIMES | _DIGESTS | _NAMES_OF_DAYS | ({"value"} if row.get("figure") in _SPANS else set())
        kept = {name: _without_numbers(value, numbers) for name, value in row.items() if name not in left_out}
        rows.append((repr(kept).replace(whole.session.settings.root, "<root>"), numbers))
    rows.sort(key=lambda row: row[0])
    return Comparable([row[0] for row in rows], np.array([number for row in rows for number in row[1]]))


def _without_numbers(value: Any, numbers: list[float]) -> Any:
    """Return the value with its floats taken out, into `numbers`."""
    if isinstance(value, float):
        return numbers.append(value)
    if isinstance(value, list):
        return [_without_numbers(each, numbers) for each in value]
    if isinstance(value, dict):
        return {name: _without_numbers(each, numbers) for name, each in value.items()}
    return value
