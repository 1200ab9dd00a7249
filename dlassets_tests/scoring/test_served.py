"""Requests as data: what was answered is written down first, and becomes a row of `served_requests`, once."""

import datetime as dt
import functools
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dlassets.engines.base import Engine, Written
from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError, SettingsError
from dlassets.images.digest import image_id_of
from dlassets.lakehouse.snapshots import pin
from dlassets.registry.models import ModelVersion
from dlassets.scoring import served
from dlassets.scoring.online import Served
from dlassets.scoring.served import RequestLog, merge_served
from dlassets.settings import ServingSettings, Settings
from dlassets.storage.lake import Lake
from dlassets_tests.killing import overtaken_at
from dlassets_tests.programs import python
from dlassets_tests.tables import get

NEVER = 1e6
ENGINE = LocalEngine()
NOON = dt.datetime(2026, 11, 26, 12, tzinfo=dt.UTC)
CHAMPION, CHALLENGER = ModelVersion("m", 1, "p"), ModelVersion("m", 2, None)
TOP = [{"label": 3, "name": "coat", "confidence": 0.75}, {"label": 4, "name": "Hütte", "confidence": 0.25}]
ANSWER = {"label": 3, "name": "coat", "confidence": 0.75, "margin": 0.5, "top_k": TOP}
Row = dict[str, Any]


def answers(
    request_id: str, content: bytes = b"photo", *, both: bool = False, confidence: float = 0.75
) -> list[Served]:
    """What the champion says of a photo; and the challenger, where `both` do."""
    answer = {**ANSWER, "confidence": confidence}
    champion = Served(request_id, NOON, image_id_of(content), content, "raw", answer, CHAMPION, "champion", 0.25)
    return [champion, replace(champion, model=CHALLENGER, role="challenger")] if both else [champion]


def logging(settings: Settings, **serving: Any) -> Settings:
    return settings.model_copy(update={"serving": ServingSettings(log_requests=True, **serving)})


def rows(settings: Settings) -> list[Row]:
    return get(ENGINE, Lake.at(settings.root), "served_requests")


def names(settings: Settings) -> list[str]:
    return [row["request_id"] for row in rows(settings)]


def left(settings: Settings) -> list[str]:
    """What lies in the folder of requests, but for the lock of those who merge and what has no name yet."""
    folder = served.log_folder(settings)
    found = (str(path.relative_to(folder)) for path in folder.rglob("*") if path != folder / "lock")
    return sorted(path for path in found if not path.startswith("."))


def test_an_answer_becomes_a_row_a_model(engine: Engine, settings: Settings) -> None:
    settings = logging(settings)
    with RequestLog(settings, NEVER) as log:
        log(answers("one", both=True))
        log._seal()

        written = merge_served(engine, settings, {"asset": "served_requests"})

    (champion, challenger) = rows(settings)
    assert (written.inserted, written.changed) == (2, True)
    assert champion == {
        "request_id": "one",
        "model_name": "m",
        "model_version": 1,
        "package": "p",
        "role": "champion",
        "received_at": NOON,
        "received_on": NOON.date(),
        "form": "raw",
        "image_id": image_id_of(b"photo"),
        "content": None,
        "predicted_label": 3,
        "predicted_name": "coat",
        "confidence": 0.75,
        "margin": 0.5,
        "top_k": TOP,
        "seconds": 0.25,
    }
    assert challenger == {**champion, "model_version": 2, "package": None, "role": "challenger"}
    assert not merge_served(engine, settings, {}).changed


def test_a_photo_is_kept_once_where_the_setting_says_so(settings) -> None:
    settings = logging(settings, log_bytes=True)
    content = bytes(range(256)) + b"\n" * 3
    with RequestLog(settings, NEVER) as log:
        log([*answers("a/0", content, both=True), *answers("a/1", b"other", both=True)])

    kept = {(row["request_id"], row["role"]): row["content"] for row in rows(settings)}
    assert kept == {
        ("a/0", "champion"): content,
        ("a/0", "challenger"): None,
        ("a/1", "champion"): b"other",
        ("a/1", "challenger"): None,
    }
    assert left(settings) == []


def test_nothing_is_made_where_nothing_was_served(settings) -> None:
    version = pin(Lake.at(settings.root), "served_requests").version

    assert merge_served(ENGINE, settings, {}) == Written(version, changed=False)
    with RequestLog(logging(settings), NEVER):
        pass
    assert left(settings) == []
    assert not merge_served(ENGINE, settings, {}).changed


def test_a_server_merges_by_itself_and_goes_on_where_that_fails(settings, monkeypatch) -> None:
    merge, merged, tries = served.merge_served, threading.Event(), []

    def merge_at_the_second_try(*given: Any) -> Any:
        tries.append(given)
        if len(tries) == 1:
            raise OSError("the lake is away")
        done = merge(*given)
        merged.set()
        return done

    monkeypatch.setattr(served, "merge_served", merge_at_the_second_try)
    with RequestLog(logging(settings), merge_seconds=0.01) as log:
        log(answers("one"))
        assert merged.wait(60)
    assert names(settings) == ["one"]


def test_requests_of_many_threads_and_two_servers_are_all_there_once(settings, monkeypatch) -> None:
    monkeypatch.setattr(served, "SEGMENT_BYTES", 2000)  # a segment for every few requests
    settings = logging(settings)

    def ask(log: RequestLog, name: str) -> None:
        for number in range(20):
            log(answers(f"{name}-{number:02}"))
            if number % 7 == 0:
                log.merge()

    with RequestLog(settings, NEVER) as one, RequestLog(settings, NEVER) as other:
        threads = [
            threading.Thread(target=ask, args=(log, name)) for log, name in ((one, "a"), (one, "b"), (other, "c"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert names(settings) == [f"{name}-{number:02}" for name in "abc" for number in range(20)]
    assert left(settings) == []


def test_what_a_server_that_lives_is_writing_is_left_to_it(settings) -> None:
    settings = logging(settings)
    with RequestLog(settings, NEVER) as log:
        log(answers("one"))
        assert not merge_served(ENGINE, settings, {}).changed
        log(answers("two"))
    assert names(settings) == ["one", "two"]


def test_a_merge_that_was_overtaken_doubles_nothing(settings) -> None:
    settings = logging(settings)
    with RequestLog(settings, NEVER) as log:
        log(answers("one"))
        log._seal()
        (segment,) = log._folder.glob("*.segment")
        copy = _as_another_machine_sees_it(segment)
        by = functools.partial(served._merge_segment, LocalEngine(), settings, copy, {})
        with overtaken_at(LocalEngine, "append", by, "served_requests"):
            merge_served(ENGINE, settings, {})

    assert names(settings) == ["one"]


def _as_another_machine_sees_it(segment: Path) -> Path:
    """Return the same file at another place, in a folder of the same name."""
    copy = segment.parents[2] / "elsewhere" / segment.parent.name / segment.name
    copy.parent.mkdir(parents=True)
    copy.write_bytes(segment.read_bytes())
    return copy


def test_a_disk_that_is_full_refuses_the_request_and_harms_no_other(settings, monkeypatch) -> None:
    settings = logging(settings)
    write = os.write

    def write_some(descriptor: int, data: Any) -> int:
        if len(data) > 10:
            return write(descriptor, data[:10])
        raise OSError(28, "No space left on device")

    with RequestLog(settings, NEVER) as log:
        log(answers("one"))
        with monkeypatch.context() as full:
            full.setattr(os, "write", write_some)
            with pytest.raises(DlassetsError, match=r"cannot be written down in .*No space left"):
                log(answers("two"))
        log(answers("three"))

    assert names(settings) == ["one", "three"]


def test_a_part_that_cannot_be_taken_off_again_has_no_request_behind_it(settings, monkeypatch) -> None:
    settings = logging(settings)
    write, truncate = os.write, os.ftruncate

    def no_more(*_: Any) -> Any:
        raise OSError(5, "Input/output error")

    with RequestLog(settings, NEVER) as log:
        log(answers("one"))
        with monkeypatch.context() as broken:
            broken.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]) and no_more())
            broken.setattr(os, "ftruncate", no_more)
            with pytest.raises(DlassetsError, match="Input/output error"):
                log(answers("two"))
        assert os.ftruncate is truncate
        log(answers("three"))

    assert names(settings) == ["one", "three"]


def test_a_segment_that_is_sealed_while_the_disk_works_keeps_whoever_wrote_to_it(settings, monkeypatch) -> None:
    settings = logging(settings)
    problems: list[Exception] = []
    keep, others = os.fdatasync, list[threading.Thread]()

    def ask() -> None:
        try:
            log(answers("two"))
        except DlassetsError as error:
            problems.append(error)

    def slowly(descriptor: int) -> None:
        if not others:
            others.append(threading.Thread(target=ask))
            others[0].start()
            while log._written < 2:
                others[0].join(0.001)
            log._seal()
        keep(descriptor)

    with RequestLog(settings, NEVER) as log:
        monkeypatch.setattr(os, "fdatasync", slowly)
        log(answers("one"))
        others[0].join()

    assert problems == []
    assert names(settings) == ["one", "two"]


def test_damage_in_a_segment_costs_what_is_behind_it_and_is_kept(settings, caplog) -> None:
    settings = logging(settings)
    with RequestLog(settings, NEVER) as log:
        log(answers("one"))
        log(answers("two"))
        log._seal()
        (segment,) = log._folder.glob("*.segment")
        content = segment.read_bytes()
        segment.write_bytes(content.replace(b'"two"', b'"too"'))

    assert names(settings) == ["one"]
    assert [name.rpartition(".")[2] for name in left(settings) if name.endswith("damaged")] == ["damaged"]
    assert "are damaged; all before them is merged" in caplog.text


def test_unsure_answers_put_their_photo_where_photos_come_from(settings, photos) -> None:
    settings = logging(settings, label_below=0.5)
    content = min(photos.glob("*/*")).read_bytes()
    with RequestLog(settings, NEVER) as log:
        log(answers("sure", b"a photo", confidence=0.5))
        log([*answers("unsure", content, both=True, confidence=0.4)])
        log(answers("again", content, confidence=0.4))
        log.merge()
        place = Path(settings.root, "landing/unlabeled/served/2026-11-26", f"{image_id_of(content)}.jpg")
        written_at = place.stat().st_mtime_ns
        log(answers("and again", content, confidence=0.4))

    assert [path for path in Path(settings.root, "landing").rglob("*") if path.is_file()] == [place]
    assert (place.read_bytes(), place.stat().st_mtime_ns) == (content, written_at)
    assert {row["content"] for row in rows(settings)} == {None}  # bytes lie in one place


def test_photos_for_people_need_a_zone_that_takes_them(settings) -> None:
    zones = {"unlabeled": settings.landing["unlabeled"].model_copy(update={"pattern": r"\.png$"})}
    settings = logging(settings, label_below=0.5).model_copy(update={"landing": zones})

    with pytest.raises(SettingsError, match="whose pattern takes files such as served/2026"):
        RequestLog(settings, NEVER)
    with pytest.raises(ValueError, match="set log_requests as well"):
        ServingSettings(label_below=0.5)


def test_a_lake_in_object_storage_needs_a_folder_of_this_machine(settings, tmp_path) -> None:
    away = logging(settings).model_copy(update={"root": "s3a://bucket/lake"})

    with pytest.raises(SettingsError, match=r"set serving.log_folder to a local folder"):
        RequestLog(away, NEVER)
    assert served.log_folder(logging(settings, log_folder=str(tmp_path))) == tmp_path


# The deeds of a server and of those who merge, and whether the kill comes before or after they are done.
POINTS = [
    ("os", "write", "amid"),
    *(
        (owner, name, when)
        for owner, names in (
            ("os", ("write", "fdatasync", "fsync")),
            ("Path", ("rename", "unlink", "rmdir")),
            ("LocalEngine", ("append",)),
        )
        for name in names
        for when in ("before", "after")
    ),
]
SERVER = """
import os, signal, sys
from pathlib import Path
import pyarrow, deltalake
from dlassets.engines.local import LocalEngine
from dlassets.scoring.served import RequestLog, merge_served
from dlassets_tests.scoring.test_served import NEVER, POINTS, answers, logging
from dlassets.settings import Settings

OWNERS = {"os": os, "Path": Path, "LocalEngine": LocalEngine}

def kill_at(owner, name, when, call):
    real, calls = getattr(OWNERS[owner], name), []
    def deed(*given, **options):
        calls.append(given)
        if len(calls) == call:
            if when == "amid" and name == "write":
                real(given[0], given[1][: len(given[1]) // 2])
            if when == "after":
                real(*given, **options)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **options)
    setattr(OWNERS[owner], name, deed)

def serve(settings, sent):
    log = RequestLog(settings, NEVER)
    for number in range(6):
        log(answers(f"request-{number}", b"photo %d" % number, both=True, confidence=0.4))
        with sent.open("a") as file:
            file.write(f"request-{number}\\n")
        if number in (2, 4):
            log.merge()
    log.close()

def in_another_process(deed, *given):
    pid = os.fork()
    if not pid:
        try:
            deed(*given)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_kill_at_any_point_neither_loses_an_answer_nor_doubles_it(settings, tmp_path, call) -> None:
    program = (
        SERVER
        + f"""
for place, point in enumerate(POINTS):
    root = Path({str(tmp_path)!r}, f"{{place}}")
    settings = logging(Settings(root=str(root)), log_bytes=True, label_below=0.5)
    def server():
        kill_at(*point, {call})
        serve(settings, root.with_suffix(".sent"))
    def merger():
        kill_at("LocalEngine", "append", "after", 1)
        merge_served(LocalEngine(), settings, {{}})
    print(*point, in_another_process(server), in_another_process(merger))
"""
    )

    ends = python(program).splitlines()

    killed = 0
    assert len(ends) == len(POINTS)
    for place, end in enumerate(ends):
        root = Path(tmp_path, str(place))
        lake = logging(Settings(root=str(root)), log_bytes=True, label_below=0.5)
        sent_file = root.with_suffix(".sent")
        answered = sent_file.read_text().split() if sent_file.exists() else []
        merge_served(ENGINE, lake, {})

        there = [(row["request_id"], row["role"]) for row in rows(lake)]
        assert len(there) == len({*there}), end
        asked = {request for request, _ in there}
        assert {*answered} <= asked <= {*answered, f"request-{len(answered)}"}, end
        assert there == [(request, role) for request in sorted(asked) for role in ("champion", "challenger")], end
        assert [row["content"] for row in rows(lake) if row["role"] == "champion"] == [
            b"photo %s" % request.removeprefix("request-").encode() for request in sorted(asked)
        ]
        assert left(lake) == [], end
        assert not merge_served(ENGINE, lake, {}).changed
        killed += "-9" in end.split()[3]
    assert killed > len(POINTS) / 2
