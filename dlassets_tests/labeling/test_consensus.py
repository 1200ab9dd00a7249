"""What several people say together, and what becomes of it where they do not agree."""

import datetime as dt
import itertools
from typing import Any

import numpy as np
import pytest

from dlassets import extras
from dlassets.engines.base import Commit, Engine, Written
from dlassets.labeling.annotators import update_annotators
from dlassets.labeling.consensus import update_consensus
from dlassets.labeling.overlap import answers_wanted
from dlassets.lakehouse.hashing import is_below_share
from dlassets.pipeline import steps
from dlassets.pipeline.session import Session
from dlassets.settings import LabelingSettings, Settings
from dlassets_tests.labeling.conftest import CLASSES, Bench, image_id, prediction
from dlassets_tests.labeling.people import answer, request
from dlassets_tests.pipelines import Warnings
from dlassets_tests.tables import NOON, take_labels

LABELS = tuple(CLASSES)


def weigh(bench: Bench, engine: Engine | None = None, **settings: Any) -> tuple[Written, dict[str, Any]]:
    names = ("human_labels", "label_requests", "predictions", "classes", "consensus")
    snapshots = {name: bench.pin(name) for name in names}
    return update_consensus(engine or bench.engine, snapshots, LabelingSettings(**settings), Commit())


def consensus(bench: Bench) -> dict[str, tuple[Any, ...]]:
    names = {image_id(name): name for name in "abcdefgh"}
    return {
        names[row["image_id"]]: (row["label"], row["answers"], row["disputed"], row["said"])
        for row in bench.rows("consensus")
    }


def in_force(bench: Bench) -> dict[str, tuple[int, str, str | None]]:
    take_labels(bench.engine, bench.lake, Settings(root=bench.lake.root))
    rows = bench.rows("labeled_images")
    return {
        row["path"]: (row["label"], row["source"], row["annotator"])
        for row in rows
        if row["path"].startswith("unlabeled/")
    }


@pytest.fixture
def asked(bench: Bench) -> Bench:
    """Two people are asked about each of four photos, and one about the fifth."""
    bench.add_photos(*"abcde")
    bench.score(dict.fromkeys("abcde", 0.5))
    bench.add("label_requests", [*(request(name, answers_wanted=2) for name in "abcd"), request("e")])
    return bench


def test_what_people_agree_on_is_the_label_and_what_they_do_not_is_none(asked) -> None:
    asked.add("human_labels", [answer("a", "ann", 6, 1), answer("a", "bob", 6, 2), answer("b", "ann", 6, 3)])
    asked.add("human_labels", [answer("b", "bob", 10, 4), answer("c", "ann", 10, 5), answer("e", "ann", 2, 6)])

    written, facts = weigh(asked)

    assert (written.changed, facts["images"], facts["disputed"], facts["method"]) == (True, 2, 1, "accuracy")
    assert consensus(asked) == {
        "a": (6, 2, False, "shirt: ann, bob"),
        "b": (None, 2, True, "shirt: ann; t-shirt: bob"),
    }
    (agreed,) = (row for row in asked.rows("consensus") if not row["disputed"])
    assert (agreed["label_name"], agreed["agreement"], agreed["annotators"]) == ("shirt", 1.0, "ann, bob")
    assert agreed["decided_at"] == NOON + dt.timedelta(seconds=2)
    assert in_force(asked) == {
        "unlabeled/a.jpg": (6, "human", "ann, bob"),
        "unlabeled/c.jpg": (10, "human", "ann"),
        "unlabeled/e.jpg": (2, "human", "ann"),
    }


def test_nothing_new_makes_no_new_version(asked) -> None:
    asked.add("human_labels", [answer("a", "ann", 6, 1), answer("a", "bob", 6, 2)])
    weigh(asked)
    in_force(asked)
    before = {name: asked.pin(name).version for name in ("consensus", "labeled_images")}

    written, _ = weigh(asked)
    in_force(asked)

    assert (written.changed, written.version) == (False, before["consensus"])
    assert {name: asked.pin(name).version for name in before} == before


def test_a_label_that_was_agreed_on_goes_once_it_is_disputed_and_comes_back(asked) -> None:
    asked.add("human_labels", [answer("a", "ann", 6, 1), answer("a", "bob", 6, 2)])
    weigh(asked)
    agreed = in_force(asked)
    asked.add("human_labels", [answer("a", "bob", 10, 3)])
    weigh(asked)
    disputed = in_force(asked)
    asked.add("human_labels", [answer("a", "bob", None, 4, status="taken_back")])
    weigh(asked)

    assert agreed == {"unlabeled/a.jpg": (6, "human", "ann, bob")}
    assert disputed == {}
    assert consensus(asked) == {}
    assert in_force(asked) == {"unlabeled/a.jpg": (6, "human", "ann")}


def test_where_one_is_asked_the_answer_read_last_counts_whoever_gave_it(asked) -> None:
    asked.add("human_labels", [answer("e", "ann", 2, 1), answer("e", "bob", 6, 2)])
    weigh(asked)

    assert consensus(asked) == {}
    assert in_force(asked) == {"unlabeled/e.jpg": (6, "human", "bob")}


def test_a_person_s_newest_answer_counts_once(asked) -> None:
    asked.add("human_labels", [answer("a", "ann", 2, 1), answer("a", "ann", 6, 2), answer("a", None, 6, 3)])
    weigh(asked)

    assert consensus(asked) == {"a": (6, 2, False, "shirt: somebody, ann")}


def test_a_dispute_goes_to_a_third_and_to_nobody_else(asked) -> None:
    asked.add("human_labels", [answer("a", "ann", 6, 1), answer("a", "bob", 10, 2)])
    states = []

    def turn() -> None:
        weigh(asked)
        in_force(asked)
        asked.close(version=3)
        (row,) = (row for row in asked.rows("label_requests") if row["request_id"] == "a")
        states.append((row["status"], row["answers_wanted"]))

    turn()
    turn()
    asked.add("human_labels", [answer("a", "cem", 2, 3)])
    turn()
    still_disputed = in_force(asked)
    asked.add("human_labels", [answer("a", "dan", 6, 4), answer("a", "eva", 6, 5)])
    turn()

    assert states == [("open", 3), ("open", 3), ("answered", 3), ("answered", 3)]
    assert still_disputed == {}
    assert in_force(asked) == {"unlabeled/a.jpg": (6, "human", "ann, dan, eva")}


def test_a_third_ends_a_dispute(asked) -> None:
    asked.add("human_labels", [answer("a", "ann", 6, 1), answer("a", "bob", 10, 2)])
    weigh(asked)
    asked.close(version=3)
    asked.add("human_labels", [answer("a", "cem", 6, 3)])
    weigh(asked)
    asked.close(version=3)

    (row,) = (row for row in asked.rows("label_requests") if row["request_id"] == "a")
    assert (row["status"], row["answers_wanted"]) == ("answered", 3)
    assert in_force(asked) == {"unlabeled/a.jpg": (6, "human", "ann, cem")}


def test_no_further_person_is_asked_where_the_setting_allows_none(asked) -> None:
    asked.add("human_labels", [answer("a", "ann", 6, 1), answer("a", "bob", 10, 2)])
    weigh(asked)
    asked.close(version=3, most_answers=2)

    assert {row["request_id"]: row["status"] for row in asked.rows("label_requests")}["a"] == "answered"


def test_what_somebody_has_answered_waits_for_the_others_whatever_the_label_is_by_then(asked) -> None:
    asked.add("human_labels", [answer("a", "ann", 6, 1)])
    weigh(asked)
    assert in_force(asked) == {"unlabeled/a.jpg": (6, "human", "ann")}
    asked.score(dict.fromkeys("abcde", 0.99), version=4)

    asked.close(version=4)

    assert {row["request_id"]: row["status"] for row in asked.rows("label_requests")} == {
        "a": "open",
        **dict.fromkeys("bcde", "withdrawn"),
    }


def test_several_answer_a_share_of_what_is_asked_and_it_is_closed_once_they_have(bench) -> None:
    names = [f"photo-{number}" for number in range(40)]
    settings = {"overlap_share": 0.25, "overlap": 2}
    bench.add_photos(*names)
    bench.score(dict.fromkeys(names, 0.5))
    bench.send(**settings)

    wanted = {row["image_id"]: row["answers_wanted"] for row in bench.rows("label_requests")}
    several = {each for each, people in wanted.items() if people is not None}
    assert several == {image_id(name) for name in names if is_below_share(image_id(name), 0.25, 4)}
    assert 4 <= len(several) <= 16
    assert set(wanted.values()) == {None, 2}
    assert answers_wanted(min(several), LabelingSettings(overlap_share=0.0)) is None

    rows = {row["image_id"]: row["request_id"] for row in bench.rows("label_requests")}
    first = [{**answer(name, "ann", 6, 1), "request_id": rows[image_id(name)]} for name in names]
    bench.add("human_labels", first)
    weigh(bench)
    bench.close(version=3)
    open_after_one = {row["image_id"] for row in bench.rows("label_requests") if row["status"] == "open"}
    bench.add("human_labels", [{**row, "annotator": "bob", "read_order": 2} for row in first])
    weigh(bench)
    bench.close(version=3)

    assert open_after_one == several
    assert {row["status"] for row in bench.rows("label_requests")} == {"answered"}


def test_a_quality_below_the_bound_is_disputed(asked) -> None:
    asked.add("human_labels", [answer("a", "ann", 6, 1), answer("a", "bob", 6, 2)])

    weigh(asked, consensus_quality=1)

    assert consensus(asked) == {"a": (None, 2, True, "shirt: ann, bob")}


def plant(bench: Bench, accuracy: dict[str, float], photos: int, each: int, seed: int = 0) -> dict[str, int]:
    """Have people of known accuracy answer about photos, `each` of them on each; return the true labels by image."""
    random = np.random.default_rng(seed)
    names = [f"photo-{number}" for number in range(photos)]
    truth = {name: int(random.choice(LABELS)) for name in names}

    def say(label: int, right: float) -> int:
        return label if random.random() < right else int(random.choice([other for other in LABELS if other != label]))

    rows, requests, predictions = [], [], []
    for number, name in enumerate(names):
        guess = say(truth[name], 0.7)
        confidence = float(random.uniform(0.4, 0.9))
        others = [label for label in LABELS if label != guess]
        top = [(guess, confidence), (others[0], (1 - confidence) * 0.6), (others[1], (1 - confidence) * 0.4)]
        made = {"predicted_label": guess, "predicted_name": CLASSES[guess], "confidence": confidence}
        top_k = [{"label": label, "name": CLASSES[label], "confidence": share} for label, share in top]
        predictions.append({**prediction(name, confidence), **made, "top_k": top_k})
        requests.append({**request(name, answers_wanted=each), **made})
        for place, person in enumerate(random.permutation(sorted(accuracy))[:each]):
            rows.append(answer(name, str(person), say(truth[name], accuracy[person]), number * each + place + 1))
    bench.add("predictions", predictions)
    bench.add("label_requests", requests)
    bench.add("human_labels", rows)
    return {image_id(name): label for name, label in truth.items()}


PEOPLE = {"ann": 0.97, "bob": 0.9, "cem": 0.85, "dan": 0.55}


@pytest.mark.parametrize("has_cleanlab", [True, False])
def test_people_are_weighed_by_how_good_they_are(bench, has_cleanlab, monkeypatch) -> None:
    truth = plant(bench, PEOPLE, photos=200, each=3)
    if not has_cleanlab:
        monkeypatch.setitem(extras.MODULES, extras.LABEL_ERRORS, ("no_such_module",))

    _, facts = weigh(bench)

    rows = bench.rows("consensus")
    assert facts["method"] == ("crowdlab" if has_cleanlab else "accuracy")
    assert ("pip install 'dlassets[label-errors]'" in facts.get("left_out", "")) is not has_cleanlab
    agreed = [row for row in rows if not row["disputed"]]
    right = [row["label"] == truth[row["image_id"]] for row in agreed]
    assert len(agreed) > 160
    assert np.mean(right) > 0.97
    assert np.mean([row["quality"] for row in agreed]) > np.mean([row["quality"] for row in rows if row["disputed"]])


def test_the_same_answers_come_to_the_same_on_both_engines(bench, engine) -> None:
    plant(bench, PEOPLE, photos=60, each=2)
    bench.add("label_requests", [{**request("h"), "strategy": "honeypot", "known_label": 6}])
    bench.add("human_labels", [answer("h", "ann", 6, 500, seconds=3.0), answer("h", None, 2, 501)])

    weigh(bench, engine)
    of_people = {
        name: bench.pin(name) for name in ("human_labels", "label_requests", "classes", "consensus", "annotators")
    }
    update_annotators(engine, of_people, Commit())
    ours = {name: bench.rows(name) for name in ("consensus", "annotators")}

    again, _ = weigh(bench)
    of_people["annotators"] = bench.pin("annotators")
    people_again, _ = update_annotators(bench.engine, of_people, Commit())
    assert (again.changed, people_again.changed) == (False, False)
    assert {name: len(rows) for name, rows in ours.items()} == {"consensus": 60, "annotators": 5}


def turn(bench: Bench) -> tuple[str, int | None]:
    """Have what was answered weighed, and requests opened and closed by it; return where that of photo a stands."""
    weigh(bench)
    bench.reopen()
    bench.close(version=3)
    (row,) = (row for row in bench.rows("label_requests") if row["request_id"] == "a")
    assert (row["closed_at"] is None) == (row["status"] == "open")
    return row["status"], row["answers_wanted"]


def test_what_was_agreed_on_and_is_disputed_later_goes_to_one_more_while_more_may_be_asked(asked) -> None:
    asked.add("human_labels", [answer("a", "ann", 6, 1), answer("a", "bob", 6, 2)])
    assert turn(asked) == ("answered", 2)

    asked.add("human_labels", [answer("a", "bob", 10, 3)])
    assert turn(asked) == ("open", 3)
    assert turn(asked) == ("open", 3)
    asked.add("human_labels", [answer("a", "cem", 10, 4)])
    assert turn(asked) == ("answered", 3)

    asked.add("human_labels", [answer("a", "ann", 2, 5), answer("a", "cem", 6, 6)])
    assert turn(asked) == ("answered", 3)  # disputed, and three have answered


@pytest.mark.slow
def test_a_further_answer_that_disputes_what_was_agreed_on_is_no_end_where_four_may_be_asked(asked) -> None:
    def turn_of_four() -> tuple[str, int]:
        weigh(asked, consensus_quality=0.99)
        asked.reopen(most_answers=4)
        asked.close(version=3, most_answers=4)
        (row,) = (row for row in asked.rows("label_requests") if row["request_id"] == "a")
        return row["status"], row["answers_wanted"]

    asked.add("human_labels", [answer(name, who, 6) for name in "abcd" for who in ("ann", "bob")])
    assert turn_of_four() == ("answered", 2)
    asked.add("human_labels", [answer("a", "cem", 10, 2)])
    assert turn_of_four() == ("open", 4)


def test_what_fewer_say_than_were_asked_since_one_took_theirs_back_is_open_again(asked) -> None:
    asked.add("human_labels", [answer("a", "ann", 6, 1), answer("a", "bob", 6, 2)])
    assert turn(asked) == ("answered", 2)
    asked.add("human_labels", [answer("a", "bob", None, 3, status="taken_back")])
    assert turn(asked) == ("open", 2)
    asked.add("human_labels", [answer("a", "cem", 6, 4)])
    assert turn(asked) == ("answered", 2)


SAID = (("ann", 6, 1), ("bob", 6, 2), ("bob", 10, 3))


# Of the orders in which it was agreed on first, one is tried each time.
ORDERS = [
    order if order == (1, 0, 2) else pytest.param(order, marks=pytest.mark.slow)
    for order in itertools.permutations(range(3))
]


@pytest.mark.parametrize("order", ORDERS)
def test_in_whatever_order_answers_are_read_the_dispute_is_asked_on(asked, order) -> None:
    for read, place in enumerate(order, 1):
        who, label, minute = SAID[place]
        at = NOON + dt.timedelta(minutes=minute)
        given = {"answered_at": at, "read_at": NOON + dt.timedelta(days=1), "service": "page"}
        asked.add("human_labels", [answer("a", who, label, read, **given)])
        turn(asked)

    assert turn(asked) == ("open", 3)
    assert consensus(asked)["a"] == (None, 2, True, "shirt: ann; t-shirt: bob")


@pytest.mark.slow
def test_where_several_are_asked_and_somebody_gives_no_name_the_run_says_what_to_do(asked) -> None:
    asked.add("human_labels", [answer("a", None, 6, 1), answer("b", "ann", 6, 2), answer("e", None, 6, 3)])
    told = Warnings()

    steps.label_requests.run(Session(Settings(root=asked.lake.root)), told)

    (warning,) = (message for message in told.messages if "without a name" in message)
    assert warning.startswith("1 requests want answers of several people")
    assert "column `annotator`" in warning
    assert "`dlassets label`" in warning
