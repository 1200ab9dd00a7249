"""Somebody with a browser: logs in to Label Studio, sees a photo and what the model thinks, answers, and it counts."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dlassets.labeling.label_studio.service import LabelStudioService
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.settings import LabelStudioSettings, Settings
from dlassets_tests.browser import chromium, needs_chromium
from dlassets_tests.label_studio_servers import LabelStudioServer, label_studio, needs_label_studio

from .conftest import MODEL, Bench

pytestmark = [pytest.mark.slow, needs_chromium, needs_label_studio]

HOSTILE = "<img src=x onerror=alert(1)>"
_COLOURS = 96
# Milliseconds: its first page takes many on a machine that does other things as well.
_PATIENCE = 60_000


def ask_about(bench: Bench, photos: Path) -> None:
    """Ask people about four real photos, of which the first has a name with HTML in it."""
    bench.add("classes", [{"label": 11, "name": HOSTILE}])
    for nth, photo in enumerate(sorted(photos.glob("*/*.jpg"))[::20][:4]):
        content = photo.read_bytes()
        path, image_id = f"unlabeled/{HOSTILE if nth == 0 else nth}.jpg", hashlib.sha256(content).hexdigest()
        row = {"path": path, "image_id": image_id}
        bench.add("raw_images", [row | {"length": len(content), "content": content, "landing": "unlabeled"}])
        scored = {"model_name": MODEL, "model_version": 3, "predicted_label": 2, "predicted_name": "hat", "top_k": []}
        bench.add("predictions", [row | scored | {"confidence": 0.25 + nth / 8}])
    bench.send()


def logged_in(server: LabelStudioServer, browser: Any) -> Any:
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    page.set_default_timeout(_PATIENCE)
    page.goto(f"{server.login.url}/user/login/")
    page.fill("input[name=email]", server.login.email)
    page.fill("input[name=password]", server.login.password)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(lambda url: "login" not in url, wait_until="domcontentloaded")
    return page


def test_a_person_logs_in_answers_three_and_labeled_images_has_them(
    bench: Bench, few_photos: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with label_studio(tmp_path) as server, chromium() as browser:
        bench.service = LabelStudioService(LabelStudioSettings(), server.lake)  # the lake's own
        ask_about(bench, few_photos)
        page = logged_in(server, browser)
        alerts: list[str] = []
        page.on("dialog", lambda dialog: alerts.append(dialog.message))
        page.goto(f"{bench.service.project.address}/data")
        page.get_by_role("button", name="Label All Tasks").click()

        page.get_by_text(f"{HOSTILE}.jpg: the model thinks hat, 25% sure").wait_for()
        photo = page.locator("img[alt=image], .lsf-image img, img[src*='/data/upload/']").first
        photo.wait_for()
        assert photo.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        guess = page.locator("input[type=radio][name='hat']")
        assert guess.is_checked()
        assert page.get_by_text(HOSTILE, exact=False).count() >= 2  # the photo's name, and the class's
        for nth, key in enumerate([None, "2", "4"]):  # the first is what the model thinks
            name = HOSTILE if nth == 0 else str(nth)
            page.get_by_text(f"{name}.jpg: the model thinks hat").wait_for()
            if nth == 1 and (pictures := request.config.getoption("--pictures")):
                photo.wait_for()
                with Image.open(io.BytesIO(page.screenshot())) as seen:
                    seen.convert("RGB").quantize(_COLOURS).save(Path(pictures, "label-studio.png"), optimize=True)
            if key is not None:
                page.keyboard.press(key)
            page.get_by_role("button", name="Submit current annotation").click()
        page.get_by_text("3.jpg: the model thinks hat").wait_for()
        assert alerts == []

        session = Session(Settings.model_validate({"root": bench.lake.root, "labeling": {"service": "labelstudio"}}))
        steps.human_labels.run(session)
        steps.labeled_images.run(session)

    labels = {row["path"]: (row["label"], row["source"]) for row in bench.rows("labeled_images")}
    assert labels == {
        f"unlabeled/{HOSTILE}.jpg": (2, "human"),
        "unlabeled/1.jpg": (6, "human"),
        "unlabeled/2.jpg": (11, "human"),
    }
    assert {row["annotator"] for row in bench.rows("human_labels")} == {server.login.email}
    assert all(row["seconds"] > 0 for row in bench.rows("human_labels"))
