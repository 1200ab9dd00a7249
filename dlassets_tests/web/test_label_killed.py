"""`dlassets label` is killed while people answer: what it said it keeps is kept, and nothing is there twice."""

import json
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any

import pytest

from dlassets_tests.servers import fetch
from dlassets_tests.web.label_pages import opened_page
from dlassets_tests.web.serving.label_lake import label_lake

pytestmark = pytest.mark.slow

PEOPLE, EACH = 4, 200


def test_a_killed_server_has_kept_all_that_it_said_and_what_is_sent_again_is_there_once(tmp_path) -> None:
    settings = label_lake(tmp_path / "lake", [0.5, 0.6])
    with opened_page(settings, None) as (served, address):
        kept: list[str] = []
        enough = threading.Event()

        def answers(person: int) -> None:
            try:
                for number in range(EACH):
                    one = answer(person, number)
                    assert sent(address, one) == [None]
                    kept.append(one["id"])
                    if len(kept) > PEOPLE * EACH // 4:
                        enough.set()
            except (OSError, HTTPException):
                return

        with ThreadPoolExecutor(PEOPLE) as people:
            working = [people.submit(answers, person) for person in range(PEOPLE)]
            assert enough.wait(120)
            served.end(signal.SIGKILL)
        for each in working:
            each.result()
        assert len(kept) < PEOPLE * EACH
        assert {*kept} <= {line["answer_id"] for line in served.lines}

        again = served.start()
        for person in range(PEOPLE):
            assert sent(again, *(answer(person, number) for number in range(EACH))) == [None] * EACH

        assert Counter(line["answer_id"] for line in served.lines) == Counter(
            answer(person, number)["id"] for person in range(PEOPLE) for number in range(EACH)
        )
        times = [line["answered_at"] for line in served.lines]
        assert times == sorted({*times})


def answer(person: int, number: int) -> dict[str, Any]:
    name = {"id": f"{person}-{number}", "request_id": f"a{number % 2 + 1}", "person": f"person {person}"}
    return {**name, "act": "answered" if number % 3 else "taken_back", "label": 2}


def sent(address: str, *answers: dict[str, Any]) -> list[str | None]:
    return json.loads(fetch(f"{address}answers", {"browser": "b", "answers": list(answers)}))["problems"]
