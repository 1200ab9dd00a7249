"""What a model said, in short: counts as SQL finds them on either engine, and the Markdown that Dagster shows."""

import datetime as dt
from typing import Any

import pytest

from dlassets.lakehouse.snapshots import pin
from dlassets.monitoring import markdown
from dlassets.monitoring.outcomes import SHOWN, Scored, mistakes_of, scored_last
from dlassets.registry.models import ModelVersion
from dlassets_tests.tables import NOON, image_id, put

MODEL = ModelVersion("m", 2, "package")
EARLIER = NOON - dt.timedelta(hours=1)


def prediction(path: str, name: str, confidence: float, **more: Any) -> dict[str, Any]:
    row = {"path": path, "image_id": image_id(path), "predicted_label": len(name), "predicted_name": name}
    return {**row, **MODEL.row.to_pylist()[0], "confidence": confidence, **more}


def test_the_classes_and_the_confidence_are_of_what_the_last_run_scored(engine, lake) -> None:
    put(
        lake,
        "predictions",
        *(prediction(f"a{number}", "cat", confidence) for number, confidence in enumerate((1.0, 0.95, 0.21))),
        prediction("b", "tiger", 0.2),
        prediction("earlier", "cat", 0.5, scored_at=EARLIER),
        prediction("a0", "bear", 0.1, model_version=3, scored_at=NOON + dt.timedelta(hours=1)),
    )

    scored = scored_last(engine, pin(lake, "predictions"), MODEL)

    assert [(name, photos) for name, photos, _ in scored.classes] == [("cat", 3), ("tiger", 1)]
    assert [mean for _, _, mean in scored.classes] == pytest.approx([0.72, 0.2])
    assert scored.by_confidence == [0, 0, 2, 0, 0, 0, 0, 0, 0, 2]
    assert [row["path"] for row in scored.least_sure] == ["b", "a2", "a1", "a0"]


def test_the_mistakes_of_a_run_are_counted_by_split_and_the_surest_of_the_test_rows_come_first(engine, lake) -> None:
    def row(place: int, split: str, label: int, confidence: float, run_id: str = "run") -> dict[str, Any]:
        path = f"{split}/{place:02}.jpg"
        said = {"predicted_label": 3, "predicted_name": "class 3", "confidence": confidence}
        return {"run_id": run_id, "path": path, "split": split, "label": label, "label_name": f"class {label}", **said}

    put(
        lake,
        "evaluated_rows",
        *(row(place, "test", 4, place / 20) for place in range(10)),
        *(row(place, "test", 3, 0.99) for place in range(10, 15)),
        *(row(place, "validation", 3 + place % 2, 1.0) for place in range(4)),
        row(99, "test", 4, 1.0, run_id="another"),
    )

    mistakes = mistakes_of(engine, pin(lake, "evaluated_rows"), pin(lake, "classes"), "run")

    assert (mistakes.rows, mistakes.wrong) == ({"test": 15, "validation": 4}, {"test": 10, "validation": 2})
    assert [found["path"] for found in mistakes.surest] == [f"test/{9 - place:02}.jpg" for place in range(SHOWN)]
    assert {(found["label_name"], found["predicted_name"]) for found in mistakes.surest} == {("class 4", "class 3")}


def test_names_are_shown_letter_by_letter_whatever_they_hold() -> None:
    name = "a|b`<img src=x>\n[x](y)_z_ $1 写真_1.jpg"

    shown = markdown.plain(name)

    assert not set("|`<>\n[]()$") & set(shown)
    assert "写真_1.jpg" in shown
    assert len(markdown.plain("x" * 10_000)) == 200


def test_classes_and_bins_are_tables_and_the_many_small_classes_one_line() -> None:
    scored = Scored([(f"class {n}", 30 - n, 0.5) for n in range(25)], [0, 1, 0, 0, 0, 0, 0, 0, 0, 60], [])

    classes = markdown.classes(scored).splitlines()

    assert classes[0] == "| predicted | photos | mean confidence |"
    assert classes[2] == "| class 0 | 30 | 0.500 |"
    assert classes[-1] == "| 5 other classes | 40 | 0.500 |"
    assert markdown.confidence(scored).splitlines()[2:] == [
        f"| 0.9 to 1.0 | 60 | {'█' * 30} |",
        "| 0.1 to 0.2 | 1 | █ |",
    ]


def test_photos_are_seen_as_long_as_there_is_room_and_named_after_that() -> None:
    rows = [{"image_id": str(n), "path": f"{n}.jpg", "confidence": 0.25, "predicted_name": None} for n in range(9)]
    thumbnails = {str(n): b"\xff" * 6_000 for n in range(8)}

    columns = {"predicted_name": "predicted", "confidence": "sure", "path": "path"}

    table = markdown.photos(rows, thumbnails, columns, "http://there/{}".format)

    assert table.count("![](data:image/jpeg;base64,") == 4
    assert len(table) < 42_000
    assert table.splitlines()[0] == "|  | predicted | sure | path |"
    assert [line.rsplit("| ", 1)[1] for line in table.splitlines()[2:]] == [
        f"[{n}.jpg](http://there/{n}.jpg) |" for n in range(9)
    ]
    assert table.splitlines()[-1] == "|  |  | 0.250 | [8.jpg](http://there/8.jpg) |"
