"""The page for labelling, asked as its script asks: who is shown what, what is taken, and who is answered at all."""

import io
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from dlassets.engines.local import LocalEngine
from dlassets.images.digest import image_id_of
from dlassets.lakehouse.classes import merge_classes
from dlassets.lakehouse.snapshots import pin
from dlassets.settings import ServingSettings, Settings
from dlassets.storage.lake import Lake
from dlassets.web.serving.app import create_app as create_served_app
from dlassets.web.serving.label import queue
from dlassets.web.serving.label.alone import create_app
from dlassets_tests.programs import invoke
from dlassets_tests.tables import put
from dlassets_tests.web.serving.label_lake import HOSTILE, Person, label_lake, picture

TOKEN = "a-token-of-twenty-signs"
People = Callable[..., Person]


@contextmanager
def at(settings: Settings) -> Iterator[People]:
    """Give what seats people at a server of the page."""
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        yield lambda name, **more: Person(client, name, **more)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return label_lake(
        tmp_path,
        (0.5, 0.3, 0.4, 0.6, 0.2),
        a4={"priority": 5},
        a2={"answers_wanted": 2},
        a5={"status": "withdrawn"},
    )


@pytest.fixture
def people(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[People]:
    monkeypatch.setattr(queue, "LOOK_SECONDS", 0)
    with at(settings) as seated:
        yield seated


def answers_of(settings: Settings) -> list[dict[str, Any]]:
    folder = Path(Lake.at(settings.root).answers, "page")
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def test_what_matters_most_comes_first_then_what_the_model_is_least_sure_of(people: People) -> None:
    dealt = people("Ann").deal()

    assert [photo["id"] for photo in dealt["photos"]] == ["a4", "a2", "a3", "a1"]
    assert dealt["photos"][3] == {"id": "a1", "path": HOSTILE, "guess": 2, "confidence": 0.5}
    assert dealt["classes"]["all"] == [[2, "hat"], [6, "<b>shirt</b>"], [10, "t-shirt"]]
    assert dealt["progress"] == {"answered": 0, "of": 4, "mine": 0}


def test_an_answer_is_a_line_of_the_folder_of_answers_with_all_that_is_known(people: People, settings) -> None:
    ann = people("  Ann \t Lee ")
    assert ann.answer("a1", 6, seconds=4.321) is None
    assert ann.answer("a3", 2, seconds=-5) is None
    assert ann.act("a4", "skipped", seconds=1e9) is None
    assert ann.act("a1", "taken_back") is None

    lines = answers_of(settings)
    shown = ("request_id", "label", "annotator", "status", "seconds", "service")
    assert [tuple(line.get(name) for name in shown) for line in lines] == [
        ("a1", "6", "Ann Lee", "answered", 4.32, "page"),
        ("a3", "2", "Ann Lee", "answered", 0.0, "page"),
        ("a4", None, "Ann Lee", "skipped", 3600.0, "page"),
        ("a1", None, "Ann Lee", "taken_back", None, "page"),
    ]


def test_two_people_hold_no_photo_at_once_but_where_two_answers_are_wanted(people: People) -> None:
    ann, bob, cid = people("Ann"), people("Bob"), people("Cid")

    assert ann.next(2) == ["a4", "a2"]
    assert bob.next() == ["a2", "a3", "a1"]
    assert cid.next() == []
    assert ann.next(holds=["a4", "a2"]) == []

    ann.answer("a2")
    assert cid.next() == []  # Bob is about to give the second answer
    bob.answer("a2")
    assert [person.next() for person in (ann, bob, cid)] == [["a4"], ["a3", "a1"], []]


@pytest.fixture
def asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[People]:
    """Two people are to answer about the photo of a1, about which a2 asks, and a3 as a honeypot did."""
    monkeypatch.setattr(queue, "LOOK_SECONDS", 0)
    of_one = {"path": HOSTILE, "image_id": image_id_of(picture(1))}
    settings = label_lake(
        tmp_path,
        (0.5, 0.4, 0.3, 0.2),
        a1={"answers_wanted": 2, "status": "withdrawn"},
        a2={"answers_wanted": 2, **of_one},
        a3={"status": "answered", "strategy": "honeypot", **of_one},
    )
    with at(settings) as seated:
        yield seated


def test_nobody_is_asked_twice_about_a_photo_that_several_are_asked_about(asked_again: People) -> None:
    ann, bob, cid = asked_again("Ann"), asked_again("Bob"), asked_again("Cid")
    ann.answer("a1")  # on this page, and nobody has taken it in yet
    cid.answer("a3")

    assert ann.next() == ["a4"]
    assert bob.next() == ["a2"]
    assert cid.next() == []  # one answer more is wanted, and Bob is about to give it
    bob.act("a2", "skipped")
    assert cid.next() == ["a2"]
    assert cid.deal()["progress"]["answered"] == 1  # the honeypot
    cid.answer("a2")
    assert cid.deal()["progress"]["answered"] == 2


@pytest.mark.parametrize("of", ["a1", f"photo {image_id_of(picture(1))}"])
def test_nor_by_what_was_taken_in_and_nobody_asked_for(asked_again: People, tmp_path: Path, of: str) -> None:
    told = {"request_id": of, "label": 2, "annotator": "Ann", "status": "accepted", "image_id": image_id_of(picture(1))}
    put(Lake.at(str(tmp_path)), "human_labels", told)

    assert asked_again("Ann").next() == ["a4"]
    assert asked_again("Bob").next(1) == ["a2"]


def test_a_hand_has_one_request_about_a_photo_that_several_are_asked_about(tmp_path: Path) -> None:
    of_one = {"path": HOSTILE, "image_id": image_id_of(picture(1)), "answers_wanted": 2}
    with at(label_lake(tmp_path, (0.2, 0.3, 0.4), a1=of_one, a2=of_one)) as seated:
        ann = seated("Ann")
        assert ann.next() == ["a1", "a3"]
        ann.answer("a1")
        assert ann.next() == ["a3"]


@pytest.mark.parametrize("name", ["o'clock", "Ann; DROP TABLE human_labels --", "<script>alert(1)</script>"])
def test_a_name_is_text_whatever_is_in_it(people: People, settings: Settings, name: str) -> None:
    put(
        Lake.at(settings.root),
        "human_labels",
        {"request_id": "a2", "label": 2, "annotator": name, "status": "accepted"},
    )

    assert people(name).next() == ["a4", "a3", "a1"]
    assert people("Bob").next() == ["a2"]


def test_one_person_at_two_browsers_is_shown_two_photos_and_answers_for_both(people: People) -> None:
    desk, phone = people("Ann"), people("Ann", browser="phone")

    assert (desk.next(1), phone.next(1)) == (["a4"], ["a2"])
    phone.answer("a2")

    assert phone.next(4) == ["a3", "a1"]
    assert "a2" not in desk.next()


def test_what_nobody_asks_for_any_more_is_anybody_s_again(people: People, monkeypatch) -> None:
    people("Ann").next()
    bob = people("Bob")
    assert bob.next() == ["a2"]
    later = time.monotonic() + 200
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert bob.next() == ["a4", "a2", "a3", "a1"]


def test_a_skip_leaves_it_to_others_and_puts_it_last_for_that_person_also_after_a_restart(
    people: People, settings
) -> None:
    ann, bob = people("Ann"), people("Bob")
    ann.next()
    ann.act("a4", "skipped")

    assert bob.next(1) == ["a4"]
    bob.act("a4", "skipped")
    assert ann.next() == ["a2", "a3", "a1", "a4"]
    with at(settings) as again:
        assert again("Ann").next() == ["a2", "a3", "a1", "a4"]


def test_an_answer_taken_back_is_asked_again_and_what_is_answered_is_not_also_after_a_restart(
    people: People, settings
) -> None:
    ann = people("Ann")
    ann.answer("a4")
    ann.answer("a3")
    assert ann.act("a3", "taken_back") is None

    progress = ann.deal()["progress"]
    with at(settings) as again:
        assert again("Ann").next() == ["a2", "a3", "a1"]
        assert again("Ann").deal()["progress"] == progress == {"answered": 1, "of": 4, "mine": 1}


def test_what_is_answered_elsewhere_goes_at_the_next_look_and_an_answer_to_it_is_taken_all_the_same(
    people: People, settings
) -> None:
    ann = people("Ann")
    ann.next()
    put(
        Lake.at(settings.root),
        "human_labels",
        {"request_id": "a4", "label": 2, "annotator": None, "status": "accepted", "service": "folder"},
        {"request_id": "a2", "label": 2, "annotator": "Ann", "status": "accepted", "service": "labelstudio"},
        {"request_id": "a3", "label": None, "annotator": "Ann", "status": "refused", "service": "folder"},
    )

    dealt = ann.deal(holds=["a4", "a2", "a3", "a1"])

    assert dealt["kept"] == ["a3", "a1"]
    assert dealt["progress"]["answered"] == 1  # a2 wants another one
    assert ann.answer("a4", 10) is None
    assert people("Bob").next() == ["a2"]


def test_what_was_answered_here_and_refused_since_is_asked_again(people: People, settings) -> None:
    import datetime as dt

    ann = people("Ann")
    ann.answer("a4")
    (line,) = answers_of(settings)
    at_ = dt.datetime.fromisoformat(line["answered_at"])
    refused = {"request_id": "a4", "annotator": "Ann", "status": "refused", "answer": "2", "answered_at": at_}
    put(Lake.at(settings.root), "human_labels", refused)

    assert ann.next(1) == ["a4"]


def test_closed_requests_take_answers_and_what_is_none_is_said_and_keeps_no_other_back(people: People, settings):
    ann = people("Ann")
    good = {"id": "good", "request_id": "a5", "person": "Ann", "act": "answered", "label": 2}

    reply = ann.send(
        {**good, "id": "unknown", "request_id": "../../a1"},
        {**good, "id": "classless", "label": 3},
        {**good, "id": "unlabelled", "label": None},
        {**good, "id": "nameless", "person": " \u200b "},
        {**good, "id": "x" * 65},
        {**good, "id": "act", "act": "deleted"},
        {**good, "id": "odd", "label": "2"},
        {**good, "id": "seconds", "seconds": "soon"},
        [],
        good,
    )

    problems = reply.json()["problems"]
    assert problems[:3] == ["There is no such request.", "There is no class 3.", "There is no class None."]
    assert all(problems[:-1])
    assert problems[-1] is None
    assert [line["answer_id"] for line in answers_of(settings)] == ["good"]


def test_a_class_that_was_added_since_is_an_answer_at_once(settings) -> None:
    with at(settings) as seated:
        ann = seated("Ann")
        ann.next()
        put(Lake.at(settings.root), "classes", {"label": 12, "name": "scarf"})
        assert ann.answer("a4", 12) is None


def test_classes_that_were_merged_are_not_offered_and_mean_the_other(people: People, settings: Settings) -> None:
    ann = people("Ann")
    ann.next()
    merge_classes(LocalEngine(), pin(Lake.at(settings.root), "classes"), 2, 10, "ada")

    dealt = people("Bob").deal(1)
    assert dealt["classes"]["all"] == [[6, "<b>shirt</b>"], [10, "t-shirt"]]
    assert dealt["photos"][0]["guess"] == 10
    assert ann.answer("a4", 2) is None  # the page has the classes of before


def test_a_photo_is_had_by_its_request_alone_smaller_and_encoded_anew(people: People) -> None:
    client = people("Ann").client

    seen = client.get("/label/photo/a1")
    with Image.open(io.BytesIO(seen.content)) as image:
        assert (image.format, image.size, seen.headers["content-type"]) == ("JPEG", (320, 240), "image/jpeg")
    for name in ("unlabeled%2F2.jpg", "..%2F..%2Fetc%2Fpasswd", "a9", HOSTILE):
        assert client.get(f"/label/photo/{name}").status_code == 404


def test_where_the_disk_takes_nothing_the_page_is_told_and_the_same_answer_is_kept_later(people: People, settings):
    ann = people("Ann")
    ann.answer("a4")
    (file,) = Path(Lake.at(settings.root).answers, "page").glob("*.jsonl")
    one = {"id": "one", "request_id": "a1", "person": "Ann", "act": "answered", "label": 2}
    file.rename(file.with_suffix(".away"))
    os.mkfifo(file)

    refused = ann.send(one)
    assert (refused.status_code, "kept in this browser" in refused.json()["error"]) == (503, True)
    assert refused.headers["Retry-After"] == "5"

    file.unlink()
    assert ann.send(one).json()["problems"] == [None]
    assert [line["answer_id"] for line in answers_of(settings)] == ["one"]


def test_bodies_are_bounded_and_of_json_and_methods_are_what_they_are(people: People) -> None:
    client = people("Ann").client
    assert (
        client.post("/label/answers", content=b"[" * 2**19, headers={"Content-Type": "application/json"}).status_code
        == 413
    )
    assert client.post("/label/answers", content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert client.post("/label/next", json={"person": "Ann"}).status_code == 422
    assert client.get("/label/next").status_code == 405
    assert client.post("/label/photo/a1").status_code == 405


def test_the_page_has_no_script_but_its_own_file_and_nothing_from_elsewhere(people: People) -> None:
    client = people("Ann").client
    page = client.get("/label")  # which leads to /label/
    assert page.status_code == 200
    assert str(page.url) == "http://localhost/label/"
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert page.text.count("<script") == 1
    assert "style=" not in page.text
    for name in ("label.js", "label.css", "style.css", "icon.svg"):
        assert client.get(f"/label/{name}").status_code == 200
    assert "innerHTML" not in client.get("/label/label.js").text


def test_without_a_token_other_sites_pages_are_refused(people: People) -> None:
    client = people("Ann").client
    asked = {"person": "Ann", "browser": "b", "most": 1}
    for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"Sec-Fetch-Site": "same-site"}):
        assert client.post("/label/next", json=asked, headers=headers).status_code in {403, 421}


@pytest.mark.parametrize("create", [create_app, create_served_app])
def test_with_a_token_the_page_opens_and_nothing_else_without_it(settings, create, tmp_path) -> None:
    serving = ServingSettings(token=TOKEN, host="0.0.0.0")
    client = TestClient(create(settings.model_copy(update={"serving": serving})), base_url="http://192.168.1.7:4001")

    for path in ("/label/", "/label/label.js", "/label/style.css"):
        assert client.get(path).status_code == 200
    stranger, ann = Person(client, "Eve"), Person(client, "Ann", token=TOKEN)
    assert stranger.send().status_code == 401
    assert client.post("/label/next", json={}).status_code == 401
    assert client.get("/label/photo/a1").status_code == 401
    assert client.get("/label/photo/a1", params={"token": TOKEN}).status_code == 401
    assert ann.next(1) == ["a4"]


def test_where_the_lake_is_no_folder_the_page_says_what_it_needs() -> None:
    with at(Settings(root="s3://bucket/lake")) as seated:
        reply = seated("Ann").client.post("/label/answers", json={"browser": "b", "answers": []})
    assert reply.status_code == 503


def test_no_lake_is_made_by_a_slip_of_the_hand(tmp_path) -> None:
    done = invoke("label", DLASSETS_ROOT=str(tmp_path / "nothing"))
    assert done.exit_code == 1
    assert "There is no lake" in done.output
    assert not (tmp_path / "nothing").exists()
