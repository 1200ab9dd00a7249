"""What tests of Label Studio say of the lake of their fixture `studio`."""

from __future__ import annotations

from dlassets.labeling.label_studio.service import LabelStudioService
from dlassets.labeling.requests import request_id
from dlassets.registry.models import ModelVersion
from dlassets_tests.label_studio_servers import WEBHOOK_SECRET

from .conftest import MODEL, Bench, image_id

A, B, C = (request_id(image_id(name), ModelVersion(MODEL, 3)) for name in "abc")
ME = "me@dlassets.example"


def project_of(bench: Bench) -> int:
    return bench.service.project._number


def tasks(bench: Bench) -> dict[str, int]:
    """The one task of each request."""
    found = bench.service.project.tasks_of([A, B, C])
    assert all(len(each) == 1 for each in found.values())
    return {request: each[0].id for request, each in found.items()}


def again(bench: Bench) -> None:
    """What a later run has: the same project, of which it remembers nothing."""
    bench.service = LabelStudioService(bench.service._settings, bench.lake, WEBHOOK_SECRET)


def answered(bench: Bench) -> list[tuple[str, int | None, str, str | None]]:
    rows = sorted(bench.rows("human_labels"), key=lambda row: row["read_order"])
    return [(row["request_id"], row["label"], row["status"], row["annotator"]) for row in rows]
