"""The Label Studio of a lake's own, which `dlassets labelstudio` starts: where it answers, and how to log in."""

from __future__ import annotations

import json
import os
import secrets
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dlassets.errors import DlassetsError
from dlassets.labeling.label_studio.http import Address
from dlassets.masking import learn
from dlassets.settings import LabelStudioSettings
from dlassets.storage.lake import Lake, local_path

_FILE = "server.json"
_EMAIL = "me@dlassets.example"


@dataclass(frozen=True)
class OwnServer:
    """A user of the server and what lets them in; `url` is where it answered last, empty before its first start."""

    email: str
    password: str = field(repr=False)
    token: str = field(repr=False)
    url: str = ""


def folder_of(lake: Lake) -> Path:
    """Return the folder of a lake's own Label Studio. Raises SettingsError where the lake is no folder."""
    return local_path(lake.labelstudio)


def file_of(lake: Lake) -> Path:
    """Return the file that says how to log in, which its owner alone may read."""
    return folder_of(lake) / _FILE


def own_server(lake: Lake) -> OwnServer | None:
    """Return the lake's own server, if one was ever started. Its secrets are masked from now on."""
    try:
        server = OwnServer(**json.loads(file_of(lake).read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise DlassetsError(f"{file_of(lake)} is not as it was written. Delete it: a new log-in is made.") from error
    learn({"password": server.password, "token": server.token})
    return server


def new_server() -> OwnServer:
    return OwnServer(_EMAIL, secrets.token_urlsafe(12), secrets.token_hex(20))


def write_server(lake: Lake, server: OwnServer) -> None:
    """Write how to log in, for the owner of the file alone: from its first moment on. Raises OSError."""
    file = file_of(lake)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}-{uuid.uuid4().hex}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            json.dump(asdict(server), out, indent=2)
        unfinished.replace(file)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def address_of(settings: LabelStudioSettings, lake: Lake) -> Address:
    """Return the server of the settings, or where they name none the lake's own. Raises DlassetsError without any."""
    if settings.url is not None and settings.token is not None:
        return Address(settings.url, settings.token)
    server = own_server(lake)
    if server is None or not server.url:
        raise DlassetsError(
            "There is no Label Studio to ask people in. Start one of this lake's own (make labelstudio), or set "
            "labeling.label_studio.url and labeling.label_studio.token to those of one that is there."
        )
    return Address(server.url, server.token)
