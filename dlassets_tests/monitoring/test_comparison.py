"""Two versions beside each other: the figures are those that a person would count."""

import datetime as dt
from typing import Any

import pytest

from dlassets.errors import DlassetsError
from dlassets.lakehouse.snapshots import pin
from dlassets.monitoring import markdown
from dlassets.monitoring.outcomes import judged_answers
from dlassets.monitoring.views.comparison import Difference, Judged, Pair, compare, versions_that_answered
from dlassets.monitoring.views.reading import Reading
from dlassets.registry.models import ModelVersion
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.programs import invoke
from dlassets_tests.tables import NOON, image_id, labelled, put

NAME = "image_classifier"
LATER = NOON + dt.timedelta(hours=1)
CLASSES = {1: "hat", 2: "mug", 3: "coat"}


def said(name: str, version: int, label: int, confidence: float, **more: Any) -> dict[str, Any]:
    row = {"path": f"unlabeled/{name}.jpg", "image_id": image_id(name), "model_name": NAME, "model_version": version}
    return row | {"predicted_label": label, "predicted_name": CLASSES[label], "confidence": confidence} | more


@pytest.fixture
def compared(settings: Settings, lake: Lake) -> Settings:
    """Ten photos by versions 1 and 2 of `p`; one under two paths, one served alone, one by version 1 alone."""
    ones = "a1 b1 c1 d1 e2 f2 g2 h3"  # what version 1 says
    twos = "a1 b1 c1 d2 e2 f2 g1 h1"
    for version, answers in ((1, ones), (2, twos)):
        sure = 0.5 if version == 1 else 0.75
        rows = [said(name, version, int(label), sure, package="p") for name, label in map(tuple, answers.split())]
        put(lake, "predictions", *rows, {**rows[0], "path": "unlabeled/copy of a.jpg"})
        of_request = {"request_id": "r", "role": "champion", "package": "p"}
        put(lake, "served_requests", said("i", version, version, 1.0, **of_request))
    put(lake, "predictions", said("j", 1, 1, 0.5, package="p"))
    put(lake, "predictions", said("a", 2, 3, 0.1, scored_at=NOON - dt.timedelta(days=1)))  # of a lost store's version 2
    put(
        lake,
        "labeled_images",
        labelled("a", 1, source="human", labeled_at=LATER),  # both are right
        labelled("d", 2, source="human", labeled_at=LATER),  # 2 alone
        labelled("g", 1, source="human", labeled_at=LATER),  # 2 alone
        labelled("i", 2, source="human", labeled_at=LATER),  # 2 alone: a served photo
        labelled("h", 2, source="human", labeled_at=LATER, split="test"),  # neither
        labelled("e", 2, source="folder", split="test", labeled_at=NOON - dt.timedelta(days=9)),  # both
        labelled("b", 1, source="human", labeled_at=NOON - dt.timedelta(days=9)),  # who learned from it may know it
        labelled("c", 1, source="folder", labeled_at=LATER),  # a folder's, on the side that models learn from
    )
    return settings


def test_the_figures_are_those_that_a_person_would_count(compared) -> None:
    found = compare(Reading(compared), 1, 2)

    assert (found.a, found.b) == (ModelVersion(NAME, 1, "p"), ModelVersion(NAME, 2, "p"))
    assert (found.photos, found.agree) == (9, 5)
    assert found.confidence_a == pytest.approx((8 * 0.5 + 1) / 9)
    assert found.confidence_b == pytest.approx((8 * 0.75 + 1) / 9)
    assert found.pairs == [Pair("hat", "mug", 2), Pair("mug", "hat", 1), Pair("coat", "hat", 1)]
    assert found.people == Judged(both=1, only_a=0, only_b=3, neither=1)
    assert found.test == Judged(both=1, only_a=0, only_b=0, neither=1)
    assert found.people.p == pytest.approx(2 * 0.5**3)
    assert (found.people.right_a, found.people.right_b, found.people.photos) == (1, 4, 5)
    first, *others = found.shown
    assert first == Difference(image_id("i"), None, "hat", 1.0, "mug", 1.0, "class 2")
    assert {each.path for each in others} == {f"unlabeled/{name}.jpg" for name in "dgh"}


def test_the_other_way_round_is_the_same_turned_over(compared) -> None:
    one, other = (compare(Reading(compared), *versions) for versions in ((1, 2), (2, 1)))

    assert (other.photos, other.agree, other.people.p) == (one.photos, one.agree, one.people.p)
    assert other.people == Judged(both=1, only_a=3, only_b=0, neither=1)
    assert {(pair.name_b, pair.name_a, pair.photos) for pair in other.pairs} == {
        (pair.name_a, pair.name_b, pair.photos) for pair in one.pairs
    }


def test_a_number_that_was_given_twice_is_the_version_that_answered_last(compared) -> None:
    assert versions_that_answered(Reading(compared)) == {n: ModelVersion(NAME, n, "p") for n in (1, 2)}


def test_a_version_that_answered_nothing_is_refused_with_those_that_have(compared) -> None:
    with pytest.raises(DlassetsError, match=r"Version 7 of .* answered about no photo. Those .* 1, 2"):
        compare(Reading(compared), 1, 7)


def test_it_is_said_in_words_by_the_command_and_in_dagster(compared) -> None:
    shown = invoke("compare", 1, 2, DLASSETS_ROOT=compared.root)
    text = markdown.comparison(compare(Reading(compared), 1, 2))

    sentence = "By what people have answered since: 1 and 4 of 5 are right, 0 and 3 of them alone (p = 0.25)."
    assert shown.exit_code == 0
    assert "say the same of 5 of 9 photos (55.6%); their mean confidence is 0.556 and 0.778." in shown.output
    assert sentence in shown.output
    assert sentence in text
    assert "http://127.0.0.1:4000/compare?a=1&b=2" in shown.output
    assert "| photos | version 1 says | version 2 says |\n| --- | --- | --- |\n| 2 | hat | mug |" in text
    assert invoke("compare", 1, 3, DLASSETS_ROOT=compared.root).exit_code == 1


def test_answers_to_requests_are_judged_by_labels_that_came_since(engine, settings, lake) -> None:
    def served(name: str, version: int, role: str, label: int) -> dict[str, Any]:
        return {**said(name, version, label, 0.5), "request_id": name, "role": role, "received_at": NOON}

    put(lake, "served_requests", served("a", 1, "champion", 1), served("b", 1, "champion", 1))
    put(lake, "served_requests", served("a", 2, "challenger", 2), served("c", 1, "champion", 1))
    put(lake, "labeled_images", labelled("a", 1, source="human", labeled_at=LATER))
    put(lake, "labeled_images", labelled("b", 1, labeled_at=NOON - dt.timedelta(days=1)))

    requests, labels = (pin(lake, name) for name in ("served_requests", "labeled_images"))
    rows = judged_answers(engine, requests, labels, pin(lake, "classes"), settings.labels)

    assert [tuple(row.values()) for row in rows] == [(2, "challenger", 1, 1, 0), (1, "champion", 3, 1, 1)]
    assert "| 1 | champion | 3 | 1 | 1 |" in markdown.served(rows)
