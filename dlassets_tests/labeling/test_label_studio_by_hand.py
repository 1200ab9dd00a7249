"""What people do to Label Studio by hand: tasks and projects deleted, another project, other tokens, answers again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError
from dlassets.labeling.label_studio import service as label_studio_service
from dlassets.labeling.label_studio.own import write_server
from dlassets.labeling.label_studio.project import Project
from dlassets.lakehouse.snapshots import replanned
from dlassets.pipeline.report import Report
from dlassets.pipeline.session import Session
from dlassets.pipeline.steps import label_requests
from dlassets.settings import Settings
from dlassets_tests.killing import killed_at, overtaken_at
from dlassets_tests.label_studio_servers import WEBHOOK_SECRET, LabelStudioServer, Person, needs_label_studio
from dlassets_tests.mlflow_servers import wire_to

from .conftest import Bench
from .studio import ME, A, B, C, again, answered, project_of, tasks

pytestmark = [pytest.mark.slow, needs_label_studio]


class Said(Report):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def info(self, message: str) -> None:
        self.messages.append(message)

    warning = info


def step(bench: Bench, **settings: Any) -> list[str]:
    """Run the step that sends requests, without any model, and return what it says."""
    asked = {"service": "labelstudio", "label_studio": bench.service._settings.model_dump() | settings}
    more = {"serving": {"webhook_secret": WEBHOOK_SECRET}, "labeling": asked}
    said = Said()
    label_requests.run(Session(Settings.model_validate({"root": bench.lake.root, **more})), said)
    return said.messages[1:]  # that no version is champion


def test_a_task_that_was_deleted_is_sent_again_while_its_request_is_open(
    studio: Bench, label_studio_server: LabelStudioServer
) -> None:
    studio.send()
    ids, me = tasks(studio), label_studio_server.owner
    me.answers(ids[B], "006.shirt")
    studio.collect()
    studio.close(version=None)
    for request_id in (A, B):
        me.ask("DELETE", f"/api/tasks/{ids[request_id]}/")
    assert studio.service.lost([A, B, C]) == {A, B}

    assert step(studio, hint_url="http://127.0.0.1:9") == [
        "1 open requests were no longer in labelstudio, and were sent there again."
    ]

    found = {id_: [task.id for task in each] for id_, each in studio.service.project.tasks_of([A, B, C]).items()}
    assert found == {A: found[A], C: [ids[C]]}
    assert found[A][0] not in ids.values()
    rows = {row["request_id"]: row for row in studio.rows("label_requests")}
    assert [rows[A]["external_id"], rows[C]["external_id"]] == [str(found[A][0]), str(ids[C])]
    assert len(me.ask("GET", "/api/webhooks/", project=project_of(studio))) == 1
    version = studio.pin("label_requests").version
    assert step(studio) == []
    assert not studio.send_lost().changed
    assert studio.pin("label_requests").version == version
    # An answer to the new one counts, and what was said to the deleted one is not taken back.
    me.answers(found[A][0], "002.hat")
    studio.collect()
    assert answered(studio) == [(B, 6, "accepted", ME), (A, 2, "accepted", ME)]


def test_a_run_that_is_killed_as_it_sends_again_doubles_nothing(
    studio: Bench, label_studio_server: LabelStudioServer
) -> None:
    studio.send()
    label_studio_server.owner.ask("DELETE", f"/api/tasks/{tasks(studio)[A]}/")
    for owner, name in [(Project, "add"), (LocalEngine, "merge")]:
        with killed_at(owner, name):
            studio.send_lost()
        again(studio)
    studio.send_lost()
    assert set(tasks(studio)) == {A, B, C}
    assert {row["status"] for row in studio.rows("label_requests")} == {"open"}


def test_a_project_that_was_deleted_is_made_again_with_what_is_open(
    studio: Bench, label_studio_server: LabelStudioServer
) -> None:
    studio.send()
    number = project_of(studio)
    label_studio_server.owner.ask("DELETE", f"/api/projects/{number}/")
    again(studio)

    assert step(studio) == ["3 open requests were no longer in labelstudio, and were sent there again."]

    assert set(tasks(studio)) == {A, B, C}
    assert project_of(studio) != number


def in_project(bench: Bench, title: str) -> Bench:
    """A later run, where the setting names another project."""
    bench.service._settings = bench.service._settings.model_copy(update={"project": title})
    again(bench)
    return bench


def test_in_another_project_older_answers_count_and_those_of_the_first_stand(
    studio: Bench, label_studio_server: LabelStudioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_studio_service, "_OVERLAP", timedelta(0))
    first = studio.service._settings.project
    studio.send()
    in_first, me = tasks(studio), label_studio_server.owner
    in_project(studio, f"{first[:40]} too")
    assert studio.send_lost().updated == 3
    in_second = tasks(studio)
    me.answers(in_second[B], "006.shirt")
    me.answers(in_first[A], "002.hat")

    in_project(studio, first).collect()
    assert answered(studio) == [(A, 2, "accepted", ME)]
    in_project(studio, f"{first[:40]} too").collect()
    assert answered(studio)[1:] == [(B, 6, "accepted", ME)]
    # Somebody else says something of what I have answered in the first project: my answer is not gone.
    other = label_studio_server.another()
    other.skips(in_second[A])
    studio.collect()
    assert [(request, status) for request, _, status, _ in answered(studio)[2:]] == [(A, "skipped")]
    assert not studio.collect().changed
    assert not in_project(studio, first).collect().changed


def test_a_lake_s_own_server_is_the_same_at_another_port(studio: Bench, label_studio_server: LabelStudioServer) -> None:
    write_server(studio.lake, label_studio_server.login)
    own = studio.service._settings.model_copy(update={"url": None, "token": None})
    studio.service._settings = own
    again(studio)
    studio.send()
    ids, me = tasks(studio), label_studio_server.owner
    given = me.answers(ids[A], "006.shirt")
    studio.collect()

    with wire_to(label_studio_server) as wire:
        write_server(studio.lake, replace(label_studio_server.login, url=wire.uri))
        me.deletes(given)
        again(studio)
        studio.collect()
        assert studio.service.project.http.url == wire.uri
    assert answered(studio) == [(A, 6, "accepted", ME), (A, None, "taken_back", ME)]


def test_answers_again_and_out_of_order_are_each_applied_once(
    studio: Bench, label_studio_server: LabelStudioServer
) -> None:
    studio.send()
    ids, me, other = tasks(studio), label_studio_server.owner, label_studio_server.another()
    mine = me.answers(ids[A], "006.shirt")

    # A run has read it; before it writes, another reads and writes what was said later.
    def overtake() -> None:
        me.changes(mine, "010.t-shirt")
        Bench.collect_as_it_is(studio)

    with overtaken_at(LocalEngine, "append", overtake):
        replanned(studio.collect_as_it_is)
    assert answered(studio) == [(A, 10, "accepted", ME)]

    # Back and forth, twice the same, and by two people on one photo; each is read five times, by runs of their own.
    for label in ("006.shirt", "006.shirt", "010.t-shirt"):
        me.changes(mine, label)
    theirs = other.answers(ids[A], "002.hat")
    me.answers(ids[B], "002.hat")
    for _ in range(5):
        again(studio)
        studio.collect()
    whose = next(row["annotator"] for row in studio.rows("human_labels") if row["annotator"] != ME)
    rows = [(row["request_id"], row["answered_at"], row["annotator"]) for row in studio.rows("human_labels")]
    assert len(rows) == len({*rows}) == 4
    assert answered(studio)[1:] == [(A, 10, "accepted", ME), (A, 2, "accepted", whose), (B, 2, "accepted", ME)]

    # Requests that nobody need answer any more are answered all the same: B was, and C is withdrawn.
    studio.close(version=None)
    gone = [row | {"status": "withdrawn"} for row in studio.rows("label_requests") if row["request_id"] == C]
    studio.replace_requests(*gone)
    me.answers(ids[C], "006.shirt")
    other.answers(ids[B], "010.t-shirt")
    other.changes(theirs, "006.shirt")
    for _ in range(2):
        again(studio)
        studio.collect()
    assert sorted(answered(studio)[4:]) == [
        *sorted([(A, 6, "accepted", whose), (B, 10, "accepted", whose), (C, 6, "accepted", ME)])
    ]


def a_person_s(bench: Bench, person: Person, token: str) -> None:
    settings = bench.service._settings.model_copy(update={"token": token})
    bench.service._settings = settings
    again(bench)


def test_a_token_that_is_taken_back_in_the_middle_loses_and_doubles_nothing(
    studio: Bench, label_studio_server: LabelStudioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = label_studio_server.another()
    token = person.token

    def reset(*_: Any, **__: Any) -> None:
        nonlocal token
        token = person.ask("POST", "/api/current-user/reset-token/")["token"]
        person.session.headers["Authorization"] = f"Token {token}"

    refused = pytest.raises(DlassetsError, match=r"does not take the token.*set labeling\.label_studio\.token")
    for name in ("made", "upload", "add", "tasks_of"):
        a_person_s(studio, person, token)
        with overtaken_at(Project, name, reset), refused:
            studio.send()
    a_person_s(studio, person, token)
    studio.send()
    ids = tasks(studio)
    assert all(len(photos) == 1 for photos in studio.service.project.photos().values())

    label_studio_server.owner.answers(ids[A], "006.shirt")
    with overtaken_at(Project, "annotations", reset), refused:
        studio.collect()
    assert answered(studio) == []
    a_person_s(studio, person, token)
    studio.collect()
    assert answered(studio) == [(A, 6, "accepted", ME)]
