"""Pack a lake for the test that an earlier one goes on being used: `python -m dlassets_tests.earlier.pack <lake>`.

The lake is one that the demo of the earlier commit has made, from a few small photos:

    git worktree add ../earlier <commit> && cd ../earlier
    python -c "from dlassets.cli import main; main()" samples generated photos --classes 2 --per-class 20
    DLASSETS_ROOT=$PWD/lake python -c "from dlassets.cli import main; main()" demo --images photos
"""

import io
import sqlite3
import sys
import tarfile
from pathlib import Path

from dlassets_tests.earlier import DUMP, PACKED, ROOT

KEPT = ("landing", "tables", "labeling", "checkpoints", "events", "mlflow")
# Copies of the code, pictures, and lists of packages: nothing that goes on from the lake reads them.
LEFT_OUT = ("code/", "evaluation/", "environment.", "mlflow.db", "serving_input_example", "input_example")


def main(lake: Path) -> None:
    lake = lake.resolve()
    checkout = str(Path(sys.prefix).parent)

    def neutral(content: bytes) -> bytes:
        return content.replace(str(lake).encode(), ROOT.encode()).replace(checkout.encode(), b"/checkout")

    with tarfile.open(PACKED, "w:xz") as packed:

        def add(name: str, content: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))

        for file in sorted(lake.rglob("*")):
            name = str(file.relative_to(lake))
            if file.is_file() and name.startswith(KEPT) and not any(part in name for part in LEFT_OUT):
                add(name, neutral(file.read_bytes()) if file.suffix != ".parquet" else file.read_bytes())
        with sqlite3.connect(lake / "mlflow" / "mlflow.db") as store:
            add(f"mlflow/{DUMP}", neutral("\n".join(store.iterdump()).encode()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
