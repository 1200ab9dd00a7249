"""Checkpoints of a training: written whole or not at all, and never read where a byte of them is wrong.

A checkpoint is one safetensors file, with what is no tensor as JSON in its header. Its name says whose it is, how far
that training had come, and the hash of its bytes: a name that fits is proof that all of it is there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dlassets.errors import DlassetsError
from dlassets.learning.training.job import Job
from dlassets.learning.weights import digest
from dlassets.storage.files import files_under, listed, read_bytes, remove_file, remove_folder, write_whole
from dlassets.storage.stores import advice, filesystem_of

if TYPE_CHECKING:
    import pyarrow.fs as pafs
    import torch

# What nobody has written to for so long is of a training that was killed: one that runs says so every few seconds.
LONG_AGO_SECONDS = 24 * 60 * 60
KEPT = 2  # the newest, and the one before it should the newest be damaged

# What may differ between a training and the one that goes on from its checkpoint: the result is the same.
NO_PART_OF_THE_RESULT = {"compute": True, "pixels": {"workers", "checkpoint_steps"}}

_NAME = re.compile(r"(?P<job>[0-9a-f]{12})-(?P<step>\d{9})-(?P<hash>[0-9a-f]{16})\.safetensors")
_SHORT = slice(0, 16)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """Where a training was after `step` steps. `tensors` are on the CPU; `state` is what JSON can say."""

    step: int
    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]


def fingerprint(job: Job) -> str:
    """Return what tells a training from one whose checkpoints it must not use: its rows, backbone and settings."""
    said = {
        # Where they lie by now is no part of them; that it is this lake's training set, the folder says.
        "training_set": [job.training_set.name, job.training_set.version],
        "backbone": asdict(job.backbone) | {"weights": digest(job.backbone.name, job.backbone.weights)},
        "settings": job.settings.model_dump(mode="json", exclude=NO_PART_OF_THE_RESULT),  # type: ignore[arg-type]
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


class Checkpoints:
    """The checkpoints of one training in `folder`, a path or URI. Another training's are left alone."""

    def __init__(self, folder: str, job: str) -> None:
        """`job` is the training's `fingerprint`."""
        self._uri, self._job = folder, job
        self._files, self._folder = filesystem_of(folder)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then remove all but the KEPT newest. Raises DlassetsError where storage refuses it."""
        from safetensors.torch import save

        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
        data = save(tensors, {"state": json.dumps(checkpoint.state)})
        name = f"{self._job}-{checkpoint.step:09}-{hashlib.sha256(data).hexdigest()[_SHORT]}.safetensors"
        try:
            write_whole(f"{self._uri}/{name}", data)
            self._remove_older()
        except OSError as error:
            raise DlassetsError(f"No checkpoint could be written to {self._uri}. {advice(self._uri, error)}") from error

    def newest(self) -> Checkpoint | None:
        """Return the newest that is whole, None where there is none."""
        return next(filter(None, map(self._read, self._names())), None)

    def at(self, step: int) -> Checkpoint:
        """Return the one of that step. Raises DlassetsError where this process does not see it whole."""
        names = [name for name in self._names() if _step(name) == step]
        if found := next(filter(None, map(self._read, names)), None):
            return found
        raise DlassetsError(
            f"The checkpoint of step {step} is in {self._uri} for one process of this training and not for another. "
            "Put the folder where all of them reach it."
        )

    def _names(self) -> list[str]:
        """Return this training's files, the newest first."""
        names = [match for info in listed(self._files, self._folder) if (match := _NAME.fullmatch(info.base_name))]
        return sorted((name.string for name in names if name["job"] == self._job), reverse=True)

    def _read(self, name: str) -> Checkpoint | None:
        from safetensors.torch import load

        try:
            data = read_bytes(self._files, f"{self._folder}/{name}")
        except FileNotFoundError:  # removed since it was listed: a newer one has come
            return None
        if f"{hashlib.sha256(data).hexdigest()[_SHORT]}.safetensors" != name.rsplit("-", 1)[1]:
            _log.warning("The checkpoint %s/%s is damaged: an older one is used, if any.", self._uri, name)
            return None
        return Checkpoint(_step(name), load(data), _state(data))

    def _remove_older(self) -> None:
        hidden = [info for info in listed(self._files, self._folder) if info.base_name.startswith(".")]
        # A process that was killed while it wrote left what it had; another on the same inputs may be writing.
        unfinished = [info.base_name for info in hidden if self._job in info.base_name and is_old(info)]
        for name in (*self._names()[KEPT:], *unfinished):
            remove_file(f"{self._uri}/{name}")


def clear(folder: str) -> None:
    """Remove the checkpoints of a training that has come to its end, and whatever killed ones left beside them.

    Another on the same inputs may go on at once: what its processes tell each other, a folder of theirs, stays.
    """
    files = files_under(folder)
    going_on = {path.partition("/")[0] for path, info in files.items() if "/" in path and not is_old(info)}
    if not going_on:
        remove_folder(folder)
        return
    for path in files:
        if path.partition("/")[0] not in going_on:
            remove_file(f"{folder}/{path}")


def is_old(info: pafs.FileInfo) -> bool:
    return bool(info.mtime_ns < time.time_ns() - LONG_AGO_SECONDS * 10**9)


def _step(name: str) -> int:
    return int(name.split("-")[1])


def _state(data: bytes) -> dict[str, Any]:
    """Return the JSON in a safetensors file's header, which begins with its own length in 8 bytes."""
    length = int.from_bytes(data[:8], "little")
    state: dict[str, Any] = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["state"])
    return state
