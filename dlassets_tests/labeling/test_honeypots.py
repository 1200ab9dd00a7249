"""Photos whose label is settled, asked among the others: they measure people, and change nothing else."""

from typing import Any

import pytest

from dlassets.labeling.closing import UNSETTLED
from dlassets.lakehouse.hashing import is_below_share
from dlassets.lakehouse.tables import HONEYPOT
from dlassets.settings import Settings
from dlassets_tests.labeling.conftest import Bench, doubted, image_id, labelled, photo, prediction
from dlassets_tests.labeling.people import answer
from dlassets_tests.tables import take_labels

UNSURE = [f"photo-{number}" for number in range(40)]
SETTLED = [f"settled-{number}" for number in range(30)]
# A third of what is asked.
SHARE = 1 / 3


def in_folder(name: str, label: int = 6) -> str:
    return f"labeled/{label:03}.shirt/{name}.jpg"


def know(bench: Bench, *names: str, confidence: float = 0.6, source: str = "folder") -> None:
    """Add photos that lie in a class folder, and what the model thinks of them."""
    paths = {name: in_folder(name) for name in names}
    content = {name: photo(name) for name in names}
    raw = {"landing": "labeled", "folder": "006.shirt"}
    bench.add(
        "raw_images",
        [{**raw, "path": paths[n], "image_id": image_id(n), "content": content[n], "length": 9} for n in names],
    )
    bench.add("labeled_images", [{**labelled(name, 6, paths[name]), "source": source} for name in names])
    bench.add("predictions", [{**prediction(name, confidence), "path": paths[name]} for name in names])


@pytest.fixture
def asking(bench: Bench) -> Bench:
    bench.add_photos(*UNSURE)
    bench.score(dict.fromkeys(UNSURE, 0.5))
    know(bench, *SETTLED)
    return bench


def honeypots(bench: Bench) -> list[dict[str, Any]]:
    return [row for row in bench.rows("label_requests") if row["strategy"] == HONEYPOT]


def test_a_share_of_what_is_asked_is_settled_and_nobody_can_tell(asking) -> None:
    sent = asking.send(honeypot_share=SHARE)

    bringing = [name for name in UNSURE if is_below_share(image_id(name), SHARE / (1 - SHARE), 5)]
    found = honeypots(asking)
    assert 10 <= len(bringing) <= 30
    assert (len(found), sent.inserted) == (len(bringing), len(UNSURE) + len(bringing))
    assert {row["image_id"] for row in found} <= {image_id(name) for name in SETTLED}
    assert {(row["known_label"], row["answers_wanted"], row["status"]) for row in found} == {(6, None, "open")}
    shown = [path.read_text() for path in asking.requests.glob("*/*") if path.suffix in {".html", ".csv", ".txt"}]
    assert len(shown) >= 3
    assert not any(HONEYPOT in text for text in shown)
    assert {row["known_label"] for row in asking.rows("label_requests") if row["strategy"] != HONEYPOT} == {None}


def test_one_has_the_priority_of_the_photo_that_brings_it(asking) -> None:
    asking.send(honeypot_share=SHARE, priorities={"unlabeled": 3})

    assert {row["priority"] for row in honeypots(asking)} == {3}


def test_asked_again_there_is_none_but_for_what_is_new(asking) -> None:
    asking.send(honeypot_share=SHARE)
    version = asking.pin("label_requests").version

    assert asking.send(honeypot_share=SHARE).inserted == 0
    assert asking.pin("label_requests").version == version


def test_one_is_asked_once_a_model_version(asking) -> None:
    names = [f"more-{number}" for number in range(20)]
    asking.send(honeypot_share=0.2)
    first = {row["image_id"] for row in honeypots(asking)}
    asking.add_photos(*names)
    asking.score(dict.fromkeys(names, 0.5))
    asking.send(honeypot_share=0.2)

    asked = [row["image_id"] for row in honeypots(asking)]
    assert first < set(asked)
    assert len(set(asked)) == len(asked)


def test_no_more_wait_than_may_where_more_would_be_asked(asking) -> None:
    asking.send(honeypot_share=SHARE, batch_limit=20)

    assert len(asking.rows("label_requests")) == 20
    assert honeypots(asking)


def test_only_what_models_believe_and_a_place_or_several_people_say_is_settled(bench) -> None:
    bench.add_photos(*UNSURE)
    bench.score(dict.fromkeys(UNSURE, 0.5))
    know(bench, "doubted", "folder")
    know(bench, "one person", "several", "overruled", source="human")
    bench.add("label_errors", [{**doubted("doubted", 6, 0.1), "path": in_folder("doubted")}])
    together = {"answers": 2, "label": 6, "path": ""}
    bench.add("consensus", [{**together, "image_id": image_id("several")}])
    bench.add("consensus", [{**together, "image_id": image_id("overruled"), "label": 2}])

    bench.send(honeypot_share=SHARE)

    assert {row["image_id"] for row in honeypots(bench)} == {image_id("folder"), image_id("several")}


def test_what_the_model_is_unsure_of_is_taken_first(bench) -> None:
    bench.add_photos(*UNSURE[:6])
    bench.score(dict.fromkeys(UNSURE[:6], 0.5))
    know(bench, *SETTLED, confidence=0.99)
    know(bench, "unsure", confidence=0.6)

    bench.send(honeypot_share=0.5)

    found = honeypots(bench)
    assert len(found) == 6
    assert min(found, key=lambda row: row["confidence"])["image_id"] == image_id("unsure")


def test_an_answer_to_one_never_changes_a_label(asking) -> None:
    settings = Settings(root=asking.lake.root)
    asking.send(honeypot_share=SHARE)
    found = honeypots(asking)
    take_labels(asking.engine, asking.lake, settings)
    before = asking.rows("labeled_images"), asking.pin("labeled_images").version
    asking.add(
        "human_labels",
        [
            {**answer("", "ann", 10, place), **{name: row[name] for name in ("request_id", "image_id", "path")}}
            for place, row in enumerate(found)
        ],
    )

    take_labels(asking.engine, asking.lake, settings)
    asking.close(version=3)

    assert (asking.rows("labeled_images"), asking.pin("labeled_images").version) == before
    assert {row["status"] for row in honeypots(asking)} == {"answered"}


def test_one_is_withdrawn_once_its_label_is_not_settled(asking) -> None:
    asking.send(honeypot_share=SHARE)
    first, *others = honeypots(asking)
    wrong = next(name for name in SETTLED if image_id(name) == first["image_id"])
    asking.add("label_errors", [{**doubted(wrong, 6, 0.1), "path": in_folder(wrong)}])

    asking.close(version=3)

    states = {row["request_id"]: (row["status"], row["reason"]) for row in honeypots(asking)}
    assert states.pop(first["request_id"]) == ("withdrawn", UNSETTLED)
    assert set(states.values()) == {("open", None)}
    assert len(states) == len(others)


def test_a_photo_that_was_one_is_asked_about_once_its_label_looks_wrong(asking) -> None:
    asking.send(honeypot_share=SHARE)
    first = honeypots(asking)[0]
    asking.add(
        "human_labels",
        [{**answer("", "ann", 6), **{name: first[name] for name in ("request_id", "image_id", "path")}}],
    )
    asking.close(version=3)
    wrong = next(name for name in SETTLED if image_id(name) == first["image_id"])
    asking.add("label_errors", [{**doubted(wrong, 6, 0.1), "path": in_folder(wrong)}])

    asking.send(relabel_limit=1)

    asked = [row for row in asking.rows("label_requests") if row["image_id"] == first["image_id"]]
    assert {(row["strategy"], row["status"]) for row in asked} == {(HONEYPOT, "answered"), ("label_error", "open")}
    assert len({row["request_id"] for row in asked}) == 2
