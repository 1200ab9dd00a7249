"""The folder of a deployment: what lies where, its ports and its secrets, which are chosen once and kept."""

from __future__ import annotations

import json
import os
import secrets
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dlassets.errors import DlassetsError
from dlassets.masking import learn
from dlassets.storage.files import write_whole
from dlassets.web.ports import HOST, free_ports, is_free

DEFAULT = "shared"
# Where each service listens at first; a taken port gives way to the next free one, which is then kept.
PORTS = {
    "proxy": 8443,
    "gate": 4180,
    "pages": 4000,
    "dagster": 3000,
    "dagster-operate": 3100,
    "code-server": 3200,
    "mlflow": 5000,
    "serve": 8000,
    "labelstudio": 8080,
    "postgres": 5432,
    "s3": 7070,
    "spark": 7077,
    "spark-pages": 8180,
    "spark-worker-1": 8200,
    "spark-worker-2": 8220,
}
# Of which each deployment has its own.
SECRETS = (
    "postgres",
    "dagster_database",
    "mlflow_database",
    "mlflow_flask",
    "mlflow_writer",
    "mlflow_reader",
    "s3_access_key",
    "s3_secret_key",
    "cookie",
    "proxy",
    "first_user",
    "labelstudio_password",
    "labelstudio_token",
)
_OWNERS_ONLY = 0o077
# What a deployment sets itself: a shell that has read another's `env` must not pass that on.
_OWN = (
    *("DLASSETS_ACCESS__", "DLASSETS_UI__", "DLASSETS_MLFLOW__TRACKING_URI", "DLASSETS_SPARK__MASTER"),
    *("DLASSETS_SPARK__REMOTE", "DLASSETS_SPARK__EXECUTOR", "DLASSETS_LABELING__LABEL_STUDIO__", "DLASSETS_ROOT"),
    *("DLASSETS_PROFILE", "DLASSETS_ENGINE", "DAGSTER_", "MLFLOW_", "AWS_", "SPARK_", "PC_", "PG"),
)


@dataclass(frozen=True)
class Home:
    """Paths within the folder. What holds a secret is readable by its owner alone."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "process-compose.yaml"

    @property
    def environment(self) -> Path:
        """What a shell reads to have its commands work on this deployment."""
        return self.folder / "env"

    @property
    def environments(self) -> Path:
        return self.folder / "environments"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def postgres(self) -> Path:
        return self.folder / "postgres"

    @property
    def buckets(self) -> Path:
        return self.folder / "buckets"

    @property
    def dagster(self) -> Path:
        return self.folder / "dagster"

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace.yaml"

    @property
    def mlflow_accounts(self) -> Path:
        return self.folder / "mlflow-accounts.ini"

    @property
    def users(self) -> Path:
        return self.folder / "users.yaml"

    @property
    def caddy(self) -> Path:
        return self.folder / "caddy"

    @property
    def first_password(self) -> Path:
        return self.folder / "first-password"

    @property
    def labelstudio(self) -> Path:
        return self.folder / "labelstudio"

    @property
    def spark(self) -> Path:
        return self.folder / "spark"

    @property
    def mark(self) -> str:
        """What the environment of each of its processes holds, by which they are known."""
        return str(self.folder)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other `up` and `down` off meanwhile. Raises DlassetsError where one is at it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock", timeout=0)
            with lock:
                yield
        except Timeout as error:
            raise DlassetsError(f"Another `dlassets up` or `down` is at work on {self.folder}: wait for it.") from error
        except OSError as error:
            raise DlassetsError(f"The deployment's folder {self.folder} cannot be used: {error}") from error

    def ports(self, wanted: Sequence[str]) -> dict[str, int]:
        """Return the port of each service that is wanted: the one it had, or else the next free one, kept from now on.

        Raises DlassetsError that names the services whose ports others have taken.
        """
        file = self.folder / "ports.json"
        kept: dict[str, int] = _read(file)
        for name in wanted:
            if name not in kept:
                (kept[name],) = free_ports(PORTS[name], besides=list(kept.values()))
        write_whole(file, json.dumps(kept, indent=2))
        if taken := [f"{kept[name]} of {name}" for name in wanted if not is_free(kept[name])]:
            raise DlassetsError(
                f"Ports of this deployment are taken by other programs on {HOST}: {', '.join(taken)}. End those, or "
                f"delete the line in {file}: another is chosen then."
            )
        return {name: kept[name] for name in wanted}

    def secrets(self) -> Mapping[str, str]:
        """Return the secrets, those that lack made now. They are masked in all that this process says."""
        file = self.folder / "secrets.json"
        kept: dict[str, str] = _read(file)
        if lacking := [name for name in SECRETS if name not in kept]:
            kept |= {name: secrets.token_hex(24) for name in lacking}
            write_private(file, json.dumps(kept, indent=2))
        learn({f"{name}_secret": value for name, value in kept.items()})
        return kept


def outside() -> dict[str, str]:
    """Return this process's variables, but for those that a deployment sets: of another, or of a lake without one."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}


def write_private(path: Path, text: str) -> None:
    """Write a file for its owner alone, from its first moment on."""
    before = os.umask(_OWNERS_ONLY)
    try:
        write_whole(path, text)
    finally:
        os.umask(before)


def as_shell(variables: Mapping[str, str]) -> str:
    """Return variables as a shell takes them."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(variables.items()))


def _read(file: Path) -> dict[str, Any]:
    try:
        kept = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DlassetsError(f"{file} is not as `dlassets up` wrote it: {error}. Put it back from a copy.") from error
    if not isinstance(kept, dict):
        raise DlassetsError(f"{file} is not as `dlassets up` wrote it. Put it back from a copy.")
    return kept
