"""A bundle: a registered model's graphs, and all else that a device needs to answer by them, in one folder.

`bundle.json` says what is in it: the model, its classes, how a photo is shown to it, its temperature and figures in
either precision, its answers to a few photos, and the SHA-256 of every other file and (`digest`) of itself.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlassets.registry.lifecycle import run_or_none
from dlassets.registry.models import ModelVersion
from dlassets.registry.validation.validation import Check
from dlassets.storage.files import is_there, read_whole, write_whole
from dlassets.storage.lake import local_path
from dlassets.storage.stores import is_object_storage

if TYPE_CHECKING:
    from mlflow import MlflowClient

FORMAT = 1
DESCRIPTION = "bundle.json"
# Of a version: the digest of its bundle.
TAG_EDGE = "dlassets.edge_sha256"
SAME_AS_PACKAGE, SAME_IN_RUNNER = "f32_is_the_package", "runner_sees_alike"
ACCURACY, CALIBRATION, FASTER, SMALLER = "int8_as_right", "int8_as_sure", "int8_is_faster", "int8_is_smaller"
CHECKS = {
    SAME_AS_PACKAGE: "The graph of floats gives the probabilities that the package gives by torch.",
    SAME_IN_RUNNER: "Decoded and resized by Pillow, as the runner does, test photos get the same labels.",
    ACCURACY: "In int8 the accuracy is no more than 0.5 points less, or 2 where chance may do as much.",
    CALIBRATION: "In int8, with a temperature of its own, the calibration error is no larger, but by chance.",
    FASTER: "In int8 onnxruntime takes less time for a photo.",
    SMALLER: "In int8 the graph has at most half the bytes.",
}
_DIGEST, _FILES = "digest", "sha256"
# Folders that bundles are made in; one so old was left by a process that was killed.
_WRITING, _LEFT_SECONDS = ".writing-", 86_400


@dataclass(frozen=True)
class Bundle:
    """A bundle in its place (a path or URI), and what its `bundle.json` says."""

    location: str
    description: Mapping[str, Any]

    @property
    def digest(self) -> str:
        return str(self.description[_DIGEST])

    @property
    def precisions(self) -> Mapping[str, Mapping[str, Any]]:
        """Temperature, accuracy and time of each precision."""
        precisions: Mapping[str, Mapping[str, Any]] = self.description["precisions"]
        return precisions

    @property
    def checks(self) -> list[Check]:
        return [Check(**check) for check in self.description["checks"]]


def find_bundle(location: str, model: ModelVersion) -> Bundle | None:
    """Return the bundle of exactly this model that lies whole in this place; None where none does."""
    if not is_there(f"{location}/{DESCRIPTION}"):
        return None
    try:
        said = json.loads(read_whole(f"{location}/{DESCRIPTION}"))
        listed = {**said[_FILES], DESCRIPTION: said[_DIGEST]}
        found = {name: _sha256(read_whole(f"{location}/{name}")) for name in said[_FILES]}
        is_it = said["format"] == FORMAT and said["model"] == model._asdict()
        return Bundle(location, said) if is_it and listed == {**found, DESCRIPTION: _digest(said)} else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_description(folder: Path, description: Mapping[str, Any]) -> None:
    """Write `bundle.json` into a folder that has all other files of a bundle."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    listed = {file.relative_to(folder).as_posix(): _sha256(file.read_bytes()) for file in files}
    said = {"format": FORMAT, **description, _FILES: listed}
    (folder / DESCRIPTION).write_text(json.dumps({**said, _DIGEST: _digest(said)}, indent=1) + "\n")


def keep_bundle(location: str, model: ModelVersion, fill: Callable[[Path], None], client: MlflowClient) -> Bundle:
    """Have `fill` make a bundle in an empty folder, and keep it: among the files of the version's run, then here.

    In a folder it is there whole or not at all; in object storage it is one once `bundle.json` is there, its last file.
    """
    if is_object_storage(location):
        with tempfile.TemporaryDirectory() as folder:
            made = _logged(Path(folder, f"{model.name}-{model.version}"), model, fill, client)
            files = [file for file in made.rglob("*") if file.is_file()]
            for file in sorted(files, key=lambda file: file.name == DESCRIPTION):
                write_whole(f"{location}/{file.relative_to(made).as_posix()}", file.read_bytes())
    else:
        target = local_path(location)
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_left(target.parent)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=_WRITING) as folder:
            made = _logged(Path(folder, target.name), model, fill, client)
            with suppress(FileNotFoundError):  # one of another model by that name, or a damaged one
                target.rename(Path(folder, "before"))
            made.rename(target)
    return Bundle(location, json.loads(read_whole(f"{location}/{DESCRIPTION}")))


def _remove_left(folder: Path) -> None:
    for left in folder.glob(f"{_WRITING}*"):
        if time.time() - left.stat().st_mtime > _LEFT_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _logged(folder: Path, model: ModelVersion, fill: Callable[[Path], None], client: MlflowClient) -> Path:
    folder.mkdir()
    fill(folder)
    registered = client.get_model_version(model.name, str(model.version))
    if run_or_none(client, registered.run_id) is not None:
        client.log_artifacts(registered.run_id, str(folder), f"edge/{folder.name}")
    said = json.loads((folder / DESCRIPTION).read_bytes())
    client.set_model_version_tag(model.name, str(model.version), TAG_EDGE, said[_DIGEST])
    return folder


def _digest(said: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a description says, but for this."""
    return _sha256(json.dumps({name: said[name] for name in said if name != _DIGEST}, sort_keys=True).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
