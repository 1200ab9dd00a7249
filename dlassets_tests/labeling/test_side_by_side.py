"""Several labelling services on the same requests: here two folders, of which one has another name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dlassets.engines.base import Commit
from dlassets.errors import DlassetsError
from dlassets.labeling.folder import FolderService
from dlassets.labeling.requests import send_requests, without_photo
from dlassets.labeling.standing import show_standing
from dlassets.pipeline.session import Session
from dlassets.pipeline.steps import human_labels
from dlassets.settings import LabelingSettings, Settings
from dlassets_tests.labeling.conftest import MODEL, Bench
from dlassets_tests.labeling.conftest import photo as bytes_of
from dlassets_tests.pipelines import Warnings


class Other(FolderService):
    name = "other"
    is_away = False

    def send(self, *arguments: Any) -> dict[str, str]:
        self._check()
        return super().send(*arguments)

    def each_answer(self, *arguments: Any) -> Any:
        self._check()
        return super().each_answer(*arguments)

    def _check(self) -> None:
        if self.is_away:
            raise DlassetsError("other cannot be reached")


@pytest.fixture
def other(tmp_path: Path) -> Other:
    return Other(tmp_path / "other" / "requests", tmp_path / "other" / "answers")


@pytest.fixture
def asked(bench: Bench) -> Bench:
    """Two photos that are scored, and that nobody is sure of."""
    bench.add_photos("a", "b")
    bench.score({"a": 0.5, "b": 0.6})
    return bench


def send(bench: Bench, *services: FolderService) -> None:
    from dlassets.registry.models import ModelVersion

    settings = Settings(labeling=LabelingSettings())
    model = ModelVersion(MODEL, 3)
    send_requests(bench.engine, bench.lake, services, bench.snapshots, model, settings, Commit())


def sent_to(bench: Bench) -> set[tuple[str, str, int]]:
    """The services of each request, its status, and how many names it has in them."""
    rows = bench.rows("label_requests")
    return {(row["service"], row["status"], len(row["external_id"].split(","))) for row in rows}


def photos_in(service: FolderService) -> int:
    return len(service.photos())


def test_each_request_goes_to_every_service_with_its_photo(asked, other) -> None:
    send(asked, asked.service, other)

    assert sent_to(asked) == {("folder,other", "open", 2)}
    assert photos_in(asked.service) == photos_in(other) == 2
    requests = asked.pin("label_requests")
    assert [without_photo(asked.engine, each, requests) for each in (asked.service, other)] == [[], []]


def test_what_is_open_goes_to_a_service_that_is_added_and_stays_where_it_was(asked, other) -> None:
    send(asked, asked.service)
    assert sent_to(asked) == {("folder", "open", 1)}

    send(asked, other)

    assert sent_to(asked) == {("folder,other", "open", 2)}
    assert photos_in(other) == 2
    version = asked.pin("label_requests").version
    send(asked, other)
    send(asked, asked.service, other)
    assert asked.pin("label_requests").version == version


def test_where_one_service_cannot_be_reached_what_was_planned_is_sent_to_all_by_the_next_run(asked, other) -> None:
    other.is_away = True
    with pytest.raises(DlassetsError, match="other cannot be reached"):
        send(asked, asked.service, other)
    assert {row["status"] for row in asked.rows("label_requests")} == {"planned"}

    other.is_away = False
    send(asked, asked.service, other)

    assert sent_to(asked) == {("folder,other", "open", 2)}
    assert photos_in(asked.service) == photos_in(other) == 2


def test_an_answer_in_one_closes_the_request_in_all(asked, other) -> None:
    send(asked, asked.service, other)
    first, *_ = sorted(row["request_id"] for row in asked.rows("label_requests"))
    hats = asked.answers / "002.hat"
    (hats / f"{first}.jpg").write_bytes(bytes_of("a"))
    asked.collect()
    asked.close()

    shown = {name: asked.pin(name) for name in ("label_requests", "human_labels", "classes")}
    for service in (asked.service, other):
        show_standing(asked.engine, service, shown)

    (put_aside,) = (asked.root / "other" / "requests").glob("v3-*/answered/*")
    assert put_aside.stem == first


def test_a_service_that_is_away_keeps_no_other_s_answers_from_being_written_down(asked, other, monkeypatch) -> None:
    from dlassets.labeling.services import Services

    send(asked, asked.service, other)
    first, second = sorted(row["request_id"] for row in asked.rows("label_requests"))
    (asked.answers / "002.hat" / f"{first}.jpg").write_bytes(bytes_of("a"))
    (other._answers / "006.shirt" / f"{second}.jpg").write_bytes(bytes_of("b"))
    other.is_away = True
    session = Session(Settings(root=asked.lake.root))
    monkeypatch.setattr(Session, "labeling", Services([], [asked.service, other]))
    report = Warnings()

    human_labels.run(session, report)

    assert [row["request_id"] for row in asked.rows("human_labels")] == [first]
    assert report.messages == ["other cannot be reached"]
    with pytest.raises(DlassetsError, match="other cannot be reached"):
        human_labels.run(session, report)
    other.is_away = False
    human_labels.run(session, report)
    assert sorted(row["request_id"] for row in asked.rows("human_labels")) == [first, second]
