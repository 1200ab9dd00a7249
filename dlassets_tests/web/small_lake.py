"""A small lake as pages show it: photos with names of all kinds, two models, mistakes, requests, answers."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from dlassets.images.digest import image_id_of
from dlassets.images.profile import profile
from dlassets.monitoring.labeling_report.measures import Measure, Period
from dlassets.registry.lifecycle import CHAMPION, TAG_PROMOTIONS, TAG_VERDICT
from dlassets.registry.models import ModelVersion
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.registry.conftest import MODEL, store_of
from dlassets_tests.tables import NOON, put

HAT, MUG = {"label": 1, "label_name": "hat"}, {"label": 2, "label_name": "mug"}
SAYS_HAT = {"predicted_label": 1, "predicted_name": "hat"}
SAYS_MUG = {"predicted_label": 2, "predicted_name": "mug"}
HOSTILE = (
    "labeled/001.hat/<script>alert(1)<script>.jpg",
    "labeled/001.hat/\"><img src=x onerror='alert(1)'>&amp;.jpg",
    "labeled/002.mug/новое 写真 #1?q=%2e%2e.jpg",
    "unlabeled/one\nline and\r\nanother\tjavascript:alert(1).jpg",
    "unlabeled/{{ 7 * 7 }}{% raw %}.jpg",
)
PLAIN = ("labeled/001.hat/Plain.JPG", "unlabeled/waits.jpg", "unlabeled/copy.jpg")
WHY = "accuracy 0.9000 on 10 test rows, at least as good as champion version 1's 0.8000"
WHY_NOT = "accuracy 0.5000 on 10 test rows, worse than champion version 2's 0.9000"


@dataclass(frozen=True)
class SmallLake:
    """`runs` are those of versions 1 to 3, of which 2 is champion; `pictures` are the photos' bytes by path."""

    settings: Settings
    runs: list[str]
    pictures: dict[str, bytes]

    @property
    def lake(self) -> Lake:
        return Lake.at(self.settings.root)

    def image_id(self, path: str) -> str:
        return image_id_of(self.pictures[path])


def small_lake(root: Path) -> SmallLake:
    settings = Settings(root=str(root))
    pictures = {path: _picture(place) for place, path in enumerate((*HOSTILE, *PLAIN))}
    pictures["unlabeled/copy.jpg"] = pictures["unlabeled/waits.jpg"]
    made = SmallLake(settings, _models(settings), pictures)
    _photos(made)
    _words_of_models(made)
    _words_of_people(made)
    for folder, name in ((made.lake.reports, "image_gallery/index.html"), (made.lake.requests, "v2-b/index.html")):
        page = Path(folder, name)
        page.parent.mkdir(parents=True)
        page.write_text("<!doctype html><script>alert(1)</script><img src='a1.jpg'>")
    Path(made.lake.requests, "v2-b", "a1.jpg").write_bytes(pictures["unlabeled/waits.jpg"])
    return made


def _picture(place: int) -> bytes:
    """Return the bytes of a PNG, whatever the path ends in."""
    out = io.BytesIO()
    Image.new("RGB", (120, 80), (20 * place, 100, 200)).save(out, "PNG")
    return out.getvalue()


def _models(settings: Settings) -> list[str]:
    """Register three versions, of which the second became champion over the first, and the third did not."""
    with store_of(settings) as store:
        client = store.client
        experiment = client.get_experiment_by_name(store.experiment).experiment_id
        client.create_registered_model(MODEL)
        runs = []
        for accuracy in (0.8, 0.9, 0.5):
            run = client.create_run(experiment).info.run_id
            for name, value in (("", accuracy), ("_low", accuracy - 0.1), ("_high", accuracy + 0.05)):
                client.log_metric(run, f"test_accuracy{name}", value)
            client.log_param(run, "test_rows", 10)
            client.create_model_version(MODEL, f"{settings.root}/of-{run}", run)
            runs.append(run)
        client.set_registered_model_alias(MODEL, CHAMPION, "2")
        client.set_model_version_tag(MODEL, "3", TAG_VERDICT, WHY_NOT)
        history = """[
            {"version": 1, "over": null, "at": "2026-01-01T00:00:00+00:00", "why": "there was no champion",
             "run_id": "r"},
            {"version": 2, "over": 1, "at": "2026-01-02T00:00:00+00:00", "why": "%s", "run_id": "r"}]"""
        client.set_registered_model_tag(MODEL, TAG_PROMOTIONS, history % WHY)
    return runs


def _photos(made: SmallLake) -> None:
    images: list[dict[str, Any]] = [
        {"path": path, "image_id": made.image_id(path), "content": data, "length": len(data)}
        | {"landing": path.partition("/")[0], "folder": path.split("/")[-2]}
        for path, data in made.pictures.items()
    ]
    profiles = {image_id_of(data): {"image_id": image_id_of(data)} | profile(data) for data in made.pictures.values()}
    put(made.lake, "raw_images", *images)
    put(made.lake, "image_profiles", *profiles.values())
    put(
        made.lake,
        "labeled_images",
        *(
            {"path": path, "image_id": made.image_id(path), "source": "folder", "split": "test"}
            | (HAT if "hat" in path else MUG)
            for path in made.pictures
            if path.startswith("labeled/")
        ),
    )
    refused = {"reason": "not_an_image", "detail": "<b>no</b> picture"}
    put(
        made.lake,
        "quarantined_files",
        {"path": "unlabeled/<b>bad</b>.txt", "landing": "unlabeled"} | refused,
        {"path": "unlabeled/unwanted.txt", "landing": "unlabeled", "dropped_at": NOON} | refused,
    )
    put(made.lake, "deleted_files", {"path": PLAIN[0], "landing": "labeled", "deleted_at": NOON})


def _words_of_models(made: SmallLake) -> None:
    """The champion took every hostile one for the other class, each less surely; version 1 knew all."""
    rows: list[dict[str, Any]] = []
    for run in made.runs[:2]:
        for place, path in enumerate([path for path in made.pictures if path.startswith("labeled/")]):
            is_wrong = run == made.runs[1] and path in HOSTILE
            said = SAYS_MUG if is_wrong == ("hat" in path) else SAYS_HAT
            row = {"run_id": run, "path": path, "image_id": made.image_id(path), "confidence": 0.9 - place / 10}
            split = "validation" if "写真" in path else "test"
            rows.append(row | {"split": split} | (HAT if "hat" in path else MUG) | said)
    put(made.lake, "evaluated_rows", *rows)
    waits = {"path": "unlabeled/waits.jpg", "image_id": made.image_id("unlabeled/waits.jpg"), "model_name": MODEL}
    words = [
        waits | SAYS_HAT | {"model_version": 1, "confidence": 0.61},
        waits
        | SAYS_MUG
        | {"model_version": 2, "confidence": 0.52}
        | {"top_k": [{"label": 2, "name": "mug", "confidence": 0.52}, {"label": 1, "name": "hat", "confidence": 0.48}]},
    ]
    put(made.lake, "predictions", *words)
    put(made.lake, "predictions_current", words[1])


def _figures() -> list[Measure]:
    """What labelling bought, by figures that no page works out anew."""
    first, second = (ModelVersion(MODEL, version) for version in (1, 2))
    week = Period.week(NOON.date())
    return [
        Measure("accuracy", 0.5, 12, low=0.25, high=0.75, model=second),
        Measure("accuracy", 0.6, 10, low=0.3, high=0.85, model=second, period=week),
        Measure("accuracy", 0.9, 4, "audit", 0.5, 0.99, second),
        Measure("human_labels", 120, 700, model=second),
        Measure("gain_per_100_labels", 0.0125, 120, "since_previous", -0.01, 0.03, second),
        Measure("gain_per_100_labels", 0.02, 120, "since_first", -0.01, 0.03, second),
        Measure("cost_per_point", 12.5, 120, "since_first", 9.0, None, second),
        Measure("test_accuracy", 0.8, 10, low=0.7, high=0.85, model=first),
        Measure("accuracy", None, 0, "asked", model=second),
        Measure("audit_answered", 0.75, 8),
        Measure("requests", 20, 20, "asked"),
        Measure("requests", 13, 13, "answered"),
        Measure("requests", 3, 3, "asked", period=Period.day(NOON.date())),
        Measure("queue", 2, 2, "open"),
        Measure("queue_age", 5400.0, 2, "median"),
        Measure("queue_age", 3 * 86_400.0, 2, "oldest"),
        Measure("time_to_answer", 7_200.0, 13, "median"),
        Measure("time_to_answer", 90_000.0, 13, "p90"),
        Measure("answers_unmeasured", 4, 13),
        Measure("seconds_of_work", 90.0, 9),
        Measure("seconds_per_answer", 8.0, 9, "median"),
        Measure("cost", 1.5, 9),
        Measure("cost_per_label", 0.125, 9),
        Measure("answers_by_person", 12, 12, "<i>Ann</i>"),
        Measure("answers_by_person", 1, 1),
        Measure("answers_by_service", 13, 13, "page"),
    ]


def _words_of_people(made: SmallLake) -> None:
    def request(name: str, path: str, confidence: float, **more: Any) -> dict[str, Any]:
        row = {"request_id": name, "path": path, "image_id": made.image_id(path), "confidence": confidence}
        return row | SAYS_MUG | {"batch_id": "v2-b", "status": "open", "service": "folder", "strategy": "margin"} | more

    put(
        made.lake,
        "label_requests",
        request("a1", "unlabeled/waits.jpg", 0.52),
        request("a2", HOSTILE[3], 0.41),
        request("a3", HOSTILE[4], 0.3, batch_id="v1-a", status="answered"),
    )
    put(made.lake, "labeling_report", *(measure.row(NOON) for measure in _figures()))
    answered = {"request_id": "a3", "path": HOSTILE[4], "image_id": made.image_id(HOSTILE[4])}
    put(
        made.lake,
        "human_labels",
        answered | {"label": 1, "answer": "001.hat", "annotator": "<i>Ann</i>", "status": "accepted"},
        answered | {"answer": "<u>cap</u>", "annotator": "Bob", "status": "refused", "reason": "unknown class"},
    )
