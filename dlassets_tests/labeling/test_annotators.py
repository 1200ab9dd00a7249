"""What is known of each person who answers."""

import datetime as dt
from typing import Any

import pytest

from dlassets.engines.base import Commit, Written
from dlassets.labeling.annotator_picture import annotator_picture
from dlassets.labeling.annotators import update_annotators
from dlassets_tests.labeling.conftest import Bench
from dlassets_tests.labeling.people import answer, request
from dlassets_tests.labeling.test_consensus import PEOPLE, plant, weigh
from dlassets_tests.tables import NOON

HONEYPOT: dict[str, Any] = {"strategy": "honeypot"}


def count(bench: Bench) -> tuple[Written, dict[str, Any]]:
    names = ("human_labels", "label_requests", "classes", "consensus", "annotators")
    return update_annotators(bench.engine, {name: bench.pin(name) for name in names}, Commit())


def people(bench: Bench) -> dict[str | None, dict[str, Any]]:
    return {row["annotator"]: row for row in bench.rows("annotators")}


def test_it_says_who_answered_how_much_how_fast_and_when(bench) -> None:
    bench.add("label_requests", [request(name) for name in "abcd"])
    bench.add("human_labels", [answer("a", "ann", 2, 1, seconds=2.0), answer("b", "ann", 6, 2, seconds=8.0)])
    bench.add("human_labels", [answer("c", "ann", 6, 3, seconds=4.0), answer("c", "ann", None, 4, status="taken_back")])
    bench.add("human_labels", [answer("d", "ann", None, 5, status="skipped"), answer("d", None, 2, 6)])
    bench.add("human_labels", [answer("d", "eve", None, 7, status="refused")])

    written, facts = count(bench)

    assert (written.changed, len(facts["people"]), facts["fleiss_kappa"]) == (True, 2, None)
    found = people(bench)
    ann = {name: found["ann"][name] for name in ("answers", "skipped", "taken_back", "honeypots", "compared")}
    assert ann == {"answers": 2, "skipped": 1, "taken_back": 1, "honeypots": 0, "compared": 0}
    assert found["ann"]["median_seconds"] == 5
    times = [found["ann"][name] for name in ("first_answer_at", "last_answer_at")]
    assert times == [NOON + dt.timedelta(seconds=seconds) for seconds in (1, 2)]
    assert [found["ann"][name] for name in ("accuracy", "accuracy_low", "agreement", "kappa")] == [None] * 4
    assert (found[None]["answers"], found[None]["median_seconds"]) == (1, None)
    assert count(bench)[0].changed is False


def test_honeypots_say_how_often_a_person_is_right_whatever_they_took_back(bench) -> None:
    names = [f"h{number}" for number in range(10)]
    bench.add("label_requests", [request(name, **HONEYPOT, known_label=6) for name in names])
    bench.add("human_labels", [answer(name, "ann", 6 if number < 8 else 2, 1) for number, name in enumerate(names)])
    bench.add("human_labels", [answer("h9", "ann", None, 2, status="taken_back")])
    count(bench)

    ann = people(bench)["ann"]
    assert (ann["honeypots"], ann["honeypots_right"], ann["accuracy"]) == (9, 8, pytest.approx(8 / 9))
    # Wilson's interval of 8 of 9 at 95%, by statsmodels' proportion_confint.
    assert (ann["accuracy_low"], ann["accuracy_high"]) == (
        pytest.approx(0.5650, abs=1e-4),
        pytest.approx(0.9801, abs=1e-4),
    )


def test_planted_accuracies_lie_within_the_intervals(bench) -> None:
    plant(bench, PEOPLE, photos=240, each=3)
    names = [f"h{number}" for number in range(200)]
    bench.add("label_requests", [request(name, **HONEYPOT, known_label=6) for name in names])
    rows = []
    for place, (person, accuracy) in enumerate(PEOPLE.items()):
        mine = names[place * 50 : place * 50 + 50]
        rows += [answer(name, person, 6 if nth < round(accuracy * 50) else 2, 9999) for nth, name in enumerate(mine)]
    bench.add("human_labels", rows)
    weigh(bench)

    _, facts = count(bench)

    found = people(bench)
    for person, accuracy in PEOPLE.items():
        row = found[person]
        assert row["honeypots"] == 50
        assert row["accuracy_low"] <= accuracy <= row["accuracy_high"], person
        assert row["agreement_low"] <= accuracy + 0.05, person
        assert row["agreement_high"] >= accuracy, person
    by_agreement = sorted(found, key=lambda person: found[person]["agreement"], reverse=True)
    by_kappa = sorted(found, key=lambda person: found[person]["kappa"], reverse=True)
    assert (by_agreement[0], by_agreement[-1], by_kappa[0], by_kappa[-1]) == ("ann", "dan", "ann", "dan")
    assert facts["fleiss_kappa"] == pytest.approx(0.5, abs=0.15)
    assert annotator_picture(list(found.values())).startswith(b"\x89PNG")


@pytest.mark.parametrize("name", [None, "$x_{2}$", "<b>", "\x00\n", "名" * 200])
def test_any_name_is_drawn(name) -> None:
    person = {"annotator": name, "answers": 1, "accuracy": 0.5, "accuracy_low": 0.1, "accuracy_high": 0.9}

    assert annotator_picture([{**person, "agreement": None}]).startswith(b"\x89PNG")
