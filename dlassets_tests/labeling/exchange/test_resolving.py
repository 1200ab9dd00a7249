"""Which of several requests about a photo an answer is to."""

import datetime as dt
from typing import Any

import pytest

from dlassets.labeling.exchange.base import ForeignAnswer
from dlassets.labeling.exchange.flat import answer_of
from dlassets.labeling.exchange.resolving import Known, Target
from dlassets_tests.labeling.conftest import Bench, image_id, raw_image


@pytest.fixture
def asked(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    bench = Bench(tmp_path_factory.mktemp("asked"))
    bench.add_photos("ann", "bob")
    return bench


def request(name: str, about: str, status: str, day: int, path: str = "") -> dict[str, Any]:
    told = {"request_id": name, "path": path or f"unlabeled/{about}.jpg", "image_id": image_id(about)}
    return {**told, "status": status, "requested_at": dt.datetime(2026, 1, day, tzinfo=dt.UTC)}


def target(bench: Bench, photo: str) -> Target:
    known = Known(bench.engine, bench.pin("label_requests"), bench.pin("raw_images"))
    (found,) = known.targets([ForeignAnswer("line 1", photo)])
    return found


def test_it_is_to_the_one_that_waits_else_to_the_newest(asked: Bench) -> None:
    asked.add(
        "label_requests",
        [
            request("a1", "ann", "open", 1),
            request("a2", "ann", "withdrawn", 3),
            request("b3", "bob", "answered", 1),
            request("b1", "bob", "withdrawn", 2),
        ],
    )

    assert target(asked, "ann.jpg") == target(asked, image_id("ann")) == Target("a1")
    assert target(asked, "unlabeled/bob.jpg") == Target("b1")


def test_it_is_to_what_was_asked_though_other_bytes_lie_there_by_now(asked: Bench) -> None:
    asked.add("label_requests", [request("a1", "ann", "open", 1)])
    asked.replace_photo(raw_image("other", "unlabeled/ann.jpg"))

    assert target(asked, "unlabeled/ann.jpg") == Target("a1")
    assert target(asked, image_id("other")) == Target(image_id=image_id("other"))


def test_what_keeps_a_spreadsheet_from_a_formula_is_none_of_the_name(asked: Bench) -> None:
    asked.add("raw_images", [raw_image("odd", "unlabeled/=1+1.jpg")])

    photo = answer_of("line 1", {"path": "'=1+1.jpg", "label": "hat"}).photo

    assert target(asked, photo) == Target(image_id=image_id("odd"))
