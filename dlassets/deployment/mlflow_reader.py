"""Have MLflow know the account that people read with: the gate hands it on for who is no operator."""

from __future__ import annotations

import os
from http import HTTPStatus

import requests

from dlassets.errors import DlassetsError
from dlassets.settings import load_settings

_SECONDS = 30


def main() -> None:
    settings = load_settings()
    reader, server = settings.access.mlflow_reader, settings.mlflow.tracking_uri
    if reader is None or server is None:
        raise DlassetsError("Set access.mlflow_reader and mlflow.tracking_uri, as `dlassets up` does.")
    admin = os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]
    account = {"username": reader.user, "password": reader.password}
    with requests.Session() as session:
        session.trust_env = False  # a proxy that the environment names must not be asked for this machine
        made = session.post(f"{server}/api/2.0/mlflow/users/create", json=account, auth=admin, timeout=_SECONDS)
        if made.status_code != HTTPStatus.OK and "RESOURCE_ALREADY_EXISTS" not in made.text:
            raise DlassetsError(f"MLflow took no account for readers: {made.status_code} {made.text[:300]}")


if __name__ == "__main__":
    main()
