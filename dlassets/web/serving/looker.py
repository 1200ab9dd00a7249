"""A process that looks at photos, for the server that started it.

The two speak over one socket, a message and its answer at a time, each behind its length. The server's messages are
pickled. The answers are JSON: what decodes strangers' files is not to tell the server which code to run.
"""

from __future__ import annotations

import json
import logging
import pickle
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from typing import Any

from dlassets.errors import DlassetsError
from dlassets.images.decode import ImageError
from dlassets.registry.models import ModelVersion
from dlassets.registry.package import ModelPackage
from dlassets.scoring.online import Network, Online, answer, warm

LENGTH = struct.Struct("!I")

_log = logging.getLogger("dlassets.serving")


@dataclass(frozen=True)
class Have:
    """Have these models in memory, warm, and no others. The answer is null."""

    models: Sequence[tuple[ModelVersion, ModelPackage]]
    top_k: int


@dataclass(frozen=True)
class Look:
    """Ask these models, which are in memory, about image files.

    The answer lists by file what each model says, or an object with the `error` of one that does not decode.
    """

    models: Sequence[ModelVersion]
    files: Sequence[bytes]
    max_pixels: int


class Looker:
    """The models that are in memory."""

    def __init__(self) -> None:
        self._models: dict[ModelVersion, Online] = {}

    def answer(self, message: Have | Look) -> Any:
        """Return the answer to a message. Raises DlassetsError for a model that cannot be had."""
        if isinstance(message, Have):
            return self._have(message)
        found = answer([self._models[model] for model in message.models], message.files, message.max_pixels)
        return [{"error": str(each)} if isinstance(each, ImageError) else each for each in found]

    def _have(self, message: Have) -> None:
        for model, package in message.models:
            if model not in self._models:
                self._models[model] = made = Online(model, package, self._network(package), message.top_k)
                warm(made)
        wanted = {model for model, _ in message.models}
        self._models = {model: online for model, online in self._models.items() if model in wanted}

    def _network(self, package: ModelPackage) -> Network:
        known = (online.network for online in self._models.values() if online.package.backbone == package.backbone)
        return next(known, None) or Network(package.backbone, streams=1)


def framed(message: bytes) -> bytes:
    return LENGTH.pack(len(message)) + message


def _message(line: BufferedReader) -> Have | Look | None:
    """Return the next message, or None once the server has gone."""
    if len(head := line.read(LENGTH.size)) < LENGTH.size:
        return None
    body = line.read(*LENGTH.unpack(head))
    message: Have | Look = pickle.loads(body)  # noqa: S301 - by the server, which started this process
    return message


def _answered(looker: Looker, message: Have | Look) -> bytes:
    """Return JSON: the `answer`, or why a model was `refused`, or that it `failed`, which is logged here."""
    try:
        return json.dumps({"answer": looker.answer(message)}).encode()
    except DlassetsError as error:
        return json.dumps({"refused": str(error)}).encode()
    except Exception as error:  # noqa: BLE001 - whatever it is, those who asked are told, and the next are served
        _log.exception("Photos could not be looked at.")
        return json.dumps({"failed": f"{type(error).__name__}: {error}"}).encode()


def main(descriptor: int) -> None:
    """Answer over this socket until the server closes its end, or ends."""
    looker = Looker()
    with (
        socket.socket(fileno=descriptor) as connection,
        connection.makefile("rb") as line,
        suppress(ConnectionError),
    ):
        while (message := _message(line)) is not None:
            connection.sendall(framed(_answered(looker, message)))
