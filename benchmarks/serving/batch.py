"""Images a second from photos in Delta to predictions in Delta, beside what others do it with."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.contest import Contender, Contest, Outcome
from benchmarks.serving.lake import with_photos
from benchmarks.training.embedding import LOCAL, SPARK, TASKS

ORIGINAL = "Spark, torch in a pandas function, wide MERGE"
PHOTOS = 3800

CONTEST = Contest(
    title="photos in Delta to predictions",
    tasks="benchmarks.serving.scorers",
    contenders=(
        Contender(LOCAL, "local", goal=0.85),
        Contender(SPARK, "spark", goal=0.7),
        Contender("Ray Data, OpenVINO", "ray", peer=True),
        Contender("Daft, OpenVINO", "daft", peer=True),
        Contender(ORIGINAL, "original"),
    ),
    ours=LOCAL,
    slow=ORIGINAL,
    times=10,
    limit_tasks=TASKS,
)


def measure(bench: Bench, photos: int = PHOTOS) -> Outcome:
    lake, images = with_photos(bench, photos)
    return CONTEST.measure(bench, str(lake), images)
