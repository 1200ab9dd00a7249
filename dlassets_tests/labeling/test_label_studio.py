"""The real Label Studio: what is sent to it, what comes of what people do there, and what is lost or doubled: nothing.

One server serves all of these tests, each of which has a project of its own.
"""

from __future__ import annotations

from typing import Any

import pytest

from dlassets.engines.local import LocalEngine
from dlassets.errors import DlassetsError
from dlassets.labeling.label_studio.project import Project
from dlassets.labeling.requests import without_photo
from dlassets.labeling.services import Batch, Request
from dlassets_tests.killing import killed_at
from dlassets_tests.label_studio_servers import LabelStudioServer, needs_label_studio

from .conftest import CLASSES, Bench, labelled
from .studio import ME, A, B, C, again, answered, project_of, tasks

pytestmark = needs_label_studio


def test_what_people_do_there_is_what_the_lake_says(studio: Bench, label_studio_server: LabelStudioServer) -> None:
    studio.send()
    me, project = label_studio_server.owner, project_of(studio)

    # The least sure first, with what the model thinks; one task a request, with its photo.
    first = me.next_task(project)
    assert first["data"]["request_id"] == B
    assert first["data"]["about"] == "b.jpg: the model thinks hat, 25% sure"
    (guess,) = first["predictions"]
    assert (guess["score"], guess["result"][0]["value"]["choices"]) == (0.25, ["002.hat"])
    photo = me.session.get(me.url + first["data"]["image"], timeout=30)
    assert photo.content.startswith(b"\xff\xd8\xff")
    ids = tasks(studio)
    rows = {row["request_id"]: row for row in studio.rows("label_requests")}
    assert {row["external_id"] for row in rows.values()} == {str(id_) for id_ in ids.values()}
    assert {(row["service"], row["status"]) for row in rows.values()} == {("labelstudio", "open")}
    assert without_photo(studio.engine, studio.service, studio.pin("label_requests")) == []
    assert studio.service.answers_digest() == ""
    assert not studio.collect().changed

    # An answer, a skip, an answer without a class, and one of a second person.
    again(studio)
    mine = me.answers(ids[B], "006.shirt")
    me.skips(ids[A])
    me.answers(ids[C])
    other = label_studio_server.another()
    theirs = other.answers(ids[B], "002.hat")
    digests = [studio.service.answers_digest()]
    refusals = studio.collect_and_refuse()[1]
    assert [(refusal.request_id, refusal.reason) for refusal in refusals] == [
        (C, "chooses no class: choose one, or skip")
    ]
    studio.service.show_refusals(refusals)
    whose = next(row["annotator"] for row in studio.rows("human_labels") if row["label"] == 2)
    assert answered(studio) == [
        (B, 6, "accepted", ME),
        (A, None, "skipped", ME),
        (C, None, "refused", ME),
        (B, 2, "accepted", whose),
    ]
    row = next(row for row in studio.rows("human_labels") if row["label"] == 6)
    assert (row["service"], row["seconds"], row["answer"]) == ("labelstudio", 2.5, "006.shirt")
    assert row["origin"] == f"{me.url}/projects/{project}/data?task={ids[B]}"
    assert not studio.collect().changed

    # A change, a deletion and an answer after a skip.
    me.changes(mine, "010.t-shirt")
    other.deletes(theirs)
    me.answers(ids[A], "002.hat")
    digests.append(studio.service.answers_digest())
    studio.collect()
    assert answered(studio)[4:] == [
        (B, 10, "accepted", ME),
        (B, None, "taken_back", whose),
        (A, 2, "accepted", ME),
    ]
    assert not studio.collect().changed
    me.deletes(mine)
    digests.append(studio.service.answers_digest())
    studio.collect()
    assert answered(studio)[7:] == [(B, None, "taken_back", ME)]
    assert len({*digests}) == 3
    assert studio.service.answers_digest() == digests[-1]


def test_a_run_killed_at_any_step_doubles_no_task_and_loses_no_answer(
    studio: Bench, label_studio_server: LabelStudioServer
) -> None:
    for owner, step, after in [
        (Project, "made", 0),
        (Project, "upload", 0),
        (Project, "add", 0),
        (Project, "tasks_of", 1),
        (LocalEngine, "merge", 1),
    ]:
        with killed_at(owner, step, after):
            studio.send()
        again(studio)
    # The one whose answer is lost on its way back, and another that adds the same at the same time.
    studio.send()
    (added,) = studio.service.project.tasks_of([A])[A]
    studio.service.project.add([{"data": {"image": "/data/x.jpg", "request_id": A}}])
    assert len(studio.service.project.tasks_of([A])[A]) == 2
    studio.show()
    assert studio.service.project.tasks_of([A])[A] == [added]
    ids = tasks(studio)
    assert set(ids) == {A, B, C}
    assert sorted(studio.service.project.photos()) == sorted(ids)
    assert all(len(photos) == 1 for photos in studio.service.project.photos().values())

    label_studio_server.owner.answers(ids[A], "006.shirt")
    for owner, step in [(Project, "annotations"), (LocalEngine, "append")]:
        with killed_at(owner, step):
            studio.collect()
        again(studio)
    studio.collect()
    assert answered(studio) == [(A, 6, "accepted", ME)]
    assert not studio.collect().changed


def test_what_is_closed_leaves_the_queue_and_classes_reach_it(
    studio: Bench, label_studio_server: LabelStudioServer
) -> None:
    studio.send()
    ids, me = tasks(studio), label_studio_server.owner
    me.skips(ids[A])
    me.answers(ids[B], "006.shirt")
    studio.collect()
    # a and c get labels by another way.
    paths = {row["request_id"]: row["path"] for row in studio.rows("label_requests")}
    studio.add("labeled_images", [labelled(name, 6, f"unlabeled/{name}.jpg") for name in "ac"])
    studio.close(version=3)
    studio.show()

    left = studio.service.project.tasks_of(paths)
    assert set(left) == {A, B}
    assert left[A][0].is_done
    assert left[B][0].annotations == 1
    assert set(studio.service.project.photos()) == {A, B}
    with pytest.raises(Exception, match="404"):
        me.next_task(project_of(studio))

    hostile = "<b>\"x\"</b> & 'y'"
    studio.service.show_classes({**CLASSES, 6: "chemise", 11: hostile})
    shown = me.ask("GET", f"/api/projects/{project_of(studio)}/")["parsed_label_config"]["label"]["labels_attrs"]
    assert {alias: each["value"] for alias, each in shown.items()} == {
        "002.hat": "hat",
        "006.shirt": "chemise",
        "010.t-shirt": "t-shirt",
        "011.<b>\"x\"<_b> & 'y'": hostile,
    }
    # An answer to a request that is withdrawn counts, and the class is meant that it was called then.
    me.changes(me.ask("GET", f"/api/tasks/{ids[B]}/")["annotations"][0]["id"], "011.<b>\"x\"<_b> & 'y'")
    me.answers(ids[A], "006.shirt")
    studio.collect({**CLASSES, 6: "chemise", 11: hostile})
    assert answered(studio)[-2:] == [(B, 11, "accepted", ME), (A, 6, "accepted", ME)]


def test_several_are_asked_where_several_are_wanted_and_what_is_pressing_first(
    studio: Bench, label_studio_server: LabelStudioServer
) -> None:
    shown = [
        Request(A, "a.jpg", "a", 2, "hat", 0.5, answers_wanted=2),
        Request(B, "b.jpg", "b", 2, "hat", 0.9, None, 1),
    ]
    studio.service.send(Batch("v3-ab", shown, CLASSES), [(A, b"\xff\xd8\xff"), (B, b"\x89PNG\r\n\x1a\n")])
    me, other, project = label_studio_server.owner, label_studio_server.another(), project_of(studio)
    ids = tasks(studio)
    assert me.next_task(project)["id"] == ids[B]
    me.answers(ids[B], "002.hat")
    assert me.next_task(project)["id"] == ids[A]
    me.answers(ids[A], "002.hat")
    assert not studio.service.project.tasks_of([A])[A][0].is_done
    assert other.next_task(project)["id"] == ids[A]
    other.answers(ids[A], "002.hat")
    assert studio.service.project.tasks_of([A])[A][0].is_done


@pytest.mark.slow
def test_a_wrong_token_a_server_that_is_away_and_one_that_is_another_are_said(
    bench: Bench, label_studio_server: LabelStudioServer
) -> None:
    def said(**settings: Any) -> str:
        with pytest.raises(DlassetsError) as error:
            label_studio_server.service(bench.lake, **settings).answers_digest()
        return str(error.value)

    assert "does not take the token" in said(token="0123456789abcdef")
    assert "cannot be reached" in said(url="http://127.0.0.1:9")
    assert "There is no Label Studio" in said(url=None, token=None)
    label_studio_server.owner.ask("POST", "/api/projects/", {"title": "boxes", "label_config": BOXES})
    with pytest.raises(DlassetsError, match="asks something else"):
        label_studio_server.service(bench.lake, "boxes").project.made(CLASSES)


def test_a_personal_token_is_as_good_and_is_renewed_when_it_has_run_out(
    bench: Bench, label_studio_server: LabelStudioServer
) -> None:
    label_studio_server.owner.ask(
        "POST", "/api/jwt/settings", {"api_tokens_enabled": True, "legacy_api_tokens_enabled": True}
    )
    service = label_studio_server.service(
        bench.lake, token=label_studio_server.owner.ask("POST", "/api/token/", {})["token"]
    )
    service.project.made(CLASSES)
    service.project.http._access = service.project.http._access[:-4] + "none"
    assert service.project.is_there
    assert service.answers_digest() == ""


BOXES = (
    '<View><Image name="photo" value="$image"/><RectangleLabels name="label" toName="photo"><Label value="a"/>'
    "</RectangleLabels></View>"
)
