"""Label Studio as one process of a deployment, with a database of its own in the deployment's folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from dlassets.deployment.process import Probe, Process
from dlassets.deployment.programs import in_environment
from dlassets.errors import DlassetsError
from dlassets.labeling.label_studio.own import OwnServer
from dlassets.web.ports import HOST

ENVIRONMENT = ".venv-labelstudio"
DATABASE = "label_studio.sqlite3"
EMAIL = "team@dlassets.example"


def installed() -> Path:
    """Return the environment that Label Studio is in. Raises DlassetsError where there is none."""
    if program := in_environment(ENVIRONMENT, "label-studio"):
        return program.parent.parent
    raise DlassetsError(
        "Label Studio is not installed. It has an environment of its own, which `make labelstudio` makes; where it is "
        "elsewhere, say so: dlassets labelstudio --environment <folder>."
    )


def command(environment: Path, port: int) -> list[str]:
    """Return what starts it, after the Python of its environment."""
    start = ["label_studio.server", "start", "--no-browser", "--internal-host", HOST, "--port", str(port)]
    return [str(environment / "bin" / "python"), *start]


def give_database(environment: Path, data: Path) -> None:
    """Have its database be there, a copy of the one that was made when it was installed: its own making takes long."""
    data.mkdir(parents=True, exist_ok=True)
    prepared = environment / "prepared" / DATABASE
    if not (data / DATABASE).exists() and prepared.is_file():
        unfinished = data / f".{DATABASE}"
        shutil.copyfile(prepared, unfinished)
        unfinished.replace(data / DATABASE)


def variables(server: OwnServer, data: Path, *, hints: bool) -> dict[str, str]:
    """Return what its environment adds: nobody else signs up there, and it asks nothing of other machines.

    For hints, it may send something to addresses that are this machine's, or of no public network.
    """
    return {
        "LABEL_STUDIO_BASE_DATA_DIR": str(data),
        "LABEL_STUDIO_USERNAME": server.email,
        "LABEL_STUDIO_PASSWORD": server.password,
        "LABEL_STUDIO_USER_TOKEN": server.token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "false",
        "SSRF_PROTECTION_ENABLED": "false" if hints else "true",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
    }


def behind(proxy: str) -> dict[str, str]:
    """Return what its environment adds where browsers find it by a proxy: at this address, with its path.

    It knows nothing of the proxy's TLS: a page's own requests would look like another site's.
    """
    return {"LABEL_STUDIO_HOST": proxy, "CSRF_TRUSTED_ORIGINS": proxy.removesuffix(urlsplit(proxy).path)}


def process(data: Path, port: int, secrets: Mapping[str, str], proxy: str) -> Process:
    """Return it as a process; `proxy` is the address at which browsers find it, with its path."""
    server = OwnServer(EMAIL, secrets["labelstudio_password"], secrets["labelstudio_token"])
    python, *start = command(installed(), port)
    told = {**variables(server, data, hints=False), **behind(proxy)}
    return Process("labelstudio", [python, "-m", *start], told, probe=Probe(port, "/health"), whole_group=True)
