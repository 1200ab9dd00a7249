"""What a write was made of, recorded in the table's own log and in Dagster's materialization alike."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dlassets import __version__


@functools.cache
def code_version() -> str:
    """Return the package's version, with git's commit and whether it is dirty where the code is a checkout."""
    checkout = Path(__file__).resolve().parents[2]
    git = shutil.which("git")
    if git is None or not (checkout / ".git").exists():
        return __version__
    described = subprocess.run(
        [git, "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    )
    commit = described.stdout.strip()
    return f"{__version__}+{commit}" if described.returncode == 0 and commit else __version__


@dataclass(frozen=True)
class Provenance:
    """`inputs` are the Delta versions that were read, `parameters` whatever else decided the rows.

    `model` is a registered version's name and number, `package` the digest of its package. `elsewhere` has the URI of
    those inputs that lie in another lake.
    """

    asset: str
    inputs: Mapping[str, int]
    code_version: str = field(default_factory=code_version)
    run_id: str = ""
    model: str | None = None
    package: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value not in (None, "", {})}
