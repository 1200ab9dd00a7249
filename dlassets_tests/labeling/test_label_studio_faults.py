"""Label Studio away, slow, killed and behind a wire that is cut: no answer is lost or counts twice, no task doubles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest

from dlassets.errors import DlassetsError
from dlassets.labeling.label_studio import http
from dlassets_tests.label_studio_servers import LabelStudioServer, needs_label_studio
from dlassets_tests.mlflow_servers import Wire, wire_to

from .conftest import Bench
from .studio import ME, A, B, C, again, answered, tasks

pytestmark = [pytest.mark.slow, needs_label_studio]

REQUESTS = 14


@pytest.fixture
def wire(label_studio_server: LabelStudioServer, studio: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """What the lake of the test reaches the server by."""
    monkeypatch.setattr(http, "BACKOFF_SECONDS", 0.01)
    with wire_to(label_studio_server) as wire:
        title = studio.service._settings.project
        studio.service = label_studio_server.service(studio.lake, title, url=wire.uri)
        yield wire


@pytest.mark.parametrize("loses_answers_alone", [False, True])
def test_wherever_the_wire_is_cut_what_is_sent_is_there_once(studio: Bench, wire: Wire, loses_answers_alone) -> None:
    for requests in range(REQUESTS):
        with wire.cut_after(requests, loses_answers_alone=loses_answers_alone), suppress(DlassetsError):
            studio.send()
        again(studio)
    assert studio.send().updated in {0, 3}
    assert {row["status"] for row in studio.rows("label_requests")} == {"open"}
    assert set(tasks(studio)) == {A, B, C}
    assert all(len(photos) == 1 for photos in studio.service.project.photos().values())


def test_wherever_the_wire_is_cut_each_answer_is_collected_once(
    studio: Bench, wire: Wire, label_studio_server: LabelStudioServer
) -> None:
    studio.send()
    ids, me = tasks(studio), label_studio_server.owner
    me.answers(ids[A], "006.shirt")
    me.skips(ids[B])
    for requests in range(4):  # the project, what has changed, the answers, who people are
        again(studio)
        with wire.cut_after(requests), pytest.raises(DlassetsError, match="cannot be reached"):
            studio.collect()
        assert answered(studio) == []
    for _ in range(5):
        again(studio)
        studio.collect()
    assert answered(studio) == [(A, 6, "accepted", ME), (B, None, "skipped", ME)]


def test_the_same_answer_five_times_is_one_label(studio: Bench, label_studio_server: LabelStudioServer) -> None:
    studio.send()
    ids, me = tasks(studio), label_studio_server.owner
    given = [me.answers(ids[A], "006.shirt") for _ in range(5)]
    studio.collect()
    rows = studio.rows("human_labels")
    assert {(row["request_id"], row["label"], row["status"]) for row in rows} == {(A, 6, "accepted")}
    assert sorted(row["reason"] is None for row in rows) == [False] * 4 + [True]
    for annotation in given[1:]:  # the oldest is the last to go
        me.deletes(annotation)
        studio.collect()
    assert "taken_back" not in {row["status"] for row in studio.rows("human_labels")}
    me.deletes(given[0])
    studio.collect()
    assert answered(studio)[-1] == (A, None, "taken_back", ME)
    assert not studio.collect().changed


def test_a_server_that_is_slow_is_said_to_be_and_what_it_did_all_the_same_is_not_done_again(
    studio: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.send(batch_limit=1)
    again(studio)
    with monkeypatch.context() as patch:
        patch.setattr(http, "READ_SECONDS", 0.01)
        with pytest.raises(DlassetsError, match=r"did not answer within 0\.01 s"):
            studio.send()
        with pytest.raises(DlassetsError, match=r"did not answer within 0\.01 s"):
            studio.collect()
    again(studio)
    studio.send()
    assert set(tasks(studio)) == {A, B, C}


def test_a_server_that_is_killed_and_started_again_goes_on(
    studio: Bench, label_studio_server: LabelStudioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "BACKOFF_SECONDS", 0.01)
    studio.send(batch_limit=2)
    label_studio_server.owner.answers(tasks(studio)[B], "006.shirt")
    label_studio_server.kill()
    with pytest.raises(DlassetsError, match="cannot be reached"):
        studio.send()
    with pytest.raises(DlassetsError, match="cannot be reached"):
        studio.collect()
    label_studio_server.start()
    studio.service = label_studio_server.service(studio.lake, studio.service._settings.project)
    studio.send()
    studio.collect()
    assert set(tasks(studio)) == {A, B, C}
    assert answered(studio) == [(B, 6, "accepted", ME)]
