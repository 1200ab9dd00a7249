"""How much of everything a lake has: photos, labels, refusals, predictions, and what waits for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dlassets.lakehouse.content import REACHABLE
from dlassets.lakehouse.tables import (
    DELETED_FILES,
    HUMAN_LABELS,
    LABEL_REQUESTS,
    LABELED_IMAGES,
    OPEN,
    PREDICTIONS,
    QUARANTINED_FILES,
    RAW_IMAGES,
)
from dlassets.monitoring.views.reading import Reading


@dataclass(frozen=True)
class Overview:
    """Numbers of photos, answers and requests.

    `is_begun` is False where the lake has no table of photos yet. `labelled` is by split, `quarantined` by reason,
    `requests` and `answers` by status.
    """

    is_begun: bool
    photos: int
    labelled: Mapping[str, int]
    quarantined: Mapping[str, int]
    scored: int
    requests: Mapping[str, int]
    answers: Mapping[str, int]

    @property
    def open_requests(self) -> int:
        return self.requests.get(OPEN, 0)


def overview(reading: Reading) -> Overview:
    photos = reading.asked(f"SELECT COUNT(*) AS photos FROM ({REACHABLE})", [RAW_IMAGES, DELETED_FILES])  # noqa: S608
    scored = reading.asked("SELECT COUNT(DISTINCT path) AS photos FROM predictions", [PREDICTIONS])
    labelled = "SELECT split AS kind, COUNT(*) AS photos FROM labeled_images GROUP BY split"
    quarantined = """
        SELECT reason AS kind, COUNT(*) AS photos FROM quarantined_files WHERE dropped_at IS NULL
        GROUP BY reason ORDER BY photos DESC, reason
    """
    requests = "SELECT status AS kind, COUNT(*) AS photos FROM label_requests GROUP BY status"
    answers = "SELECT status AS kind, COUNT(*) AS photos FROM human_labels GROUP BY status"
    return Overview(
        is_begun=reading.has(RAW_IMAGES),
        photos=photos[0]["photos"],
        labelled=_by_kind(reading.asked(labelled, [LABELED_IMAGES])),
        quarantined=_by_kind(reading.asked(quarantined, [QUARANTINED_FILES])),
        scored=scored[0]["photos"],
        requests=_by_kind(reading.asked(requests, [LABEL_REQUESTS])),
        answers=_by_kind(reading.asked(answers, [HUMAN_LABELS])),
    )


def _by_kind(rows: list[dict[str, object]]) -> dict[str, int]:
    return {str(row["kind"]): int(str(row["photos"])) for row in rows}
