"""What one person is shown of what is open."""

import pytest

from dlassets.labeling.asking import may_answer
from dlassets_tests.labeling.conftest import Bench
from dlassets_tests.labeling.people import answer, request


def shown(bench: Bench, annotator: str | None, most: int = 10) -> list[str]:
    snapshots = {name: bench.pin(name) for name in ("label_requests", "human_labels")}
    return [row["request_id"] for row in may_answer(bench.engine, snapshots, annotator, most)]


def test_the_highest_priority_is_shown_first_and_then_the_least_sure(bench) -> None:
    bench.add(
        "label_requests", [request("a", 0.9, priority=1), request("b", 0.6), request("c", 0.3), request("d", 0.1)]
    )
    bench.add("label_requests", [request("e", 0.0, status="answered"), request("f", 0.0, status="planned")])

    assert shown(bench, "ann") == ["a", "d", "c", "b"]
    assert shown(bench, "ann", most=2) == ["a", "d"]


def test_what_was_answered_is_shown_to_nobody_and_what_several_answer_to_the_others(bench) -> None:
    bench.add(
        "label_requests", [request("once"), request("twice", answers_wanted=2), request("full", answers_wanted=2)]
    )
    bench.add("human_labels", [answer(name, "ann") for name in ("once", "twice", "full")])
    bench.add("human_labels", [answer("full", "bob", label=6, order=2)])

    assert {name: shown(bench, name) for name in ("ann", "bob", None)} == {"ann": [], "bob": ["twice"], None: ["twice"]}


def test_what_was_taken_back_is_shown_again_and_what_was_skipped_last(bench) -> None:
    bench.add("label_requests", [request("a"), request("b", 0.6), request("c", 0.7)])
    bench.add("human_labels", [answer("a", "ann", None, status="skipped"), answer("b", "ann")])
    bench.add(
        "human_labels", [answer("b", "ann", None, 2, status="taken_back"), answer("c", "ann", None, status="skipped")]
    )

    assert shown(bench, "ann") == ["b", "a", "c"]
    assert shown(bench, "bob") == ["a", "b", "c"]


def test_nobody_answers_twice_about_a_photo_that_several_are_asked_about(bench) -> None:
    again = {**request("a", answers_wanted=2), "request_id": "z"}
    bench.add("label_requests", [request("a", status="withdrawn"), again])
    bench.add("human_labels", [answer("a", "ann")])

    assert (shown(bench, "ann"), shown(bench, "bob")) == ([], ["z"])


@pytest.mark.parametrize("name", ["o'clock", "ann; DROP TABLE human_labels --", ""])
def test_a_name_is_text_whatever_is_in_it(bench, name) -> None:
    bench.add("label_requests", [request("a", answers_wanted=2), request("b", answers_wanted=2)])
    bench.add("human_labels", [answer("a", name)])

    assert (shown(bench, name), shown(bench, None)) == (["b"], ["a", "b"])
