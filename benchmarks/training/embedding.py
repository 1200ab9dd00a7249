"""Images a second from photos in Delta to embeddings in Delta, on both engines, beside what others do it with."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.contest import Contender, Contest, Outcome

LOCAL, SPARK, TORCH = "dlassets, local", "dlassets, spark", "Spark, torch in a pandas function"
PHOTOS = 3800
TASKS = "benchmarks.training.embedders"

CONTEST = Contest(
    title="photos in Delta to embeddings",
    tasks=TASKS,
    contenders=(
        Contender(LOCAL, "local", goal=0.85),
        Contender(SPARK, "spark", goal=0.7),
        Contender("Spark, OpenVINO in mapInArrow", "spark_openvino"),
        Contender("Ray Data, OpenVINO", "ray", peer=True),
        Contender("Daft, OpenVINO", "daft", peer=True),
        Contender(TORCH, "spark_torch"),
    ),
    ours=LOCAL,
    slow=TORCH,
    times=10,
    limit_tasks=TASKS,
)


def measure(bench: Bench, photos: int = PHOTOS) -> Outcome:
    lake = str(bench.place("embedding"))
    images = bench.task(TASKS, "written", images=str(bench.images), lake=lake, photos=photos)
    return CONTEST.measure(bench, lake, images)
