"""Pack a lake for the test that an earlier one goes on being used.

    python -m dlassets_tests.earlier.pack <lake> <checkout of the earlier commit>

The lake is one that the demo of the earlier commit has made, from a few small photos:

    git worktree add ../earlier <commit> && cd ../earlier
    python -c "from dlassets.cli import main; main()" samples generated photos --classes 2 --per-class 20
    mogrify -resize 96x96 -quality 80 photos/*/*.jpg
    DLASSETS_ROOT=$PWD/lake python -c "from dlassets.cli import main; main()" demo --images photos
"""

import io
import json
import sqlite3
import sys
import tarfile
from pathlib import Path

from dlassets.learning.backbones import feature_version
from dlassets.learning.training.job import Job
from dlassets.registry.tracking import TrainingInputs
from dlassets_tests.earlier import DUMP, INPUTS, PACKED, ROOT

KEPT = ("landing", "tables", "labeling", "mlflow")
# Copies of the code, pictures, and lists of packages: nothing that goes on from the lake reads them.
LEFT_OUT = ("code/", "mlflow.db", "input_example", "calibration", "curve", "misclassified", "per_class", "saliency")


def main(lake: Path, checkout: Path) -> None:
    places = {lake.resolve(): ROOT, checkout.resolve(): "checkout", Path(sys.prefix).parent: "checkout"}

    def neutral(content: bytes) -> bytes:
        for place, name in places.items():
            content = content.replace(str(place).encode(), name.encode())
        return content

    with tarfile.open(PACKED, "w:xz") as packed:

        def add(name: str, content: bytes, changed_at: int = 0) -> None:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mtime = (changed_at // 1_000_000 + 0.5) / 1000  # which tells the same millisecond when it is rounded
            packed.addfile(entry, io.BytesIO(content))

        for file in sorted(lake.rglob("*")):
            name = str(file.relative_to(lake))
            if file.is_file() and name.startswith(KEPT) and not any(part in name for part in LEFT_OUT):
                content = file.read_bytes()
                add(name, content if file.suffix == ".parquet" else neutral(content), file.stat().st_mtime_ns)
        with sqlite3.connect(lake / "mlflow" / "mlflow.db") as store:
            add(f"mlflow/{DUMP}", neutral("\n".join(store.iterdump()).encode()))
        add(f"mlflow/{INPUTS}", neutral(json.dumps(inputs_of_runs(lake)).encode()))


def inputs_of_runs(lake: Path) -> dict[str, str]:
    """Return what decided each training, by its digest."""
    inputs = {}
    for file in lake.glob("mlflow/artifacts/*/artifacts/job.json"):
        job = Job.from_json(file.read_text())
        made = TrainingInputs(job, feature_version(job.backbone))
        inputs[made.sha256] = made.description
    return inputs


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
