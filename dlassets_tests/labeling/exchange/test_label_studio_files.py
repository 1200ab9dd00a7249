"""The files for Label Studio, in the real server: imported by hand, answered, exported and taken in again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlassets_tests.label_studio_servers import LabelStudioServer, needs_label_studio
from dlassets_tests.labeling.exchange.conftest import ANN, BOB, CAT, Exchange, by_request, counts

pytestmark = [pytest.mark.slow, needs_label_studio]


def test_what_it_exports_of_what_it_was_given_comes_back_and_its_project_can_be_asked_in(
    exchange: Exchange, tmp_path: Path, label_studio_server: LabelStudioServer
) -> None:
    folder, me = exchange.export("labelstudio-file", tmp_path / "out"), label_studio_server.owner
    told = {"title": "by hand", "label_config": (folder / "label-config.xml").read_text()}
    project = me.ask("POST", "/api/projects/", told)["id"]
    me.ask("POST", f"/api/projects/{project}/import", json.loads((folder / "tasks.json").read_text()))
    service = label_studio_server.service(exchange.bench.lake, "by hand")
    tasks = {id_: each[0].id for id_, each in service.project.tasks_of([ANN, BOB, CAT]).items()}
    for request, alias in ((ANN, "002.hat"), (BOB, "010.t-shirt")):
        me.answers(tasks[request], alias)
    me.skips(tasks[CAT])

    labels = {ANN: "002.hat", BOB: "010.t-shirt"}
    for kind, suffix in (("JSON", "json"), ("JSON_MIN", "json"), ("CSV", "csv")):
        path = tmp_path / f"{kind}.{suffix}"
        exported = me.session.get(f"{me.url}/api/projects/{project}/export", params={"exportType": kind}, timeout=60)
        path.write_bytes(exported.content)
        imported = exchange.take(path)
        said = by_request(exchange.said(imported))
        skipped = {CAT: None} if kind == "JSON" else {}  # the others leave it out
        assert {request: each.get("label") for request, each in said.items()} == labels | skipped, kind
        assert {each["seconds"] for each in said.values() if "seconds" in each} == {2.5}, kind
        assert counts(imported)[0] == 2, kind

    # The project has the label config of those that are made here: it can be gone on with.
    assert service.project.show_classes({2: "hat", 6: "chemise"}) == {
        2: ("002.hat", "hat"),
        6: ("006.shirt", "chemise"),
    }
