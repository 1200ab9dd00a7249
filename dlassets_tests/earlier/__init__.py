"""A lake as an earlier release left it, packed small, and how it is unpacked."""

import hashlib
import json
import sqlite3
import tarfile
from pathlib import Path

PACKED = Path(__file__).with_name("lake.tar.xz")
# Stands in every packed text for the folder that the lake lay in.
ROOT = "@ROOT@"
DUMP = "mlflow.sql"
# What decided each training, by the digest that its run is found by: it names the lake's folder.
INPUTS = "inputs.json"
_TEXTS = {".json", ".sql", ".yaml", ""}


def unpack(root: Path) -> None:
    """Put the lake into a folder, as if it had been made there."""
    with tarfile.open(PACKED) as packed:
        packed.extractall(root, filter="data")
    for file in root.rglob("*"):
        if file.is_file() and file.suffix in _TEXTS and ROOT.encode() in (content := file.read_bytes()):
            file.write_bytes(content.replace(ROOT.encode(), str(root).encode()))
    folder = root / "mlflow"
    statements = (folder / DUMP).read_text()
    for digest, description in json.loads((folder / INPUTS).read_text()).items():
        statements = statements.replace(digest, hashlib.sha256(description.encode()).hexdigest())
    with sqlite3.connect(folder / "mlflow.db") as store:
        store.executescript(statements)
    for name in (DUMP, INPUTS):
        (folder / name).unlink()
