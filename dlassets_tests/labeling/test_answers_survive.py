"""What people answered is neither lost nor applied twice: killed at any step, a disk that is full, hostile files."""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
import shutil
from collections.abc import Callable, Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError
from dlassets.images.folders import class_folder
from dlassets.labeling import formats
from dlassets.labeling.requests import request_id
from dlassets.lakehouse.classes import name_class
from dlassets.monitoring import markdown
from dlassets.registry.models import ModelVersion
from dlassets_tests.disk import disk_full_after
from dlassets_tests.killing import Killed

from .conftest import MODEL, A, B, Bench, move, photo, prediction, put, raw_image
from .test_requests import take_labels

WRITES = ((LocalEngine, "append"), (LocalEngine, "merge"), (LocalEngine, "replace"))
FILES = tuple((Path, name) for name in ("write_bytes", "rename", "replace", "unlink", "mkdir", "write_text"))
HOSTILE = "<img src=x onerror=alert(1)>|`[a](javascript:b)`"


def take_in(bench: Bench) -> None:
    """What a turn does with answers, and nothing else."""
    bench.collect_as_it_is()
    bench.reopen()
    bench.close(version=3)


def turn(bench: Bench) -> None:
    """Go once around, as labeling_pipeline does: collect, label, reopen, close, send, show."""
    bench.collect_as_it_is()
    take_labels(bench)
    bench.reopen()
    bench.close(version=3)
    bench.send()
    bench.show()


def is_killed(work: Callable[[], None], step: int, functions: Sequence[tuple[type, str]]) -> bool:
    """Do something that is killed at the step of this number: before one of these functions, or just after it."""
    steps = itertools.count()

    def mortal(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            if next(steps) == step:
                raise Killed
            result = function(*arguments, **options)
            if next(steps) == step:
                raise Killed
            return result

        return called

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in functions:
            patch.setattr(owner, name, mortal(getattr(owner, name)))
        try:
            work()
        except Killed:
            return True
    return False


def answered(bench: Bench) -> Bench:
    """One photo was moved, one is in a list, one was taken back, and another one is to be asked about."""
    move(bench, A, "006.shirt")
    put(bench, "a.csv", f"request_id,label,annotator,answered_at\n{B},2,Ada,2026-02-01\n{A},10,Bo,2026-02-01\n")
    put(bench, "b.jsonl", f'{{"request_id": "{A}", "annotator": "Bo", "status": "taken_back"}}\n', 60)
    bench.add_photos("c")
    bench.score({"c": 0.3})
    return bench


def outcome(bench: Bench) -> Any:
    said = [(r["request_id"], r["label"], r["annotator"], r["status"]) for r in bench.rows("human_labels")]
    requests = sorted((r["request_id"], r["status"]) for r in bench.rows("label_requests"))
    lying = sorted(str(p.relative_to(bench.requests.parent)) for p in bench.requests.parent.rglob("*.jpg"))
    hidden = [p.name for p in bench.requests.iterdir() if p.name.startswith(".v3")]
    return sorted(said, key=str), requests, lying, hidden, take_labels(bench)


@pytest.mark.slow
def test_killed_at_any_write_to_a_table_no_answer_is_lost_and_none_is_applied_twice(asked, tmp_path) -> None:
    assert assert_the_same_whenever_killed(take_in, asked, tmp_path, WRITES) >= 4


@pytest.mark.slow
def test_killed_at_any_step_no_answer_is_lost_and_none_is_applied_twice(asked, tmp_path) -> None:
    assert assert_the_same_whenever_killed(turn, asked, tmp_path, (*WRITES, *FILES)) > 20


def assert_the_same_whenever_killed(
    work: Callable[[Bench], None], asked: Bench, tmp_path: Path, functions: Sequence[tuple[type, str]]
) -> int:
    """Have it killed at each step that there is, and done again; return how many there are."""
    answered(asked)

    def again(number: int) -> Bench:
        root = tmp_path / f"again-{number}"
        shutil.copytree(asked.root / "lake", root / "lake")
        return Bench(root)

    never = again(0)
    work(never)
    work(never)
    expected = outcome(never)
    assert len(expected[0]) == 4
    requests = dict(expected[1])
    assert requests[A] == requests[B] == "answered"
    step, killed = 0, True
    while killed:
        bench = again(step + 1)
        killed = is_killed(functools.partial(work, bench), step, functions)
        work(bench)
        if work is turn:  # what was sent in a turn is shown in the next
            work(bench)
        assert outcome(bench) == expected, step
        step += 1
    return step - 1


def test_a_full_disk_while_photos_are_copied_is_said_and_nothing_is_sent_twice(asked: Bench) -> None:
    large = photo("large") * 6000
    of_large = {"image_id": hashlib.sha256(large).hexdigest()}
    asked.add("raw_images", [{**raw_image("large"), **of_large, "content": large, "length": len(large)}])
    asked.add("predictions", [{**prediction("large", 0.1), **of_large}])
    with disk_full_after(200_000), pytest.raises(DlassetsError, match=r"could not be written.*has room.*sent twice"):
        asked.send()
    name = request_id(of_large["image_id"], ModelVersion(MODEL, 3))
    assert {row["request_id"]: row["status"] for row in asked.rows("label_requests")}[name] == "planned"

    assert asked.send().updated == 1
    (laid,) = asked.requests.rglob(f"{name}.jpg")
    assert laid.read_bytes() == large
    assert asked.send().changed is False


def test_a_full_disk_while_answers_are_written_down_loses_none(asked: Bench) -> None:
    put(asked, "a.csv", f"request_id,label\n{A},2\n{B},6\n")
    with disk_full_after(300), pytest.raises(DlassetsError, match=r"could not be written.*has room.*Then run again"):
        asked.collect_as_it_is()
    assert asked.rows("human_labels") == []

    assert asked.collect_as_it_is()[0].inserted == 2
    assert asked.collect_as_it_is()[0].changed is False


def test_html_in_a_name_is_text_wherever_it_is_shown(asked: Bench) -> None:
    name_class(asked.engine, asked.pin("classes"), HOSTILE, "ada", 2)
    put(asked, "a.csv", f'request_id,label,annotator\n{A},2,"{HOSTILE}"\n{B},"{HOSTILE} no","=cmd|x"\n')
    asked.collect_as_it_is()
    asked.close()
    asked.show()

    (batch,) = asked.requests.glob("v3-*")
    page = (batch / "index.html").read_text()
    assert "<img src=x" not in page
    assert "by &lt;img src=x onerror=alert(1)&gt;" in page
    assert "<img" not in markdown.plain(HOSTILE)
    assert re.search(r"[<>|`\[\]():]", markdown.plain(HOSTILE)) is None
    assert unescape(markdown.plain(HOSTILE)) == HOSTILE
    _, refusals = asked.collect_and_refuse({2: HOSTILE})
    asked.service.show_refusals(refusals)
    assert "'=cmd|x" in (asked.answers / "a.csv.refused.csv").read_text()


def test_a_class_s_name_is_no_markup_in_the_report_of_a_validation() -> None:
    from dlassets.registry.validation.report import markdown as report
    from dlassets.registry.validation.validation import SLICES, Check, Question, Validation

    sentence = f"on 1 of 9 classes it is worse: class {HOSTILE} (p < 0.001)"
    compared = {"dimension": "class", "value": HOSTILE, "rows": 9, "right": 1, "champion_right": 2, "gained": 0}
    details = {"slices": [{**compared, "lost": 1, "p_value": 0.1, "corrected": 0.2}]}
    question = Question("m", 2, None, 1, None, "0", {})
    text = report(Validation(question, {}, (Check(SLICES, False, sentence),), sentence, details))

    assert text.count("img src=x") == text.count(r"\<img src=x") == 3
    assert text.count("[a") == text.count(r"\[a") == 3
    assert "p < 0.001" in text


@pytest.mark.parametrize("name", ["../../x", "..", "a/../../b", "a\\..\\b", "x\0y", "\u202ecod.exe", " . "])
def test_a_class_s_folder_is_one_folder_whatever_it_is_called(name) -> None:
    folder = class_folder(7, name)

    assert folder.startswith("007")
    assert Path(folder).name == folder
    assert folder.isprintable()


def test_no_more_answers_are_read_from_a_file_than_can_be_held(asked, monkeypatch) -> None:
    monkeypatch.setattr(formats, "MOST_ANSWERS", 3)
    put(asked, "a.csv", "request_id,label,annotator\n" + "".join(f"{A},2,person {n}\n" for n in range(9)))
    written, refusals = asked.collect_and_refuse()

    assert written.inserted == 4
    assert [(each.origin, each.reason) for each in refusals] == [
        ("a.csv, line 5", "a.csv, line 5: a file has no more than 3 answers")
    ]
    assert formats.remedy(refusals[0].reason) == "Put this line and those after it into another file."
