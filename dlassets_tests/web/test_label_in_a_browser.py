"""People at the page for labelling, in a real browser: by keys, on a phone, and while the server is away."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dlassets.engines.local import LocalEngine
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.browser import chromium, needs_chromium
from dlassets_tests.registry.conftest import opened
from dlassets_tests.tables import get, put
from dlassets_tests.web.label_pages import PHONE, opened_page, progressed, sees
from dlassets_tests.web.serving.label_lake import CLASSES, HOSTILE, label_lake

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened_:
        yield opened_


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return label_lake(tmp_path / "lake", [place / 20 for place in range(1, 13)])


def test_three_are_answered_by_keys_and_one_is_taken_back_and_the_labels_follow(settings, browser) -> None:
    with opened_page(settings, browser) as (served, address):
        ann = served.person("Ann", address)
        for key, path in (("Enter", HOSTILE), ("2", "2.jpg"), ("s", "3.jpg"), ("3", "4.jpg"), ("1", "5.jpg")):
            sees(ann, path)
            ann.page.keyboard.press(key)
        sees(ann, "6.jpg")
        progressed(ann, "4 of 12 answered · 4 by you")
        ann.page.keyboard.press("Control+z")
        sees(ann, "5.jpg")
        assert "your answer before" in ann.page.inner_text("#accept")
        progressed(ann, "3 of 12 answered · 3 by you")

        assert served.has_answers(6) == [
            ("a1", "2", "answered"),
            ("a2", "6", "answered"),
            ("a3", None, "skipped"),
            ("a4", "10", "answered"),
            ("a5", "2", "answered"),
            ("a5", None, "taken_back"),
        ]
        assert all(0 < line["seconds"] < 60 for line in served.lines if line["status"] == "answered")
        assert ann.problems == []
        assert ann.reads(CLASSES[6])

    lake = Lake.at(settings.root)
    with opened(settings) as store:
        session = Session(settings)
        session.mlflow = store
        steps.human_labels.run(session)
        steps.labeled_images.run(session)
    rows = get(LocalEngine(), lake, "labeled_images", "path, label, source, annotator")
    assert [(row["path"], row["label"], row["source"], row["annotator"]) for row in rows] == sorted(
        [(HOSTILE, 2, "human", "Ann"), ("unlabeled/2.jpg", 6, "human", "Ann"), ("unlabeled/4.jpg", 10, "human", "Ann")],
        key=lambda row: repr({"path": row[0]}),
    )


def test_on_a_phone_with_a_token_nothing_is_wider_than_the_screen_and_thumbs_answer(settings, browser) -> None:
    with opened_page(settings, browser, is_public=True) as (served, printed):
        address, _, token = printed.partition("#token=")
        assert address.endswith(f":{served.port}/label/")
        assert len(token) >= 32
        assert not printed.startswith("http://0.0.0.0")
        own = f"http://127.0.0.1:{served.port}/label/"
        ann = served.person("Ann", f"{own}#token={token}", **PHONE)

        assert ann.page.url == own
        assert ann.page.evaluate("document.documentElement.scrollWidth") <= 375
        assert ann.page.evaluate("document.documentElement.scrollHeight") <= 667
        for button in ann.page.locator("#choices button:visible").all():
            box = button.bounding_box()
            assert box["height"] >= 44
            assert box["y"] + box["height"] <= 667
        ann.page.locator("#accept").tap()
        sees(ann, "2.jpg")
        ann.page.get_by_role("button", name="t-shirt").tap()
        sees(ann, "3.jpg")
        ann.page.get_by_role("button", name="Skip").tap()
        sees(ann, "4.jpg")
        ann.page.get_by_role("button", name="Undo").tap()
        sees(ann, "3.jpg")
        progressed(ann, "2 of 12 answered · 2 by you")
        assert served.has_answers(3) == [("a1", "2", "answered"), ("a2", "10", "answered"), ("a3", None, "skipped")]

        ann.page.reload()  # the browser has kept the token and the name
        sees(ann)
        stranger = served.browser.new_page()
        stranger.goto(own)
        stranger.get_by_label("Your name").fill("Eve")
        stranger.keyboard.press("Enter")
        stranger.get_by_label("Token").wait_for()


def test_while_the_server_is_away_answers_are_kept_and_then_sent_once_also_after_a_reload(settings, browser) -> None:
    with opened_page(settings, browser) as (served, address):
        ann = served.person("Ann", address)
        ann.page.wait_for_function(
            "() => performance.getEntriesByType('resource').filter(e => e.name.includes('/photo/')).length >= 8"
        )
        served.end(signal.SIGKILL)
        for path in (HOSTILE, "2.jpg", "3.jpg"):
            sees(ann, path)
            ann.page.keyboard.press("Enter")
        ann.page.get_by_text("3 of your answers wait in this browser").wait_for()
        assert served.answers == []

        served.start()
        progressed(ann, "3 of 12 answered · 3 by you")
        ann.page.get_by_text("wait in this browser").wait_for(state="hidden")
        assert [name for name, _, _ in served.answers] == ["a1", "a2", "a3"]

        sees(ann, "4.jpg")
        ann.page.context.route("**/answers", lambda route: route.abort())
        ann.page.keyboard.press("Enter")
        ann.page.get_by_text("1 of your answers waits in this browser").wait_for()
        ann.page.reload()
        ann.page.get_by_text("1 of your answers waits in this browser").wait_for()
        ann.page.context.unroute("**/answers")
        progressed(ann, "4 of 12 answered · 4 by you")
        assert [name for name, _, _ in served.answers] == ["a1", "a2", "a3", "a4"]


def test_of_many_classes_one_is_found_by_typing_and_by_turning_pages(settings, browser) -> None:
    put(Lake.at(settings.root), "classes", *({"label": 20 + n, "name": f"kind {n:02}"} for n in range(30)))
    with opened_page(settings, browser) as (served, address):
        ann = served.person("Ann", address)
        ann.page.keyboard.press("/")
        ann.page.keyboard.type("kind 17")
        ann.page.keyboard.press("Enter")
        sees(ann, "2.jpg")
        ann.page.keyboard.press("ArrowRight")
        assert ann.page.inner_text("#page") == "2 of 4"
        assert ann.page.locator("#classes button").first.inner_text().split() == ["1", "kind", "06"]
        ann.page.keyboard.press("2")
        sees(ann, "3.jpg")
        assert ann.page.inner_text("#page") == "1 of 4"
        progressed(ann, "2 by you")
        assert [(name, label) for name, label, _ in served.answers] == [("a1", "37"), ("a2", "27")]


def test_a_key_that_is_held_down_answers_once_and_who_cannot_see_is_told(settings, browser) -> None:
    with opened_page(settings, browser) as (served, address):
        ann = served.person("Ann", address)
        page = ann.page
        assert "The model's guess: hat, 5 %" in page.inner_text("#spoken")
        page.keyboard.down("Enter")
        for _ in range(5):  # what a browser repeats
            page.keyboard.down("Enter")
        page.keyboard.up("Enter")
        sees(ann, "2.jpg")
        progressed(ann, "1 by you")
        assert len(served.answers) == 1

        assert page.get_by_role("group", name="Classes").get_by_role("button").count() == 3
        unnamed = "e => e.checkVisibility() && !(e.ariaLabel || e.innerText || e.labels?.length)"
        assert page.evaluate(f"[...document.querySelectorAll('button, input')].filter({unnamed}).length") == 0


def test_when_nothing_waits_the_page_says_so_and_looks_again_by_itself(tmp_path, browser) -> None:
    settings = label_lake(tmp_path / "lake", [0.5])
    with opened_page(settings, browser) as (served, address):
        ann = served.person("Ann", address)
        ann.page.keyboard.press("Enter")
        ann.page.get_by_text("Nothing waits for you now.").wait_for()
        ann.page.keyboard.press("u")
        sees(ann, HOSTILE)
        ann.page.keyboard.press("2")
        ann.page.get_by_text("Nothing waits for you now.").wait_for()
        row = {"request_id": "b1", "path": HOSTILE, "status": "open", "predicted_label": 6, "confidence": 0.7}
        known = get(LocalEngine(), Lake.at(settings.root), "label_requests")[0]
        put(Lake.at(settings.root), "label_requests", known | row)
        sees(ann, HOSTILE)
        assert "<b>shirt</b>" in ann.page.inner_text("#accept")
        assert [label for _, label, _ in served.answers] == ["2", None, "6"]
