"""Label Studio's webhook, sent by the real server to the page of answers: a look at once, and none that is needed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from dlassets.errors import DlassetsError
from dlassets.labeling.label_studio.hints import HEADER, PATH, key_of
from dlassets.labeling.label_studio.service import LabelStudioService
from dlassets.settings import Settings
from dlassets.storage.hints import hint_in
from dlassets.web.serving.label.alone import create_app
from dlassets_tests.label_studio_servers import WEBHOOK_SECRET, LabelStudioServer, needs_label_studio
from dlassets_tests.pipelines import Pipelines
from dlassets_tests.servers import served

from .conftest import Bench
from .studio import A, B, C, project_of, tasks

pytestmark = needs_label_studio


@pytest.fixture
def page(studio: Bench) -> Iterator[str]:
    """The address of the page of answers, which takes hints."""
    with served(create_app(Settings(root=studio.lake.root, serving={"webhook_secret": WEBHOOK_SECRET}))) as address:
        yield address


def hinted(bench: Bench, address: str | None) -> LabelStudioService:
    """A later run, with another setting."""
    settings = bench.service._settings.model_copy(update={"hint_url": address})
    bench.service = LabelStudioService(settings, bench.lake, WEBHOOK_SECRET)
    return bench.service


def webhooks(bench: Bench, server: LabelStudioServer) -> list[dict[str, Any]]:
    return server.owner.ask("GET", "/api/webhooks/", project=project_of(bench))


@pytest.mark.slow
def test_an_answer_is_looked_for_at_once_and_without_its_hint_a_little_later(
    studio: Bench, page: str, label_studio_server: LabelStudioServer, instance: dg.DagsterInstance
) -> None:
    studio.send()
    hinted(studio, page).ask_for_hints()
    settings = {"root": studio.lake.root, "serving": {"webhook_secret": WEBHOOK_SECRET}}
    asked = {"service": "labelstudio", "label_studio": studio.service._settings.model_dump()}
    pipelines = Pipelines(Settings.model_validate({**settings, "labeling": asked}), instance)
    assert pipelines.defs.resolve_sensor_def("new_answers").minimum_interval_seconds == 5
    ids, me = tasks(studio), label_studio_server.owner

    first = pipelines.tick("new_answers")
    assert first.skip_message == "No new answer."
    assert "No hint has come since the last look" in pipelines.tick("new_answers", first.cursor).skip_message
    hints = [hint_in(studio.lake.answer_hints)]
    given = me.answers(ids[A], "006.shirt")
    hints.append(hint_in(studio.lake.answer_hints))
    told = pipelines.tick("new_answers", first.cursor)
    assert [request.run_key.partition(":")[0] for request in told.run_requests] == ["answers"]
    assert "No hint has come" in pipelines.tick("new_answers", told.cursor).skip_message
    me.skips(ids[B])
    hints.append(hint_in(studio.lake.answer_hints))
    me.changes(given, "002.hat")
    hints.append(hint_in(studio.lake.answer_hints))
    me.deletes(given)
    hints.append(hint_in(studio.lake.answer_hints))
    assert len({*hints}) == 5

    # Nobody takes them any more: each is sent once, and lost.
    seen = pipelines.tick("new_answers", told.cursor)
    hinted(studio, "http://127.0.0.1:9").ask_for_hints()
    me.answers(ids[C], "010.t-shirt")
    assert hint_in(studio.lake.answer_hints) == hints[-1]
    assert "No hint has come" in pipelines.tick("new_answers", seen.cursor).skip_message
    later = json.dumps({**json.loads(seen.cursor), "looked_at": time.time() - 30})
    (request,) = pipelines.tick("new_answers", later).run_requests
    assert request.run_key != seen.run_requests[0].run_key


@pytest.mark.slow
def test_it_is_told_where_once_and_no_longer_where_the_setting_is_gone(
    studio: Bench, label_studio_server: LabelStudioServer
) -> None:
    studio.send()
    me = label_studio_server.owner
    me.ask("POST", "/api/webhooks/", {"project": project_of(studio), "url": "http://127.0.0.1:9/another"})
    for _ in range(2):
        hinted(studio, "http://127.0.0.1:9/below/").ask_for_hints()
    another, ours = webhooks(studio, label_studio_server)
    assert (ours["url"], ours["headers"]) == (f"http://127.0.0.1:9/below{PATH}", {HEADER: key_of(WEBHOOK_SECRET)})
    assert (ours["send_payload"], ours["is_active"], ours["send_for_all_actions"]) == (False, True, False)

    # Two runs at once, and somebody who switches one off.
    double = {name: ours[name] for name in ("project", "url", "headers")}
    me.ask("POST", "/api/webhooks/", double)
    me.ask("PATCH", f"/api/webhooks/{ours['id']}/", {"is_active": False})
    hinted(studio, "http://127.0.0.1:10").ask_for_hints()
    found = webhooks(studio, label_studio_server)
    assert [(each["id"], each["url"], each["is_active"]) for each in found] == [
        (another["id"], "http://127.0.0.1:9/another", True),
        (ours["id"], f"http://127.0.0.1:10{PATH}", True),
    ]

    with pytest.raises(DlassetsError, match=r"sends no hint .*Enter a valid URL.*found all the same"):
        hinted(studio, "http://of-no-domain:8000").ask_for_hints()
    hinted(studio, None).ask_for_hints()
    assert [each["id"] for each in webhooks(studio, label_studio_server)] == [another["id"]]
