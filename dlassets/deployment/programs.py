"""The programs of a deployment that are no Python: where they are, and what to install where one is not."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from dlassets.errors import DlassetsError

ENVIRONMENT = ".venv-shared"
_BUILT = ("process-compose", "versitygw", "caddy")
_OF_POSTGRES = ("initdb", "postgres", "pg_isready")
_DEBIAN = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Programs:
    """`postgres` is the folder of PostgreSQL's programs."""

    supervisor: Path
    s3: Path
    proxy: Path
    postgres: Path


def programs() -> Programs:
    """Return where they are: in .venv-shared, here or beside the environment of this Python, or on the PATH.

    Raises DlassetsError that names each that there is not, and how to install it.
    """
    found = {name: _built(name) for name in _BUILT}
    postgres = _postgres()
    advice = []
    if missing := [name for name, path in found.items() if path is None]:
        advice.append(
            f"{', '.join(missing)}: scripts/setup.sh shared builds them into {ENVIRONMENT}, which needs Go 1.26; or "
            "put them on the PATH."
        )
    if postgres is None:
        advice.append("PostgreSQL: install it, as by apt-get install postgresql, or put its programs on the PATH.")
    if shutil.which("bash") is None:
        advice.append("bash: install it.")
    if advice or postgres is None:
        raise DlassetsError("\n  ".join(["Programs that `dlassets up` starts are not installed.", *advice]))
    supervisor, s3, proxy = (path for path in found.values() if path is not None)
    return Programs(supervisor, s3, proxy, postgres)


def in_environment(environment: str, name: str) -> Path | None:
    """Return a program of an environment that `scripts/setup.sh` builds: here, or beside the one of this Python."""
    places = (parent / environment / "bin" / name for parent in (Path.cwd(), Path(sys.prefix).parent))
    return next((place for place in places if os.access(place, os.X_OK)), None)


def _built(name: str) -> Path | None:
    if built := in_environment(ENVIRONMENT, name):
        return built
    found = shutil.which(name)
    return Path(found).resolve() if found else None


def _postgres() -> Path | None:
    """Return the folder of PostgreSQL's programs: Debian keeps them off the PATH, a folder for each release."""
    on_path = shutil.which("postgres")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(_DEBIAN.glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True)
    return next((folder for folder in folders if all((folder / name).exists() for name in _OF_POSTGRES)), None)
