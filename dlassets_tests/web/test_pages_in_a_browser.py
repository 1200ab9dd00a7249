"""A newcomer's ways, by clicks, from the page that `make dev` names first; and README's pictures of what they see.

`make pictures` takes these of the default demo's lake, and of the same pages. Without `--pictures` the lake is smaller.
"""

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dlassets.monitoring.views.models import models_of
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.settings import LabelingSettings, Settings, UiSettings
from dlassets.web.ports import HOST
from dlassets_tests.browser import Person, chromium, needs_chromium
from dlassets_tests.registry.conftest import opened
from dlassets_tests.servers import free_port, serving
from dlassets_tests.tables import get
from dlassets_tests.web.label_pages import opened_page, progressed

pytestmark = [pytest.mark.slow, needs_chromium]

SMALL = ("--classes", "4", "--per-class", "20")
MOST_CLICKS = 2
_COLOURS = 256
# Milliseconds: Dagster's first page takes many on a machine that does other things as well.
_PATIENCE = 120_000


@dataclass(frozen=True)
class Served:
    """A lake that the demo has made, in which people are asked about a few photos, and all its servers."""

    settings: Settings
    browser: Any
    addresses: dict[str, str]
    pictures: Path | None

    def newcomer(self) -> Person:
        """Return someone who has opened the page that `dlassets dev` names first."""
        page = self.browser.new_page(viewport={"width": 1280, "height": 860})
        page.set_default_timeout(_PATIENCE)
        page.goto(self.addresses["Start here"])
        return Person(page)

    def take(self, page: Any, name: str) -> None:
        """Take a picture of what is seen, of few colours, where pictures are asked for."""
        if self.pictures is not None:
            with Image.open(io.BytesIO(page.screenshot())) as seen:
                seen.convert("RGB").quantize(_COLOURS).save(self.pictures / f"{name}.png", optimize=True)

    def rows(self, table: str, columns: str = "*") -> list[dict[str, Any]]:
        session = Session(self.settings)
        return get(session.engine, session.lake, table, columns)


@pytest.fixture(scope="module")
def pictures(request: pytest.FixtureRequest) -> Path | None:
    given = request.config.getoption("--pictures")
    return Path(given) if given else None


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, pictures: Path | None) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    port = free_port()
    address = f"http://{HOST}:{port}"
    settings = Settings(root=str(folder / "lake"), labeling=LabelingSettings(threshold=1), ui=UiSettings(pages=address))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLASSETS_ROOT", settings.root)
        patch.setenv("DLASSETS_UI__PAGES", address)  # what is materialized links the pages
        patch.delenv("DAGSTER_HOME", raising=False)
        demo = [sys.executable, "-m", "dlassets", "demo", *(() if pictures else SMALL)]
        subprocess.run(demo, check=True, capture_output=True)
        with opened(settings) as store:  # everything that people have not answered is asked anew
            session = Session(settings)
            session.mlflow = store
            steps.label_requests.run(session)
        with serving(folder, module="dlassets.definitions", pages_port=port) as (_, addresses), chromium() as browser:
            yield Served(settings, browser, addresses, pictures)


def test_who_is_champion_and_why_is_on_the_first_page(served):
    person = served.newcomer()

    champion = Session(served.settings).champion()
    assert person.reads(f"image_classifier version {champion.version}")
    assert re.search(r"Why: .*\d+ test (rows|photos)", person.page.inner_text(".verdict"))
    assert person.page.locator(".score").inner_text().strip().endswith("%")
    served.take(person.page, "start")
    person.click("Its version in MLflow")
    person.page.get_by_text(f"Version {champion.version}").first.wait_for()
    assert person.clicks <= MOST_CLICKS


def test_which_photos_were_wrong_is_one_click_away_with_names_and_pictures(served):
    person = served.newcomer()

    person.click("Which photos were wrong?")

    assert person.clicks <= MOST_CLICKS
    champion = person.page.locator("nav[aria-label=Version] a[aria-current]").inner_text()
    number = int(re.search(r"version (\d+) · champion", champion)[1])
    run_id = models_of(served.settings).version(number).run_id
    rows = [row for row in served.rows("evaluated_rows") if row["run_id"] == run_id]
    wrong = [row for row in rows if row["label"] != row["predicted_label"]]
    wrong.sort(key=lambda row: (-row["confidence"], row["path"]))
    assert person.reads(f"Version {number} was wrong on {len(wrong)} of {len(rows)} test and validation photos")
    shown = person.page.locator(".card img")
    names = [row["path"].rpartition("/")[2] for row in wrong]
    assert [image.get_attribute("alt") for image in shown.all()] == names[:60]
    assert all(image.evaluate("image => image.complete && image.naturalWidth > 0") for image in shown.all()[:5])
    served.take(person.page, "wrong-photos")
    assert person.problems == []


def test_what_was_said_of_a_photo_is_found_by_a_part_of_its_name(served):
    asked = max(served.rows("predictions"), key=lambda row: (row["model_version"], row["path"]))
    name = asked["path"].rpartition("/")[2]
    person = served.newcomer()

    person.page.get_by_role("searchbox").fill(name.partition(".")[0])
    person.click("Find", role="button")
    person.click(name)

    assert person.clicks <= MOST_CLICKS
    assert person.page.locator("h1").inner_text() == name
    assert person.page.locator("figure img").evaluate("image => image.complete && image.naturalWidth > 96")
    said = person.page.locator("table").first.inner_text()
    assert f"version {asked['model_version']}" in said
    assert asked["predicted_name"] in said
    assert f"{asked['confidence']:.1%}" in said
    assert person.problems == []


def test_what_waits_for_people_is_one_click_away_and_its_contact_sheet_two(served):
    waiting = [row for row in served.rows("label_requests") if row["status"] == "open"]
    assert waiting
    person = served.newcomer()

    person.click("What waits for people?")
    assert person.reads(f"{len(waiting)} photo")
    assert person.reads(f"{served.settings.root}/labeling/answers")
    person.click("Contact sheet")

    assert person.clicks <= MOST_CLICKS
    photos = person.page.locator("figure img")
    photos.first.wait_for()
    photos.first.scroll_into_view_if_needed()
    assert photos.first.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    assert person.problems == []


def test_links_in_dagster_open_the_gallery_the_contact_sheet_and_the_wrong_photos(served):
    person = served.newcomer()
    for asset, link, seen in (
        ("image_profiles", "/files/reports/image_gallery/index.html", "Image gallery"),
        ("label_requests", "/requests", "What waits for people"),
        ("trained_model", "/wrong?run=", "Which photos were wrong"),
    ):
        person.page.goto(f"{served.addresses['Dagster']}/assets/{asset}")
        found = person.page.locator(f"a[href^='{served.addresses['Start here']}{link}']").first
        found.wait_for()
        person.page.goto(found.get_attribute("href"))
        assert person.page.locator("h1").inner_text() == seen


def test_dagster_shows_the_demo_s_runs_by_job_and_the_graph(served):
    page = served.newcomer().page

    page.goto(f"{served.addresses['Dagster']}/overview/activity/timeline")
    for job in ("training_pipeline", "scoring_pipeline", "labeling_pipeline"):
        page.get_by_role("link", name=job).first.wait_for()
    page.goto(f"{served.addresses['Dagster']}/asset-groups/")
    page.get_by_text("training", exact=True).first.wait_for()
    page.goto(f"{served.addresses['Dagster']}/locations/dlassets/asset-groups/labeling")
    for asset in ("label_requests", "human_labels", "labeling_report"):
        page.get_by_text(asset, exact=True).first.wait_for()


def test_mlflow_opens_on_the_models_and_a_version_says_how_good_it_is_and_why_it_is_champion(served):
    page, champion = served.newcomer().page, Session(served.settings).champion()

    page.goto(served.addresses["MLflow"])
    page.get_by_role("link", name="image_classifier").first.wait_for()
    page.goto(f"{served.addresses['MLflow']}/#/models/image_classifier/versions/{champion.version}")
    page.get_by_text("Champion since").first.wait_for()
    picture = page.locator("img[src*='confusion_matrix.png']")
    picture.wait_for()

    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    served.take(page, "mlflow-version")


def test_a_phone_and_a_dark_room_are_no_worse(served):
    context = served.browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page = context.new_page()
    path = served.rows("raw_images", "path")[0]["path"]

    for name, asked in (("", {}), ("wrong", {}), ("photo", {"path": path}), ("photo", {"q": "a"}), ("requests", {})):
        page.goto(served.settings.ui.page(name, **asked))
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, name
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", ground))) < 60
    context.close()


def test_a_photo_that_waits_is_answered_on_the_page_and_its_label_changes(served):
    with opened_page(served.settings, served.browser) as (page, address):
        person = page.person("Ann", address)
        person.page.set_viewport_size({"width": 900, "height": 560})  # photos are what makes a picture large
        served.take(person.page, "label-page")
        person.page.keyboard.press("Enter")
        progressed(person, "1 by you")
        (line,) = page.lines
    with opened(served.settings) as store:
        session = Session(served.settings)
        session.mlflow = store
        steps.human_labels.run(session)
        steps.labeled_images.run(session)

    (asked,) = (row for row in served.rows("label_requests") if row["request_id"] == line["request_id"])
    (known,) = (row for row in served.rows("labeled_images") if row["path"] == asked["path"])
    assert (known["label"], known["source"], known["annotator"]) == (asked["predicted_label"], "human", "Ann")
    assert person.problems == []
