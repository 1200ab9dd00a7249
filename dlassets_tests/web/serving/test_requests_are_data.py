"""The server with `serving.log_requests`: what it answered is a row, whatever becomes of it."""

import signal
from collections import Counter
from pathlib import Path

import pytest

from dlassets.engines.local import LocalEngine
from dlassets.images.digest import image_id_of
from dlassets.registry.lifecycle import CHALLENGER
from dlassets.scoring.served import merge_served
from dlassets.settings import ServingSettings, Settings
from dlassets_tests.registry.conftest import MODEL
from dlassets_tests.tables import get
from dlassets_tests.web.serving.service import CLIENTS, asking, serving

pytestmark = pytest.mark.slow


def lake_of(root: Path, folder: Path) -> Settings:
    return Settings(root=str(root), serving=ServingSettings(log_requests=True, log_folder=str(folder)))


def test_a_killed_server_has_a_row_of_every_answer_and_of_each_one(models, tmp_path) -> None:
    logs, folder = {"DLASSETS_SERVING__LOG_REQUESTS": "true"}, tmp_path / "requests"
    environment = {**logs, "DLASSETS_SERVING__LOG_FOLDER": str(folder)}
    answered: dict[str, tuple[int, int]] = {}
    with (
        serving(models.settings.root, tmp_path / "log", environment) as served,
        asking(served, models.photos, answered),
    ):
        served.awaited(lambda: len(answered) > 40)
        served.process.send_signal(signal.SIGKILL)
        served.process.wait()

    lake = lake_of(tmp_path / "lake", folder)
    merge_served(LocalEngine(), lake, {})
    merge_served(LocalEngine(), lake, {})

    rows = {row["request_id"]: row for row in _rows(lake)}
    assert {*Counter(row["request_id"] for row in _rows(lake)).values()} == {1}
    assert {name: (rows[name]["model_version"], rows[name]["predicted_label"]) for name in answered} == answered
    assert len(rows) <= len(answered) + CLIENTS  # those that were written down, and not sent any more
    assert {row["image_id"] for row in rows.values()} == {image_id_of(photo) for photo in models.photos}


def test_a_server_that_ends_merges_what_it_said_and_what_its_challenger_would_have(models, tmp_path) -> None:
    models.client.set_registered_model_alias(MODEL, CHALLENGER, "2")
    names = ("log_requests", "log_bytes", "challengers")
    environment = {f"DLASSETS_SERVING__{name.upper()}": "true" for name in names}
    try:
        with serving(models.settings.root, tmp_path / "log", environment) as served:
            asked = served.ask("/predict", models.photos[0], X_Request_Id="mine")
    finally:
        models.client.delete_registered_model_alias(MODEL, CHALLENGER)

    champion, challenger = (row for row in _rows(models.settings) if row["request_id"] == "mine")
    assert [(row["role"], row["model_version"]) for row in (champion, challenger)] == [
        ("champion", 1),
        ("challenger", 2),
    ]
    assert champion["confidence"] == asked.tree["confidence"]
    assert challenger["confidence"] < champion["confidence"]
    assert (champion["content"], challenger["content"]) == (models.photos[0], None)
    assert not [path for path in Path(models.settings.root, "serving/ahead").iterdir() if path.is_dir()]


def _rows(settings: Settings) -> list[dict]:
    from dlassets.storage.lake import Lake

    return get(LocalEngine(), Lake.at(settings.root), "served_requests")
