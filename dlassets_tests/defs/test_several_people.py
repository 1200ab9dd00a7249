"""Several people from request to label, by the pipeline: what they agree on, what they do not, and who they are."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dlassets_tests.pipelines import Pipelines, arrive, failures, materialized, values
from dlassets_tests.programs import invoke
from dlassets_tests.tables import get, put

OPENED = {
    "strategy": "least_confidence",
    "status": "open",
    "service": "folder",
    "external_id": "x",
    "answers_wanted": 2,
}


def people_say(pipelines: Pipelines, name: str, *lines: str) -> None:
    """Have a list of answers come back."""
    Path(pipelines.lake.answers).mkdir(parents=True, exist_ok=True)
    text = "\n".join(["request_id,label,annotator,answered_at,seconds", *lines])
    Path(pipelines.lake.answers, name).write_text(text + "\n")


def turn(pipelines: Pipelines) -> dg.ExecuteInProcessResult:
    result = pipelines.run("labeling_pipeline")
    assert failures(result) == {}
    return result


def labels(pipelines: Pipelines, paths: list[str]) -> dict[str, Any]:
    found = get_rows(pipelines, "labeled_images", "path, label, annotator")
    return {row["path"]: (row["label"], row["annotator"]) for row in found if row["path"] in paths}


def get_rows(pipelines: Pipelines, table: str, columns: str) -> list[dict[str, Any]]:
    from dlassets.engines.local import LocalEngine

    return get(LocalEngine(), pipelines.lake, table, columns)


@pytest.mark.slow
def test_a_dispute_is_settled_by_a_third_and_it_is_shown_who_said_what(empty, photos) -> None:
    arrive(photos, empty, unlabelled_from=18)
    empty.run("ingest_pipeline")
    one, other = [row for row in get_rows(empty, "raw_images", "path, image_id") if row["path"].startswith("unl")][:2]
    put(empty.lake, "label_requests", OPENED | one | {"request_id": "a"}, OPENED | other | {"request_id": "b"})
    Path(empty.lake.requests, "v1").mkdir(parents=True)
    Path(empty.lake.requests, "v1", "b.jpg").touch()
    paths = [one["path"], other["path"]]
    label, wrong = sorted({row["label"] for row in get_rows(empty, "labeled_images", "label")})[:2]

    people_say(empty, "ann.csv", *(f"{id_},{label},ann,2026-01-31T14:05:00Z,3" for id_ in "ab"))
    people_say(empty, "bob.csv", f"a,{label},bob,2026-01-31T15:05:00Z,8", f"b,{wrong},bob,2026-01-31T15:06:00Z,6")
    first = turn(empty)

    assert labels(empty, paths) == {one["path"]: (label, "ann, bob")}
    reported = {name: values(made) for name, made in materialized(first).items()}
    assert (reported["consensus"]["images"], reported["consensus"]["disputed"]) == (2, 1)
    assert reported["annotators"]["fleiss_kappa"] == pytest.approx(-1 / 3)
    assert reported["annotators"]["picture"].startswith("![people](data:image/png;base64,")
    assert (reported["label_requests"]["requests_closed"], reported["label_requests"]["requests_asked_on"]) == (1, 1)
    checks = {each.check_name: each.passed for each in first.get_asset_check_evaluations()}
    assert checks["nothing_disputed"]
    assert checks["several_have_names"]

    before = empty.versions()
    turn(empty)
    assert empty.versions() == before

    people_say(empty, "cem.csv", f"b,{wrong},cem,2026-02-01T10:00:00Z,")
    turn(empty)

    assert labels(empty, paths) == {one["path"]: (label, "ann, bob"), other["path"]: (wrong, "bob, cem")}
    assert {row["status"] for row in get_rows(empty, "label_requests", "status")} == {"answered"}
    shown = invoke("annotators", DLASSETS_ROOT=empty.lake.root)
    assert shown.exit_code == 0
    lines = {line.split()[0]: line for line in shown.output.splitlines()}
    assert list(lines) == ["annotator", "ann", "bob", "cem", "Of"]
    assert "0.50 (0.09 to 0.91), 1 of 2" in lines["ann"]
    assert "1.00 (0.34 to 1.00), 2 of 2" in lines["bob"]
    assert " 7.0 " in lines["bob"]
    assert "2026-02-01 10:00" in lines["cem"]


def test_it_is_said_that_nobody_has_answered(empty) -> None:
    put(empty.lake, "human_labels")

    shown = invoke("annotators", DLASSETS_ROOT=empty.lake.root)

    assert (shown.exit_code, shown.output) == (0, "Nobody has answered yet.\n")
