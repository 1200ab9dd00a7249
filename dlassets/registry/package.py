"""The model package: all that is needed to turn image bytes into a label, in files that hold no code and no pickle.

A folder with `head.npz` (the head's arrays), `package.json` (classes, backbone, feature version, temperature, and a
digest of it all) and, where the backbone's weights come with no installed package, the file of them. MLflow wraps it in
a pyfunc (`registry/pyfunc_model.py`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from dlassets.errors import DlassetsError
from dlassets.learning.backbones import BackboneRef, preprocessing
from dlassets.learning.head import Head
from dlassets.learning.weights import PACKAGE, copy_of, digest, kept, pinned

# 3 added its own digest; 2 the temperature and a backbone's own weights; both are read still, and so is 1.
FORMAT = 3
_READ = (1, 2, FORMAT)
_DIGEST = "sha256"
_DESCRIPTION = "package.json"
_VIEW = ("side", "crop", "flips", "root")
_ARRAYS = ("weight", "bias", "mean", "scale")


@dataclass(frozen=True)
class ModelPackage:
    """A head, and the backbone whose features it was trained on."""

    head: Head
    backbone: BackboneRef
    feature_version: str

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "head.npz", **{name: getattr(self.head, name) for name in _ARRAYS})
        description = {
            "format": FORMAT,
            "backbone": self.backbone.name,
            "feature_version": self.feature_version,
            "preprocessing": preprocessing(self.backbone),
            "temperature": self.head.temperature,
            "weights": self._save_weights(folder),
            "view": {name: getattr(self.backbone, name) for name in _VIEW},
            "classes": [
                {"label": label, "name": name} for label, name in zip(self.head.labels, self.head.names, strict=True)
            ],
        }
        description[_DIGEST] = _digest(folder, description)
        (folder / _DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")

    def _save_weights(self, folder: Path) -> dict[str, str] | str:
        """Return the setting where every machine has the weights; else keep their file, and return what it is."""
        copy = copy_of(self.backbone.name, self.backbone.weights)
        if copy is None:
            return self.backbone.weights
        suffix, content = copy
        (folder / f"backbone{suffix}").write_bytes(content)
        return {"file": f"backbone{suffix}", "sha256": digest(self.backbone.name, self.backbone.weights)}

    @classmethod
    def load(cls, folder: Path) -> ModelPackage:
        """Read a package. Raises DlassetsError where it is not one, was changed since, or is of a newer format."""
        try:
            description = json.loads((folder / _DESCRIPTION).read_text())
            if description["format"] not in _READ:
                raise DlassetsError(
                    f"{folder} is a package of format {description['format']}, and this dlassets reads format "
                    f"{FORMAT}. Install the dlassets that made it."
                )
            _refuse_edited(folder, description)
            classes = description["classes"]
            head = Head(
                tuple(c["label"] for c in classes),
                tuple(c["name"] for c in classes),
                **_arrays(folder / "head.npz", len(classes)),
                temperature=float(description.get("temperature", 1.0)),
            )
            return cls(head, _backbone(folder, description), description["feature_version"])
        except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
            raise DlassetsError(
                f"{folder} holds no readable model package: {error}. Restore its files; or go on without it: go "
                "back to the version before with dlassets rollback, and train with another training.seed."
            ) from error

    def kept(self) -> ModelPackage:
        """Return the package with weights of its own as a copy on this machine, which needs its folder no more."""
        return replace(self, backbone=replace(self.backbone, weights=kept(self.backbone.weights)))


def digest_of(folder: Path) -> str | None:
    """Return what tells a package from any other, by its own word; None for one of an older format."""
    digest_: str | None = json.loads((folder / _DESCRIPTION).read_text()).get(_DIGEST)
    return digest_


def _refuse_edited(folder: Path, description: dict[str, Any]) -> None:
    if description["format"] == FORMAT and description[_DIGEST] != _digest(folder, description):
        raise ValueError("its files are not those that it was made of")


def _digest(folder: Path, description: dict[str, Any]) -> str:
    """Return the SHA-256 of what a package says, but for this, and of the bytes of its other files."""
    said = {name: value for name, value in description.items() if name != _DIGEST}
    found = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for file in sorted(folder.iterdir()):
        if file.name != _DESCRIPTION:
            found.update(f"\n{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}".encode())
    return found.hexdigest()


def _backbone(folder: Path, description: dict[str, Any]) -> BackboneRef:
    weights, view = description.get("weights", PACKAGE), description.get("view", {})
    if isinstance(weights, str):
        return BackboneRef(description["backbone"], weights, **view)
    file = Path(weights["file"])
    if file.name != weights["file"]:
        raise ValueError(f"its weights are said to lie in {file}, which is not in its folder")
    return BackboneRef(description["backbone"], pinned(str(folder / file), weights["sha256"]), **view)


def _arrays(file: Path, classes: int) -> dict[str, Any]:
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in _ARRAYS}
    features = arrays["mean"].shape
    shapes = {"weight": (classes, *features), "bias": (classes,), "mean": features, "scale": features}
    if any(array.shape != shapes[name] for name, array in arrays.items()):
        raise ValueError(f"{file.name} does not fit {classes} classes")
    return arrays


def ranked(head: Head, probabilities: NDArray[np.float64], top_k: int) -> list[dict[str, Any]]:
    """Return label, name, confidence, margin and top_k of each row of (rows, classes) probabilities."""
    places = np.argsort(-probabilities, axis=1, kind="stable")[:, : max(top_k, 2)]
    rows = []
    for row, best in zip(probabilities, places, strict=True):
        top = [
            {"label": head.labels[place], "name": head.names[place], "confidence": float(row[place])} for place in best
        ]
        rows.append({**top[0], "margin": top[0]["confidence"] - top[1]["confidence"], "top_k": top[:top_k]})
    return rows
